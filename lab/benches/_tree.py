"""What a command and all that it starts use: memory at the worst moment, and processor time by kind of process."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
INTERVAL_SECONDS: Final = 0.2
_PROC: Final = Path("/proc")
_UTIME: Final = 11
"""Where the user time stands in /proc/PID/stat after the name; the system time follows, the resident pages 8 later."""
_RSS: Final = 21


class CommandError(RuntimeError):
    """The command ended with another status than 0; the message has the end of what it said."""


@dataclass(frozen=True)
class Process:
    """One process at one moment.

    Attributes:
        argv: its command line.
        cpu_seconds: user and system time since its start.
        memory: resident bytes. What processes share counts once for each, so a sum is an upper bound.
    """

    pid: int
    argv: str
    cpu_seconds: float
    memory: int


@dataclass(frozen=True)
class Use:
    """What one run used.

    Attributes:
        seconds: of wall time.
        peak_memory: bytes, of all its processes together at the worst moment that was seen.
        peak_of: bytes, of each kind at its own worst moment.
        cpu_seconds: by kind. A process that lived for less than a look's interval is not in it.
    """

    seconds: float
    peak_memory: int
    peak_of: Mapping[str, int]
    cpu_seconds: Mapping[str, float]

    @property
    def dominated_by(self) -> str:
        """The kind with the most processor time."""
        return max(self.cpu_seconds, key=lambda kind: self.cpu_seconds[kind], default="")


def measure(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], kind_of: Callable[[str], str], seconds: float
) -> Use:
    """Run a command to its end and look at it and its descendants all the while.

    Args:
        argv: the command.
        cwd: where it runs.
        env: its environment.
        kind_of: names the kind of a process by its command line.
        seconds: after so long it is killed.

    Raises:
        CommandError: it failed or took too long.
    """
    looks: list[list[Process]] = []
    over = threading.Event()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        started = time.monotonic()
        command = subprocess.Popen(argv, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=said, stderr=said)

        def look() -> None:
            while not over.wait(INTERVAL_SECONDS):
                looks.append(tree(command.pid))

        looker = threading.Thread(target=look)
        looker.start()
        try:
            status: int | None = command.wait(seconds)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            status = None
        finally:
            took = time.monotonic() - started
            over.set()
            looker.join()
        if status != 0:
            said.seek(0)
            how = f"took more than {seconds:g} s" if status is None else f"ended with status {status}"
            raise CommandError(f"{' '.join(argv)} {how}:\n{said.read()[-3000:]}")
    return summary(took, looks, kind_of)


def summary(seconds: float, looks: Iterable[Iterable[Process]], kind_of: Callable[[str], str]) -> Use:
    """What the looks come to."""
    peak = 0
    peak_of: dict[str, int] = {}
    last: dict[int, Process] = {}
    for seen in looks:
        memory: Counter[str] = Counter()
        for process in seen:
            memory[kind_of(process.argv)] += process.memory
            last[process.pid] = process
        peak = max(peak, memory.total())
        peak_of |= {kind: max(amount, peak_of.get(kind, 0)) for kind, amount in memory.items()}
    cpu: defaultdict[str, float] = defaultdict(float)
    for process in last.values():
        cpu[kind_of(process.argv)] += process.cpu_seconds
    return Use(seconds, peak, peak_of, dict(cpu))


def tree(root: int) -> list[Process]:
    """A process and its descendants, as far as they still are."""
    found: list[Process] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            folder = _PROC / str(pid)
            for thread in (folder / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            argv = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has ended
        ticks = int(fields[_UTIME]) + int(fields[_UTIME + 1])
        found.append(Process(pid, argv, ticks / TICKS, int(fields[_RSS]) * PAGE))
    return found
