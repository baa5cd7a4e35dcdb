"""Snapshots of the share: independent of the live files, cheap when nothing changed, and one volume comes back."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
import yaml

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
    return store / str(snapshot.make(share, store, keep, ".tandem-share")["name"])


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
        snapshot.make(share, share / "snapshots", 1, ".tandem-share")


def test_an_attempt_that_was_cut_short_is_cleared_away(snapshot: Any, share: Path) -> None:
    make(snapshot, share)
    left = share.parent / "store" / f"{snapshot.PARTIAL}20250101T000000Z"
    (left / "x").mkdir(parents=True)
    make(snapshot, share)
    assert not left.exists()


def disk(snapshot: Any, monkeypatch: pytest.MonkeyPatch, share: Path, blocks: int) -> None:
    """A disk of so many blocks of which every file in the store takes one; blocks cannot be shared on it."""

    def look(_: Path) -> SimpleNamespace:
        inodes = {path.stat().st_ino for path in (share.parent / "store").rglob("*") if path.is_file()}
        return SimpleNamespace(f_frsize=snapshot.BLOCK, f_blocks=blocks, f_bavail=blocks - len(inodes))

    monkeypatch.setattr(snapshot, "can_clone", lambda *_: False)
    monkeypatch.setattr(snapshot.os, "statvfs", look)


def make_on(snapshot: Any, share: Path, keep: int = 3) -> dict[str, Any]:
    """A snapshot that must leave half of the disk free."""
    result: dict[str, Any] = snapshot.make(share, share.parent / "store", keep, ".tandem-share", min_free_percent=50)
    return result


def test_a_snapshot_that_would_fill_the_disk_is_not_begun(
    snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share / VOLUME / "big").write_bytes(b"x" * 50 * snapshot.BLOCK)
    disk(snapshot, monkeypatch, share, 100)
    with pytest.raises(
        snapshot.SnapshotError, match=r"no snapshot was taken.*50 % of the disk.*tandem_snapshot_folder"
    ):
        make_on(snapshot, share)
    assert not list((share.parent / "store").iterdir())


def test_what_did_not_change_needs_no_room(snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (share / VOLUME / "big").write_bytes(b"x" * 30 * snapshot.BLOCK)
    disk(snapshot, monkeypatch, share, 100)
    for _ in range(2):
        make_on(snapshot, share)
    assert len(snapshot.snapshots(share.parent / "store")) == 2


def test_where_space_is_short_the_oldest_goes_first_and_the_last_never(
    snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(snapshot, monkeypatch, share, 18)  # 9 may be used; a snapshot needs a file, and a folder for it and its volume

    def changed() -> dict[str, Any]:
        (share / VOLUME / "log").write_text(f"{time.time_ns()}\n")
        (share / VOLUME / "deep" / "file").write_text(f"{time.time_ns()}\n")
        return make_on(snapshot, share)

    first, second, third = (changed()["name"] for _ in range(3))
    result = changed()
    assert result["removed"] == [first]
    assert snapshot.snapshots(share.parent / "store") == [second, third, result["name"]]

    disk(snapshot, monkeypatch, share, 2)
    for _ in range(2):
        with pytest.raises(snapshot.SnapshotError, match=f"removed to make room: ({second}|nothing)"):
            changed()
    assert snapshot.snapshots(share.parent / "store") == [third, result["name"]]
    for _ in range(2):
        with pytest.raises(snapshot.SnapshotError, match="no snapshot was taken"):
            make_on(snapshot, share, keep=1)
    assert snapshot.snapshots(share.parent / "store") == [result["name"]]


def test_a_snapshot_that_fails_half_way_leaves_nothing_behind(
    snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    taken = make(snapshot, share)
    (share / VOLUME / "log").write_text("changed\n")
    monkeypatch.setattr(snapshot, "can_clone", lambda *_: False)
    monkeypatch.setattr(snapshot.shutil, "copyfile", full)
    with pytest.raises(snapshot.SnapshotError, match=r"was not taken, and nothing of it is left.*No space left"):
        make(snapshot, share, keep=1)
    assert list((share.parent / "store").iterdir()) == [taken]


def test_a_volume_that_is_deleted_meanwhile_is_left_out_whole(
    snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share / "pvc-2").mkdir()
    copy = snapshot.shutil.copyfile

    def deleted(old: Path, new: Path) -> None:
        copy(old, new)
        (share / VOLUME).rename(share / ".trash" / f"{VOLUME}.1790000000")

    monkeypatch.setattr(snapshot, "can_clone", lambda *_: False)
    monkeypatch.setattr(snapshot.shutil, "copyfile", deleted)
    assert [entry.name for entry in make(snapshot, share).iterdir()] == ["pvc-2"]


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
    assert aside.name.endswith(snapshot.REPLACED)
    assert (aside / "log").read_text() == "spoiled\n"
    with (share / VOLUME / "log").open("a") as stream:
        stream.write("more\n")
    assert (first / VOLUME / "log").read_text() == "one\n", "the snapshot is not the volume"


def test_the_later_one_of_trash_and_snapshot_comes_back(snapshot: Any, share: Path) -> None:
    (share / VOLUME).rename(share / ".trash" / f"{VOLUME}.999999999")  # in 2001: before the snapshot
    (share / ".trash" / f"{VOLUME}.1000000000").mkdir()
    (share / ".trash" / f"{VOLUME}.other.1790000000").mkdir()
    (share / VOLUME).mkdir()
    (share / VOLUME / "log").write_text("in the snapshot\n")
    taken = make(snapshot, share)
    shutil.rmtree(share / VOLUME)
    assert restore(snapshot, share)["from"] == str(taken / VOLUME)
    shutil.rmtree(share / VOLUME)
    named = restore(snapshot, share, "trash")["from"]
    assert named == str(share / ".trash" / f"{VOLUME}.1000000000"), "the later one by number, and of this volume"


def test_what_a_restore_put_aside_comes_back_only_by_name(snapshot: Any, share: Path) -> None:
    first = make(snapshot, share)
    (share / VOLUME / "log").write_text("spoiled\n")
    restore(snapshot, share, first.name, replace=True)
    shutil.rmtree(share / VOLUME)  # as if the restore had been killed between putting aside and putting in place
    assert restore(snapshot, share)["from"] == str(first / VOLUME)
    restore(snapshot, share, "replaced", replace=True)
    assert (share / VOLUME / "log").read_text() == "spoiled\n"
    shutil.rmtree(first)
    shutil.rmtree(share / VOLUME)
    with pytest.raises(snapshot.SnapshotError, match="not to be had; it is in: replaced"):
        restore(snapshot, share)


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOSPC])
def test_a_volume_that_cannot_be_copied_whole_does_not_come_back(
    snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Another one may delete the source, and the disk may be full."""

    def fails(*_: Path) -> None:
        raise OSError(error, os.strerror(error))

    first = make(snapshot, share)
    monkeypatch.setattr(snapshot, "can_clone", lambda *_: False)
    monkeypatch.setattr(snapshot.shutil, "copyfile", fails)
    with pytest.raises(snapshot.SnapshotError, match="could not be copied whole, and nothing has been changed"):
        restore(snapshot, share, first.name, replace=True)
    assert (share / VOLUME / "log").read_text() == "one\n"
    assert sorted(entry.name for entry in share.iterdir()) == [".tandem-share", ".trash", VOLUME]


