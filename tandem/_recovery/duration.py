"""Durations as Kubernetes writes them."""

from __future__ import annotations

import re
from typing import Any, Final

_PART: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|us|ns|h|m|s)")
_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def seconds(duration: Any) -> float:
    """A Kubernetes duration (`1m30s`, `250ms`, or a bare number of seconds) in seconds.

    Raises:
        ValueError: not a duration.
    """
    text = str(duration).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = list(_PART.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 5s, 1m30s or 250ms")
    return sum(float(part["number"]) * _UNIT_SECONDS[part["unit"]] for part in parts)


def duration(seconds: float) -> str:
    """Seconds as Kubernetes writes a duration: `5s`, `5m0s`, `250ms`; as the API shows it back."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
