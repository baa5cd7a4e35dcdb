"""What the controllers' image is made of: their dependencies for the base image's Python, and the package."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping

from lab.build._cache import hash_tree
from lab.build._paths import PROJECT
from lab.build._recipe import Bench, Recipe

PYTHON = "3.13"
"""Debian trixie's, which the base image has; another one fails while the image is built."""

PARTS = (
    "__init__.py",
    "_checklist",
    "_recovery",
    "checklist.py",
    "controllers",
    "drill/__init__.py",
    "drill/api.py",
    "drill/apps.py",
    "drill/observe.py",
    "findings.py",
    "labels.py",
    "rebalance",
    "recovery.py",
    "runtime",
    "survey.py",
    "survivability.py",
)
"""What the script takes of the package: a change of anything else builds no new image."""

SCRIPT = PROJECT / "scripts/controllers-context.sh"


class ControllersSite(Recipe):
    """Dependencies as wheels, their hashes checked, and the package, in one folder `site`."""

    name = "controllers-site"
    summary = "the controllers' Python packages"

    def inputs(self) -> Mapping[str, object]:
        """What is taken of the package (the pins are among it), and the script."""
        package = hash_tree(*(PROJECT / "tandem" / part for part in PARTS))
        return {"package": package, "script": hash_tree(SCRIPT), "python": PYTHON}

    def build(self, bench: Bench) -> None:
        """Let the script that users have make it."""
        context = bench.scratch / "context"
        bench.run(SCRIPT, PYTHON, context, sys.executable)
        shutil.copytree(context / "site", bench.out / "site")
