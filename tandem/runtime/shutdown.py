"""How a controller ends: once asked, it starts nothing new, finishes what is in flight, and gives up its Lease.

The first SIGTERM or SIGINT asks. The second ends the process at once, by the kernel: after the first, both signals
have their default action again, so that no busy event loop and no long call into C can hold it up.
Any awaitable can ask as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

from tandem.runtime._election.guard import kernel_ends_process_on

DRAIN_SECONDS: Final = 45.0
"""With 5 s for the release and 10 s to spare this makes the 60 s of terminationGracePeriodSeconds."""

_log = logging.getLogger(__name__)


class Shutdown:
    """The process's wish to end, and who asked.

    Use it as an asynchronous context around everything else. Without signals (`signals=()`) it may live in any
    thread; with them, in the main thread.

    Args:
        drain_seconds: How long work in flight may take after the request.
        signals: Which signals ask.
        trigger: Asks when it is done; if it fails, that asks too, and the failure is logged.
    """

    def __init__(
        self,
        *,
        drain_seconds: float = DRAIN_SECONDS,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        trigger: Awaitable[object] | None = None,
    ) -> None:
        if drain_seconds < 0:
            raise ValueError(f"drain_seconds {drain_seconds} is negative; 0 means not to wait at all")
        self.drain_seconds = drain_seconds
        self.reason: str | None = None
        self.drain_deadline: float | None = None
        """`loop.time()` at which the drain ends; None until asked."""
        self._signals = tuple(signals)
        self._trigger = trigger
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def requested(self) -> bool:
        """Whether the process is to end; then nothing new is started."""
        return self._asked.is_set()

    async def wait(self) -> str:
        """Wait until somebody asks; returns who."""
        await self._asked.wait()
        return self.reason or ""

    def request(self, reason: str) -> None:
        """Ask. Only the first reason counts."""
        if self._asked.is_set():
            return
        self.reason = reason
        self.drain_deadline = asyncio.get_running_loop().time() + self.drain_seconds
        _log.info("shutting down: %s", reason)
        self._asked.set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for signum in self._signals:
            self._before[signum] = signal.signal(signum, self._on_signal)
        if self._trigger is not None:
            self._task = asyncio.create_task(self._await_trigger(self._trigger), name="shutdown-trigger")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for signum, handler in self._before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        """Run by the interpreter in the main thread, between two instructions of whatever runs there."""
        for each in self._signals:
            kernel_ends_process_on(each)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.request, signal.Signals(signum).name)

    async def _await_trigger(self, trigger: Awaitable[object]) -> None:
        try:
            await trigger
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for it must not wait for ever
            _log.error("the shutdown trigger failed: %r", error)
            self.request(f"trigger failed: {error!r}")
        else:
            self.request("trigger")
