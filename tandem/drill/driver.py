"""The port through which a drill touches machines; everything else it sees through the Kubernetes API and its clients.

A driver is found by name in the entry point group `tandem.drill.drivers`. Three are known: `lab` (the machine lab),
`ssh` (real machines by SSH and sysrq) and `manual` (a person at the power switch); others can be installed beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Final, Protocol, runtime_checkable

ENTRY_POINTS: Final = "tandem.drill.drivers"


class DriverError(RuntimeError):
    """The driver could not do what was asked; the message says what, to which machine, and what to do next."""


class UnknownDriverError(DriverError):
    """Raised for a driver name that is not installed; the message lists those that are."""


@runtime_checkable
class Driver(Protocol):
    """What a drill asks of the machines. Nodes are named as Kubernetes names them.

    All methods are synchronous and may take seconds; the drill calls them in a thread. They raise `DriverError`. A
    fault must be in force when its method returns, and should be within a few hundredths of a second of the call: the
    drill takes the moment *before* the call as the fault's and reports the call's duration as its uncertainty.
    """

    name: str
    """The driver's name, as in the entry point."""

    def power_off(self, node: str) -> None:
        """Take the machine's power away: nothing is flushed, nothing says goodbye."""

    def power_on(self, node: str) -> None:
        """Give it back. Returns once the machine is starting; the drill waits for the node itself. Safe to repeat."""

    def cut(self, node: str, peers: Sequence[str]) -> None:
        """Drop all packets between the machine and each of `peers`, both ways; all its other paths stay."""

    def heal(self) -> None:
        """Undo every cut of this driver. Safe to repeat."""

    def command_on(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command to run here so that `argv` runs on the machine, arguments unchanged, stdin and stdout connected.

        Closing its stdin must reach the remote program, and its end must end the command.
        """

    def command_outside(self, argv: Sequence[str]) -> list[str]:
        """The command to run here so that `argv` runs outside the cluster, where it can reach the nodes."""

    def address(self, node: str) -> str:
        """The address at which clients outside the cluster reach the machine's node ports."""


@runtime_checkable
class TimedDriver(Protocol):
    """What a driver offers when a fault's moment is not the call's, as with a person at the switch."""

    struck_at: float | None
    """The moment of the last fault, seconds since the epoch by this machine's clock."""


@runtime_checkable
class ProfileDriver(Protocol):
    """What a driver may offer besides: putting a recovery profile in force, which `--compare` needs."""

    def apply_profile(self, name: str) -> None:
        """Put the profile in force on nodes and workloads, and return once both run with it."""


def load(name: str, **options: object) -> Driver:
    """The installed driver of this name, made with `options` (driver's own; unknown ones are its error to report).

    Raises:
        UnknownDriverError: none is installed under this name.
        DriverError: it cannot work here; the message says why.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise UnknownDriverError(f"no drill driver {name!r}; installed: {', '.join(sorted(found)) or 'none'}")
    driver = found[name].load()(**options)
    if not isinstance(driver, Driver):
        raise DriverError(f"drill driver {name!r} ({found[name].value}) lacks a method of tandem.drill.driver.Driver")
    return driver
