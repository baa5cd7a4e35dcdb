"""The supervisor's parts that need no namespace: children, relays, services, the control protocol."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.runtime import connect, relay, services, static_server
from lab.runtime.control import Handler
from lab.runtime.errors import LabError, NotRunningError, UnknownNodeError
from lab.runtime.processes import Children, group_exists, group_states
from lab.runtime.state import Spec


def spec(tmp_path: Path, **changes: object) -> Spec:
    values: dict[str, object] = {
        "name": "x",
        "instance": "i",
        "folder": tmp_path,
        "kernel": Path("/c/linux"),
        "base_image": Path("/c/base.img"),
        "authorized_key": "key",
        "apt_root": None,
        "registry_root": None,
        "api_port": 16443,
        "python": Path("/usr/bin/python3"),
        "rootless": False,
    }
    return Spec.model_validate(values | changes)


async def test_a_failed_command_says_which_and_why() -> None:
    children = Children()
    assert await children.run("cat", given="hello") == "hello"
    with pytest.raises(LabError, match=r"`sh -c echo no; exit 3` failed \(3\): no"):
        await children.run("sh", "-c", "echo no; exit 3")


async def test_a_group_is_seen_until_its_last_member_is_gone() -> None:
    children = Children()
    process = await children.start(["sh", "-c", "sleep 60 & sleep 60"], output=asyncio.subprocess.DEVNULL)
    assert group_exists(process.pid)
    assert process.pid in group_states(process.pid)
    os.killpg(process.pid, 9)
    assert await children.wait(process) == -9


def exists(pid: int) -> bool:
    """Whether the kernel knows PID, be it as a zombie."""
    return Path(f"/proc/{pid}").exists()


async def test_orphans_are_reaped_and_own_children_are_not() -> None:
    children = Children()
    own = await children.start(["sh", "-c", "exit 7"], output=asyncio.subprocess.DEVNULL)
    orphan = os.fork()
    if orphan == 0:
        os._exit(0)
    for _ in range(200):
        await children.reap_orphans()
        if not exists(orphan):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the orphan was not reaped")
    assert await children.wait(own) == 7


async def test_a_half_closed_stream_still_carries_the_answer() -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    target = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    front = await asyncio.start_server(relay.forwarder(lambda: [("127.0.0.1", 1), ("127.0.0.1", port)]), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
    writer.write(b"word " * 100_000)
    writer.write_eof()
    assert await reader.read() == b"WORD " * 100_000
    writer.close()
    front.close()
    target.close()


async def test_with_no_target_the_caller_is_let_go() -> None:
    front = await asyncio.start_server(relay.forwarder(lambda: [("127.0.0.1", 1)]), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    front.close()


def test_the_registry_serves_its_storage_read_only(tmp_path: Path) -> None:
    config = json.loads(services.registry_config(tmp_path, "secret"))
    assert config["storage"]["filesystem"]["rootdirectory"] == str(tmp_path)
    assert config["storage"]["maintenance"]["readonly"]["enabled"] is True
    assert config["http"]["addr"] == "10.77.0.1:5000"


def test_services_are_those_whose_content_is_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert services.planned(spec(tmp_path), log) == []
    both = services.planned(spec(tmp_path, apt_root=tmp_path, registry_root=tmp_path), log)
    assert [service.name for service in both] == ["apt", "registry"]
    assert (tmp_path / "registry.json").exists()


def test_the_package_server_keeps_connections(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_text("Package: kubelet\n")

    def handler(*arguments: object) -> static_server.Handler:
        return static_server.Handler(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = HTTPConnection(*server.server_address[:2])  # type: ignore[arg-type]
        for _ in range(2):
            client.request("GET", "/Packages")
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"Package: kubelet\n")
        client.request("GET", "/../../etc/passwd")
        assert client.getresponse().status == 404
        client.close()
        server.shutdown()


class _OneMachineOff:
    """Stands where the supervisor does, to see how errors travel."""

    def machine(self, name: str) -> object:
        if name != "w1":
            raise UnknownNodeError(f"no machine is called {name!r}")
        raise NotRunningError("w1 is off")


async def _answer(tmp_path: Path, request: bytes) -> dict[str, object]:
    server = await asyncio.start_unix_server(Handler(_OneMachineOff()), tmp_path / "s")  # type: ignore[arg-type]
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(request + b"\n")
    answer: dict[str, object] = json.loads(await reader.readline())
    writer.close()
    server.close()
    return answer


@pytest.mark.parametrize(
    ("request_line", "kind"),
    [
        (b'{"op": "power_off", "node": "w1"}', "NotRunningError"),
        (b'{"op": "freeze", "node": "w7"}', "UnknownNodeError"),
        (b'{"op": "explode"}', "UsageError"),
        (b'{"node": "w1"}', "UsageError"),
        (b"not json", "UsageError"),
        (b"[]", "UsageError"),
    ],
)
async def test_every_request_has_an_answer(tmp_path: Path, request_line: bytes, kind: str) -> None:
    answer = await _answer(tmp_path, request_line)
    assert answer["kind"] == kind
    assert answer["error"]


async def test_the_connector_tells_why_not(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(Handler(_OneMachineOff()), tmp_path / "s")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="w1 is off"):
        await asyncio.to_thread(connect.connect, str(tmp_path / "s"), "w1", 22)
    server.close()
    with pytest.raises(FileNotFoundError):
        connect.connect(str(tmp_path / "none"), "w1", 22)


def test_the_connector_leaves_what_follows_its_answer_to_ssh(tmp_path: Path) -> None:
    ear = socket.socket(socket.AF_UNIX)
    ear.bind(str(tmp_path / "s"))
    ear.listen()

    def serve() -> None:
        peer, _ = ear.accept()
        peer.recv(1000)
        peer.sendall(b'{"connected": true}\nSSH-2.0-x\r\n')

    threading.Thread(target=serve, daemon=True).start()
    with connect.connect(str(tmp_path / "s"), "w1", 22) as stream:
        assert stream.recv(100) == b"SSH-2.0-x\r\n"
    ear.close()
