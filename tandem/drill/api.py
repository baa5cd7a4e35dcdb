"""The Kubernetes API as a drill needs it: plain objects in and out; kubernetes-asyncio is the transport only."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import client, config

Object = dict[str, Any]

NETWORK_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What a request may raise besides `ApiError` when the API server cannot be reached."""


class ApiError(RuntimeError):
    """The API server refused a request; the message names method, path, status and its reason."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A connection to one cluster. Paths are the API's own, e.g. `/api/v1/nodes`.

    Args:
        transport: kubernetes-asyncio's client.
    """

    def __init__(self, transport: client.ApiClient) -> None:
        self._transport = transport

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        seconds: float = 30,
    ) -> Object:
        """One request; returns the answer's object.

        Raises:
            ApiError: an answer above 299.
            OSError, TimeoutError, aiohttp.ClientError: no answer within `seconds`.
        """
        response = await self._open(method, path, query, body, aiohttp.ClientTimeout(total=seconds))
        try:
            data: Object = json.loads(await response.read() or b"{}")
        finally:
            response.release()
        return data

    async def get(self, path: str, **query: str) -> Object:
        """The object or list at a path."""
        return await self.request("GET", path, query)

    async def items(self, path: str, **query: str) -> list[Object]:
        """The items of a list."""
        items: list[Object] = (await self.get(path, **query)).get("items", [])
        return items

    async def find(self, path: str) -> Object | None:
        """The object at a path, or None where there is none."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def lines(self, path: str, **query: str) -> AsyncIterator[bytes]:
        """The lines of a streamed answer (a watch, a followed log) until the server ends it."""
        response = await self._open("GET", path, query, None, aiohttp.ClientTimeout(total=None, sock_connect=10))
        try:
            async for line in response.content:
                if line.strip():
                    yield line
        finally:
            response.close()

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._transport.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=limits,
        )
        if response.status >= 300:
            text = (await response.text())[:500]
            with suppress(ValueError, AttributeError):
                text = json.loads(text).get("message", text)
            response.release()
            raise ApiError(f"{method} {path}: {response.status} {text}", response.status)
        return response


@asynccontextmanager
async def connect(kubeconfig: Path | None, context: str | None = None) -> AsyncIterator[Api]:
    """Connect with a kubeconfig file; None takes KUBECONFIG, in a pod its own account, else the user's own file.

    Raises:
        ApiError: the file is missing or cannot be used.
    """
    settings = client.Configuration()
    given = kubeconfig or os.environ.get("KUBECONFIG")
    if given is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
        try:
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise ApiError(f"the pod's own account cannot be used: {error}", 0) from error
    else:
        path = Path(given or Path.home() / ".kube" / "config")
        if not os.access(path, os.R_OK):
            raise ApiError(f"no kubeconfig at {path}; give one with --kubeconfig", 0)
        try:
            await config.load_kube_config(str(path), context, settings, persist_config=False)
        except (config.ConfigException, OSError) as error:
            raise ApiError(f"kubeconfig {path} cannot be used: {error}", 0) from error
    async with client.ApiClient(settings) as transport:
        yield Api(transport)
