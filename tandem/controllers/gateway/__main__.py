"""The gateway's process: `python -m tandem.controllers.gateway`; settings come from the environment.

| variable | meaning | default |
|---|---|---|
| TANDEM_GATEWAY_CLASS | name of the IngressClass whose Ingress objects are served | tandem |
| TANDEM_GATEWAY_PORT | port for requests | 8000 |
| TANDEM_NAMESPACES | namespaces whose objects are watched, with commas between; empty for all | all |

And those of `tandem.runtime.RunSettings` for logging, kubeconfig, health port and the time to drain.
"""

from __future__ import annotations

import os
import sys

from tandem.controllers.gateway.gateway import GatewaySettings, run_gateway


def main() -> None:
    """Run until asked to end."""
    try:
        settings = GatewaySettings.from_environ(os.environ)
    except ValueError as error:
        sys.exit(f"gateway: {error}")
    sys.exit(run_gateway(settings))


if __name__ == "__main__":
    main()
