"""A queue of keys that never gives the same key to two workers and forgets nothing that came meanwhile.

client-go's design: a key is *dirty* from the moment it is added until a worker takes it, and *processing* until the
worker is done. A key that is added while it is processed becomes dirty and is queued again when the worker is done;
adding a dirty key changes nothing. One more rule is ours: handing out a key cancels its delayed add. Whoever takes the
key looks at the present state and says anew when to come back, so timers of earlier passes never pile up.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

BASE_SECONDS: Final = 0.005
"""First delay of a key that failed; doubles with each failure (client-go's and controller-runtime's default)."""
CAP_SECONDS: Final = 1000.0
"""Longest delay of a key that fails again and again (the same source)."""


class QueueClosed(Exception):  # noqa: N818 - an end, not an error
    """The queue has been shut down; there will be no further key."""


class QueueObserver(Protocol):
    """What a queue tells about itself; times are of the loop's clock, in seconds."""

    def added(self, depth: int) -> None:
        """A key was queued."""

    def taken(self, depth: int, waited: float) -> None:
        """A worker took a key that had waited so long."""

    def finished(self, took: float) -> None:
        """A worker is done with a key."""

    def retried(self) -> None:
        """A key was added with back-off."""


class WorkQueue(Generic[K]):
    """See the module. Belongs to one event loop; no method but `get` and `drained` waits.

    Args:
        base_seconds: first delay of `add_with_backoff`.
        cap_seconds: its longest.
    """

    def __init__(self, *, base_seconds: float = BASE_SECONDS, cap_seconds: float = CAP_SECONDS) -> None:
        self._base = base_seconds
        self._cap = cap_seconds
        self._observer: QueueObserver | None = None
        self._ready: deque[K] = deque()
        self._dirty: dict[K, float] = {}  # since when
        self._processing: dict[K, float] = {}  # since when
        self._failures: dict[K, int] = {}
        self._delayed: dict[K, float] = {}  # until when; what is in the heap and not here has been cancelled
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # not asked of the handle: uvloop's has no when() when the delay is short
        self._getters: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._closed = False

    def __len__(self) -> int:
        """Keys that are ready now."""
        return len(self._ready)

    def observe(self, observer: QueueObserver) -> None:
        """Tell `observer` of each step from now on."""
        self._observer = observer

    @property
    def processing(self) -> dict[K, float]:
        """Keys that workers hold, each with the loop's time of its start."""
        return dict(self._processing)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._delayed)

    def add(self, key: K) -> None:
        """Queue a key now. Does nothing when it is queued already, or after the shutdown."""
        if self._closed or key in self._dirty:
            return
        self._dirty[key] = self._now()
        if key not in self._processing:
            self._enqueue(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue a key later. Of two delays of the same key the sooner one holds."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        when = self._now() + seconds
        if when >= self._delayed.get(key, float("inf")):
            return
        self._delayed[key] = when
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, key))
        self._arm()

    def add_with_backoff(self, key: K) -> float:
        """Queue a key that failed; returns the delay in seconds, which doubles with each failure until `forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = float(min(self._cap, self._base * 2 ** min(failures, 64)))
        if self._observer:
            self._observer.retried()
        self.add_after(key, delay)
        return delay

    def failures(self, key: K) -> int:
        """How often in a row the key has failed."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """The key succeeded, or is of no interest any more: its next failure is its first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Take a key; call `done` with it afterwards, come what may.

        Raises:
            QueueClosed: the queue was shut down. Keys that were still waiting are not handed out.
        """
        while not self._closed:
            if self._ready:
                return self._take()
            waiter = asyncio.get_running_loop().create_future()
            self._getters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._getters:
                    self._getters.remove(waiter)
                elif self._ready:
                    self._wake()  # woken and cancelled at once: the key is for another worker
                raise
        raise QueueClosed

    def done(self, key: K) -> None:
        """The worker is finished with a key; if it was added meanwhile, it is queued again."""
        started = self._processing.pop(key)
        if self._observer:
            self._observer.finished(self._now() - started)
        if key in self._dirty and not self._closed:
            self._enqueue(key)
        if not self._processing:
            self._idle.set()

    def shut_down(self) -> None:
        """Hand out nothing any more: waiting keys are dropped, `get` raises. Keys in process are not touched."""
        self._closed = True
        self._ready.clear()
        self._dirty.clear()
        self._delayed.clear()
        self._heap.clear()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._getters:
            self._wake()

    async def drained(self) -> None:
        """Wait until no worker holds a key."""
        await self._idle.wait()

    def _take(self) -> K:
        key = self._ready.popleft()
        now = self._now()
        waited = now - self._dirty.pop(key)
        self._processing[key] = now
        self._delayed.pop(key, None)
        self._idle.clear()
        if self._observer:
            self._observer.taken(len(self._ready), waited)
        return key

    def _enqueue(self, key: K) -> None:
        self._ready.append(key)
        if self._observer:
            self._observer.added(len(self._ready))
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        """One timer, for the earliest delay that still holds."""
        while self._heap and self._delayed.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if self._timer:
            if self._heap and self._timer_at == self._heap[0][0]:
                return
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer_at = self._heap[0][0]
            self._timer = asyncio.get_running_loop().call_at(self._timer_at, self._ripen)

    def _ripen(self) -> None:
        self._timer = None
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._delayed.get(key) == when:
                del self._delayed[key]
                self.add(key)
        self._arm()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
