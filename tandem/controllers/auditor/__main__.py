"""The auditor's process: `python -m tandem.controllers.auditor`.

Settings come from the environment: those of `tandem.runtime.RunSettings`, and TANDEM_ENVIRONMENT, whose levels apply
(dev, staging, prod, lab; default prod). `--print-crd` prints the CustomResourceDefinition of its reports and ends.
"""

from __future__ import annotations

import json
import os
import sys

from tandem.checklist import ENVIRONMENTS
from tandem.controllers.auditor.controller import Auditor
from tandem.controllers.auditor.reports import custom_resource_definition
from tandem.runtime import run
from tandem.runtime.metrics import Metrics


def main() -> None:
    """Run until asked to end."""
    if sys.argv[1:] == ["--print-crd"]:
        sys.stdout.write(json.dumps(custom_resource_definition(), indent=2) + "\n")
        return
    environment = os.environ.get("TANDEM_ENVIRONMENT", "prod")
    chosen = next((each for each in ENVIRONMENTS if each == environment), None)
    if chosen is None or sys.argv[1:]:
        known = ", ".join(ENVIRONMENTS)
        sys.exit(f"auditor: TANDEM_ENVIRONMENT={environment!r}, one of {known}; the only argument is --print-crd")
    metrics = Metrics()
    run(Auditor(chosen, metrics.registry).controller(), metrics=metrics)


if __name__ == "__main__":
    main()
