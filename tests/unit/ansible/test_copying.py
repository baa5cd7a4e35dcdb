"""A folder is made equal to another one by way of a third, again and again, also when it is broken off."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils import tandem_copying as copying
from plugins.module_utils.tandem_placing import Placed
from plugins.modules import tandem_copy

AGED = 10 * 10**9
"""Older than any doubt about time stamps."""


class BrokenError(Exception):
    """The process was killed here."""


class Pair:
    """Two folders and what lies between them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target, self.exchange = folder / "source", folder / "target", folder / "exchange"
        for path in (self.source, self.target, self.exchange):
            path.mkdir()
        self.folder = folder

    def side(self, name: str, tick: Callable[[], None] = copying.unhurried) -> Placed:
        memory = copying.Memory(self.folder / f"{name}.json")
        return Placed(str(self.folder / name), memory, tick=tick)

    def copy(self, tick: Callable[[], None] = copying.unhurried) -> dict[str, int]:
        if not (self.exchange / copying.TARGET).exists():
            self.side("target", tick).tell(self.exchange)
        packed = self.side("source", tick).pack(self.exchange)
        self.side("target", tick).place(self.exchange)
        return packed

    def differences(self) -> list[str]:
        return copying.differences(self.side("source").scan(), copying.load(self.exchange / copying.TARGET))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def fill(folder: Path, chance: random.Random) -> None:
    """Some files, folders and links anew, some gone."""
    for number in range(12):
        path = folder / chance.choice(["a", "b", "c/d", "c/e", "odd\n\xe9", "f/g/h", "c"])
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            continue
        if any(each.is_file() or each.is_symlink() for each in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        match chance.randrange(4):
            case 0:
                path.symlink_to(f"to-{number}")
            case 1:
                path.mkdir()
            case 2:
                path.write_bytes(chance.randbytes(chance.randrange(5000)))
            case _:
                path.write_bytes(b"same size " + chance.randbytes(4))
                path.chmod(chance.choice([0o600, 0o644, 0o4755]))


@pytest.mark.parametrize("seed", range(10))
def test_what_changed_is_copied_and_both_are_equal(seed: int, pair: Pair) -> None:
    chance = random.Random(seed)
    for _ in range(4):
        fill(pair.source, chance)
        pair.copy()
        assert pair.differences() == []


def test_what_is_equal_is_neither_copied_nor_read_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (pair.source / "deep").mkdir()
    for name in ("one", "deep/two"):
        (pair.source / name).write_bytes(b"x" * 1000)
    assert pair.copy()["files"] == 2
    assert pair.copy()["files"] == 0
    monkeypatch.setattr(copying, "RACY_NS", -AGED)  # as if all of that were long ago
    pair.copy()
    monkeypatch.setattr(copying.Folder, "checksum", lambda *_: pytest.fail("read again"))
    assert pair.copy()["files"] == 0
    assert pair.differences() == []


def test_a_file_that_had_just_changed_is_read_again(tmp_path: Path) -> None:
    path, memory = tmp_path / "file", copying.Memory(tmp_path / "memory.json")
    path.write_text("x")
    memory.keep("file", path.stat(), time.time_ns(), "sum", {})
    memory.save()
    assert copying.Memory(tmp_path / "memory.json").recall("file", path.stat()) is None
    memory.keep("file", path.stat(), time.time_ns() + AGED, "sum", {})
    memory.save()
    assert copying.Memory(tmp_path / "memory.json").recall("file", path.stat()) == ("sum", {})
    path.write_text("y")
    assert copying.Memory(tmp_path / "memory.json").recall("file", path.stat()) is None, "it changed since"


def test_links_and_holes_stay(pair: Pair) -> None:
    (pair.source / "first").write_text("data")
    os.link(pair.source / "first", pair.source / "second")
    with (pair.source / "sparse").open("wb") as stream:
        stream.truncate(3 * copying.CHUNK)
        stream.seek(copying.CHUNK + 5)
        stream.write(b"in the middle")
    pair.copy()
    assert (pair.target / "first").samefile(pair.target / "second")
    assert (pair.target / "sparse").read_bytes() == (pair.source / "sparse").read_bytes()
    assert (pair.target / "sparse").stat().st_blocks * 512 < 2 * copying.CHUNK
    (pair.source / "second").unlink()
    (pair.source / "second").write_text("data")
    pair.copy()
    assert not (pair.target / "first").samefile(pair.target / "second")
    assert pair.differences() == []


def test_no_link_is_followed(pair: Pair, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (pair.source / "way").mkdir()
    (pair.source / "way" / "secret").write_text("mine")
    pair.copy()
    (pair.target / "way" / "secret").unlink()
    (pair.target / "way").rmdir()
    (pair.target / "way").symlink_to(outside)
    pair.copy()
    assert (outside / "secret").read_text() == "secret"
    assert not (pair.target / "way").is_symlink()


@pytest.mark.parametrize("seed", range(30))
def test_broken_off_anywhere_and_done_again(seed: int, pair: Pair) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        fill(pair.source, chance)
        left = chance.randrange(1, 120)

        def tick() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise BrokenError

        try:
            pair.copy(tick)
        except BrokenError:
            pair.side("target").tell(pair.exchange)
            pair.copy()
        assert pair.differences() == []


def test_the_comparison_names_what_differs(pair: Pair) -> None:
    for name in ("kept", "content", "mode", "lost"):
        (pair.source / name).write_text("1234")
    pair.copy()
    (pair.target / "content").write_text("4321")
    (pair.target / "mode").chmod(0o600)
    (pair.target / "lost").unlink()
    (pair.target / "more").write_text("")
    pair.side("target").tell(pair.exchange)
    found = pair.differences()
    assert [line.split(":")[0] for line in found] == ["content", "lost", "mode", "more"]
    assert "sha256" in found[0]


def test_a_device_is_refused_and_a_socket_left(pair: Pair) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(pair.source / "socket"))
    pair.copy()
    assert not (pair.target / "socket").exists()
    assert copying.kind_of(0o020600) == ""
    assert pair.differences() == []


def test_a_measure(pair: Pair) -> None:
    (pair.source / "file").write_bytes(b"x" * 8192)
    os.link(pair.source / "file", pair.source / "same")
    found = copying.measure(str(pair.source))
    assert found["files"] == 2
    assert found["bytes"] == (pair.source / "file").stat().st_blocks * 512
    assert found["devices"] == []
    assert found["free"] > 0
    assert json.dumps(found)


def test_a_list_of_somebody_else_is_refused(pair: Pair) -> None:
    (pair.exchange / copying.SOURCE).write_text(json.dumps({"entries": {}, "data": "../x", "numbers": {}}))
    with pytest.raises(copying.CopyError, match="no list of ours"):
        pair.side("target").place(pair.exchange)


HOLDER = """
import fcntl, os, signal, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR)

def asked_back(*_):
    time.sleep(0.5)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

signal.signal(signal.SIGIO, asked_back)
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
time.sleep(60)
"""


def test_a_file_that_a_client_has_by_delegation_is_asked_back(pair: Pair) -> None:
    """As the NFS server's own disk shows it: a lease, which an open that does not block breaks and is refused by."""
    path = pair.source / "journal"
    path.write_text("0\n")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(BlockingIOError):
                os.open(path, copying.READ)
            pair.copy()
        finally:
            holder.kill()
    assert pair.differences() == []
    assert (pair.target / "journal").read_text() == "0\n"


def test_every_run_has_an_exchange_of_its_own_and_takes_others_of_the_claim_away(tmp_path: Path) -> None:
    share, memory = tmp_path / "share", tmp_path / "memory"
    kept = [share / "pvc-1", share / ".tandem-adopt-shop_data-2@1", share / ".tandem-adopt-shop_d@1"]
    left = [share / ".tandem-adopt-shop_data@1", share / ".tandem-adopt-shop_data@2"]
    for folder in (memory, *kept, *left):
        folder.mkdir(parents=True)
    (left[0] / "packed").write_text("")
    given = {"exchange": str(share / ".tandem-adopt-shop_data@3"), "memory_folder": str(memory), "owners": []}
    mine = {**given, "exchange_owner": os.getuid()}

    def run(**parameters: Any) -> dict[str, Any]:
        return tandem_copy.work(parameters, lambda: None)

    with pytest.raises(Exception, match="is not there"):
        run(state="told", root=str(kept[0]), **given)
    assert run(state="opened", **mine) == {"changed": True}
    assert sorted(share.iterdir()) == sorted([*kept, share / ".tandem-adopt-shop_data@3"])
    assert run(state="told", root=str(kept[0]), **given)["entries"] == 1
    (memory / ".tandem-adopt-shop_data.json").write_text("{}")
    assert run(state="closed", **given, exchange_owner=-1) == {"changed": True}
    assert (share / ".tandem-adopt-shop_data@3").exists(), "a client of the share leaves it to the server"
    assert not (memory / ".tandem-adopt-shop_data.json").exists()
    assert run(state="closed", **mine) == {"changed": True}
    assert run(state="closed", **mine) == {"changed": False}
    assert sorted(share.iterdir()) == sorted(kept)
