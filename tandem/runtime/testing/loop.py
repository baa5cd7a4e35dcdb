"""An event loop whose time jumps: a test of a 1000 s back-off takes no second, and takes the same course every time.

Only asyncio's time is virtual (`loop.time()`, `asyncio.sleep`, `asyncio.timeout`). It stands still while there is
something to do and jumps to the next timer when there is not.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

DEADLOCK_SECONDS = 5.0
"""So long (of real time) a loop without timers waits for threads and sockets before it says that nothing will come."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module. Starts at 0 s."""

    def __init__(self) -> None:
        self._virtual = 0.0
        self._jumping = _JumpingSelector(self._jump)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual

    def _jump(self, seconds: float) -> None:
        self._virtual += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(DEADLOCK_SECONDS)
            if not ready:
                raise RuntimeError("deadlock: every task waits for another, and no timer is set")
            return ready
        self._jump(timeout)
        return []


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorator: an async test that runs in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run