def test_one_at_a_time(snapshot: Any, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against flock(1), by which the removal of old trash holds the lock."""
    monkeypatch.setattr(snapshot, "LOCK_SECONDS", 0.3)
    taken = make(snapshot, share)
    other = ["flock", str(share.parent / "store"), "sh", "-c", "echo held; cat"]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for attempt in (lambda: make(snapshot, share), lambda: restore(snapshot, share, taken.name, replace=True)):
            with pytest.raises(snapshot.SnapshotError, match="nothing was changed; way out: wait"):
                attempt()
        assert not list((share / ".trash").iterdir())
        holder.communicate()
    make(snapshot, share)
    with snapshot.alone(share.parent / "store"):
        held = subprocess.run(["flock", "--nonblock", str(share.parent / "store"), "true"], check=False)
    assert held.returncode == 1


@pytest.mark.parametrize("snapshots", [True, False])
def test_old_trash_is_removed_under_the_same_lock(snapshots: bool) -> None:
    template = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701
    template.globals["lookup"] = lambda *_, **__: ""
    template.filters["to_json"] = json.dumps
    text = template.from_string((SCRIPT.parents[1] / "templates/files.yml.j2").read_text()).render(
        nfs_server_snapshots=snapshots, nfs_server_snapshot_folder="/srv/store", nfs_server_path="/srv/share",
        nfs_server_trash=".trash", nfs_server_trash_days=14,
    )  # fmt: skip
    files = {entry["path"]: entry["content"] for entry in yaml.safe_load(text)}
    found = files["/etc/systemd/system/tandem-trash.service"].splitlines()
    first, *_ = [line for line in found if line.startswith("ExecStart=")]
    assert ("ExecStartPre=/usr/bin/mkdir -p -m 0700 /srv/store" in found) == snapshots
    assert first.removeprefix("ExecStart=/usr/bin/flock /srv/store " if snapshots else "ExecStart=") == (
        "/usr/bin/find /srv/share/.trash -mindepth 1 -maxdepth 1 -ctime +14 -exec rm -rf -- {} +"
    )


def test_a_restore_holds_the_lock_of_the_cluster() -> None:
    first, *_ = yaml.safe_load((SCRIPT.parents[1] / "tasks/restore.yml").read_text())
    assert first["tandem_lock"] == {"kubeconfig": "{{ nfs_server_kubeconfig }}"}


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


TARGET_KEEP = 4
STAND_IN = """#!{python}
import os, shutil, sys
from pathlib import Path
options = [word for word in sys.argv[1:] if word.startswith("--")]
*sources, place = [word for word in sys.argv[1:] if not word.startswith("--")]
local = lambda word: Path(word.removeprefix("backup@far:"))
before = [local(place) / word.split("=")[1] for word in options if word.startswith("--link-dest=")]
if Path("{folder}/down").exists() or Path("{folder}/full").exists() and any("/2026" in word for word in sources):
    sys.exit("ssh: no route to host")
def copy(old, new):
    same = [base / Path(new).relative_to(local(place)) for base in before]
    same = [path for path in same if path.is_file() and path.read_bytes() == Path(old).read_bytes()]
    os.link(same[0], new) if same else shutil.copy2(old, new)
if "--list-only" in options:
    for entry in local(place).iterdir():
        print("drwx------ 4,096 2026/01/01 00:00:00", entry.name)
elif "--dirs" in options:
    local(place).mkdir(exist_ok=True)
elif "--recursive" in options:
    for word in options:
        if word.startswith("--include=/"):
            shutil.rmtree(local(place) / word.removeprefix("--include=/").removesuffix("/***"))
elif local(sources[0]).is_file():
    shutil.copy2(local(sources[0]), local(place))
else:
    shutil.rmtree(local(place), ignore_errors=True)
    shutil.copytree(sources[0], local(place), symlinks=True, copy_function=copy)
"""
SSH = """#!/bin/sh
[ -e {folder}/down ] && echo "ssh: no route to host" >&2 && exit 255
while [ "${{1#-}}" != "$1" ]; do shift 2; done
case "$*" in *" {folder}/off/2026"*) [ -e {folder}/full ] && exit 255; esac
[ "$1" = far ] && shift && exec sh -c "$*"
"""
"""Another machine: this one, under a name that only this program knows."""


@pytest.fixture(params=["stand-in", "rsync"])
def far(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The target's folder on another machine: away while `down` exists, with room for names alone while `full` does."""
    programs = tmp_path / "bin"
    programs.mkdir()
    if request.param == "rsync":
        if shutil.which("rsync") is None:
            pytest.skip("no rsync here")
        program, text = programs / "ssh", SSH
    else:
        program, text = programs / "rsync", STAND_IN
    program.write_text(text.format(folder=tmp_path, python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path / "off"


def make_far(snapshot: Any, share: Path, keep: int = 2) -> dict[str, Any]:
    """A snapshot that is copied off the machine."""
    target = f"backup@far:{share.parent}/off"
    result: dict[str, Any] = snapshot.make(share, share.parent / "store", keep, ".tandem-share", target, TARGET_KEEP)
    return result


def test_the_target_off_the_machine_has_a_history_of_its_own(snapshot: Any, share: Path, far: Path) -> None:
    taken = [make_far(snapshot, share) for _ in range(6)]
    names = [result["name"] for result in taken]
    assert snapshot.snapshots(far) == names[-TARGET_KEEP:]
    assert [result["target_removed"] for result in taken] == [[], [], [], [], names[:1], names[1:2]]
    assert snapshot.snapshots(share.parent / "store") == names[-2:]
    assert (far / names[-1] / VOLUME / "deep" / "file").read_text() == "same\n"


def test_what_did_not_change_takes_no_space_at_the_target(
    snapshot: Any, share: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reflinked snapshots have no hard links that rsync could keep."""
    monkeypatch.setattr(snapshot, "can_clone", lambda *_: True)
    monkeypatch.setattr(snapshot, "clone", lambda source, target: bool(shutil.copyfile(source, target)))
    first, second = (far / make_far(snapshot, share)["name"] / VOLUME / "deep" / "file" for _ in range(2))
    assert first.stat().st_ino == second.stat().st_ino


def test_an_attempt_to_copy_leaves_nothing_of_itself_at_the_target(snapshot: Any, share: Path, far: Path) -> None:
    make_far(snapshot, share)
    (share.parent / "store" / f"{snapshot.PARTIAL}20270101T000000Z").mkdir()
    make_far(snapshot, share)
    assert not list(far.glob(f"{snapshot.PARTIAL}*"))


@pytest.mark.parametrize("place", ["the same folder, emptied", "another folder"])
def test_a_store_that_was_made_anew_does_not_erase_the_copy(snapshot: Any, share: Path, far: Path, place: str) -> None:
    for _ in range(3):
        make_far(snapshot, share)
    copied = snapshot.snapshots(far)
    if place == "another folder":
        (share.parent / "store").rename(share.parent / "gone")
    else:
        for name in (share.parent / "store").iterdir():
            shutil.rmtree(name) if name.is_dir() else name.unlink()
    shutil.rmtree(share / VOLUME)
    for _ in range(3):
        with pytest.raises(snapshot.SnapshotError, match=r"3 snapshots .* of another store .* bring them back"):
            make_far(snapshot, share)
    assert snapshot.snapshots(far) == copied
    assert (far / copied[-1] / VOLUME / "log").read_text() == "one\n"
    assert len(snapshot.snapshots(share.parent / "store")) == 2, "the snapshots here go on"

    shutil.copytree(far, share.parent / "store", dirs_exist_ok=True, symlinks=True)
    snapshot.restore(share, share.parent / "store", ".trash", VOLUME, copied[-1], replace=False)
    make_far(snapshot, share, keep=9)
    assert set(copied) & set(snapshot.snapshots(far)), "what was brought back makes them one again"


def test_a_copy_without_a_mark_is_known_by_its_snapshots(snapshot: Any, share: Path, far: Path) -> None:
    first = make(snapshot, share)
    shutil.copytree(first, far / first.name, symlinks=True)
    make_far(snapshot, share)
    assert len(snapshot.snapshots(far)) == 2


def test_a_copy_without_a_mark_is_not_taken_by_a_new_store(snapshot: Any, share: Path, far: Path) -> None:
    (far / "20250101T000000Z").mkdir(parents=True)
    with pytest.raises(snapshot.SnapshotError, match="another store"):
        make_far(snapshot, share)
    assert [entry.name for entry in far.iterdir()] == ["20250101T000000Z"]


def test_nothing_goes_at_the_target_while_the_store_is_young(snapshot: Any, share: Path, far: Path) -> None:
    for _ in range(TARGET_KEEP + 2):
        make_far(snapshot, share, keep=9)
    assert len(snapshot.snapshots(far)) == TARGET_KEEP + 2


def test_a_target_that_is_away_is_told_and_the_snapshot_stays(snapshot: Any, share: Path, far: Path) -> None:
    make_far(snapshot, share)
    (far.parent / "down").touch()
    with pytest.raises(snapshot.SnapshotError, match=r"was taken, but is not on backup@far:.*no route to host"):
        make_far(snapshot, share)
    assert len(snapshot.snapshots(share.parent / "store")) == 2
    (far.parent / "down").unlink()
    make_far(snapshot, share, keep=9)
    assert snapshot.snapshots(far) == snapshot.snapshots(share.parent / "store"), "the next run makes up for it"


def test_a_copy_that_was_cut_short_is_made_whole_or_removed(snapshot: Any, share: Path, far: Path) -> None:
    make_far(snapshot, share)
    (far.parent / "full").touch()
    torn = []
    for _ in range(2):
        with pytest.raises(snapshot.SnapshotError, match="is not on"):
            make_far(snapshot, share)
        torn.append(snapshot.snapshots(share.parent / "store")[-1])
        (far / torn[-1]).mkdir(exist_ok=True)
    make(snapshot, share, keep=2)
    (far.parent / "full").unlink()
    result = make_far(snapshot, share, keep=2)
    assert result["target_removed"] == torn, "they are here no more, and nobody can make them whole"
    assert all((far / name / VOLUME / "deep" / "file").is_file() for name in snapshot.snapshots(far))
