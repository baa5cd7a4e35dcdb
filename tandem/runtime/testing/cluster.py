"""An API server in memory behind the port `Client`: versions, watches, history, conflicts, and faults on demand.

It keeps what controllers rely on: one counter of resourceVersions for everything, compare-and-swap on it, no new
version for a write that changes nothing, watches from any version that the history still holds and 410 for older ones.
It does not keep schemas, defaults, admission or field ownership: `apply` merges, and never removes a field.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tandem.runtime import selectors
from tandem.runtime.client import PAGE
from tandem.runtime.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound, Unavailable
from tandem.runtime.resources import Key, Object, Resource, key_of, version_of
from tandem.runtime.writer import merged

T = TypeVar("T")
WRITES = ("create", "replace", "apply", "patch_status")


@dataclass
class Fault:
    """What is to happen to requests instead of, or before, what they ask for.

    Attributes:
        verb: `list`, `watch`, `get`, one of `WRITES`, or `*`.
        plural: of which resource; `*` for all.
        error: raised instead of an answer.
        delay: seconds before the request is looked at; infinity hangs it until the caller's limit.
        after: the request takes effect first and its answer is lost: then `error` or `delay` follows.
        times: how many requests it befalls; None is all, until it is removed.
        client: befalls only the client of this name.
    """

    verb: str = "*"
    plural: str = "*"
    error: ApiError | None = None
    delay: float = 0.0
    after: bool = False
    times: int | None = 1
    client: str = "*"

    def befalls(self, client: str, verb: str, plural: str) -> bool:
        """Whether this request is one of them; counts it if so."""
        if self.times == 0 or any(
            wanted not in ("*", given)
            for wanted, given in ((self.client, client), (self.verb, verb), (self.plural, plural))
        ):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True)
class Write:
    """A write that was accepted. `changed` is false when the stored object was the same already."""

    client: str
    verb: str
    plural: str
    key: Key
    field_manager: str
    changed: bool
    at: float
    body: Object = field(repr=False)


@dataclass(frozen=True)
class _Change:
    version: int
    plural: str
    kind: str
    obj: Object
    old: Object | None


class FakeCluster:
    """See the module.

    Attributes:
        writes: every accepted write of a client, in the server's order.
        requests: `(client, verb, plural)` of every request, also of those that failed.
        faults: what is to go wrong; append a `Fault`.
    """

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.requests: list[tuple[str, str, str]] = []
        self.faults: list[Fault] = []
        self._objects: dict[tuple[str, Key], Object] = {}
        self._history: list[_Change] = []
        self._oldest = 0
        self._version = 0
        self._watchers: set[asyncio.Event] = set()
        self._breaks = 0
        self._pages: dict[str, list[Object]] = {}

    def client(self, name: str = "test") -> FakeClient:
        """A client of this cluster; the name shows in `writes` and picks faults."""
        return FakeClient(self, name)

    @property
    def version(self) -> str:
        """The newest resourceVersion."""
        return str(self._version)

    def objects(self, resource: Resource) -> list[Object]:
        """Copies of all stored objects of a resource, by key."""
        found = [(key, obj) for (plural, key), obj in self._objects.items() if plural == resource.plural]
        return [copy.deepcopy(obj) for _, obj in sorted(found, key=lambda pair: pair[0])]

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """A copy of a stored object, or None."""
        return copy.deepcopy(self._objects.get((resource.plural, Key(namespace, name))))

    def put(self, resource: Resource, obj: Object) -> Object:
        """Create or replace an object as somebody else would; a copy as stored."""
        stored = copy.deepcopy(obj)
        key = key_of(stored)
        old = self._objects.get((resource.plural, key))
        return self._store(resource, stored, old)

    def delete(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Delete an object.

        Raises:
            KeyError: there is none.
        """
        old = self._objects.pop((resource.plural, Key(namespace, name)))
        self._version += 1
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": self.version}}
        self._record(resource, "DELETED", gone, old)

    def compact(self) -> None:
        """Forget the history: a watch or a page of an older version is answered with 410."""
        self._oldest = self._version
        self._history.clear()
        self._pages.clear()

    def break_watches(self) -> None:
        """Cut all watches that run now."""
        self._breaks += 1
        self._wake()

    # --- what the clients do ------------------------------------------------------------------------------------------

    def _get(self, resource: Resource, key: Key) -> Object:
        obj = self._objects.get((resource.plural, key))
        if obj is None:
            raise NotFound(f"{resource.plural} {key} not found", status=404, reason="NotFound")
        return obj

    def _store(self, resource: Resource, obj: Object, old: Object | None) -> Object:
        metadata = obj["metadata"]
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        if old is not None:
            for name in ("uid", "creationTimestamp"):
                metadata[name] = old["metadata"][name]
            metadata["resourceVersion"] = version_of(old)
            if obj == old:
                return copy.deepcopy(old)
        else:
            metadata.setdefault("uid", str(uuid.UUID(int=self._version + 1)))
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self._version += 1
        metadata["resourceVersion"] = self.version
        self._objects[resource.plural, key_of(obj)] = obj
        self._record(resource, "ADDED" if old is None else "MODIFIED", obj, old)
        return copy.deepcopy(obj)

    def _record(self, resource: Resource, kind: str, obj: Object, old: Object | None) -> None:
        self._history.append(_Change(self._version, resource.plural, kind, copy.deepcopy(obj), old))
        self._wake()

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    def _changes(self, resource: Resource, since: int) -> Iterator[_Change]:
        return (c for c in self._history if c.version > since and c.plural == resource.plural)

    def _since(self, version: str) -> int:
        """A version that the history still reaches back to; empty is the present one.

        Raises:
            Gone: it does not.
        """
        if not version:
            return self._version
        if int(version) < self._oldest:
            raise Gone(f"too old resource version: {version} ({self._oldest})", status=410, reason="Expired")
        return int(version)

    def _page(self, scope: _Scope, limit: int, token: str, metadata_only: bool) -> Object:
        """One page; the pages of a list are of one version, and gone after a compaction."""
        if token:
            if token not in self._pages:
                raise Gone("the provided continue parameter is too old", status=410, reason="Expired")
            version, rest = token.split("/", maxsplit=1)[0], self._pages.pop(token)
        else:
            version, rest = self.version, [obj for obj in self.objects(scope.resource) if scope.holds(obj)]
        page, rest = (rest[:limit], rest[limit:]) if limit else (rest, [])
        metadata = {"resourceVersion": version}
        if rest:
            metadata["continue"] = f"{version}/{uuid.uuid4()}"
            self._pages[metadata["continue"]] = rest
        for obj in page:
            del obj["apiVersion"], obj["kind"]  # as the real server does in lists of built-in kinds
        items = [{"metadata": obj["metadata"]} for obj in page] if metadata_only else page
        return {"kind": f"{scope.resource.kind}List", "metadata": metadata, "items": items}

    async def _events(self, scope: _Scope, version: int, server_seconds: float) -> AsyncGenerator[Object, None]:
        """Events after a version until the time is over or the watch is broken."""
        breaks, news = self._breaks, asyncio.Event()
        self._watchers.add(news)
        try:
            async with asyncio.timeout(server_seconds):
                while True:
                    for change in list(self._changes(scope.resource, version)):
                        version = change.version
                        if event := scope.event(change):
                            yield event
                    await news.wait()
                    news.clear()
                    if self._breaks != breaks:
                        raise Unavailable("watch: connection reset by peer")
        except TimeoutError:
            return
        finally:
            self._watchers.discard(news)

    def _write(self, who: str, verb: str, resource: Resource, obj: Object, old: Object | None, manager: str) -> Object:
        before = self._version
        stored = self._store(resource, obj, old)
        changed = self._version != before
        now = asyncio.get_running_loop().time()
        body = copy.deepcopy(stored)
        self.writes.append(Write(who, verb, resource.plural, key_of(stored), manager, changed, now, body))
        return stored


