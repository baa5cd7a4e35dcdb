#!/usr/bin/python
"""Ansible module: whether a worker's share answers, asked in bounded time, and since which boot."""

from __future__ import annotations

import os
import select
import signal
import time
import uuid
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_share
short_description: Asks a worker's mount of the share for something that only the server can know
description:
  - Looks for a name that nobody has, so that no cache can answer. A mount that hangs is given up after
    C(timeout_seconds); the process that asked is killed, as a hard mount allows. Changes nothing, runs in check mode.
options:
  mount_point:
    description: Where the share is mounted.
    type: path
    required: true
  timeout_seconds:
    description: How long the share may take to answer.
    type: float
    default: 3
  wait_seconds:
    description: How long to go on asking until it answers.
    type: float
    default: 0
author: Tandem
"""

EXAMPLES = """
- name: The share does not answer the node
  tandem_share: {mount_point: /srv/tandem}
  register: share
  failed_when: share.answered
"""

RETURN = """
boot_id:
  description: The kernel's boot id.
  returned: always
  type: str
mounted:
  description: What is mounted there; empty when nothing is.
  returned: always
  type: str
answered:
  description: Whether something is mounted there and its server answered in time.
  returned: always
  type: bool
"""


POLL_SECONDS = 0.5


def source_of(point: str, mounts: str) -> str:
    """What is mounted at a mount point, by the text of /proc/self/mounts; empty when nothing is."""
    sources = [line.split()[0] for line in mounts.splitlines() if line.split()[1] == point]
    return sources[-1] if sources else ""


def answers(point: str, seconds: float) -> bool:
    """Whether the file system behind a path answers a look-up in time. Whoever asks may hang, so a child asks."""
    name = Path(point) / f".tandem-{uuid.uuid4().hex}"
    child = os.fork()
    if child == 0:
        try:
            name.stat()
        except FileNotFoundError:
            os._exit(0)
        except OSError:
            os._exit(1)
        os._exit(0)
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(seconds * 1000))
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = _reaped(child)
    os.close(descriptor)
    return ended and status == 0


def _reaped(child: int) -> int | None:
    """The child's exit status; None when it does not end: it is left to init, which takes it when the share is back."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def look(point: str, seconds: float) -> tuple[str, bool]:
    """What is mounted at a mount point, and whether its server answered in time."""
    source = source_of(point, Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    return source, bool(source) and answers(point, seconds)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "mount_point": {"type": "path", "required": True},
            "timeout_seconds": {"type": "float", "default": 3},
            "wait_seconds": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    point: str = module.params["mount_point"]
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    until = time.monotonic() + module.params["wait_seconds"]
    while True:
        mounted, answered = look(point, module.params["timeout_seconds"])
        if answered or time.monotonic() >= until:
            break
        time.sleep(POLL_SECONDS)
    module.exit_json(changed=False, boot_id=boot_id, mounted=mounted, answered=answered)


if __name__ == "__main__":
    main()
