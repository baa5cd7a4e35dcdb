"""A person at the power switch or the cable; everything else over SSH."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tandem.drill.drivers.ssh import SshDriver


class ManualDriver:
    """Asks for each act and takes the moment of the Enter key as the fault's.

    Args:
        ssh_config: a file for `ssh -F`, for the clients on the machines.
        ask: how to ask; returns once the person has done it.
    """

    name = "manual"

    def __init__(self, ssh_config: str = "", ask: Callable[[str], str] = input) -> None:
        self._machines = SshDriver(yes_really=True, ssh_config=ssh_config)
        self._ask = ask
        self.struck_at: float | None = None

    def power_off(self, node: str) -> None:
        """Ask for the plug to be pulled."""
        self._act(f"Pull the power of {node} and press Enter in the same moment: ")

    def power_on(self, node: str) -> None:
        """Ask for the power back."""
        self._ask(f"Give {node} its power back and press Enter: ")

    def cut(self, node: str, peers: Sequence[str]) -> None:
        """Ask for the path to be cut."""
        self._act(f"Cut {node} off from {', '.join(peers)} alone, and press Enter in the same moment: ")

    def heal(self) -> None:
        """Ask for all paths back."""
        self._ask("Restore every path that was cut and press Enter: ")

    def command_on(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command over SSH."""
        return self._machines.command_on(node, argv)

    def command_outside(self, argv: Sequence[str]) -> list[str]:
        """The command as it is."""
        return self._machines.command_outside(argv)

    def address(self, node: str) -> str:
        """The machine's address as ssh's configuration has it."""
        return self._machines.address(node)

    def _act(self, question: str) -> None:
        self._ask(question)
        self.struck_at = time.time()
