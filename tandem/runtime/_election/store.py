"""One Lease of a Kubernetes API server, over a session that the elector has for itself.

Raw JSON and explicit time limits. Every status has one meaning for the election, named in `port`; anything that is no
answer of an API server (a proxy's error page, half a body) leaves a write's outcome unknown.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

import aiohttp

from tandem.runtime._election.port import LeaseBusy, LeaseConflict, LeaseError, LeaseNotFound, LeaseRefused

_EVENT_BYTES = 4 << 20
"""Longest line of a watch; a Lease has some 600 bytes."""
_HEADER_SECONDS = 10.0
"""How long a server may take to accept a watch."""


class Transport(Protocol):
    """How to reach an API server: a session of the elector's own, and who we are."""

    base: str
    """Address without a slash at the end."""
    session: aiohttp.ClientSession
    options: Mapping[str, Any]
    """Further arguments of each request (proxy, server_hostname)."""

    async def credentials(self) -> Mapping[str, str]:
        """Headers that say who we are, brought up to date when they can change."""
        ...

    def forget_credentials(self) -> None:
        """The server refused them: read them anew for the next request."""
        ...


class ApiLeaseStore:
    """The `LeaseStore` of a real cluster."""

    def __init__(self, transport: Transport, namespace: str, name: str) -> None:
        self._transport = transport
        self._name = name
        self._collection = f"{transport.base}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def get(self, *, seconds: float) -> dict[str, Any]:
        """Read it; without a resourceVersion that is a read from the quorum."""
        return await self._call("GET", f"{self._collection}/{self._name}", None, seconds)

    async def create(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Create it."""
        return await self._call("POST", self._collection, lease, seconds)

    async def replace(self, lease: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Replace it.

        Raises:
            ValueError: `lease` has no resourceVersion, and would overwrite whoever holds it.
        """
        if not lease["metadata"].get("resourceVersion"):
            raise ValueError("a Lease is replaced with the resourceVersion it was read with, or not at all")
        return await self._call("PUT", f"{self._collection}/{self._name}", lease, seconds)

    async def watch(self, *, seconds: float) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Its present state and its changes."""
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={self._name}",
            "timeoutSeconds": str(int(seconds)),
        }
        limit = aiohttp.ClientTimeout(total=None, sock_connect=_HEADER_SECONDS)
        async with self._transport.session.get(
            self._collection,
            params=query,
            headers=await self._transport.credentials(),
            timeout=limit,
            **self._transport.options,
        ) as answer:
            if answer.status != 200:
                self._raise(answer, await answer.read())
            yield "OPEN", {}
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                if len(buffer) > _EVENT_BYTES:
                    raise LeaseError("watch: an event without end")
                for line in filter(None, lines):
                    event = json.loads(line)
                    yield event["type"], event["object"]

    async def _call(self, method: str, url: str, lease: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        headers = {"Accept": "application/json", **await self._transport.credentials()}
        body = None
        if lease is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(lease, separators=(",", ":")).encode()
        async with self._transport.session.request(
            method,
            url,
            data=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=seconds),
            **self._transport.options,
        ) as answer:
            content = await answer.read()
            if answer.status not in (200, 201):
                self._raise(answer, content)
        found = json.loads(content)
        if not isinstance(found, dict) or found.get("kind") != "Lease":
            raise LeaseError(f"{method}: the answer is no Lease")
        return found

    def _raise(self, answer: aiohttp.ClientResponse, content: bytes) -> None:
        status = answer.status
        text = f"{answer.method} {status} {content[:200].decode(errors='replace')}"
        if not _is_status(content):
            # Not the API server's own words: a proxy's, and nobody knows what became of the request.
            raise LeaseError(text, retry_after=_seconds(answer.headers.get("Retry-After")))
        if status == 401:
            self._transport.forget_credentials()
        if status == 404:
            raise LeaseNotFound(text)
        if status == 409:
            raise LeaseConflict(text)
        if status == 429:
            raise LeaseBusy(text, retry_after=_seconds(answer.headers.get("Retry-After")))
        if 400 <= status < 500:
            raise LeaseRefused(text)
        raise LeaseError(text, retry_after=_seconds(answer.headers.get("Retry-After")))


def _is_status(content: bytes) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("kind") == "Status"


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # an HTTP date; the API server sends seconds
        return 0.0
