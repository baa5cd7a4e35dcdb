"""The elector's Lease store over the port `Client`, so that elections run on a `FakeCluster`, faults and all."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from tandem.runtime._election.port import LeaseBusy, LeaseConflict, LeaseError, LeaseNotFound, LeaseRefused
from tandem.runtime.client import Client
from tandem.runtime.errors import ApiError, Conflict, NotFound, TooManyRequests
from tandem.runtime.resources import LEASES, Object


class PortLeaseStore:
    """One Lease behind a `Client`.

    Args:
        client: the port.
        namespace: the Lease's.
        name: the Lease's.
    """

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name

    async def get(self, *, seconds: float) -> Object:
        """See `LeaseStore`."""
        try:
            return await self._client.get(LEASES, self._name, namespace=self._namespace, seconds=seconds)
        except ApiError as error:
            raise _meaning(error) from error

    async def create(self, lease: Object, *, seconds: float) -> Object:
        """See `LeaseStore`."""
        try:
            return await self._client.create(LEASES, lease, seconds=seconds)
        except ApiError as error:
            raise _meaning(error) from error

    async def replace(self, lease: Object, *, seconds: float) -> Object:
        """See `LeaseStore`."""
        try:
            return await self._client.replace(LEASES, lease, seconds=seconds)
        except ApiError as error:
            raise _meaning(error) from error

    async def watch(self, *, seconds: float) -> AsyncGenerator[tuple[str, Object], None]:
        """See `LeaseStore`."""
        selector = f"metadata.name={self._name}"
        try:
            found = await self._client.list(LEASES, namespace=self._namespace, field_selector=selector, seconds=seconds)
            yield "OPEN", {}
            for lease in found["items"]:
                yield "ADDED", lease
            events = self._client.watch(
                LEASES,
                namespace=self._namespace,
                field_selector=selector,
                resource_version=found["metadata"]["resourceVersion"],
                server_seconds=seconds,
                idle_seconds=seconds,
                seconds=seconds,
            )
            async with aclosing(events):
                async for event in events:
                    yield event["type"], event["object"]
        except ApiError as error:
            raise _meaning(error) from error


def _meaning(error: ApiError) -> LeaseError:
    if isinstance(error, NotFound):
        return LeaseNotFound(str(error))
    if isinstance(error, Conflict):
        return LeaseConflict(str(error))
    if isinstance(error, TooManyRequests):
        return LeaseBusy(str(error), retry_after=error.retry_after or 0.0)
    if 400 <= error.status < 500:
        return LeaseRefused(str(error))
    return LeaseError(str(error))
