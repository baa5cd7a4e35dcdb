#!/usr/bin/python3
"""Keeps on this machine's Node object whether the share is mounted here, with kubelet's own credential.

Runs as long as the machine does and follows the kernel's table of mounts, which tells when it changed. Pods that need
the share are scheduled by this label. Never touches the share itself, which may hang.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import re
import select
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import NoReturn

TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 10.0
"""Pause after an API server that could not be reached or refused; a change of the mounts ends it."""
AGAIN_SECONDS = 60.0
"""So often the label is said anew though nothing changed, for a Node object that was removed comes back without it. A
patch that changes nothing is not stored."""
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


def main() -> NoReturn:
    """The command line; it never ends by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--node", required=True)
    parser.add_argument("--point", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--kubeconfig", type=Path, default=Path("/etc/kubernetes/kubelet.conf"))
    parser.add_argument("--certificate", type=Path, default=Path("/var/lib/kubelet/pki/kubelet-client-current.pem"))
    parser.add_argument("--mounts", type=Path, default=Path("/proc/self/mounts"))
    given = parser.parse_args()
    told, poller = "", select.poll()
    with given.mounts.open(encoding="utf-8") as table:
        poller.register(table, select.POLLPRI | select.POLLERR)
        while True:
            table.seek(0)
            value = state(table.read(), given.point)
            try:
                say(given.node, given.key, value, given.kubeconfig, given.certificate)
            except (OSError, ValueError, http.client.HTTPException) as error:
                failed, news = True, f"{given.key}={value} could not be said: {error}"
            else:
                failed, news = False, f"{given.key}={value}"
            if news != told:
                told = news
                sys.stderr.write(f"{news}\n")
            # No change is missed: the kernel compares with the last time that this open file was asked.
            poller.poll((RETRY_SECONDS if failed else AGAIN_SECONDS) * 1000)


if __name__ == "__main__":
    main()
