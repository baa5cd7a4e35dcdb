"""The API server as a controller needs it: seven methods on plain dicts, each with an explicit time limit.

`Client` is the port: the runtime, the elector and the fakes of the tests know nothing else, so the library behind it
can be replaced. `KubeClient` implements it on aiohttp, without generated models: bodies are read and written with
orjson.

Every write names the resourceVersion that it was decided on, server-side apply and status patches too: a process can be
stopped between its last check of the Lease and the socket, and only the server can then refuse what it sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import urlencode

import aiohttp
import orjson
import yarl

from tandem.runtime._connection import ConfigError, Connection, connect
from tandem.runtime.errors import ApiError, Unauthorized, Unavailable, from_response, from_status
from tandem.runtime.resources import Object, Resource, version_of

__all__ = ["PAGE", "Client", "ConfigError", "KubeClient", "connect_client"]

PAGE: Final = 500
"""Objects on a page of a list: client-go's choice; a page of large objects stays below some MiB."""
_JSON: Final = "application/json"
_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML


class Client(Protocol):
    """The port. `seconds` bounds a whole request, from credentials to the last byte of the answer.

    Every method raises an `ApiError`: `Unavailable` when there was no answer in time, else what the server's answer
    means. No exception of a transport gets through.
    """

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
        """One page: the raw list object. `limit` 0 is the whole list; `Gone` means that the continue token expired."""
        ...

    def watch(
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
        """Raw events, `{"type": ..., "object": ...}` with BOOKMARK among them, until the server ends the watch.

        The server is asked to end the watch after `server_seconds`; after `idle_seconds` without a byte it counts as
        broken (`Unavailable`); `seconds` is the time for the server to begin its answer.

        Raises:
            ApiError: as everywhere; an ERROR event is raised as what it says, `Gone` above all.
        """
        ...

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None, seconds: float) -> Object:
        """One object."""
        ...

    async def create(self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float) -> Object:
        """Create `body` in the namespace that its metadata names; the object as stored."""
        ...

    async def replace(self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float) -> Object:
        """Put `body` in place of the object it was made of; `Conflict` when that one has changed since.

        Raises:
            ValueError: `body` has no resourceVersion.
        """
        ...

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
        """Server-side apply; `Conflict` when the object has changed since its resourceVersion.

        Raises:
            ValueError: `body` has no resourceVersion (an object that does not exist yet is created).
        """
        ...

    async def patch_status(
        self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float
    ) -> Object:
        """Merge `body`'s status into the stored one; `Conflict` when the object has changed since.

        Raises:
            ValueError: `body` has no resourceVersion.
        """
        ...


