"""The only way by which a controller changes the cluster: every write passes the fence and names its base.

Three things stand between a leader that was replaced and an object, each where the one before cannot reach:

1. `fence.check()` immediately before the request, and no request that outlives the lead.
2. The resourceVersion that the write was decided on, for the server to compare. A process that was stopped between the
   check and the socket is refused as soon as its successor has written the object.
3. The epoch in the status, for a later leader (and a reader) to see whose word it is; ours is never put over a higher.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from tandem.runtime.client import Client
from tandem.runtime.errors import ApiError
from tandem.runtime.fence import Fence, NotLeading, check_epoch
from tandem.runtime.resources import Key, Object, Resource, key_of, version_of

WRITE_SECONDS: Final = 10.0
"""Limit of one write: the renew deadline, for what takes longer than that has lost its lease meanwhile."""


class WriteObserver(Protocol):
    """Is told of each write: `ok`, `skipped` (nothing to change), `fenced`, or the name of the error."""

    def __call__(self, verb: str, outcome: str) -> None:
        """One write."""


class Writer:
    """Writes for one controller, under one field manager.

    Args:
        client: the port.
        fence: says whether we may write, and in which epoch.
        field_manager: who owns the fields that we write; one per controller, the same in all its replicas and shards,
            or a takeover would leave two owners.
        epoch_field: the field of a status that carries the epoch; None where a resource has no place for it.
        seconds: limit of one write.
        observer: is told of each write.
    """

    def __init__(
        self,
        client: Client,
        fence: Fence,
        field_manager: str,
        *,
        epoch_field: str | None = None,
        seconds: float = WRITE_SECONDS,
        observer: WriteObserver | None = None,
    ) -> None:
        self._client = client
        self._fence = fence
        self._manager = field_manager
        self._epoch_field = epoch_field
        self._seconds = seconds
        self._observer = observer

    @property
    def epoch(self) -> int:
        """The epoch under which we write; 0 without election."""
        return self._fence.epoch

    async def create(self, resource: Resource, body: Object) -> Object:
        """Create an object; the object as stored.

        Give it a name that follows from what it is for: `generateName` makes a second one when an answer is lost.

        Raises:
            NotLeading: nothing was sent.
            AlreadyExists: it is there.
            ApiError: as in `Client`.
        """
        return await self._send(
            "create",
            lambda seconds: self._client.create(resource, body, field_manager=self._manager, seconds=seconds),
        )

    async def replace(self, resource: Resource, body: Object) -> Object:
        """Put `body` in place of the version that it was made of; the object as stored.

        Raises:
            NotLeading: nothing was sent.
            Conflict: the object has changed since.
            ApiError: as in `Client`.
        """
        return await self._send(
            "replace",
            lambda seconds: self._client.replace(resource, body, field_manager=self._manager, seconds=seconds),
        )

    async def apply(self, resource: Resource, observed: Object, fields: Object) -> Object:
        """Own `fields` of an object by server-side apply; the object as stored.

        Args:
            resource: what the object is.
            observed: the object that the decision was made on: name and version are taken from it.
            fields: what is to be as we say, without metadata that names the object.

        Raises:
            NotLeading: nothing was sent.
            Conflict: the object has changed since.
            ApiError: as in `Client`.
        """
        body = _identified(resource, observed, fields)
        return await self._send(
            "apply",
            lambda seconds: self._client.apply(resource, body, field_manager=self._manager, seconds=seconds),
        )

    async def patch_status(self, resource: Resource, observed: Object, status: Mapping[str, Any]) -> Object:
        """Merge `status` into the object's, unless it says so already; the object as stored (or `observed`).

        Whether something is to be changed is judged without the epoch: a new leader does not rewrite ten thousand
        objects to say that it is the new leader.

        Raises:
            NotLeading: nothing was sent; `StaleEpoch` when the status is of a later leader.
            Conflict: the object has changed since.
            ApiError: as in `Client`.
        """
        stored = observed.get("status") or {}
        if merged(stored, status) == stored:
            self._tell("patch_status", "skipped")
            return observed
        status = dict(status)
        if self._epoch_field is not None:
            check_epoch(self._fence, stored.get(self._epoch_field))
            status[self._epoch_field] = self._fence.epoch
        body = _identified(resource, observed, {"status": status})
        return await self._send(
            "patch_status",
            lambda seconds: self._client.patch_status(resource, body, field_manager=self._manager, seconds=seconds),
        )

    async def _send(self, verb: str, send: Callable[[float], Awaitable[Object]]) -> Object:
        try:
            left = self._fence.check()  # the last thing before the request; keep it so
            stored = await send(min(self._seconds, left))
        except NotLeading:
            self._tell(verb, "fenced")
            raise
        except ApiError as error:
            self._tell(verb, type(error).__name__)
            raise
        self._tell(verb, "ok")
        return stored

    def _tell(self, verb: str, outcome: str) -> None:
        if self._observer:
            self._observer(verb, outcome)


def merged(old: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386) on a value: null removes, objects merge, all else replaces. A new object."""
    new = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        elif isinstance(value, Mapping):
            new[name] = merged(new.get(name), value)
        else:
            new[name] = copy.deepcopy(value)
    return new


def _identified(resource: Resource, observed: Object, fields: Object) -> Object:
    """`fields` as a body that says which object and which version of it they are for."""
    key: Key = key_of(observed)
    metadata = {**fields.get("metadata", {}), "name": key.name, "resourceVersion": version_of(observed)}
    if key.namespace:
        metadata["namespace"] = key.namespace
    return {**fields, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
