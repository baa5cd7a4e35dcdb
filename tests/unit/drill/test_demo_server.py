"""The demo server over real HTTP and a real folder, as separate processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: PTH115, PTH208
from tandem.drill.demo import server as module

Start = Callable[..., "Running"]


class Running:
    def __init__(self, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(module.__file__)],
            env={"PATH": os.environ["PATH"], "PORT": "0", "PYTHONUNBUFFERED": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.port = int(line.split()[-1])
                break

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        data: dict[str, Any] = json.loads(answer.read())
        connection.close()
        return answer.status, data


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Running] = []

    def run(**env: str) -> Running:
        running.append(Running(**env))
        return running[-1]

    yield run
    for server in running:
        server.process.kill()
        server.process.communicate()


def order(folder: Path) -> list[str]:
    return [os.readlink(folder / "order" / name) for name in sorted(os.listdir(folder / "order"))]


def test_a_stateless_app_says_who_it_is_and_refuses_to_append(start: Start) -> None:
    server = start(APP="web", NODE_NAME="w1", POD_NAME="web-1")
    assert server.ask("GET", "/") == (200, {"app": "web", "node": "w1", "pod": "web-1", "epoch": None, "seq": None})
    assert server.ask("GET", "/healthz")[0] == 200
    assert server.ask("POST", "/append", {"client": "c", "n": 1})[0] == 404
    assert server.ask("GET", "/nowhere")[0] == 404


def test_a_record_is_on_the_share_when_it_is_acknowledged(start: Start, tmp_path: Path) -> None:
    server = start(DATA_DIR=str(tmp_path), NODE_NAME="w1", POD_NAME="p")
    status, ack = server.ask("POST", "/append", {"client": "c", "n": 7})
    assert status == 200
    assert ack == {"epoch": 1, "node": "w1", "pod": "p", "seq": 1, "ticket": 1}
    record = json.loads((tmp_path / "records-000001.jsonl").read_text())
    assert (record["epoch"], record["seq"], record["node"], record["client"], record["n"]) == (1, 1, "w1", "c", 7)
    assert order(tmp_path) == ["1:1:1"]


def test_fsync_comes_before_the_ticket_and_the_ticket_before_the_acknowledgment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    journal = module.Journal(str(tmp_path), "w1", "p")
    journal.open()
    fsync, symlink = os.fsync, os.symlink

    def noted_fsync(fd: int) -> None:
        fsync(fd)
        done.append("fsync")

    def noted_symlink(content: str, name: str) -> None:
        symlink(content, name)
        done.append("ticket")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "symlink", noted_symlink)
    journal.append([{"client": "c", "n": 1}])
    done.append("acknowledged")
    assert done == ["fsync", "ticket", "acknowledged"]


def test_a_failed_fsync_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = module.Journal(str(tmp_path), "w1", "p")
    journal.open()

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(module.ShareError, match="No space left"):
        journal.append([{"client": "c", "n": 1}])
    assert order(tmp_path) == []


def test_two_servers_on_one_folder_take_different_epochs_and_one_order(start: Start, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        servers = list(pool.map(lambda name: start(DATA_DIR=str(tmp_path), NODE_NAME=name), ("w1", "w2")))
    epochs = sorted(server.ask("GET", "/")[1]["epoch"] for server in servers)
    assert epochs == [1, 2]

    def write(server: Running) -> list[int]:
        return [
            int(server.ask("POST", "/append", {"client": str(server.port), "n": n})[1]["ticket"]) for n in range(100)
        ]

    with ThreadPoolExecutor(8) as pool:
        tickets = [ticket for batch in pool.map(write, servers * 4) for ticket in batch]
    names = sorted(os.listdir(tmp_path / "order"))
    assert [int(name) for name in names] == list(range(1, len(names) + 1)), "the order has no hole"
    assert set(tickets) == set(range(1, len(names) + 1))
    assert len(tickets) == 800, "every request was acknowledged, several may share a ticket"
    covered = [tuple(int(part) for part in link.split(":")) for link in order(tmp_path)]
    for epoch in (1, 2):
        sequence = [seq for number, first, last in covered if number == epoch for seq in range(first, last + 1)]
        assert sequence == list(range(1, 401)), "each epoch's records appear once and in their own order"


def test_a_writer_left_behind_joins_the_order_at_its_end(tmp_path: Path) -> None:
    old, new = module.Journal(str(tmp_path), "w1", "p1"), module.Journal(str(tmp_path), "w2", "p2")
    old.open()
    new.open()
    for n in range(50):
        new.append([{"client": "c", "n": n}])
    assert old.append([{"client": "c", "n": 99}])[0]["ticket"] == 51


def test_a_kept_connection_serves_many_requests_and_a_malformed_one_is_refused(start: Start, tmp_path: Path) -> None:
    server = start(DATA_DIR=str(tmp_path))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for n in range(3):
        connection.request("POST", "/append", json.dumps({"client": "kept", "n": n}))
        assert json.loads(connection.getresponse().read())["seq"] == n + 1
    connection.close()
    assert server.ask("POST", "/append", ["not", "an", "object"])[0] == 400
    assert server.ask("GET", "/append")[0] == 405


def test_sigterm_ends_it_cleanly_and_a_broken_share_is_named(start: Start, tmp_path: Path) -> None:
    server = start(DATA_DIR=str(tmp_path))
    server.ask("POST", "/append", {"client": "c", "n": 1})
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    broken = start(DATA_DIR=str(tmp_path / "absent"))
    assert broken.process.wait(10) == 1
    assert broken.process.stderr is not None
    assert "cannot write to" in broken.process.stderr.read()
