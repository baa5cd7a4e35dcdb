"""A session with the API server: its connections, and credentials that stay fresh."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml

from tandem.runtime._access import Access, Refresh, from_kubeconfig, in_pod

REFRESH_SECONDS: Final = 60.0
"""Credentials that can change are read anew after this long, as in client-go; kubelet replaces a token at 80 % of its
life, which is ten minutes at the least."""
CONNECTIONS: Final = 100
"""At the same time, watches among them; more requests wait."""


class ConfigError(Exception):
    """There is no kubeconfig, or one that cannot be used; the message says which and what is wrong."""


class Connection:
    """One session (a connection pool of its own) and the credentials for it.

    Args:
        access: where the server is, and who we are.
        refresh: brings the authorization in `access` up to date; None when it cannot change.
        user_agent: how the API server's audit log names us.
    """

    def __init__(self, access: Access, refresh: Refresh | None, user_agent: str) -> None:
        self._access = access
        self._refresh = refresh
        self._refreshing = asyncio.Lock()
        self._fresh_until = time.monotonic() + REFRESH_SECONDS
        self._agent = user_agent
        self.base = access.server
        # It does not trust the environment: for that aiohttp asks the default thread pool twice in every request
        # (netrc, proxies). A renewal must not wait for a pool that the controller's own blocking calls may fill, and
        # credentials of a netrc file are none of ours.
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=access.tls()), read_bufsize=2**18
        )
        self.options: Mapping[str, Any] = {
            name: value
            for name, value in (
                ("proxy", access.proxy or _proxy_of(self.base)),
                ("server_hostname", access.server_name),
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
        if self._access.authorization:
            headers["Authorization"] = self._access.authorization
        return headers

    def forget_credentials(self) -> None:
        """Read the credentials anew before the next request: the server did not accept these."""
        self._fresh_until = time.monotonic()

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()

    async def _renew(self, refresh: Refresh) -> None:
        try:
            await refresh()
        except ValueError as error:
            raise OSError(f"credentials cannot be read anew: {error}") from error
        self._fresh_until = time.monotonic() + REFRESH_SECONDS


def _proxy_of(base: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY ask for, looked up once."""
    address = urlsplit(base)
    if address.hostname is None or proxy_bypass(address.hostname):
        return None
    return getproxies().get(address.scheme)


@asynccontextmanager
async def connect(kubeconfig: str | None, *, user_agent: str, context: str | None = None) -> AsyncIterator[Connection]:
    """Open a connection: the given kubeconfig, else KUBECONFIG, else the pod's service account, else ~/.kube/config.

    The order is controller-runtime's. `context` is of the kubeconfig; its current one when None.

    Raises:
        ConfigError: none of them can be used.
    """
    chosen = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if chosen is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            found: tuple[Access, Refresh | None] = in_pod()
        else:
            found = await _usual_kubeconfig(chosen, context)
        connection = Connection(*found, user_agent)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"{chosen or 'no kubeconfig given; the default'} cannot be used: {error}") from error
    try:
        yield connection
    finally:
        await connection.close()


async def _usual_kubeconfig(chosen: str | None, context: str | None) -> tuple[Access, Refresh | None]:
    path = chosen or str(Path.home() / ".kube" / "config")
    if not any(Path(part).is_file() for part in path.split(os.pathsep)):  # noqa: ASYNC240 - once, at start
        raise ValueError("no such file")
    return await from_kubeconfig(path, context)
