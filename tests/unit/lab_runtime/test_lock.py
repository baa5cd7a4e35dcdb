"""The machine-wide lock, under a name that no lab has."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.runtime import lock
from lab.runtime.errors import LabError, RefusedError
from lab.runtime.paths import LabPaths


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    monkeypatch.setenv("TANDEM_LAB_ALLOW_SECOND", "1")
    return LabPaths(tmp_path, f"unit-{os.getpid()}")


@pytest.fixture
def held(paths: LabPaths) -> Iterator[socket.socket]:
    with lock.machine_lock(paths) as sock:
        yield sock
        sock.shutdown(socket.SHUT_RDWR)  # a thread in accept() would keep it


def answer(held: socket.socket, identity: dict[str, object]) -> None:
    """Answer callers as a supervisor does."""

    def serve() -> None:
        while True:
            try:
                peer, _ = held.accept()
            except OSError:
                return
            peer.sendall(json.dumps(identity).encode())
            peer.close()

    threading.Thread(target=serve, daemon=True).start()


def test_nobody_runs(paths: LabPaths) -> None:
    assert lock.who_runs(paths.name) is None


def test_the_lock_ends_with_its_holder(paths: LabPaths) -> None:
    lock.machine_lock(paths).close()
    lock.machine_lock(paths).close()


def test_a_second_lab_is_told_who_holds_the_machine_and_how_to_end_it(
    paths: LabPaths, held: socket.socket, tmp_path: Path
) -> None:
    answer(held, {"name": "first", "folder": str(tmp_path / "first"), "pid": 1})
    with pytest.raises(RefusedError, match=r"'first' runs on this machine.*`python -m lab --name first down` ends it$"):
        lock.machine_lock(paths)


def test_a_lab_of_another_state_folder_is_told_with_it(paths: LabPaths, held: socket.socket) -> None:
    answer(held, {"name": "first", "folder": "/elsewhere/first", "pid": 1})
    with pytest.raises(RefusedError, match="TANDEM_LAB_STATE=/elsewhere"):
        lock.machine_lock(paths)


def test_a_lab_that_is_only_starting_is_refused_after_a_while(
    paths: LabPaths, held: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_IDENTITY_SECONDS", 0.2)
    assert held.fileno() > 0
    with pytest.raises(RefusedError, match="still starting"):
        lock.machine_lock(paths)


def test_a_taken_port_is_passed_over_or_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with lock.loopback_listener([port, 0]) as other:
            assert other.getsockname()[1] != port
        with pytest.raises(LabError, match=f"loopback port {port} is taken"):
            lock.loopback_listener([port])
