"""What the elector needs of the API: one Lease, four verbs, and errors that say what is known about a write."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from tandem.runtime._election.core import Outcome


class LeaseError(Exception):
    """A request about the Lease failed; whether a write was applied is not known."""

    outcome = Outcome.UNKNOWN

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LeaseNotFound(LeaseError):  # noqa: N818 - what the API calls it
    """There is no such Lease (404)."""

    outcome = Outcome.ABSENT


class LeaseConflict(LeaseError):  # noqa: N818 - what the API calls it
    """The Lease changed since it was read, or exists already (409). The write was not applied."""

    outcome = Outcome.CONFLICT


class LeaseRefused(LeaseError):  # noqa: N818 - what the API calls it
    """The server refused (other 4xx): not applied."""

    outcome = Outcome.REFUSED


class LeaseBusy(LeaseRefused):
    """The server asks to come back later (429): not applied. `retry_after` is in seconds."""


class LeaseStore(Protocol):
    """One Lease, wherever it is kept.

    Every call gives up after `seconds`, and the elector also cancels it then. It may raise anything: what is not one
    of the errors above counts as `LeaseError`. It must not share a connection pool with watches of many objects or
    with writes of the controller: a renewal may wait for nobody.
    """

    async def get(self, *, seconds: float) -> dict[str, Any]:
        """The Lease, read from the quorum, not from a cache."""
        ...

    async def create(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Create it; `LeaseConflict` when it exists."""
        ...

    async def replace(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Replace it if its resourceVersion is still the one in `lease`; else `LeaseConflict`."""
        ...

    def watch(self, *, seconds: float) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Its present state as ADDED and then its changes, as (type, object), for about `seconds`.

        The generator first yields ("OPEN", {}) once the server has accepted the watch.
        """
        ...
