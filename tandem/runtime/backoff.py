"""How long to wait before the next try."""

from __future__ import annotations

import random
from typing import Final

FIRST_SECONDS: Final = 0.8
LAST_SECONDS: Final = 30.0
"""client-go's reflector waits from 0.8 s to 30 s, doubling."""
JITTER: Final = 1.5
"""Each delay is stretched by up to this factor, so that those whom one outage hit do not come back in step."""


class Backoff:
    """Doubling delays with jitter, always within `first`..`last`.

    Args:
        first: shortest delay, in seconds.
        last: longest, in seconds.
        rng: the source of the jitter.
    """

    def __init__(self, rng: random.Random, *, first: float = FIRST_SECONDS, last: float = LAST_SECONDS) -> None:
        self._rng = rng
        self._first = first
        self._last = last
        self._tries = 0

    def next(self, at_least: float | None = None) -> float:
        """The next delay in seconds; a server's Retry-After can lengthen it, jitter and all."""
        plain = min(self._last / JITTER, self._first * 2 ** min(self._tries, 32))
        self._tries += 1
        return float(max(plain, at_least or 0.0) * self._rng.uniform(1.0, JITTER))

    def reset(self) -> None:
        """It worked: the next delay is the first."""
        self._tries = 0