class KubeClient:
    """The port on a real API server. One per purpose: the elector's must not queue behind watches.

    Args:
        connection: an open connection; whoever opened it closes it.
        observer: told method and status of each request, 0 when there was no answer.
    """

    def __init__(self, connection: Connection, *, observer: Callable[[str, int], None] = lambda *_: None) -> None:
        self._connection = connection
        self._observe = observer

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
        """See `Client.list`."""
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(limit) if limit else "",
            "continue": continue_token,
            "resourceVersion": resource_version,
        }
        accept = _partial("PartialObjectMetadataList") if metadata_only else _JSON
        return await self._request("GET", resource.path(namespace), query, accept=accept, seconds=seconds)

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
        """See `Client.watch`."""
        path = resource.path(namespace)
        what = f"WATCH {path}"
        query = {
            "watch": "true",
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true" if bookmarks else "",
            "timeoutSeconds": str(max(1, int(server_seconds))),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=idle_seconds)
        accept = _partial("PartialObjectMetadata") if metadata_only else _JSON
        try:
            async with asyncio.timeout(seconds):
                response = await self._open("GET", path, query, None, _JSON, accept, limits)
                if response.status >= 300:
                    raise self._refused(what, response, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(what, error, seconds) from error
        try:
            async with aclosing(_lines(response.content.iter_any())) as lines:
                async for line in lines:
                    event: Object = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise from_status(what, event["object"])
                    yield event
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise _unavailable(what, error, idle_seconds) from error
        finally:
            response.close()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None, seconds: float) -> Object:
        """See `Client.get`."""
        return await self._request("GET", resource.path(namespace, name), {}, seconds=seconds)

    async def create(self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float) -> Object:
        """See `Client.create`."""
        path = resource.path(body["metadata"].get("namespace"))
        return await self._request("POST", path, {"fieldManager": field_manager}, body, seconds=seconds)

    async def replace(self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float) -> Object:
        """See `Client.replace`."""
        path = _path_of(resource, body)
        return await self._request("PUT", path, {"fieldManager": field_manager}, body, seconds=seconds)

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
        """See `Client.apply`."""
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = _path_of(resource, body, subresource)
        return await self._request("PATCH", path, query, body, content=_APPLY, seconds=seconds)

    async def patch_status(
        self, resource: Resource, body: Object, *, field_manager: str = "", seconds: float
    ) -> Object:
        """See `Client.patch_status`."""
        patch = {"metadata": {"resourceVersion": version_of(body)}, "status": body["status"]}
        path = _path_of(resource, body, "status")
        return await self._request(
            "PATCH", path, {"fieldManager": field_manager}, patch, content=_MERGE, seconds=seconds
        )

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        *,
        content: str = _JSON,
        accept: str = _JSON,
        seconds: float,
    ) -> Object:
        what = f"{method} {path}"
        data = None if body is None else orjson.dumps(body)
        try:
            async with asyncio.timeout(seconds):
                limits = aiohttp.ClientTimeout(total=None, sock_connect=seconds)
                response = await self._open(method, path, query, data, content, accept, limits)
                try:
                    answer = await response.read()
                finally:
                    response.release()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(what, error, seconds) from error
        if response.status >= 300:
            raise self._refused(what, response, answer)
        try:
            parsed = orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise Unavailable(f"{what}: {response.status}, but no JSON", status=response.status) from error
        if not isinstance(parsed, dict):
            raise Unavailable(f"{what}: {response.status}, but no object", status=response.status)
        return parsed

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        data: bytes | None,
        content: str,
        accept: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        connection = self._connection
        url = connection.base + path
        if chosen := tuple((name, value) for name, value in query.items() if value):
            url += _encoded(chosen)
        # The API server is near and compression costs both ends more than the bytes that it saves.
        headers = {"Accept": accept, "Accept-Encoding": "identity", **await connection.credentials()}
        if data is not None:
            headers["Content-Type"] = content
        try:
            response = await connection.session.request(
                method,
                yarl.URL(url, encoded=True),
                data=data,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
                **connection.options,
            )
        except BaseException:
            self._observe(method, 0)
            raise
        self._observe(method, response.status)
        return response

    def _refused(self, what: str, response: aiohttp.ClientResponse, body: bytes) -> ApiError:
        error = from_response(what, response.status, body, response.headers)
        if isinstance(error, Unauthorized):
            self._connection.forget_credentials()
        return error


@asynccontextmanager
async def connect_client(
    kubeconfig: str | None = None, *, user_agent: str = "tandem", context: str | None = None
) -> AsyncIterator[KubeClient]:
    """Connect to the cluster: kubeconfig if one is given or named by KUBECONFIG, else the pod's, else the user's own.

    Args:
        kubeconfig: path of a kubeconfig; None looks for the usual ones.
        user_agent: how the API server's audit log names us.
        context: of the kubeconfig; its current one when None.

    Raises:
        ConfigError: there is no usable configuration.
    """
    async with connect(kubeconfig, user_agent=user_agent, context=context) as connection:
        yield KubeClient(connection)


@lru_cache(maxsize=128)
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    """A query; the same few are sent ten thousand times over."""
    return f"?{urlencode(query)}"


def _partial(kind: str) -> str:
    return f"application/json;as={kind};g=meta.k8s.io;v=v1"


def _path_of(resource: Resource, body: Object, subresource: str = "") -> str:
    """The path of the object to be changed, which must say on which version the change was decided."""
    metadata = body["metadata"]
    if not version_of(body):
        raise ValueError(f"{resource.kind} {metadata['name']}: a write needs the resourceVersion it was decided on")
    return resource.path(metadata.get("namespace"), metadata["name"], subresource)


def _unavailable(what: str, error: BaseException, seconds: float) -> Unavailable:
    slow = isinstance(error, TimeoutError)
    return Unavailable(f"{what}: {f'no answer within {seconds:g} s' if slow else str(error) or type(error).__name__}")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a stream of any chunks; a last line without its end is not given out.

    aiohttp's own reader refuses lines above a limit; an object may be larger than any that one would choose.
    """
    rest: list[bytes] = []
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest.append(first)
        for piece in more:
            if line := b"".join(rest):
                yield line
            rest = [piece]