@dataclass(frozen=True)
class _Scope:
    """Which objects a list or watch is about."""

    resource: Resource
    namespace: str | None
    labels: selectors.Selector
    fields: dict[str, str]

    @classmethod
    def of(cls, resource: Resource, namespace: str | None, label_selector: str, field_selector: str) -> _Scope:
        fields = dict(part.split("=", 1) for part in field_selector.split(",") if part)
        return cls(resource, namespace, selectors.parse(label_selector), fields)

    def holds(self, obj: Object) -> bool:
        metadata = obj["metadata"]
        return (
            (not self.namespace or metadata.get("namespace", "") == self.namespace)
            and selectors.matches(self.labels, metadata.get("labels") or {})
            and all(_field(obj, path) == value for path, value in self.fields.items())
        )

    def event(self, change: _Change) -> Object | None:
        """What a watcher of this scope is told; an object that leaves the scope is deleted to it."""
        now, before = self.holds(change.obj), change.old is not None and self.holds(change.old)
        if not now and not before:
            return None
        kind = change.kind
        if kind == "MODIFIED":
            kind = "DELETED" if not now else "MODIFIED" if before else "ADDED"
        return {"type": kind, "object": copy.deepcopy(change.obj)}


class FakeClient:
    """The port `Client` on a `FakeCluster`; see there for faults."""

    def __init__(self, cluster: FakeCluster, name: str) -> None:
        self._cluster = cluster
        self.name = name

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
        continue_token: str = "",
        resource_version: str = "",
        metadata_only: bool = False,
        seconds: float,
    ) -> Object:
        """See `Client.list`; `resource_version` is taken for the newest."""
        scope = _Scope.of(resource, namespace, label_selector, field_selector)
        return await self._ask(
            "list", resource, seconds, lambda: self._cluster._page(scope, limit, continue_token, metadata_only)
        )

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        bookmarks: bool = True,
        metadata_only: bool = False,
        server_seconds: float,
        idle_seconds: float,
        seconds: float,
    ) -> AsyncGenerator[Object, None]:
        """See `Client.watch`; sends no bookmarks, and is therefore silent only until `idle_seconds`."""
        scope = _Scope.of(resource, namespace, label_selector, field_selector)
        version = await self._ask("watch", resource, seconds, lambda: self._cluster._since(resource_version))
        for obj in [] if resource_version else self._cluster.objects(resource):
            if scope.holds(obj):
                yield {"type": "ADDED", "object": obj}
        idle = idle_seconds < server_seconds
        async with aclosing(self._cluster._events(scope, version, min(server_seconds, idle_seconds))) as events:
            async for event in events:
                idle = False
                obj = event["object"]
                yield {**event, "object": {"metadata": obj["metadata"]}} if metadata_only else event
        if idle:
            raise Unavailable(f"watch: no answer within {idle_seconds:g} s")

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None, seconds: float) -> Object:
        """See `Client.get`."""
        key = Key(namespace or "", name)
        return await self._ask("get", resource, seconds, lambda: copy.deepcopy(self._cluster._get(resource, key)))

    async def create(self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float) -> Object:
        """See `Client.create`."""

        def act() -> Object:
            key = key_of(body)
            if (resource.plural, key) in self._cluster._objects:
                raise AlreadyExists(f"{resource.plural} {key} already exists", status=409, reason="AlreadyExists")
            return self._write("create", resource, copy.deepcopy(body), None, field_manager)

        return await self._ask("create", resource, seconds, act)

    async def replace(self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float) -> Object:
        """See `Client.replace`."""

        def act() -> Object:
            return self._write("replace", resource, copy.deepcopy(body), self._current(resource, body), field_manager)

        return await self._ask("replace", resource, seconds, act)

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str = "",
        seconds: float,
    ) -> Object:
        """See `Client.apply`; merges, and removes nothing."""

        def act() -> Object:
            old = self._current(resource, body)
            return self._write("apply", resource, merged(old, body), old, field_manager)

        return await self._ask("apply", resource, seconds, act)

    async def patch_status(
        self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float
    ) -> Object:
        """See `Client.patch_status`."""

        def act() -> Object:
            old = self._current(resource, body)
            new = merged(old, {"status": body["status"]})
            return self._write("patch_status", resource, new, old, field_manager)

        return await self._ask("patch_status", resource, seconds, act)

    def _current(self, resource: Resource, body: Object) -> Object:
        if not version_of(body):
            raise ValueError(f"{resource.kind} {key_of(body)}: a write needs the resourceVersion it was decided on")
        old = self._cluster._get(resource, key_of(body))
        if version_of(old) != version_of(body):
            raise Conflict(
                f"{resource.plural} {key_of(body)}: the object has been modified", status=409, reason="Conflict"
            )
        return old

    def _write(self, verb: str, resource: Resource, obj: Object, old: Object | None, manager: str) -> Object:
        return self._cluster._write(self.name, verb, resource, obj, old, manager)

    async def _ask(self, verb: str, resource: Resource, seconds: float, act: Callable[[], T]) -> T:
        """One request with the faults that befall it."""
        cluster = self._cluster
        cluster.requests.append((self.name, verb, resource.plural))
        fault = next((f for f in cluster.faults if f.befalls(self.name, verb, resource.plural)), Fault(times=0))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(0)
                if fault.after:
                    answer = act()
                await asyncio.sleep(fault.delay)
                if fault.error:
                    raise fault.error
                return answer if fault.after else act()
        except TimeoutError:
            raise Unavailable(f"{verb} {resource.plural}: no answer within {seconds:g} s") from None


def _field(obj: Object, path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
