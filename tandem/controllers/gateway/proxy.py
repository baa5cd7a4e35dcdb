"""Passes HTTP requests on to Services, and tries another endpoint where one does not answer.

A request goes to the Service's cluster address on a connection of its own. Behind that address kube-proxy chooses an
endpoint for each connection, so a connection that was kept might lead to a pod whose worker has lost power, and would
say nothing for minutes; a new one fails soon, and the next try meets another endpoint. What was sent is never sent
twice: a request is tried again only while no connection has been made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import CollectorRegistry, Counter, Histogram
from yarl import URL

from tandem.controllers.gateway.routes import Upstream
from tandem.runtime._serving import listening
from tandem.runtime.health import Check
from tandem.runtime.logging import get_logger

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one connection, which are not passed on (RFC 9110, 7.6.1)."""

CHUNK: Final = 2**16
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Find = Callable[[str, str], Upstream | None]
"""Host and path to where the request goes, or None for nowhere."""


@dataclass(frozen=True)
class ProxySettings:
    """Times and sizes.

    Attributes:
        connect_seconds: how long one try may take to reach an endpoint. Within a cluster it takes a millisecond, and a
            lost worker's pod never answers.
        tries: how many endpoints are tried. With two of which one is lost, five leave a request in 32 unanswered.
        answer_seconds: the longest silence of an endpoint that was reached, before and within its answer.
        largest_body: bytes of a request, at most; it is passed on piece by piece.
    """

    connect_seconds: float = 0.5
    tries: int = 5
    answer_seconds: float = 60.0
    largest_body: int = 2**30

    def __post_init__(self) -> None:
        if min(self.connect_seconds, self.answer_seconds) <= 0 or self.tries < 1:
            raise ValueError("connect_seconds and answer_seconds must be above 0, and tries at least 1")


class Proxy:
    """Answers requests by asking a Service.

    Args:
        find: the table of routes.
        registry: where to count.
        settings: times and sizes.
        ready: a path that is answered here, and what speaks against sending clients.
    """

    def __init__(
        self,
        find: Find,
        registry: CollectorRegistry,
        settings: ProxySettings | None = None,
        *,
        ready: tuple[str, Check] | None = None,
    ) -> None:
        self._find = find
        self._ready = ready
        self._settings = settings or ProxySettings()
        self._log = get_logger("gateway")
        self._requests = Counter(
            "tandem_gateway_requests", "Requests by Service and status", ["service", "code"], registry=registry
        )
        self._retries = Counter(
            "tandem_gateway_retries", "Endpoints that could not be reached, by Service", ["service"], registry=registry
        )
        self._seconds = Histogram(
            "tandem_gateway_request_seconds",
            "From a request's headers to the end of its answer, by Service",
            ["service"],
            buckets=BUCKETS,
            registry=registry,
        )

    @asynccontextmanager
    async def serving(self, host: str, port: int, drain_seconds: float = 10.0) -> AsyncIterator[int]:
        """Answer on a port (0 takes any free one) while the block runs; at its end requests under way are finished.

        Raises:
            OSError: the port is taken.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._settings.connect_seconds, sock_read=self._settings.answer_seconds
        )
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            app = web.Application(client_max_size=self._settings.largest_body)

            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(request, session)

            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(
                app, access_log=None, handle_signals=False, shutdown_timeout=drain_seconds, auto_decompress=False
            )
            async with listening(runner, host, port) as taken:
                yield taken

    async def _handle(self, request: web.Request, session: aiohttp.ClientSession) -> web.StreamResponse:
        path = request.raw_path.split("?", 1)[0]
        if self._ready and path == self._ready[0]:
            problem = self._ready[1]()
            return web.Response(status=503 if problem else 200, text=f"{problem or 'ready'}\n")
        to = self._find(request.headers.get("Host", ""), path)
        if to is None:
            return self._refusal("", 404, "no Ingress of this gateway's class has this host and path")
        if not to.usable:
            return self._refusal(str(to.service), 503, f"Service {to.service} or its port does not exist")
        with self._seconds.labels(str(to.service)).time():
            return await self._pass_on(request, session, to)

    async def _pass_on(self, request: web.Request, session: aiohttp.ClientSession, to: Upstream) -> web.StreamResponse:
        url = URL(f"http://{to.host}:{to.port}{request.raw_path}", encoded=True)
        headers = passed_on(request.headers)
        headers["Host"] = request.headers.get("Host", "")
        headers.update(forwarded(request))
        for left in reversed(range(self._settings.tries)):
            try:
                asked = session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=request.content.iter_chunked(CHUNK) if request.can_read_body else None,
                    allow_redirects=False,
                    skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                )
                async with asked as answer:
                    return await self._answer(request, answer, str(to.service))
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                self._retries.labels(str(to.service)).inc()
                if not left:
                    return self._refusal(str(to.service), 502, f"no endpoint of {to.service} could be reached: {error}")
            except TimeoutError:
                return self._refusal(str(to.service), 504, f"{to.service} did not answer in time")
            except aiohttp.ClientError as error:
                return self._refusal(str(to.service), 502, f"{to.service} broke off: {error!r}")
        raise AssertionError("unreachable: the last try returns")

    async def _answer(self, request: web.Request, answer: aiohttp.ClientResponse, service: str) -> web.StreamResponse:
        """Pass the answer back, piece by piece. Once it has begun, a break is told by breaking off as well."""
        self._requests.labels(service, str(answer.status)).inc()
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=passed_on(answer.headers))
        await response.prepare(request)
        try:
            async for piece in answer.content.iter_chunked(CHUNK):
                await response.write(piece)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._log.warning("an answer broke off", service=service, error=repr(error))
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from error
        await response.write_eof()
        return response

    def _refusal(self, service: str, code: int, why: str) -> web.Response:
        self._requests.labels(service, str(code)).inc()
        self._log.info("refused", code=code, why=why)
        return web.Response(status=code, text=f"{why}\n")


def passed_on(headers: CIMultiDictProxy[str] | Mapping[str, str]) -> CIMultiDict[str]:
    """Headers without those of the connection, and without those that `Connection` names."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in HOP_BY_HOP and name.lower() not in named and name.lower() != "host"
    )


def forwarded(request: web.Request) -> dict[str, str]:
    """Who asked, as applications expect to be told. What a client claims of itself is not believed."""
    return {
        "X-Forwarded-For": request.remote or "",
        "X-Forwarded-Host": request.headers.get("Host", ""),
        "X-Forwarded-Proto": "http",
    }
