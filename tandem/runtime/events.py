"""Events about objects, aggregated: what is said again within six minutes becomes a series of one Event.

`record` never waits and never fails a reconcile: Events are written by a task of their own, through the same fence as
all else, and given up after a few tries. An object that is talked about too much is silenced for a while, like in
client-go.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from tandem.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound
from tandem.runtime.fence import NotLeading
from tandem.runtime.logging import get_logger
from tandem.runtime.resources import EVENTS, Object
from tandem.runtime.writer import Writer

SERIES_SECONDS: Final = 360.0
"""What is repeated within this time belongs to the same series (kube-rs and client-go: six minutes)."""
FLUSH_SECONDS: Final = 1.0
"""Pause between two rounds of writing; what is repeated meanwhile is one write."""
BURST: Final = 25
REFILL_SECONDS: Final = 300.0
"""About one object: 25 Events at once, then one in five minutes (client-go's spam filter)."""
MEMORY: Final = 4096
"""Series that are remembered (client-go's cache)."""
NOTE_LIMIT: Final = 1024
"""Characters of a note; the API refuses longer ones."""

Type = Literal["Normal", "Warning"]


class _What(NamedTuple):
    """What makes two Events the same."""

    uid: str
    namespace: str
    name: str
    type: str
    reason: str
    action: str
    note: str


@dataclass
class _Series:
    regarding: Object
    first: datetime.datetime
    last: datetime.datetime
    heard: float  # loop time of the last repetition
    count: int = 1
    written: int = 0  # how many of `count` the API server knows of
    stored: Object | None = None
    tries: int = 0


@dataclass
class _Budget:
    tokens: float
    at: float


class EventRecorder:
    """Events of one controller. Run `run` as a task, and `close` it before the Lease is released.

    Args:
        writer: the fenced way to the API server.
        controller: who reports, e.g. `tandem-ha.io/auditor`.
        instance: which process of it.
        clock: the wall clock, for what people read.
        count: told the outcome of each Event: `recorded`, `dropped` (spam), `failed`.
    """

    TRIES: Final = 3

    def __init__(
        self,
        writer: Writer,
        controller: str,
        instance: str,
        *,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._writer = writer
        self._controller = controller
        self._instance = instance[:128]
        self._clock = clock
        self._count = count
        self._series: OrderedDict[_What, _Series] = OrderedDict()
        self._pending: dict[_What, None] = {}
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._log = get_logger("events")

    def record(self, obj: Object, event_type: Type, reason: str, note: str, *, action: str = "Reconcile") -> None:
        """Say something about an object.

        Args:
            obj: what it is about; only its identity is kept.
            event_type: `Normal` or `Warning`.
            reason: why, in one CamelCase word.
            note: for people; cut at 1024 characters. The same note again is counted, not written again, so leave out
                what changes each time.
            action: what was being done, in one CamelCase word.
        """
        metadata = obj["metadata"]
        what = _What(
            metadata.get("uid", ""), metadata.get("namespace", ""), metadata["name"], event_type, reason, action,
            note[:NOTE_LIMIT],
        )  # fmt: skip
        now = asyncio.get_running_loop().time()
        if not self._may_speak(what, now):
            self._count("dropped")
            return
        series = self._series.get(what)
        if series is None or now - series.heard > SERIES_SECONDS:
            series = _Series(_reference(obj), self._clock(), self._clock(), now)
            self._series[what] = series
        else:
            series.count += 1
            series.last = self._clock()
            series.heard = now
        self._series.move_to_end(what)
        while len(self._series) > MEMORY:
            self._series.popitem(last=False)
        self._pending[what] = None
        self._news.set()

    async def run(self) -> None:
        """Write what is recorded, until `close`, or until the lead is over."""
        try:
            while not self._closing.is_set():
                await self._news.wait()
                await self.flush()
                try:
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await self._closing.wait()
                except TimeoutError:
                    continue
            await self.flush()
        except NotLeading:
            self._log.info("events dropped: not leading any more", events=len(self._pending))

    def close(self) -> None:
        """Nothing will be recorded any more: `run` writes the rest and returns."""
        self._closing.set()
        self._news.set()

    async def flush(self) -> None:
        """Write what has been recorded so far; what cannot be written now is tried again in the next round.

        Raises:
            NotLeading: the lead is over; nothing more is written.
        """
        self._news.clear()
        for what in list(self._pending):
            del self._pending[what]
            series = self._series.get(what)
            if series is None or series.written == series.count:
                continue
            try:
                await self._write(what, series)
            except ApiError as error:
                series.tries += 1
                if series.tries < self.TRIES:
                    self._pending[what] = None
                    self._news.set()
                else:
                    self._count("failed")
                    self._log.warning("event could not be written", error=str(error), reason=what.reason)
            else:
                series.tries = 0
                self._count("recorded")

    async def _write(self, what: _What, series: _Series) -> None:
        count = series.count
        if series.stored is None:
            body = self._body(what, series)
            try:
                series.stored = await self._writer.create(EVENTS, body)
            except AlreadyExists:
                series.stored = body  # an answer was lost; there is nothing to add to it
        else:
            body = {**series.stored, "series": {"count": count, "lastObservedTime": _micro(series.last)}}
            try:
                series.stored = await self._writer.replace(EVENTS, body)
            except (NotFound, Conflict, ValueError):
                series.stored = None  # expired, or not ours any more: begin anew
                series.first = series.last
                series.stored = await self._writer.create(EVENTS, self._body(what, series))
        series.written = count

    def _body(self, what: _What, series: _Series) -> Object:
        namespace = what.namespace or "default"
        stamp = _micro(series.first)
        digest = hashlib.sha256("\0".join((*what, self._instance, stamp)).encode()).hexdigest()[:16]
        body: Object = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{what.name[:200]}.{digest}", "namespace": namespace},
            "eventTime": stamp,
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "action": what.action,
            "reason": what.reason,
            "type": what.type,
            "note": what.note,
            "regarding": series.regarding,
        }
        if series.count > 1:
            body["series"] = {"count": series.count, "lastObservedTime": _micro(series.last)}
        return body

    def _may_speak(self, what: _What, now: float) -> bool:
        subject = what.uid or f"{what.namespace}/{what.name}"
        budget = self._budgets.setdefault(subject, _Budget(BURST, now))
        self._budgets.move_to_end(subject)
        while len(self._budgets) > MEMORY:
            self._budgets.popitem(last=False)
        budget.tokens = min(BURST, budget.tokens + (now - budget.at) / REFILL_SECONDS)
        budget.at = now
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True


def _reference(obj: Object) -> Object:
    metadata: dict[str, Any] = obj["metadata"]
    reference = {"apiVersion": obj.get("apiVersion", ""), "kind": obj.get("kind", ""), "name": metadata["name"]}
    for name in ("namespace", "uid", "resourceVersion"):
        if name in metadata:
            reference[name] = metadata[name]
    return reference


def _micro(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
