#!/usr/bin/python
"""Ansible module: ends pods of which the cluster does not know, while no kubelet looks after them."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Collection
from os import kill
from pathlib import Path
from typing import Any, Final

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_processes import read

DOCUMENTATION = """
module: tandem_strays
short_description: Ends pods of which the cluster does not know
description:
  - A cluster that was restored knows less than its workers run. A pod that was made after the backup has no object any
    more, and its kubelet ends it in its own time, while another kubelet already starts what the backup says instead.
    Two pods of one single writer would write for that while.
  - To be called while kubelet is stopped. Every process of a pod that is not among C(known) gets SIGTERM, and SIGKILL
    when C(grace_seconds) are over. The module returns when none is left, and fails when one cannot be ended.
  - Pods are found by their control groups, so that neither kubelet nor the container runtime has to answer. Supports
    check mode.
options:
  known:
    description: UIDs of the pods that the cluster has on this node, static ones by the hash of their manifest as well.
    type: list
    elements: str
    required: true
  grace_seconds:
    description: How long they have to end by themselves.
    type: int
    default: 30
  root:
    description: Where control groups are mounted.
    type: path
    default: /sys/fs/cgroup
author: Tandem
"""

EXAMPLES = """
- name: Nothing runs of which the cluster does not know
  tandem_strays:
    known: [0021b26d-2210-42ec-b352-709b30f583da]
"""

RETURN = """
strays:
  description: UIDs of the pods that were ended.
  returned: always
  type: list
"""

POD: Final = re.compile(
    r"(?:kubepods-(?:burstable-|besteffort-)?)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?"
)
"""A pod's control group: `kubepods-burstable-podUID.slice` with systemd's driver, `podUID` with kubelet's own."""
SANDBOX: Final = "pause"
"""Name of the process that holds a pod's namespaces; it ends last."""
KILL_SECONDS: Final = 15.0
"""How long a process may take to go after SIGKILL. One that waits for a share that does not answer takes longer."""
POLL_SECONDS: Final = 0.1


class StrayError(Exception):
    """A process does not end; the message says which and what to do."""


def pods(root: Path) -> dict[str, Path]:
    """The control group of each pod on this machine, by the pod's UID."""
    found = {}
    for top in (*root.glob("kubepods*"), *root.glob("*/kubepods*")):
        for folder in (*top.glob("*pod*"), *top.glob("*/*pod*")):
            if match := POD.fullmatch(folder.name):
                found[match[1].replace("_", "-")] = folder
    return found


def processes(group: Path) -> set[int]:
    """Processes in a control group and those below it, without those that have ended and wait for their parent."""
    numbers = {int(number) for procs in group.rglob("cgroup.procs") for number in read(str(procs)).split()}
    return {number for number in numbers if _stat(number)[:1] not in ([], ["Z"])}


def _stat(process: int) -> list[str]:
    """Fields of /proc/PID/stat after the name: the state first, then the parent; none for a process that is gone."""
    return str(read(f"/proc/{process}/stat")).rpartition(")")[2].split()


def _name(process: int) -> str:
    return str(read(f"/proc/{process}/comm")).strip()


def firsts(members: Collection[int]) -> list[int]:
    """Those whose parent is not among them: the first process of each container, which is told to end."""
    return sorted(number for number in members if int(([*_stat(number), "0", "0"])[1]) not in members)


def send(members: Collection[int], what: signal.Signals) -> None:
    """Send a signal; one that has ended meanwhile is let be."""
    for number in members:
        try:
            kill(number, what)
        except ProcessLookupError:
            continue


def end(groups: Collection[Path], grace_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    """End all processes of these groups.

    Raises:
        StrayError: one outlived SIGKILL.
    """

    def left() -> set[int]:
        return {number for group in groups for number in processes(group)}

    # The sandbox's own process ends with the last container's, and by SIGKILL if it does not.
    send([number for number in firsts(left()) if _name(number) != SANDBOX], signal.SIGTERM)
    until = clock() + grace_seconds
    while {number for number in left() if _name(number) != SANDBOX} and clock() < until:
        time.sleep(POLL_SECONDS)
    until = clock() + KILL_SECONDS
    while members := left():
        if clock() > until:
            names = ", ".join(f"{number} ({_name(number)})" for number in sorted(members))
            raise StrayError(
                f"processes of pods that the cluster does not know outlive SIGKILL: {names}; they may still write; "
                "rule: none of them runs when kubelet starts; way out: if they wait for the share, bring the NFS "
                "server back, or restart this machine; then run the same playbook again"
            )
        send(members, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "known": {"type": "list", "elements": "str", "required": True},
            "grace_seconds": {"type": "int", "default": 30},
            "root": {"type": "path", "default": "/sys/fs/cgroup"},
        },
        supports_check_mode=True,
    )
    parameters: dict[str, Any] = module.params
    found = pods(Path(parameters["root"]))
    strays = {uid: group for uid, group in found.items() if uid not in parameters["known"] and processes(group)}
    try:
        if strays and not module.check_mode:
            end(list(strays.values()), parameters["grace_seconds"])
        module.exit_json(changed=bool(strays), strays=sorted(strays))
    except StrayError as error:
        module.fail_json(msg=str(error), strays=sorted(strays))


if __name__ == "__main__":
    main()
