#!/usr/bin/python3
"""Says on this machine's Node object whether the share is mounted here, with kubelet's own credential.

Run by systemd when the mount comes and goes, and once a boot. Pods that need the share are scheduled by this label.
Never touches the share itself, which may hang.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import re
import ssl
import sys
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 5.0
MOUNTED, LOST = "mounted", "lost"


def state(mounts: str, point: str) -> str:
    """What the label has to say, by the content of /proc/self/mounts."""
    points = [line.split()[1] for line in mounts.splitlines() if len(line.split()) > 1]
    return MOUNTED if point in points else LOST


def way_in(kubeconfig: str) -> tuple[str, str]:
    """Server and certificate authority (PEM) that kubelet's kubeconfig names.

    Raises:
        ValueError: it names none.
    """
    server = re.search(r"^\s*server: *(\S+)", kubeconfig, re.MULTILINE)
    authority = re.search(r"^\s*certificate-authority-data: *(\S+)", kubeconfig, re.MULTILINE)
    if server is None or authority is None:
        raise ValueError("kubelet's kubeconfig names no server, or no certificate authority")
    return server[1].rstrip("/"), base64.b64decode(authority[1]).decode()


def say(node: str, key: str, value: str, kubeconfig: Path, certificate: Path) -> None:
    """Write the label.

    Raises:
        OSError: the API server cannot be reached or refuses.
        ValueError: kubelet's kubeconfig is not one.
    """
    server, authority = way_in(kubeconfig.read_text(encoding="utf-8"))
    context = ssl.create_default_context(cadata=authority)
    context.load_cert_chain(certificate)
    request = urllib.request.Request(  # noqa: S310  # kubelet's own server
        f"{server}/api/v1/nodes/{node}",
        data=json.dumps({"metadata": {"labels": {key: value}}}).encode(),
        headers={"Content-Type": "application/merge-patch+json"},
        method="PATCH",
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context):  # noqa: S310
        pass


def main() -> int:
    """The command line; 1 asks systemd to try again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--node", required=True)
    parser.add_argument("--point", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--kubeconfig", type=Path, default=Path("/etc/kubernetes/kubelet.conf"))
    parser.add_argument("--certificate", type=Path, default=Path("/var/lib/kubelet/pki/kubelet-client-current.pem"))
    parser.add_argument("--mounts", type=Path, default=Path("/proc/self/mounts"))
    given = parser.parse_args()
    value = state(given.mounts.read_text(encoding="utf-8"), given.point)
    try:
        say(given.node, given.key, value, given.kubeconfig, given.certificate)
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stderr.write(f"{given.key}={value} could not be said: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
