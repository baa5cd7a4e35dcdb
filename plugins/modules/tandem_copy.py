#!/usr/bin/python
"""Ansible module: one machine's part in moving a volume's data to another place."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_copying import TARGET, CopyError, LateError, Memory, differences, load, measure
from ansible.module_utils.tandem_placing import Placed

DOCUMENTATION = """
module: tandem_copy
short_description: Measures, packs, places or compares the data of a volume
description:
  - Runs on the machine that has the folder, and meets its counterpart in a folder of the share that both see. Where the
    share makes root nobody, the NFS server itself places owners and modes.
  - C(state=measured) changes nothing and runs in check mode. C(state=opened) makes the exchange, C(state=told) says in
    it what the receiving folder has, C(state=packed) puts into it what that lacks, C(state=placed) makes the receiving
    folder equal, C(state=compared) reads the data of before once more and tells the differences, C(state=closed)
    forgets what this machine has read and, on the NFS server, removes the claim's exchanges.
  - The latest call wins. One whose C(ansible-playbook) was killed ends by itself when the next one begins.
options:
  state:
    description: What to do.
    type: str
    choices: [measured, opened, told, packed, placed, compared, closed]
    required: true
  root:
    description: The folder with the data, or the one that receives them.
    type: path
    default: ''
  exchange:
    description:
      - The folder on the share, as this machine sees it, C(CLAIM@RUN). Every run has one of its own. A client of the
        share may believe for a minute, and with a directory delegation for longer, that a name that it did not find or
        that was removed is still away; a new name it has to ask for.
    type: path
    default: ''
  exchange_owner:
    description: The user and group that the share makes of root; -1 on machines that are root to the share only by it.
    type: int
    default: -1
  owners:
    description: User and group ids of the source that become others, as C(from=to).
    type: list
    elements: str
    default: []
  memory_folder:
    description: Where this machine remembers what it has read.
    type: path
    default: /var/lib/tandem/adopt
  seconds:
    description: How long it may take; 0 for as long as it takes.
    type: float
    default: 0
author: Tandem
"""

EXAMPLES = """
- name: The volume's size is known
  tandem_copy: {state: measured, root: /opt/local-path-provisioner/pvc-1_shop_data}
  register: volume
"""

RETURN = """
state:
  description: The state that was asked for; its absence means that the machine did not answer.
  returned: always
  type: str
differences:
  description: What differs, by path; the first hundred.
  returned: when compared
  type: list
"""

WAIT_SECONDS = 60
"""How long a call of before may take to end."""

SEPARATOR = "@"
"""Between a claim's name and a run's own in the name of an exchange; no name of the API's has it."""


class Turn:
    """This call's turn on the machine: a later call ends it.

    Args:
        folder: where the turn is written down.
        seconds: how long the work may take; 0 for no limit.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._own = folder / "turn", uuid.uuid4().hex
        self._until = time.monotonic() + seconds if seconds else float("inf")
        self._next = 0.0
        self._path.write_text(self._own, encoding="ascii")
        self._lock: TextIO = (folder / "lock").open("w", encoding="ascii")
        self._wait()

    def _wait(self) -> None:
        """Wait until a call of before has ended.

        Raises:
            CopyError: it does not.
        """
        until = min(self._until, time.monotonic() + WAIT_SECONDS)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    way_out = "its file system hangs, most likely: mend that, then the same command"
                    raise CopyError(f"a copy of before does not end on this machine; way out: {way_out}") from None
                time.sleep(0.2)
            else:
                return

    def tick(self) -> None:
        """Called often.

        Raises:
            LateError: the time is over.
            CopyError: another call has begun.
        """
        now = time.monotonic()
        if now > self._until:
            raise LateError("the time for it is over")
        if now >= self._next:
            self._next = now + 1
            if self._path.read_text(encoding="ascii") != self._own:
                raise CopyError("another run has begun a copy on this machine; this one ends")


def give(exchange: Path, owner: int) -> None:
    """Give the exchange to whom the share makes of root."""
    for path in [exchange, *exchange.rglob("*")]:
        os.chown(path, owner, owner, follow_symlinks=False)


def claim_of(exchange: Path) -> str:
    """The claim's part of an exchange's name."""
    return exchange.name.rpartition(SEPARATOR)[0]


def opened(exchange: Path, owner: int) -> None:
    """Make the exchange, for nobody else to see, and remove what runs that were killed have left."""
    remove(exchange)
    exchange.mkdir(mode=0o700)
    give(exchange, owner)


def remove(exchange: Path) -> bool:
    """Remove all of the claim's exchanges; whether there was one."""
    found = list(exchange.parent.glob(f"{glob.escape(claim_of(exchange))}{SEPARATOR}*"))
    for path in found:
        shutil.rmtree(path)
    return bool(found)


def forget(memory: Path) -> bool:
    """Forget what this machine has read; whether there was anything."""
    there = memory.exists()
    memory.unlink(missing_ok=True)
    return there


def work(parameters: dict[str, Any], tick: Callable[[], None]) -> dict[str, Any]:
    """Do what the state asks for.

    Raises:
        CopyError: something cannot be copied, or the time is over.
        OSError: something cannot be read or written.
    """
    state, exchange = parameters["state"], Path(parameters["exchange"])
    memory = Path(parameters["memory_folder"]) / f"{claim_of(exchange)}.json"
    if state == "opened":
        opened(exchange, parameters["exchange_owner"])
        return {"changed": True}
    if state == "closed":
        removed = parameters["exchange_owner"] >= 0 and remove(exchange)
        return {"changed": forget(memory) or removed}
    if not exchange.is_dir():
        raise CopyError(f"{exchange} is not there; rule: both machines see the share; way out: mount it")
    # Opening it makes a client of the share ask whether it has changed, and look up anew what has.
    os.close(os.open(exchange, os.O_RDONLY | os.O_DIRECTORY))
    owners = {int(here): int(there) for here, _, there in (each.partition("=") for each in parameters["owners"])}
    folder = Placed(parameters["root"], Memory(memory), owners, tick)
    if state == "told":
        return {"changed": False, "entries": folder.tell(exchange)}
    if state == "compared":
        found = differences(folder.scan(), load(exchange / TARGET))
        return {"changed": False, "differences": found[:100], "count": len(found)}
    return {"changed": True, **(folder.pack(exchange) if state == "packed" else folder.place(exchange))}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["measured", "opened", "told", "packed", "placed", "compared", "closed"],
                "required": True,
            },
            "root": {"type": "path", "default": ""},
            "exchange": {"type": "path", "default": ""},
            "exchange_owner": {"type": "int", "default": -1},
            "owners": {"type": "list", "elements": "str", "default": []},
            "memory_folder": {"type": "path", "default": "/var/lib/tandem/adopt"},
            "seconds": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    state = module.params["state"]
    began = time.monotonic()
    try:
        if state == "measured":
            module.exit_json(changed=False, state=state, **measure(module.params["root"]))
        if module.check_mode:
            module.exit_json(changed=True, state=state)
        turn = Turn(Path(module.params["memory_folder"]), module.params["seconds"])
        answer = work(module.params, turn.tick)
        exchange = Path(module.params["exchange"])
        if module.params["exchange_owner"] >= 0 and exchange.is_dir():
            give(exchange, module.params["exchange_owner"])
        module.exit_json(**{"state": state, "took": round(time.monotonic() - began, 1), **answer})
    except CopyError as error:
        module.fail_json(msg=str(error), state=state, late=isinstance(error, LateError))
    except OSError as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}", state=state, late=False)


if __name__ == "__main__":
    main()
