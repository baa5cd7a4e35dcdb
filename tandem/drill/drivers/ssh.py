"""Real machines by SSH: power loss by sysrq, partition by a packet filter on the machine itself."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from tandem.drill.driver import DriverError

TABLE: Final = "tandem_drill"
SELF_HEAL_SECONDS: Final = 1800
"""A cut removes itself after this long, should the machine then be out of reach for `heal`."""

STRIKE_DELAY_SECONDS: Final = 0.2
"""The machine strikes this long after the command, so that SSH can say that it was received."""


class SshDriver:
    """Machines reached by `ssh NODE` as root (user, keys and addresses belong into ssh's own configuration).

    Without `power_on_command` a power loss is sysrq `b`: the machine stops in the same instant, nothing is flushed, and
    boots again by itself. With it, sysrq `o` switches the machine off and the command switches it on.

    Args:
        yes_really: must be "yes" or True: this driver stops real machines.
        ssh_config: a file for `ssh -F`.
        power_on_command: a shell command with `{node}` in it, e.g. an ipmitool call.
    """

    name = "ssh"

    def __init__(self, yes_really: str | bool = False, ssh_config: str = "", power_on_command: str = "") -> None:
        if yes_really not in {True, "yes"}:
            raise DriverError(
                "the ssh driver stops real machines in mid-write; say --yes-really if that is what you want"
            )
        self._ssh = [
            "ssh",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            *(["-F", ssh_config] if ssh_config else []),
        ]
        self._power_on_command = power_on_command
        self._cut: set[str] = set()
        self.struck_at: float | None = None

    def power_off(self, node: str) -> None:
        """Stop the machine by sysrq."""
        key = "o" if self._power_on_command else "b"
        strike = f"sleep {STRIKE_DELAY_SECONDS}; echo 1 >/proc/sys/kernel/sysrq; echo {key} >/proc/sysrq-trigger"
        self._run(node, f"nohup sh -c {shlex.quote(strike)} >/dev/null 2>&1 </dev/null &")
        self.struck_at = time.time() + STRIKE_DELAY_SECONDS
        time.sleep(STRIKE_DELAY_SECONDS)

    def power_on(self, node: str) -> None:
        """Switch the machine on, or leave it to its reboot."""
        if not self._power_on_command:
            return
        command = self._power_on_command.replace("{node}", shlex.quote(node))
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)
        if result.returncode != 0:
            raise DriverError(f"switching {node} on failed: {result.stderr.strip() or result.returncode}")

    def cut(self, node: str, peers: Sequence[str]) -> None:
        """Drop packets from and to the peers, on the node, by nftables; undone by a timer if nobody else does."""
        addresses = ", ".join(self.address(peer) for peer in peers)
        rules = (
            f"table inet {TABLE} {{\n"
            f" chain in {{ type filter hook prerouting priority -400; ip saddr {{ {addresses} }} drop; }}\n"
            f" chain out {{ type filter hook output priority -400; ip daddr {{ {addresses} }} drop; }}\n"
            f" chain through {{ type filter hook postrouting priority -400; ip daddr {{ {addresses} }} drop; }}\n}}\n"
        )
        timer = f"systemd-run --quiet --on-active={SELF_HEAL_SECONDS} nft delete table inet {TABLE}"
        self._cut.add(node)
        self._run(node, f"{timer} && printf %s {shlex.quote(rules)} | nft -f -")
        self.struck_at = time.time()

    def heal(self) -> None:
        """Remove the packet filters."""
        for node in sorted(self._cut):
            self._run(node, f"nft delete table inet {TABLE} 2>/dev/null || ! nft list table inet {TABLE} 2>/dev/null")
            self._cut.discard(node)

    def command_on(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command over SSH, arguments quoted for the remote shell."""
        return [*self._ssh, "-T", node, shlex.join(argv)]

    def command_outside(self, argv: Sequence[str]) -> list[str]:
        """The command as it is: this machine is outside the cluster."""
        return list(argv)

    def address(self, node: str) -> str:
        """The machine's address as ssh's configuration has it."""
        result = subprocess.run([*self._ssh, "-G", node], capture_output=True, text=True, check=False, timeout=20)
        for line in result.stdout.splitlines():
            if line.startswith("hostname "):
                return line.split(" ", 1)[1]
        raise DriverError(f"ssh knows no address of {node}: {result.stderr.strip()}")

    def _run(self, node: str, command: str) -> None:
        result = subprocess.run([*self._ssh, node, command], capture_output=True, text=True, check=False, timeout=60)
        if result.returncode != 0:
            raise DriverError(f"`{command[:80]}` on {node} failed: {result.stderr.strip() or result.returncode}")
