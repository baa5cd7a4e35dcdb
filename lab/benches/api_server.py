"""Takes the API server of the lab's control plane away for some seconds, and brings it back whatever happens.

Two ways. `stop`: SIGSTOP and SIGCONT, connections stay open and nobody answers. `kill`: SIGKILL, and a packet filter
refuses everybody but the API server itself until the time is over; kubelet starts the server anew behind it, so the
outage lasts exactly as long as asked, or as long as a start takes where that is longer.

The outage is a transient unit of systemd on the machine, with a time limit of its own and an ExecStopPost that undoes
it, so it ends without us.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from lab.runtime import Lab

Way = Literal["kill", "stop"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)

UNIT: Final = "tandem-api-outage"
UNDO: Final = (
    '/bin/sh -c "pkill -CONT -x kube-apiserver; nft delete table inet tandem_outage 2>/dev/null; true"'
)  # fmt: skip
SCRIPT: Final = """
set -eu
case $1 in
stop)
    pkill -STOP -x kube-apiserver ;;
kill)
    # Its own loopback is spared: a starting API server asks itself. An address of the machine's is not, so that
    # controller-manager, scheduler and kubelet beside it are refused as everybody else is.
    printf '%s\\n' "table inet tandem_outage {
      chain input {
        type filter hook input priority -10;
        ip daddr != 127.0.0.0/8 tcp dport $3 reject with tcp reset
      }
    }" | nft -f -
    pkill -KILL -x kube-apiserver ;;
esac
echo "began $(cut -d ' ' -f 1 /proc/uptime) $(date +%s.%N)"
sleep "$2"
case $1 in
stop) pkill -CONT -x kube-apiserver ;;
kill) nft delete table inet tandem_outage ;;
esac
echo "ended $(cut -d ' ' -f 1 /proc/uptime) $(date +%s.%N)"
"""
"""Run on the machine with the way, the seconds and the API server's port; says when, by uptime and by the clock."""


class SweepError(RuntimeError):
    """The sweep cannot begin or go on; the text says why and what to do."""


@dataclass(frozen=True)
class Held:
    """How long the API server was taken away in seconds, and when that was over, by its machine's clock (epoch)."""

    seconds: float
    ended: float


class Hands(Protocol):
    """What takes the API server away."""

    async def hold(self, way: Way, seconds: float, begun: Callable[[], None]) -> Held:
        """Take it away and bring it back; calls `begun` once it is away."""

    async def restart_kubelet(self) -> None:
        """Restart kubelet beside the API server, which thereby forgets its restart back-off."""


class Machine:
    """The lab's first control plane machine.

    Args:
        lab: the running lab.
        node: the machine.
        port: the API server's.
    """

    def __init__(self, lab: Lab, node: str = "cp1", port: int = 6443) -> None:
        self._lab, self._node, self._port = lab, node, port

    async def hold(self, way: Way, seconds: float, begun: Callable[[], None]) -> Held:
        """See `Hands`.

        Raises:
            SweepError: the machine refused; it has undone what it did.
        """
        limit = f"--property=RuntimeMaxSec={seconds + 15:g}"
        argv = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={UNIT}", limit]
        argv += [f"--property=ExecStopPost={UNDO}", "/bin/sh", "-s", "--", way, f"{seconds:g}", str(self._port)]
        times: dict[str, tuple[float, float]] = {}

        def read(line: str) -> None:
            word, uptime, clock = line.split()
            times[word] = float(uptime), float(clock)
            if word == "began":
                begun()

        await self._run(argv, SCRIPT, read, seconds + 60)
        if times.keys() != {"began", "ended"}:
            raise SweepError(f"{self._node}: the outage did not run to its end")
        return Held(round(times["ended"][0] - times["began"][0], 2), times["ended"][1])

    async def restart_kubelet(self) -> None:
        """See `Hands`."""
        await self._run(["systemctl", "restart", "kubelet"], "", lambda _: None, 60)

    async def undo(self) -> None:
        """Let the API server go on, whatever state this is in; says nothing if there is nothing to undo."""
        with suppress(SweepError):
            await self._run(["systemctl", "stop", UNIT], "", lambda _: None, 30)

    async def _run(self, argv: Sequence[str], text: str, read: Callable[[str], None], limit: float) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._lab.ssh_argv(self._node, shlex.join(argv)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("pipes were asked for")
        try:
            async with asyncio.timeout(limit):
                process.stdin.write(text.encode())
                process.stdin.close()
                async for line in process.stdout:
                    read(line.decode().strip())
                error = (await process.stderr.read()).decode(errors="replace").strip()
                if await process.wait() != 0:
                    raise SweepError(f"{self._node}: `{shlex.join(argv)}` failed: {error[-500:]}")
        except TimeoutError:
            raise SweepError(f"{self._node}: `{argv[0]}` took longer than {limit:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
