"""The requests of a drill's clients: one sample each, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

SLOW_SECONDS: Final = 0.25
"""An answer that took longer than this counts as slow: well above an undisturbed one, half the clients' time-out."""


@dataclass(frozen=True)
class Sample:
    """One request.

    Args:
        app: the app asked.
        client: vantage point and kind, `cp1/new`.
        number: the client's own number of it.
        at: when it was sent, seconds since the epoch by the drill's clock.
        seconds: how long it took.
        error: why it failed, None for a good answer.
        pod: who answered.
        epoch: the writer's epoch, None for apps that do not write.
        seq: the record's number within its epoch.
    """

    app: str
    client: str
    number: int
    at: float
    seconds: float
    error: str | None = None
    pod: str | None = None
    epoch: int | None = None
    seq: int | None = None

    @property
    def end(self) -> float:
        """When it was over."""
        return self.at + self.seconds

    def to_dict(self) -> dict[str, Any]:
        """The sample as JSON-ready data without its empty fields."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def from_line(line: Mapping[str, Any], offset: float) -> Sample:
    """The sample of a client's output line; `offset` is how far that machine's clock is ahead, in seconds."""
    return Sample(
        app=line["a"],
        client=f"{line['v']}/{line['k']}",
        number=line["n"],
        at=line["t"] - offset,
        seconds=line["s"],
        error=line.get("e"),
        pod=line.get("pod"),
        epoch=line.get("epoch"),
        seq=line.get("seq"),
    )


@dataclass(frozen=True)
class Requests:
    """What one client saw between fault and repair.

    `longest_gap_seconds` is the longest time without a good answer, the ends of the interval included.
    """

    sent: int
    failed: int
    slow: int
    longest_gap_seconds: float


def summarize(samples: Iterable[Sample], begin: float, end: float) -> dict[str, Requests]:
    """Per client, its requests sent within [begin, end], both by the drill's clock."""
    by_client: dict[str, list[Sample]] = {}
    for sample in samples:
        # A request that was under way when the fault came belongs to it: a kept connection has only that one.
        if sample.at <= end and sample.end >= begin:
            by_client.setdefault(sample.client, []).append(sample)
    return {client: _requests(mine, begin, end) for client, mine in sorted(by_client.items())}


def _requests(samples: list[Sample], begin: float, end: float) -> Requests:
    # An answer that came after the end is no answer yet: it neither failed nor helped within the interval.
    good = sorted(min(s.end, end) for s in samples if s.error is None and s.end <= end)
    marks = [begin, *(mark for mark in good if mark >= begin), end]
    gap = max(b - a for a, b in pairwise(marks))
    return Requests(
        sent=len(samples),
        failed=sum(s.error is not None or s.end > end for s in samples),
        slow=sum(s.error is None and s.end <= end and s.seconds > SLOW_SECONDS for s in samples),
        longest_gap_seconds=round(gap, 2),
    )
