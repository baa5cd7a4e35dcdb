"""One Lease of a Kubernetes API server, over a client that the elector has for itself.

Every answer has one meaning for the election, named in `port`. What is no answer of an API server (a proxy's error
page, half a body, silence) leaves a write's outcome unknown.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Final

from tandem.runtime._election.port import LeaseBusy, LeaseConflict, LeaseError, LeaseNotFound, LeaseRefused
from tandem.runtime.client import Client
from tandem.runtime.errors import ApiError, Conflict, NotFound, TooManyRequests
from tandem.runtime.resources import LEASES

_OPEN_SECONDS: Final = 5.0
"""How long the server may take to accept a watch."""
_LEASE: Final = "Lease"


class ApiLeaseStore:
    """The `LeaseStore` of a real cluster.

    Args:
        client: The elector's own: with one that it shares, a renewal might queue behind something else.
        namespace: Of the Lease.
        name: Of the Lease.
    """

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name

    async def get(self, *, seconds: float) -> dict[str, Any]:
        """Read it; without a resourceVersion that is a read from the quorum."""
        with _translated():
            return _lease(await self._client.get(LEASES, self._name, namespace=self._namespace, seconds=seconds))

    async def create(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Create it."""
        with _translated():
            return _lease(await self._client.create(LEASES, lease, seconds=seconds))

    async def replace(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Replace it.

        Raises:
            ValueError: `lease` has no resourceVersion, and would overwrite whoever holds it.
        """
        with _translated():
            return _lease(await self._client.replace(LEASES, lease, seconds=seconds))

    async def watch(self, *, seconds: float) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Its present state and its changes.

        A watch without a resourceVersion begins with the present state, so there is no version that could be gone.
        """
        events = self._client.watch(
            LEASES,
            namespace=self._namespace,
            field_selector=f"metadata.name={self._name}",
            resource_version="",
            bookmarks=False,
            server_seconds=seconds,
            idle_seconds=seconds,
            seconds=_OPEN_SECONDS,
        )
        with _translated():
            async with aclosing(events):
                async for event in events:
                    yield event["type"], event["object"]


def _lease(found: dict[str, Any]) -> dict[str, Any]:
    if found.get("kind", _LEASE) != _LEASE:
        raise LeaseError(f"the answer is no Lease but a {found.get('kind')}")
    return found


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise _meaning(error) from error


def _meaning(error: ApiError) -> LeaseError:
    text, wait = str(error), error.retry_after or 0.0
    if isinstance(error, TooManyRequests):
        return LeaseBusy(text, retry_after=wait)
    if not error.reason:
        # No Status object, so not the API server's own words: nobody knows what became of the request.
        return LeaseError(text, retry_after=wait)
    if isinstance(error, NotFound):
        return LeaseNotFound(text)
    if isinstance(error, Conflict):
        return LeaseConflict(text)
    if 400 <= error.status < 500:
        return LeaseRefused(text, retry_after=wait)
    return LeaseError(text, retry_after=wait)
