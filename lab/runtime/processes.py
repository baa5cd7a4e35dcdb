"""Child processes of PID 1: start, run to the end, and reap what others left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from lab.runtime.errors import LabError


class Children:
    """Every child of this process.

    PID 1 inherits orphans (a machine's helper processes whose parent was killed) and must reap them, yet must not take
    the exit status of a child that somebody waits for. So starting and reaping exclude each other, and only children
    that nobody started here are reaped.
    """

    def __init__(self) -> None:
        self._spawning = asyncio.Lock()
        self._own: set[int] = set()

    async def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        output: int | IO[Any],
        env: Mapping[str, str] | None = None,
        executable: Path | None = None,
    ) -> asyncio.subprocess.Process:
        """Start ARGV as leader of a session and process group of its own, without input.

        Args:
            argv: the command.
            output: where its output and errors go.
            env: its environment; this process's own when None.
            executable: what to run, when argv[0] is to say something else.
        """
        async with self._spawning:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=None if env is None else dict(env),
                executable=executable,
                start_new_session=True,
            )
            self._own.add(process.pid)
        return process

    async def wait(self, process: asyncio.subprocess.Process) -> int:
        """Wait for a started PROCESS and forget it."""
        code = await process.wait()
        self._own.discard(process.pid)
        return code

    async def run(self, *argv: str, given: str = "") -> str:
        """Run ARGV to its end with GIVEN as input; its output.

        Raises:
            LabError: it failed; the text holds the command and what it said.
        """
        async with self._spawning:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            self._own.add(process.pid)
        output, _ = await process.communicate(given.encode())
        self._own.discard(process.pid)
        if process.returncode:
            said = output.decode(errors="replace").strip()
            raise LabError(f"`{' '.join(argv)}` failed ({process.returncode}): {said}")
        return output.decode(errors="replace")

    async def reap_orphans(self) -> None:
        """Take the exit status of dead children that nobody waits for."""
        async with self._spawning:
            self._reap_now()

    def _reap_now(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in self._own:
                    return  # its waiter comes for it in a moment; the next round looks behind it
                os.waitpid(found.si_pid, os.WNOHANG)


def group_exists(group: int) -> bool:
    """Whether a process group has a member, zombies included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def group_states(group: int) -> dict[int, str]:
    """State letter (proc(5)) of each member of process group GROUP."""
    states: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    states[int(entry.name)] = fields[0]
    return states


class HostView:
    """Process ids as the host sees them, through the host's /proc kept open from before this namespace had its own."""

    def __init__(self) -> None:
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self._init = int(os.readlink("self", dir_fd=self._proc))

    def _read(self, path: str) -> str:
        handle = os.open(path, os.O_RDONLY, dir_fd=self._proc)
        with os.fdopen(handle) as file:
            return file.read()

    def pids(self) -> dict[int, int]:
        """Id in here -> id on the host, of this process's children."""
        found: dict[int, int] = {}
        with suppress(OSError):
            for task in Path(f"/proc/self/fd/{self._proc}/{self._init}/task").iterdir():
                for child in self._read(f"{self._init}/task/{task.name}/children").split():
                    with suppress(OSError):
                        for line in self._read(f"{child}/status").splitlines():
                            if line.startswith("NSpid:"):
                                found[int(line.split()[-1])] = int(child)
        return found
