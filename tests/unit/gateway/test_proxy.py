"""Requests through the proxy, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from tandem.controllers.gateway.proxy import Proxy, ProxySettings
from tandem.controllers.gateway.routes import Upstream
from tandem.runtime.resources import Key

SERVICE = Key("n", "s")
BIG = b"x" * 3_000_000


async def tell(request: web.Request) -> web.Response:
    """What arrived."""
    body = await request.read()
    names = ("Host", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Te", "X-Hop", "Accept-Encoding")
    told = {name: request.headers.get(name) for name in names}
    seen = {"method": request.method, "path": request.raw_path, "length": len(body), **told}
    return web.json_response(seen, status=201, headers={"X-Own": "1", "Set-Cookie": "a=b", "Keep-Alive": "max=3"})


async def big(request: web.Request) -> web.Response:
    return web.Response(body=BIG)


async def broken(request: web.Request) -> web.StreamResponse:
    """Promises more than it sends."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"begin")
    assert request.transport is not None
    request.transport.abort()
    return response


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def away(request: web.Request) -> web.Response:
    raise web.HTTPFound("http://elsewhere.example/")


@asynccontextmanager
async def endpoint() -> AsyncIterator[int]:
    app = web.Application(client_max_size=2**30)
    for path, handler in {"/big": big, "/broken": broken, "/slow": slow, "/away": away, "/{rest:.*}": tell}.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway(registry: CollectorRegistry, **ports: int) -> AsyncIterator[str]:
    """A proxy whose hosts are the names of the ports."""

    def find(host: str, path: str) -> Upstream | None:
        return Upstream(SERVICE, "127.0.0.1", ports[host]) if host in ports else None

    settings = ProxySettings(connect_seconds=0.2, tries=3, answer_seconds=0.5)
    ready = ("/.tandem/ready", lambda: "asked to end" if "ending" in ports else None)
    async with Proxy(find, registry, settings, ready=ready).serving("127.0.0.1", 0, 0.1) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def test_a_request_and_its_answer_arrive_whole(registry: CollectorRegistry) -> None:
    async with endpoint() as port, gateway(registry, app=port) as url, aiohttp.ClientSession() as client:
        sent = {"Host": "app", "X-Forwarded-For": "1.2.3.4", "Connection": "X-Hop", "X-Hop": "1", "TE": "trailers"}
        async with client.post(f"{url}/a%2Fb?c=%20d", data=BIG, headers=sent) as answer:
            told = await answer.json()
            assert answer.status == 201
            assert (answer.headers["X-Own"], answer.headers["Set-Cookie"]) == ("1", "a=b")
            assert "Keep-Alive" not in answer.headers
        async with client.get(f"{url}/big", headers={"Host": "app"}) as answer:
            assert await answer.read() == BIG
        async with client.get(f"{url}/away", headers={"Host": "app"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, "http://elsewhere.example/")
    assert told["path"] == "/a%2Fb?c=%20d"
    assert (told["method"], told["length"]) == ("POST", len(BIG))
    assert (told["Host"], told["X-Forwarded-Host"], told["X-Forwarded-Proto"]) == ("app", "app", "http")
    assert told["X-Forwarded-For"] == "127.0.0.1", "what a client claims of itself is not believed"
    assert told["Te"] is None
    assert told["X-Hop"] is None
    assert registry.get_sample_value("tandem_gateway_requests_total", {"service": "n/s", "code": "201"}) == 1


async def test_what_goes_wrong_is_told(registry: CollectorRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    async with (
        endpoint() as port,
        gateway(registry, app=port, gone=nobody, portless=0) as url,
        aiohttp.ClientSession() as client,
    ):

        async def status(host: str, path: str = "/") -> tuple[int, str]:
            async with client.get(url + path, headers={"Host": host}) as answer:
                return answer.status, await answer.text()

        assert await status("unknown") == (404, "no Ingress of this gateway's class has this host and path\n")
        assert await status("portless") == (503, "Service n/s or its port does not exist\n")
        code, said = await status("gone")
        assert code == 502
        assert said.startswith("no endpoint of n/s could be reached")
        assert registry.get_sample_value("tandem_gateway_retries_total", {"service": "n/s"}) == 3
        assert await status("app", "/slow") == (504, "n/s did not answer in time\n")
        with pytest.raises(aiohttp.ClientPayloadError):
            await status("app", "/broken")
        assert (await status("app"))[0] == 201, "and it goes on"


async def test_whether_clients_are_welcome(registry: CollectorRegistry) -> None:
    async with (
        gateway(registry) as url,
        aiohttp.ClientSession() as client,
        client.get(f"{url}/.tandem/ready") as answer,
    ):
        assert (answer.status, await answer.text()) == (200, "ready\n")
    async with (
        gateway(CollectorRegistry(), ending=1) as url,
        aiohttp.ClientSession() as client,
        client.get(f"{url}/.tandem/ready") as answer,
    ):
        assert (answer.status, await answer.text()) == (503, "asked to end\n")


async def test_an_endpoint_that_comes_back_between_two_tries(registry: CollectorRegistry) -> None:
    """A lost pod's address swallows what is sent; a full queue of connections does so too, and can be emptied."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(address)
        async with gateway(registry, app=address[1]) as url, aiohttp.ClientSession() as client:
            asked = asyncio.create_task(_status(client, url))
            await asyncio.sleep(0.3)
            assert not asked.done(), "the first try waits in vain"
            for each in filling:
                each.close()
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            answered = False
            while not answered:
                connection, _ = await asyncio.wait_for(loop.sock_accept(listener), 5)
                with connection:
                    if await loop.sock_recv(connection, 1000):
                        await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        answered = True
            assert await asked == 200
    assert (registry.get_sample_value("tandem_gateway_retries_total", {"service": "n/s"}) or 0) >= 1


async def _status(client: aiohttp.ClientSession, url: str) -> int:
    async with client.get(url, headers={"Host": "app"}) as answer:
        return answer.status
