"""A controller: what it watches, and one function that makes the cluster agree with one object.

The function gets a key, not an event: it looks at the present state and does what is missing, so that it can be called
at any time, twice, or after a crash. It returns `Done`, or `RequeueAfter` to be called again without news, or raises to
be called again with back-off. Never are two calls for the same key under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from structlog.typing import FilteringBoundLogger

from tandem.runtime import workqueue
from tandem.runtime.cache import Cache, Indexer
from tandem.runtime.client import Client
from tandem.runtime.events import EventRecorder
from tandem.runtime.logging import get_logger
from tandem.runtime.reflector import ReflectorSettings
from tandem.runtime.resources import Key, Object, Resource, key_of
from tandem.runtime.writer import Writer


@dataclass(frozen=True)
class Done:
    """The object is as it should be; come again when something changes."""


@dataclass(frozen=True)
class RequeueAfter:
    """Come again after so many seconds even if nothing changes; a change comes sooner.

    Raises:
        ValueError: not above 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"RequeueAfter({self.seconds}): to be called at once again is to spin; raise, or wait")


Result = Done | RequeueAfter


def checked(result: object) -> Result:
    """What a reconcile returned, if it is one of the two.

    Raises:
        TypeError: it is neither; a forgotten `return` is the usual reason.
    """
    if not isinstance(result, Done | RequeueAfter):
        raise TypeError(f"reconcile returned {result!r}; Done() or RequeueAfter(seconds) is asked for")
    return result


@dataclass(frozen=True, slots=True)
class Context:
    """What a reconcile works with.

    Attributes:
        cache: the objects of the controller's first watch; read-only, copy before you change one.
        caches: all of them, by the watches' names.
        client: for reads that must be fresh. Writes go through `writer` and nothing else.
        writer: fenced writes.
        events: Events about objects.
        key: what is reconciled.
        controller: the controller's name, or the shard's.
        attempt: how often this key has failed in a row; 0 at first.
    """

    cache: Cache
    caches: Mapping[str, Cache]
    client: Client
    writer: Writer
    events: EventRecorder
    key: Key
    controller: str
    attempt: int = 0

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger with controller, key and epoch bound."""
        return get_logger("reconcile").bind(controller=self.controller, key=str(self.key), epoch=self.epoch)

    @property
    def epoch(self) -> int:
        """Which lead this is; higher than that of every earlier leader, 0 without election."""
        return self.writer.epoch


Reconcile = Callable[[Key, Context], Awaitable[Result]]


def own_key(obj: Object) -> Iterable[Key]:
    """The object is what is reconciled."""
    return (key_of(obj),)


def spec_changed(old: Object, new: Object) -> bool:
    """Whether more than the status changed: for kinds whose generation the API server counts."""
    before, after = old["metadata"], new["metadata"]
    return any(
        before.get(name) != after.get(name)
        for name in ("generation", "uid", "labels", "annotations", "deletionTimestamp", "finalizers")
    )


@dataclass(frozen=True)
class Watch:
    """One kind of object that a controller follows.

    Attributes:
        resource: the kind.
        maps: the keys that are to be reconciled when such an object comes, changes or goes; default its own.
        matters: whether a change from one version to the next is worth a reconcile; default every one.
        label_selector: follow only what it selects, in addition to the scope's.
        field_selector: likewise.
        metadata_only: fetch and keep only the metadata: a tenth of the memory where the rest is not looked at.
        indexers: indexes of the cache.
        scoped: whether the controller's scope limits this watch. False for what all shards look at (nodes, say).
        name: of its cache in `Context.caches`; default the resource's plural.
    """

    resource: Resource
    maps: Callable[[Object], Iterable[Key]] = own_key
    matters: Callable[[Object, Object], bool] | None = None
    label_selector: str = ""
    field_selector: str = ""
    metadata_only: bool = False
    indexers: Mapping[str, Indexer] = field(default_factory=dict)
    scoped: bool = True
    name: str = ""

    @property
    def cache_name(self) -> str:
        """The name of its cache."""
        return self.name or self.resource.plural


@dataclass(frozen=True)
class ControllerSettings:
    """How a controller works, apart from what it does.

    Attributes:
        concurrency: keys that are worked on at the same time.
        backoff_seconds: first and longest delay of a key that fails; doubles (controller-runtime: 5 ms to 1000 s).
        reconcile_seconds: limit of one call; it fails then, and is tried again. None has none.
        reconcile_absent: call also for keys whose object is not in the first watch's cache. Off, such a key is dropped
            when its turn comes: it was deleted, or has left the scope.
        stuck_seconds: /healthz fails when every worker has been at the same key for so long.
        epoch_field: the field of a status in which the epoch is written; None leaves it out.
        field_manager: default the controller's name.
        reflector: times of lists and watches.
    """

    concurrency: int = 4
    backoff_seconds: tuple[float, float] = (workqueue.BASE_SECONDS, workqueue.CAP_SECONDS)
    reconcile_seconds: float | None = None
    reconcile_absent: bool = False
    stuck_seconds: float = 300.0
    epoch_field: str | None = None
    field_manager: str = ""
    reflector: ReflectorSettings = field(default_factory=ReflectorSettings)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency {self.concurrency}: a controller without workers does nothing")
        if not 0 < self.backoff_seconds[0] <= self.backoff_seconds[1]:
            raise ValueError(f"backoff_seconds {self.backoff_seconds}: first and longest delay, in this order")


@dataclass(frozen=True)
class Controller:
    """A controller's definition; `tandem.runtime.run` makes a process of it.

    Attributes:
        name: of its Lease, its field manager, its metrics.
        reconcile: see the module.
        watches: what it follows; the first is what it is about.
        settings: how it works.
    """

    name: str
    reconcile: Reconcile
    watches: Sequence[Watch]
    settings: ControllerSettings = field(default_factory=ControllerSettings)

    def __post_init__(self) -> None:
        if not self.watches:
            raise ValueError(f"controller {self.name}: it watches nothing")
        names = [watch.cache_name for watch in self.watches]
        if len(set(names)) < len(names):
            raise ValueError(f"controller {self.name}: two watches have one name ({', '.join(names)}); set Watch.name")
