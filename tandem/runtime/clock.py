"""The clock of every decision about leadership: one that nobody can set, and that goes on while the machine sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]
"""Seconds since some fixed moment; only differences mean anything. Never the wall clock: NTP may step that."""

_CLOCK_ID: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds by CLOCK_BOOTTIME where the kernel has it, else CLOCK_MONOTONIC (which stops while suspended)."""
    return time.clock_gettime(_CLOCK_ID)
