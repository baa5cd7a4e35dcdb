"""The client against a server that answers badly: every outcome is one of ours, and none takes longer than it may."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tandem.runtime import errors
from tandem.runtime.client import ConfigError, KubeClient, connect_client
from tandem.runtime.resources import CONFIG_MAPS, NODES, PODS, Object

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE = "<html><body><h1>502 Bad Gateway</h1>nginx</body></html>"
POD: Object = {
    "metadata": {"name": "p", "namespace": "default", "resourceVersion": "7"},
    "status": {"phase": "Running"},
}


def kubeconfig(folder: Path, server: str, **cluster: Any) -> str:
    (folder / "token").write_text("first")
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"tokenFile": str(folder / "token")}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@asynccontextmanager
async def talking_to(
    handler: Handler, folder: Path, tls: ssl.SSLContext | None = None, **cluster: Any
) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme = "https" if tls else "http"
    try:
        url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        async with connect_client(kubeconfig(folder, url, **cluster)) as client:
            yield client
    finally:
        await runner.cleanup()


def answers(status: int, body: object, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    return handler


def status(code: int, reason: str, **more: object) -> dict[str, object]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": f"{reason}!", **more}


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (400, status(400, "BadRequest"), errors.BadRequest),
        (401, status(401, "Unauthorized"), errors.Unauthorized),
        (403, status(403, "Forbidden"), errors.Forbidden),
        (404, status(404, "NotFound"), errors.NotFound),
        (409, status(409, "Conflict"), errors.Conflict),
        (409, status(409, "AlreadyExists"), errors.AlreadyExists),
        (410, status(410, "Expired"), errors.Gone),
        (422, status(422, "Invalid"), errors.Invalid),
        (429, status(429, "TooManyRequests"), errors.TooManyRequests),
        (500, status(500, "InternalError"), errors.ServerError),
        (500, status(500, "ServerTimeout"), errors.Unavailable),
        (503, status(503, "ServiceUnavailable"), errors.Unavailable),
        (502, PAGE, errors.Unavailable),
        (504, PAGE, errors.Unavailable),
        (500, PAGE, errors.ServerError),
        (404, PAGE, errors.NotFound),
        (599, "", errors.ServerError),
        (418, "{", errors.BadRequest),
        (500, "[]", errors.ServerError),
        (409, '"text"', errors.Conflict),
        (200, PAGE, errors.Unavailable),
        (200, "[1, 2]", errors.Unavailable),
        (200, "", errors.Unavailable),
        (301, PAGE, errors.Unavailable),
    ],
)
async def test_every_answer_is_an_error_of_ours(tmp_path: Path, code: int, body: object, kind: type) -> None:
    async with talking_to(answers(code, body), tmp_path) as client:
        with pytest.raises(kind) as caught:
            await client.get(PODS, "p", namespace="default", seconds=30)
        assert type(caught.value) is kind
        assert "GET /api/v1/namespaces/default/pods/p" in str(caught.value)
        assert len(str(caught.value)) < 700


async def test_retry_after_is_read_from_the_header_and_from_the_status(tmp_path: Path) -> None:
    too_many = status(429, "TooManyRequests", details={"retryAfterSeconds": 3})
    for handler, expected in (
        (answers(429, too_many, **{"Retry-After": "7"}), 7.0),
        (answers(429, too_many), 3.0),
        (answers(429, PAGE, **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
    ):
        async with talking_to(handler, tmp_path) as client:
            with pytest.raises(errors.TooManyRequests) as caught:
                await client.get(NODES, "n", seconds=30)
            assert caught.value.retry_after == expected


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"kind": "Pod", ')
    assert request.transport is not None
    request.transport.close()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("handler", [hang, reset, half, endless], ids=lambda h: h.__name__)
async def test_a_connection_that_goes_bad_is_unavailable_and_takes_no_longer_than_it_may(
    tmp_path: Path, handler: Handler
) -> None:
    async with talking_to(handler, tmp_path) as client:
        started = time.monotonic()
        with pytest.raises(errors.Unavailable):
            await client.replace(PODS, POD, seconds=0.5)
        assert time.monotonic() - started < 30


async def test_a_refused_connection_is_unavailable(tmp_path: Path) -> None:
    async with connect_client(kubeconfig(tmp_path, "http://127.0.0.1:1")) as client:
        with pytest.raises(errors.Unavailable):
            await client.list(PODS, seconds=30)


async def test_a_redirection_is_not_followed_with_our_credentials(tmp_path: Path) -> None:
    asked = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect("/login")

    async with talking_to(elsewhere, tmp_path) as client:
        with pytest.raises(errors.Unavailable):
            await client.replace(PODS, POD, seconds=30)
    assert len(asked) == 1


async def test_what_is_sent(tmp_path: Path) -> None:
    seen: list[tuple[str, str, dict[str, str], str, str, Any]] = []

    async def note(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen.append(
            (request.method, request.path, dict(request.query), request.headers.get("Content-Type", ""),
             request.headers["Accept"], json.loads(body) if body else None)
        )  # fmt: skip
        assert request.headers["Authorization"] == "Bearer first"
        assert request.headers["User-Agent"] == "tandem"
        return web.json_response({"metadata": {}})

    async with talking_to(note, tmp_path) as client:
        await client.list(PODS, namespace="a", label_selector="x in (1,2)", metadata_only=True, seconds=30)
        await client.list(NODES, limit=0, continue_token="t/+", seconds=30)
        await client.apply(PODS, POD, field_manager="m", seconds=30)
        await client.patch_status(PODS, POD, field_manager="m", seconds=30)
        await client.create(NODES, {"metadata": {"name": "n"}}, seconds=30)
    plain = "application/json"
    assert seen == [
        ("GET", "/api/v1/namespaces/a/pods", {"labelSelector": "x in (1,2)", "limit": "500"}, "",
         "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", None),
        ("GET", "/api/v1/nodes", {"continue": "t/+"}, "", plain, None),
        ("PATCH", "/api/v1/namespaces/default/pods/p", {"fieldManager": "m", "force": "true"},
         "application/apply-patch+yaml", plain, POD),
        ("PATCH", "/api/v1/namespaces/default/pods/p/status", {"fieldManager": "m"}, "application/merge-patch+json",
         plain, {"metadata": {"resourceVersion": "7"}, "status": {"phase": "Running"}}),
        ("POST", "/api/v1/nodes", {}, plain, plain, {"metadata": {"name": "n"}}),
    ]  # fmt: skip


async def test_no_change_without_the_version_it_was_decided_on(tmp_path: Path) -> None:
    bare: Object = {"metadata": {"name": "p", "namespace": "default"}, "status": {}}
    async with talking_to(answers(200, {}), tmp_path) as client:
        for write in (
            client.replace(PODS, bare, seconds=30),
            client.apply(PODS, bare, field_manager="m", seconds=30),
            client.patch_status(PODS, bare, seconds=30),
        ):
            with pytest.raises(ValueError, match="resourceVersion"):
                await write


def event(kind: str, version: str, **more: object) -> bytes:
    obj = {"metadata": {"name": "c", "resourceVersion": version}, **more}
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def streams(*chunks: bytes, then: Handler | None = None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)
        if then:
            await then(request)
        return response

    return handler


async def watched(client: KubeClient, idle_seconds: float = 30) -> list[tuple[str, str]]:
    events = client.watch(CONFIG_MAPS, resource_version="1", server_seconds=60, idle_seconds=idle_seconds, seconds=30)
    return [(e["type"], e["object"]["metadata"]["resourceVersion"]) async for e in events]


async def test_a_watch_is_read_line_by_line_however_it_arrives(tmp_path: Path) -> None:
    stream = event("ADDED", "2") + event("BOOKMARK", "3") + event("DELETED", "4")
    for size in (1, 7, len(stream)):
        chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
        async with talking_to(streams(*chunks), tmp_path) as client:
            assert await watched(client) == [("ADDED", "2"), ("BOOKMARK", "3"), ("DELETED", "4")]


async def test_an_object_of_many_megabytes_is_an_event_like_any_other(tmp_path: Path) -> None:
    async with talking_to(streams(event("ADDED", "2", data={"x": "y" * 9_000_000})), tmp_path) as client:
        assert await watched(client) == [("ADDED", "2")]


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answers(410, status(410, "Expired")), errors.Gone),
        (streams(event("ADDED", "2"), json.dumps({"type": "ERROR", "object": status(410, "Expired")}).encode() + b"\n"),
         errors.Gone),
        (streams(json.dumps({"type": "ERROR", "object": status(500, "InternalError")}).encode() + b"\n"),
         errors.ServerError),
        (streams(b"<html>\n"), errors.Unavailable),
        (streams(event("ADDED", "2"), then=reset), errors.Unavailable),
        (streams(event("ADDED", "2"), then=hang), errors.Unavailable),
        (answers(503, PAGE), errors.Unavailable),
    ],
    ids=["410", "410 event", "500 event", "garbage", "reset", "silence", "proxy"],
)  # fmt: skip
async def test_how_a_watch_can_fail(tmp_path: Path, handler: Handler, kind: type) -> None:
    async with talking_to(handler, tmp_path) as client:
        started = time.monotonic()
        with pytest.raises(kind) as caught:
            await watched(client, idle_seconds=0.5)
        assert type(caught.value) is kind
        assert time.monotonic() - started < 30


async def test_a_token_that_was_replaced_is_read_after_a_401(tmp_path: Path) -> None:
    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer second":
            return web.json_response(status(401, "Unauthorized"), status=401)
        return web.json_response({"metadata": {}})

    async with talking_to(guarded, tmp_path) as client:
        (tmp_path / "token").write_text("second")
        with pytest.raises(errors.Unauthorized):
            await client.list(PODS, seconds=30)
        await client.list(PODS, seconds=30)


async def test_a_token_that_grows_old_is_read_anew_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        return web.json_response({"metadata": {}})

    async with talking_to(note, tmp_path) as client:
        await client.list(PODS, seconds=30)
        (tmp_path / "token").write_text("second")
        await client.list(PODS, seconds=30)
        started = time.monotonic()
        monkeypatch.setattr("tandem.runtime._connection.time.monotonic", lambda: started + 61)
        await client.list(PODS, seconds=30)
    assert seen == ["Bearer first", "Bearer first", "Bearer second"]


async def test_the_pods_own_token_is_used_and_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("pod\n")
    authority.write_text(certificate(tmp_path)[0].read_text())
    monkeypatch.setattr("tandem.runtime._access.SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    async with connect_client() as client:
        connection = client._connection
        assert connection.base == "https://10.0.0.1:443"
        assert (await connection.credentials())["Authorization"] == "Bearer pod"
        token.write_text("newer")
        connection.forget_credentials()
        assert (await connection.credentials())["Authorization"] == "Bearer newer"
        token.write_text("")
        connection.forget_credentials()
        with pytest.raises(errors.Unavailable):
            await client.list(PODS, seconds=30)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


async def test_a_server_that_cannot_prove_who_it_is_gets_no_request(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    asked = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"metadata": {}})

    async with talking_to(note, tmp_path, tls) as client:
        with pytest.raises(errors.Unavailable, match="certificate"):
            await client.list(PODS, seconds=30)
    assert asked == []
    async with talking_to(note, tmp_path, tls, **{"certificate-authority": str(cert)}) as client:
        await client.list(PODS, seconds=30)
    assert asked == ["/api/v1/pods"]


async def test_no_request_waits_for_the_thread_pool_that_blocking_calls_fill(tmp_path: Path) -> None:
    async with talking_to(answers(200, {"metadata": {}}), tmp_path) as client:
        await client.list(PODS, seconds=30)  # connected
        done = threading.Event()
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        blocked = asyncio.get_running_loop().run_in_executor(None, done.wait)
        try:
            await client.list(PODS, seconds=30)  # it would wait for ever
        finally:
            done.set()
            await blocked


async def test_a_proxy_of_the_environment_is_used_and_can_be_bypassed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    async with talking_to(answers(200, {"metadata": {}}), tmp_path) as client:
        with pytest.raises(errors.Unavailable):
            await client.list(PODS, seconds=30)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with talking_to(answers(200, {"metadata": {}}), tmp_path) as client:
        await client.list(PODS, seconds=30)


async def test_a_kubeconfig_that_cannot_be_used_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match="missing"):
        async with connect_client(str(missing)):
            pass
    broken = tmp_path / "broken"
    broken.write_text("current-context: nowhere\n")
    monkeypatch.setenv("KUBECONFIG", str(broken))
    with pytest.raises(ConfigError, match="broken"):
        async with connect_client():
            pass
