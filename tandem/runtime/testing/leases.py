"""A Lease in memory with a bad network before it, one by one: hang, slow, reset, 409, 410, 429, 500, an HTML page.

    lease = FakeLease()
    mine, yours = lease.store("mine"), lease.store("yours")
    mine.faults.append(Fault("hang", verb="replace"))

Versions, uids and conflicts are those of a real API server; watches begin with the present state.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

from tandem.runtime._election.port import LeaseBusy, LeaseConflict, LeaseError, LeaseNotFound, LeaseRefused

Kind = Literal["hang", "slow", "reset", "conflict", "gone", "busy", "refused", "error", "html"]
Event = tuple[str, dict[str, Any]]


@dataclass
class Fault:
    """What befalls requests.

    Attributes:
        kind: hang (until the caller gives up), slow (answered after `seconds`), reset (ConnectionResetError), conflict
            (409), gone (410), busy (429 with Retry-After `seconds`), refused (403), error (500), html (a proxy's page
            that a careless client tries to read as JSON).
        verb: get, create, replace, watch, or * for all.
        after: The write takes effect first, and only its answer is lost or late.
        times: How many requests; None is all until it is removed.
        seconds: See `kind`.
    """

    kind: Kind
    verb: str = "*"
    after: bool = False
    times: int | None = 1
    seconds: float = 1.0


class FakeLease:
    """The Lease, its history and who watches it.

    Attributes:
        lease: As stored; None when there is none.
        writes: (who, verb, holder) of each write that took effect.
    """

    def __init__(self, lease: dict[str, Any] | None = None) -> None:
        self.lease: dict[str, Any] | None = None
        self.writes: list[tuple[str, str, str]] = []
        self._version = 0
        self._uids = 0
        self._watches: dict[asyncio.Queue[Event | BaseException], FakeStore] = {}
        if lease is not None:
            self.put(lease)

    def store(self, who: str = "") -> FakeStore:
        """A way to it, with faults of its own."""
        return FakeStore(self, who)

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as stored."""
        assert self.lease is not None, "there is no Lease"  # noqa: S101 - for tests
        spec: dict[str, Any] = self.lease["spec"]
        return spec

    @property
    def holder(self) -> str:
        """Who holds it; empty when nobody, or when there is none."""
        return str(self.lease["spec"].get("holderIdentity") or "") if self.lease else ""

    def put(self, lease: dict[str, Any]) -> dict[str, Any]:
        """Store it, whatever was there: as a person does with `kubectl edit` or `create`."""
        self._version += 1
        stored = copy.deepcopy(lease)
        metadata = stored.setdefault("metadata", {})
        stored.setdefault("spec", {})
        kind = "MODIFIED" if self.lease is not None else "ADDED"
        if self.lease is not None:
            metadata["uid"] = self.lease["metadata"]["uid"]
        else:
            self._uids += 1
            metadata["uid"] = f"uid-{self._uids}"
        metadata["resourceVersion"] = str(self._version)
        self.lease = stored
        self._publish(kind, stored)
        return copy.deepcopy(stored)

    def edit(self, **spec: Any) -> None:
        """Change fields of the spec by hand."""
        assert self.lease is not None, "there is no Lease"  # noqa: S101
        self.put({**self.lease, "spec": {**self.lease["spec"], **spec}})

    def annotate(self, **annotations: str) -> None:
        """Change annotations by hand."""
        assert self.lease is not None, "there is no Lease"  # noqa: S101
        self.put({**self.lease, "metadata": {**self.lease["metadata"], "annotations": annotations}})

    def delete(self) -> None:
        """Delete it by hand."""
        assert self.lease is not None, "there is no Lease"  # noqa: S101
        self._version += 1
        gone, self.lease = self.lease, None
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._publish("DELETED", gone)

    def break_watches(self) -> None:
        """Reset every open watch."""
        for queue in self._watches:
            queue.put_nowait(ConnectionResetError("watch"))

    def _publish(self, kind: str, lease: dict[str, Any]) -> None:
        for queue, store in self._watches.items():
            if not store.deaf:
                queue.put_nowait((kind, copy.deepcopy(lease)))


class FakeStore:
    """One candidate's way to the Lease.

    Attributes:
        faults: What befalls its requests; the first that fits counts.
        deaf: Its watches look alive and say nothing.
        requests: (time, verb) of every request, by the loop's clock.
    """

    def __init__(self, lease: FakeLease, who: str) -> None:
        self._lease = lease
        self._who = who
        self.faults: list[Fault] = []
        self.deaf = False
        self.requests: list[tuple[float, str]] = []

    async def get(self, *, seconds: float) -> dict[str, Any]:
        """Read it."""
        return await self._serve("get", None)

    async def create(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Create it."""
        return await self._serve("create", lease)

    async def replace(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Replace it."""
        return await self._serve("replace", lease)

    async def watch(self, *, seconds: float) -> AsyncGenerator[Event, None]:
        """Watch it."""
        fault = self._fault("watch")
        if fault is not None:
            await self._suffer(fault)
        queue: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._lease._watches[queue] = self
        try:
            yield "OPEN", {}
            if self._lease.lease is not None and not self.deaf:
                yield "ADDED", copy.deepcopy(self._lease.lease)
            while True:
                event = await queue.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            del self._lease._watches[queue]

    async def _serve(self, verb: str, lease: dict[str, Any] | None) -> dict[str, Any]:
        self.requests.append((asyncio.get_running_loop().time(), verb))
        fault = self._fault(verb)
        if fault is not None and not fault.after:
            await self._suffer(fault)
        await asyncio.sleep(0.001)
        answer = self._apply(verb, lease)
        await asyncio.sleep(0.001)
        if fault is not None and fault.after:
            await self._suffer(fault)
        return answer

    def _apply(self, verb: str, lease: dict[str, Any] | None) -> dict[str, Any]:
        stored = self._lease.lease
        if verb == "create":
            if stored is not None:
                raise LeaseConflict("409 AlreadyExists")
        elif stored is None:
            raise LeaseNotFound("404 NotFound")
        elif lease is not None and lease["metadata"].get("resourceVersion") != stored["metadata"]["resourceVersion"]:
            if not lease["metadata"].get("resourceVersion"):
                raise AssertionError("a replace without resourceVersion overwrites whoever holds the Lease")
            raise LeaseConflict("409 Conflict")
        if lease is None:
            return copy.deepcopy(stored) if stored is not None else {}
        self._lease.writes.append((self._who, verb, str(lease["spec"].get("holderIdentity") or "")))
        return self._lease.put(lease)

    def _fault(self, verb: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb in ("*", verb) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def _suffer(self, fault: Fault) -> None:
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            return
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "html":
            json.loads("<html><body>502 Bad Gateway</body></html>")
        raise {
            "reset": ConnectionResetError("reset by peer"),
            "conflict": LeaseConflict("409 Conflict"),
            "gone": LeaseError("410 Gone"),
            "busy": LeaseBusy("429", retry_after=fault.seconds),
            "refused": LeaseRefused("403 Forbidden"),
            "error": LeaseError("500 Internal Server Error"),
        }[fault.kind]
