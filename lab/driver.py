"""The drill's driver for the lab: power and cables of User Mode Linux machines.

Found by the entry point `tandem.drill.drivers`; the only module of this package that knows `tandem`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lab.runtime import Lab, LabError
from tandem.drill.driver import DriverError

_Result = TypeVar("_Result")
_ROOT = Path(__file__).resolve().parent.parent
_TAIL_LINES = 20


class LabDriver:
    """A drill's hands in the lab.

    Args:
        lab: name of the lab; TANDEM_LAB_NAME or `default` when None.

    Raises:
        DriverError: the lab does not run.
    """

    name = "lab"

    def __init__(self, lab: str | None = None) -> None:
        self._lab = _translated(lambda: Lab(lab))
        if not self._lab.status().running:
            raise DriverError(f"the lab {self._lab.name!r} is not running; `python -m lab up` starts it")

    def power_off(self, node: str) -> None:
        """Kill the machine: its kernel and everything in it in one instant."""
        _translated(lambda: self._lab.power_off(node))

    def power_on(self, node: str) -> None:
        """Boot it from the disk it had, without waiting for it."""
        _translated(lambda: self._lab.power_on(node, wait=False))

    def cut(self, node: str, peers: Sequence[str]) -> None:
        """Drop every packet between the machine and each of PEERS, in the bridge they share."""
        _translated(lambda: self._lab.cut(node, list(peers)))

    def heal(self) -> None:
        """Undo every cut."""
        _translated(self._lab.heal)

    def command_on(self, node: str, argv: Sequence[str]) -> list[str]:
        """By SSH; one word for the remote shell, so that arguments arrive unchanged."""
        return _translated(lambda: self._lab.ssh_argv(node, shlex.join(argv)))

    def command_outside(self, argv: Sequence[str]) -> list[str]:
        """On the host's end of the lab's network, 10.77.0.1: beside the machines, outside the cluster."""
        return _translated(lambda: self._lab.exec_argv(*argv))

    def address(self, node: str) -> str:
        """Its address in the lab's network."""
        return _translated(lambda: self._lab.address(node))

    def apply_profile(self, name: str) -> None:
        """Put a recovery profile in force, as a user would: the playbook for nodes, the stack for workloads."""
        _run(["ansible-playbook", "playbooks/tune.yml", "-e", f"tandem_profile={name}"], self._lab.name)
        _run([sys.executable, "-m", "lab.pulumi", "up", "--profile", name], self._lab.name)


def _run(argv: list[str], lab_name: str) -> None:
    """A command of this project, from its root; its output is shown if it fails.

    Raises:
        DriverError: it failed; the text holds its last lines.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "TANDEM_LAB_NAME": lab_name}
    done = subprocess.run(
        argv,
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
        raise DriverError(f"`{shlex.join(argv)}` failed ({done.returncode}); its last lines:\n{tail}")


def _translated(call: Callable[[], _Result]) -> _Result:
    """CALL, with the lab's errors as the drill's."""
    try:
        return call()
    except LabError as error:
        raise DriverError(str(error)) from error
