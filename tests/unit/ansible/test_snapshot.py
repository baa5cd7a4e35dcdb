"""Snapshots of the share: independent of the live files, cheap when nothing changed, and one volume comes back."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "roles/nfs_server/files/snapshot.py"
VOLUME = "pvc-1_default_data"


@pytest.fixture(scope="module")
def snapshot() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("tandem_snapshot", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A share with one volume in it."""
    folder = tmp_path / "share"
    (folder / VOLUME / "deep").mkdir(parents=True)
    (folder / ".tandem-share").touch()
    (folder / ".trash").mkdir()
    (folder / VOLUME / "log").write_text("one\n")
    (folder / VOLUME / "deep" / "file").write_text("same\n")
    (folder / VOLUME / "link").symlink_to("log")
    (folder / VOLUME / "log").chmod(0o640)
    return folder


@pytest.fixture(autouse=True)
def _clock(snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = iter(f"20260101T0000{second:02}Z" for second in range(60))
    monkeypatch.setattr(snapshot.time, "strftime", lambda *_: next(names))
    return iter(())


def make(snapshot: Any, share: Path, keep: int = 10) -> Path:
    store = share.parent / "store"
    return store / str(snapshot.make(share, store, keep, ".tandem-share", "")["name"])


def test_a_snapshot_is_a_copy_with_its_attributes(snapshot: Any, share: Path) -> None:
    taken = make(snapshot, share) / VOLUME
    assert (taken / "log").read_text() == "one\n"
    assert (taken / "log").stat().st_mode & 0o777 == 0o640
    assert (taken / "log").stat().st_mtime_ns == (share / VOLUME / "log").stat().st_mtime_ns
    assert (taken / "link").readlink() == Path("log")
    assert not (taken.parent / ".trash").exists()


def test_a_program_that_writes_in_place_does_not_write_into_the_past(snapshot: Any, share: Path) -> None:
    first = make(snapshot, share)
    with (share / VOLUME / "log").open("r+") as stream:
        stream.write("TWO\n")
    second = make(snapshot, share)
    assert (first / VOLUME / "log").read_text() == "one\n"
    assert (second / VOLUME / "log").read_text() == "TWO\n"


def test_what_did_not_change_takes_no_space(snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "can_clone", lambda *_: False)
    first, second = make(snapshot, share), make(snapshot, share)
    inode = (first / VOLUME / "deep" / "file").stat().st_ino
    assert (second / VOLUME / "deep" / "file").stat().st_ino == inode
    assert (share / VOLUME / "deep" / "file").stat().st_ino != inode, "never a link to the live file"


def test_old_ones_go_and_the_others_stay_whole(snapshot: Any, share: Path) -> None:
    taken = [make(snapshot, share, keep=2) for _ in range(4)]
    assert [path.exists() for path in taken] == [False, False, True, True]
    assert (taken[-1] / VOLUME / "deep" / "file").read_text() == "same\n"


def test_a_share_that_is_not_mounted_removes_nothing(snapshot: Any, share: Path) -> None:
    taken = make(snapshot, share)
    (share / ".tandem-share").unlink()
    with pytest.raises(snapshot.SnapshotError, match="not the share"):
        make(snapshot, share, keep=1)
    assert taken.exists()


def test_a_store_inside_the_share_is_refused(snapshot: Any, share: Path) -> None:
    with pytest.raises(snapshot.SnapshotError, match="lies inside"):
        snapshot.make(share, share / "snapshots", 1, ".tandem-share", "")


def test_an_attempt_that_was_cut_short_is_cleared_away(snapshot: Any, share: Path) -> None:
    make(snapshot, share)
    left = share.parent / "store" / f"{snapshot.PARTIAL}20250101T000000Z"
    (left / "x").mkdir(parents=True)
    make(snapshot, share)
    assert not left.exists()


def restore(snapshot: Any, share: Path, source: str = "", *, replace: bool = False) -> Any:
    return snapshot.restore(share, share.parent / "store", ".trash", VOLUME, source, replace=replace)


def test_a_deleted_volume_comes_back_out_of_the_trash(snapshot: Any, share: Path) -> None:
    make(snapshot, share)
    (share / VOLUME / "log").write_text("after the snapshot\n")
    (share / VOLUME).rename(share / ".trash" / f"{VOLUME}.1790000000")
    restore(snapshot, share)
    assert (share / VOLUME / "log").read_text() == "after the snapshot\n"


def test_a_named_snapshot_comes_back_and_what_was_there_goes_to_the_trash(snapshot: Any, share: Path) -> None:
    first = make(snapshot, share)
    (share / VOLUME / "log").write_text("spoiled\n")
    make(snapshot, share)
    with pytest.raises(snapshot.SnapshotError, match="there already"):
        restore(snapshot, share, first.name)
    assert (share / VOLUME / "log").read_text() == "spoiled\n"
    restore(snapshot, share, first.name, replace=True)
    assert (share / VOLUME / "log").read_text() == "one\n"
    (aside,) = (share / ".trash").iterdir()
    assert (aside / "log").read_text() == "spoiled\n"
    with (share / VOLUME / "log").open("a") as stream:
        stream.write("more\n")
    assert (first / VOLUME / "log").read_text() == "one\n", "the snapshot is not the volume"


@pytest.mark.parametrize(
    ("volume", "words"), [("nothing", "not to be had"), ("../x", "not the name"), (".trash", "not the name")]
)
def test_what_cannot_be_had_is_told(snapshot: Any, share: Path, volume: str, words: str) -> None:
    with pytest.raises(snapshot.SnapshotError, match=words):
        snapshot.restore(share, share.parent / "store", ".trash", volume, "", replace=False)


def test_the_command_line(share: Path) -> None:
    store = share.parent / "store"
    command = [sys.executable, str(SCRIPT)]
    places = ["--share", str(share), "--store", str(store)]
    done = subprocess.run([*command, "make", *places], capture_output=True, text=True, check=True)
    name = json.loads(done.stdout)["name"]
    listed = subprocess.run([*command, "list", *places], capture_output=True, text=True, check=True)
    assert json.loads(listed.stdout) == {name: [VOLUME]}
    refused = subprocess.run(
        [*command, "restore", *places, "--volume", VOLUME], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "there already" in refused.stderr


@pytest.fixture
def rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An rsync that copies to a folder of this machine, and fails while `down` exists."""
    program = tmp_path / "bin" / "rsync"
    program.parent.mkdir()
    script = f"""#!/bin/sh
[ -e {tmp_path}/down ] && echo "ssh: no route to host" >&2 && exit 255
for source; do :; done
target=$source; while [ "$2" ]; do source=$1; shift; done
rm -rf {tmp_path}/off && cp -a "$source" {tmp_path}/off && echo "$target" >{tmp_path}/asked
"""
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


def test_the_target_off_the_machine_holds_what_the_store_holds(snapshot: Any, share: Path, rsync: Path) -> None:
    store = share.parent / "store"
    for _ in range(3):
        snapshot.make(share, store, 2, ".tandem-share", "backup@far:/tandem")
    assert sorted(entry.name for entry in (rsync / "off").iterdir()) == snapshot.snapshots(store)
    assert len(snapshot.snapshots(store)) == 2
    assert (rsync / "asked").read_text() == "backup@far:/tandem\n"


def test_a_target_that_is_away_is_told_and_the_snapshot_stays(snapshot: Any, share: Path, rsync: Path) -> None:
    (rsync / "down").touch()
    store = share.parent / "store"
    with pytest.raises(snapshot.SnapshotError, match=r"was taken, but is not on backup@far:/tandem.*no route to host"):
        snapshot.make(share, store, 2, ".tandem-share", "backup@far:/tandem")
    assert len(snapshot.snapshots(store)) == 1
