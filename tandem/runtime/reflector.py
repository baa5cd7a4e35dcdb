"""Keeps a cache in step with the API server: a paged list once, then a watch for as long as the process lives.

| what happens | what follows |
|---|---|
| the server ends the watch (asked to after 5 to 10 minutes) | a new watch from the last resourceVersion, at once |
| the connection breaks, is refused, or is silent for too long | the same, after a back-off of 0.8 to 30 s |
| 410, as an answer or as an event | a list anew; what it lacks is dropped, with events |
| 410 in the middle of a paged list | the list again, the second time in one piece |
| 429 with Retry-After | at least so long a back-off |
| an event that cannot be understood | as a broken connection |

Resuming first is what makes a restarted API server cheap: 10,000 objects are listed anew only when the server says that
it has to be. Deletions that nobody told of show only in a list, so each list is compared with what the cache holds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from tandem.runtime.backoff import Backoff
from tandem.runtime.cache import Cache
from tandem.runtime.client import PAGE, Client
from tandem.runtime.errors import ApiError, Gone, Unavailable
from tandem.runtime.logging import get_logger
from tandem.runtime.resources import Key, Object, key_of


@dataclass(frozen=True)
class ReflectorSettings:
    """Times of a reflector, in seconds.

    Attributes:
        page: objects on a page of a list; 0 is the whole list at once.
        request_seconds: limit of one page, and of the beginning of a watch.
        watch_seconds: shortest and longest life of a watch, drawn anew for each (client-go: 5 to 10 minutes).
        idle_seconds: a watch with neither event nor bookmark for so long is broken. The API server sends a bookmark
            about once a minute, at the latest after 75 s.
        short_seconds: a watch that ends sooner and without an event counts as a failure, so that a server (or a proxy)
            which closes every watch at once is not asked in a tight loop.
    """

    page: int = PAGE
    request_seconds: float = 30.0
    watch_seconds: tuple[float, float] = (300.0, 600.0)
    idle_seconds: float = 90.0
    short_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.idle_seconds <= 0 or self.request_seconds <= 0:
            raise ValueError("idle_seconds and request_seconds must be above 0: a request without a limit never ends")
        if not 0 < self.watch_seconds[0] <= self.watch_seconds[1]:
            raise ValueError(f"watch_seconds {self.watch_seconds}: shortest and longest life, in this order")


class ReflectorObserver(Protocol):
    """What a reflector tells about itself."""

    def listed(self, objects: int, seconds: float) -> None:
        """A complete list was taken in."""

    def watched(self, outcome: str) -> None:
        """A watch ended: `ended`, `expired` (410) or `broken`."""


class Reflector:
    """See the module. `run` never returns; cancel it.

    Args:
        client: the port.
        cache: what is kept in step; several reflectors with distinct namespaces may share one.
        namespace: watch only this one; None for all (or a cluster-scoped resource).
        label_selector: watch only what it selects; the server does the selecting.
        field_selector: likewise.
        metadata_only: ask for the objects' metadata only.
        settings: times.
        rng: jitter.
        observer: is told of lists and watches.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        settings: ReflectorSettings | None = None,
        rng: random.Random | None = None,
        observer: ReflectorObserver | None = None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._metadata_only = metadata_only
        self._settings = settings or ReflectorSettings()
        self._rng = rng or random.Random()  # noqa: S311 - spreads requests, keeps no secret
        self._observer = observer
        self._backoff = Backoff(self._rng)
        self._version = ""  # empty: a list is needed
        self._whole = False  # list in one piece: a paged one expired while it was read
        self._log = get_logger("reflector").bind(resource=cache.resource.plural, namespace=namespace or "")
        self.synced = asyncio.Event()
        """Set after the first complete list, for good: a cache that is behind is still one to answer from."""
        self.heard_at = 0.0
        """The loop's time of the last list, event or bookmark; how stale the cache may be."""

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                    self.synced.set()
                await self._watch()
            except Gone as error:
                self._version = ""
                self._tell("expired")
                if self._heard_something:
                    self._log.info("version expired, listing anew", error=str(error))
                else:
                    await self._pause(error)
            except ApiError as error:
                self._tell("broken")
                await self._pause(error)
            else:
                self._tell("ended")

    @property
    def _heard_something(self) -> bool:
        """Whether the last watch was worth its while; consumes the fact."""
        heard, self._heard = self._heard, False
        return heard

    _heard = False

    async def _list(self) -> None:
        started = self._now()
        present: set[Key] = set()
        token = ""
        while True:
            try:
                page = await self._client.list(
                    self._cache.resource,
                    namespace=self._namespace,
                    label_selector=self._labels,
                    field_selector=self._fields,
                    limit=0 if self._whole else self._settings.page,
                    continue_token=token,
                    metadata_only=self._metadata_only,
                    seconds=self._settings.request_seconds,
                )
            except Gone:
                self._whole = True
                raise
            for obj in page.get("items") or ():
                self._cache.put(obj)
                present.add(key_of(obj))
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._cache.retain(present, self._namespace)
        self._whole = False
        self._version = page["metadata"]["resourceVersion"]
        self.heard_at = self._now()
        if self._observer:
            self._observer.listed(len(present), self.heard_at - started)

    async def _watch(self) -> None:
        started = self._now()
        events = self._client.watch(
            self._cache.resource,
            namespace=self._namespace,
            label_selector=self._labels,
            field_selector=self._fields,
            resource_version=self._version,
            bookmarks=True,
            metadata_only=self._metadata_only,
            server_seconds=self._rng.uniform(*self._settings.watch_seconds),
            idle_seconds=self._settings.idle_seconds,
            seconds=self._settings.request_seconds,
        )
        self._heard = False
        async with aclosing(events):
            async for event in events:
                self._take_in(event)
                self._heard = True
                self.heard_at = self._now()
                self._backoff.reset()
        if not self._heard and self._now() - started < self._settings.short_seconds:
            raise Unavailable(f"watch of {self._cache.resource.plural} ended at once and without an event")
        self._backoff.reset()

    def _take_in(self, event: Object) -> None:
        obj: Object = event["object"]
        match event["type"]:
            case "ADDED" | "MODIFIED":
                version = obj["metadata"]["resourceVersion"]
                self._cache.put(obj)
            case "DELETED":
                version = obj["metadata"]["resourceVersion"]
                self._cache.drop(key_of(obj))
            case "BOOKMARK":
                version = obj["metadata"]["resourceVersion"]
            case unknown:
                raise Unavailable(f"watch of {self._cache.resource.plural}: unknown event {unknown!r}")
        self._version = version  # only now: what failed above is asked for again

    async def _pause(self, error: ApiError) -> None:
        delay = self._backoff.next(error.retry_after)
        self._log.warning("watch interrupted", error=str(error), retry_in_seconds=round(delay, 2))
        await asyncio.sleep(delay)

    def _tell(self, outcome: str) -> None:
        if self._observer:
            self._observer.watched(outcome)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def wait_for_sync(reflectors: list[Reflector], on_sync: Callable[[], None] | None = None) -> None:
    """Wait until every reflector has taken in its first list."""
    for reflector in reflectors:
        await reflector.synced.wait()
    if on_sync:
        on_sync()
