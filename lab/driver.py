"""The drill's driver for the lab: power and cables of User Mode Linux machines.

Found by the entry point `tandem.drill.drivers`; the only module of this package that knows `tandem`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TypeVar

from lab.runtime import Lab, LabError
from tandem.drill.driver import DriverError

_Result = TypeVar("_Result")


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


def _translated(call: Callable[[], _Result]) -> _Result:
    """CALL, with the lab's errors as the drill's."""
    try:
        return call()
    except LabError as error:
        raise DriverError(str(error)) from error
