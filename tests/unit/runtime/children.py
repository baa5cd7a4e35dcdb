"""Real child processes for what only the kernel can show. Forked, not spawned: two hundred of them are wanted."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

LIBC_WITH_LOCK = ctypes.PyDLL(None)
"""Calls through this keep the interpreter's lock, as a careless extension module does."""


def hold_the_interpreter(seconds: float) -> None:
    """Block every thread of Python in this process."""
    LIBC_WITH_LOCK.usleep(int(seconds * 1e6))


@dataclass
class Child:
    """A forked process that writes lines to us."""

    pid: int
    pipe: int

    def send(self, signum: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, signum)

    def line(self) -> str:
        """Wait for the next line of its output, byte by byte; empty at its end."""
        text = b""
        while (byte := os.read(self.pipe, 1)) not in (b"", b"\n"):
            text += byte
        return text.decode()

    def wait(self, seconds: float = 60) -> int:
        """Its exit status, negative for a signal; it is killed when that takes too long (status -9)."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += 60
            time.sleep(0.005)

    def rest(self) -> str:
        """All that it wrote and nobody has read; call after `wait`."""
        chunks = []
        while chunk := os.read(self.pipe, 65536):
            chunks.append(chunk)
        os.close(self.pipe)
        return b"".join(chunks).decode()


def fork(work: Callable[[Callable[[object], None]], int | None]) -> Child:
    """Run `work(say)` in a child; what it returns is the exit status, an exception is status 70."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    status = 70
    try:
        os.close(reader)
        for signum in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)

        def say(text: object) -> None:
            os.write(writer, f"{text}\n".encode())

        status = work(say) or 0
    except BaseException as error:  # noqa: BLE001 - a child must not go on as a second pytest
        os.write(writer, f"{error!r}\n".encode())
    finally:
        os._exit(status)
