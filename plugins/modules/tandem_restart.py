#!/usr/bin/python
"""Ansible module: a control plane program is started anew by kubelet, and is healthy before anything else happens."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_certificates import gather, outdated
from ansible.module_utils.tandem_processes import processes

DOCUMENTATION = """
module: tandem_restart
short_description: Restarts one program of the control plane and waits for its health
description:
  - Ends the program by SIGTERM; kubelet starts its container again in the same pod, and it reads its certificates anew.
    The static pod directory is left alone. Healthy means that another process answers well on the program's own health
    port, several times in a row.
  - A program that started since its certificates were written, as those that lead do when they lose the API server, has
    read them and is not ended once more; each end lengthens kubelet's pause before the next start. It only has to be
    healthy.
options:
  program:
    description: The program.
    type: str
    choices: [etcd, kube-apiserver, kube-controller-manager, kube-scheduler]
    required: true
  timeout_seconds:
    description: How long it may take to be healthy.
    type: int
    default: 360
author: Tandem
"""

EXAMPLES = """
- name: The scheduler reads its new credential
  tandem_restart: {program: kube-scheduler}
"""

RETURN = """
seconds:
  description: How long it took until it was healthy.
  returned: always
  type: float
"""

PATHS = {
    "etcd": "/health",
    "kube-apiserver": "/readyz",
    "kube-controller-manager": "/healthz",
    "kube-scheduler": "/healthz",
}
PORTS = {"kube-apiserver": "6443", "kube-controller-manager": "10257", "kube-scheduler": "10259"}
POLL_SECONDS = 0.5
IN_A_ROW = 4


def health_url(program: str, flags: dict[str, Any]) -> str:
    """Where the program tells its health on its own machine, by its flags."""
    if program == "etcd":
        metrics = str(flags.get("listen-metrics-urls", "http://127.0.0.1:2381")).split(",")[0]
        return f"{metrics.rstrip('/')}{PATHS[program]}"
    host = str(flags.get("bind-address", "127.0.0.1"))
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - the flag's value, not ours
    return f"https://{host}:{flags.get('secure-port', PORTS[program])}{PATHS[program]}"


def answers(url: str) -> bool:
    """Whether the program says that it is healthy. Its certificate for its own host name is not judged here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, context=context, timeout=3) as answer:  # noqa: S310 - built above
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def late(program: str) -> int:
    """The process of the program that runs since before its certificates were written; 0 when none does."""
    running = processes()
    if program not in outdated({"processes": running, "certificates": gather()}):
        return 0
    return int(running[program]["pid"])


def wait(program: str, old: int, seconds: float) -> str:
    """Wait until another process of the program is healthy; why it is not, else empty."""
    until, row, reason = time.monotonic() + seconds, 0, ""
    while time.monotonic() < until:
        found = processes().get(program)
        if found is None:
            row, reason = 0, "kubelet has not started it again; its pause before a start grows with each end, to 300 s"
        elif found["pid"] == old:
            row, reason = 0, "it has not ended"
        elif answers(url := health_url(program, found["args"])):
            row += 1
            if row == IN_A_ROW:
                return ""
        else:
            row, reason = 0, f"{url} does not answer well"
        time.sleep(POLL_SECONDS)
    return reason


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "str", "choices": list(PATHS), "required": True},
            "timeout_seconds": {"type": "int", "default": 360},
        },
        supports_check_mode=True,
    )
    program, seconds = module.params["program"], module.params["timeout_seconds"]
    if module.check_mode:
        module.exit_json(changed=True, seconds=0.0)
    begun = time.monotonic()
    old = late(program)
    if old:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself between the two looks
            os.kill(old, signal.SIGTERM)
    reason = wait(program, old, seconds)
    if reason:
        module.fail_json(
            msg=f"{program} is not healthy {seconds} s after its restart: {reason}; the certificates of before are "
            "in the backup; way out: see its log in /var/log/pods, mend it, then run the same playbook again, it goes "
            "on from here"
        )
    module.exit_json(changed=bool(old), seconds=round(time.monotonic() - begun, 1))


if __name__ == "__main__":
    main()
