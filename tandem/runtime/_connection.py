"""How to reach the API server and with what credentials: kubernetes-asyncio's configuration, nothing else of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.rest import RESTClientObject
from kubernetes_asyncio.config.incluster_config import SERVICE_TOKEN_FILENAME

REFRESH_SECONDS: Final = 60.0
"""Credentials that can change are read anew after this long, as in client-go; kubelet replaces a token at 80 % of its
life, which is ten minutes at the least."""


class ConfigError(Exception):
    """There is no kubeconfig, or one that cannot be used; the message says which and what is wrong."""


class Connection:
    """One session (a connection pool of its own) and the credentials for it.

    Args:
        settings: kubernetes-asyncio's configuration.
        refresh: brings the credentials in `settings` up to date; None when they cannot change.
        user_agent: how the API server's audit log names us.
    """

    def __init__(
        self, settings: client.Configuration, refresh: Callable[[], Awaitable[None]] | None, user_agent: str
    ) -> None:
        self._settings = settings
        self._refresh = refresh
        self._refreshing = asyncio.Lock()
        self._fresh_until = time.monotonic() + REFRESH_SECONDS
        self._rest = RESTClientObject(settings)
        self._agent = user_agent
        self.base: str = str(settings.host).rstrip("/")
        # Its connector (TLS) without its session: that one trusts the environment, for which aiohttp asks the default
        # thread pool twice in every request (netrc, proxies). A renewal must not wait for a pool that the controller's
        # own blocking calls may fill, and credentials of a netrc file are none of ours.
        self.session = aiohttp.ClientSession(
            connector=self._rest.pool_manager.connector, connector_owner=False, read_bufsize=2**18
        )
        self.options: Mapping[str, Any] = {
            name: value
            for name, value in (
                ("proxy", settings.proxy or _proxy_of(self.base)),
                ("proxy_headers", settings.proxy_headers),
                ("server_hostname", settings.tls_server_name),
            )
            if value
        }

    async def credentials(self) -> Mapping[str, str]:
        """The headers that say who we are.

        Raises:
            OSError: the credentials cannot be read anew.
        """
        if self._refresh is not None and time.monotonic() >= self._fresh_until:
            async with self._refreshing:
                if time.monotonic() >= self._fresh_until:
                    await self._renew(self._refresh)
        headers = {"User-Agent": self._agent}
        if token := self._settings.api_key.get("BearerToken"):
            headers["Authorization"] = token
        return headers

    def forget_credentials(self) -> None:
        """Read the credentials anew before the next request: the server did not accept these."""
        self._fresh_until = time.monotonic()

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()
        await self._rest.close()

    async def _renew(self, refresh: Callable[[], Awaitable[None]]) -> None:
        try:
            await refresh()
        except (config.ConfigException, ValueError) as error:
            raise OSError(f"credentials cannot be read anew: {error}") from error
        self._fresh_until = time.monotonic() + REFRESH_SECONDS


def _proxy_of(base: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY ask for, looked up once."""
    address = urlsplit(base)
    if address.hostname is None or proxy_bypass(address.hostname):
        return None
    return getproxies().get(address.scheme)


@asynccontextmanager
async def connect(kubeconfig: str | None, *, user_agent: str) -> AsyncIterator[Connection]:
    """Open a connection: the given kubeconfig, else KUBECONFIG, else the pod's service account, else ~/.kube/config.

    The order is controller-runtime's.

    Raises:
        ConfigError: none of them can be used.
    """
    settings = client.Configuration()
    chosen = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if chosen is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            refresh: Callable[[], Awaitable[None]] | None = await _in_cluster(settings)
        else:
            refresh = await _from_kubeconfig(settings, chosen or str(Path.home() / ".kube" / "config"))
    except (config.ConfigException, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{chosen or 'no kubeconfig given; the default'} cannot be used: {error}") from error
    connection = Connection(settings, refresh, user_agent)
    try:
        yield connection
    finally:
        await connection.close()


async def _in_cluster(settings: client.Configuration) -> Callable[[], Awaitable[None]]:
    config.load_incluster_config(client_configuration=settings, try_refresh_token=False)  # type: ignore[no-untyped-call]

    async def refresh() -> None:
        # Not the library's own refresh: that one goes by the wall clock, and a step back would keep a dead token.
        token = Path(SERVICE_TOKEN_FILENAME).read_text().strip()  # noqa: ASYNC240 - a page of memory, not a disk
        if not token:
            raise ValueError(f"{SERVICE_TOKEN_FILENAME} is empty")
        settings.api_key["BearerToken"] = f"Bearer {token}"

    await refresh()
    return refresh


async def _from_kubeconfig(settings: client.Configuration, path: str) -> Callable[[], Awaitable[None]] | None:
    if not any(Path(part).is_file() for part in path.split(os.pathsep)):  # noqa: ASYNC240 - once, at start
        raise ValueError("no such file")
    loader = await config.load_kube_config(path, client_configuration=settings, persist_config=False)
    if "BearerToken" not in settings.api_key:
        return None

    async def refresh() -> None:
        await loader.load_and_set(settings)  # a token file is read, an exec plugin run if its token has expired

    return refresh
