"""One User Mode Linux machine: a process group that is switched on, off, stopped and continued as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lab.runtime import reboot, uml
from lab.runtime.errors import LabError, NotRunningError
from lab.runtime.paths import LabPaths
from lab.runtime.plan import Node
from lab.runtime.processes import Children, group_exists, group_states
from lab.runtime.state import Spec

State = Literal["running", "frozen", "off"]

#: Where UML puts guest memory and its sockets: a tmpfs of the lab's own mount namespace.
MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - private: the supervisor mounts over it before any machine starts
_GONE_SECONDS = 10.0
_STOPPED_SECONDS = 2.0


def install_reboot(spec: Spec, paths: LabPaths) -> None:
    """Put the program that a rebooting kernel runs into the state folder."""
    text = Path(reboot.__file__).read_text()
    paths.reboot.write_text(f"#!{spec.python} -IS\n{text}")
    paths.reboot.chmod(0o700)


class Machine:
    """Power switch of one machine. Calls for one machine run one after the other."""

    def __init__(
        self, node: Node, spec: Spec, paths: LabPaths, children: Children, ended: Callable[[str], None]
    ) -> None:
        self.node = node
        self._spec = spec
        self._paths = paths
        self._children = children
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._order = asyncio.Lock()
        self._frozen = False
        self.since = time.time()
        self.boots = 0
        self.last_exit: int | None = None
        self.panic = ""

    @property
    def pid(self) -> int | None:
        """Leader of the machine's process group, in the lab's PID namespace."""
        return self._process.pid if self._process else None

    @property
    def state(self) -> State:
        """Whether it is on."""
        if self._process is None:
            return "off"
        return "frozen" if self._frozen else "running"

    async def power_on(self) -> bool:
        """Boot from its disk; False when it was on already.

        Raises:
            LabError: it is frozen, or the kernel could not be started.
        """
        async with self._order:
            if self._frozen:
                raise LabError(f"{self.node.name} is frozen, not off; `thaw {self.node.name}` continues it")
            if self._process is not None:
                return False
            argv = uml.command_line(
                self.node,
                reboot=self._paths.reboot,
                disk=self._paths.disk(self.node.name),
                base_image=self._spec.base_image,
                authorized_key=self._spec.authorized_key,
            )
            environment = {
                "TMPDIR": MEMORY_FOLDER,
                "HOME": MEMORY_FOLDER,
                "PATH": "/usr/bin:/bin",
                "LAB_KERNEL": str(self._spec.kernel),
            }
            console = self._paths.console(self.node.name)
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
            with console.open("ab") as log:
                log.write(f"--- {self.node.name} powered on at {stamp}\n".encode())
                log.flush()
                booted_at = log.tell()
                try:
                    self._process = await self._children.start(
                        argv, output=log, env=environment, executable=self._spec.kernel
                    )
                except OSError as error:
                    raise LabError(f"{self.node.name} cannot start: {self._spec.kernel}: {error}") from error
            self.since = time.time()
            self.boots += 1
            self.panic = ""
            self._watcher = asyncio.create_task(self._watch(self._process, booted_at))
            return True

    async def _watch(self, process: asyncio.subprocess.Process, booted_at: int) -> None:
        """Notice a machine that ends by itself (poweroff in the guest, a panic); its console began at `booted_at`."""
        code = await self._children.wait(process)
        if self._process is process:
            self.last_exit = code
            with self._paths.console(self.node.name).open("rb") as log:
                log.seek(booted_at)
                self.panic = uml.panic_of(log.read().decode(errors="replace"))
            self._process = None
            self._frozen = False
            self.since = time.time()
            self._end_group(process.pid)
            self._ended(self.node.name)

    @staticmethod
    def _end_group(group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return

    async def power_off(self) -> float | None:
        """Pull the plug: SIGKILL to the whole process group in one call.

        Returns:
            The time (seconds since the epoch) right after the kill; None when it was off already.

        Raises:
            LabError: a process of it is still there after 10 s.
        """
        async with self._order:
            process = self._process
            if process is None:
                return None
            self._end_group(process.pid)
            at = time.time()
            if self._watcher is not None:
                await self._watcher
            deadline = time.monotonic() + _GONE_SECONDS
            while group_exists(process.pid):
                if time.monotonic() > deadline:
                    remaining = group_states(process.pid)
                    raise LabError(f"{self.node.name} was killed, but these of its processes remain: {remaining}")
                await self._children.reap_orphans()
                await asyncio.sleep(0.01)
            return at

    async def freeze(self) -> float:
        """Stop every process of the machine; it is then as dead as a hung kernel, and its memory stays.

        Returns:
            The time (seconds since the epoch) right after the signal.

        Raises:
            NotRunningError: it is off.
            LabError: a process would not stop.
        """
        async with self._order:
            process = self._running()
            os.killpg(process.pid, signal.SIGSTOP)
            at = time.time()
            self._frozen = True
            deadline = time.monotonic() + _STOPPED_SECONDS
            while moving := {p: s for p, s in group_states(process.pid).items() if s not in "TtZX"}:
                if time.monotonic() > deadline:
                    raise LabError(f"{self.node.name} does not stop: {moving}")
                os.killpg(process.pid, signal.SIGSTOP)  # again, for a process that it made in between
                await asyncio.sleep(0.01)
            return at

    async def thaw(self) -> float:
        """Continue a frozen machine; harmless for a running one. The time right after the signal.

        Raises:
            NotRunningError: it is off.
        """
        async with self._order:
            process = self._running()
            os.killpg(process.pid, signal.SIGCONT)
            self._frozen = False
            return time.time()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise NotRunningError(f"{self.node.name} is off; `power-on {self.node.name}` boots it")
        return self._process
