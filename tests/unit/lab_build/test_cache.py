"""The store keeps its promises: whole results only, changed ones refused, one build at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.build import BuildError
from lab.build._cache import MANIFEST, Result, Store, hash_file, hash_tree, make_key, remove_tree
from lab.build._paths import PROJECT

KEY = make_key("thing", {"a": 1})


def publish(store: Store) -> Result:
    with store.lock("thing"), store.workspace("thing") as folder:
        out = folder / "out"
        (out / "sub").mkdir(parents=True)
        (out / "one").write_text("one")
        (out / "sub/two").write_text("two")
        (out / "link").symlink_to("one")
        return store.publish("thing", KEY, out, seconds=1.5, info={"version": "7"})


def test_published_result_is_found_with_its_facts(store: Store) -> None:
    publish(store)
    found = store.find("thing", KEY, full=True)
    assert found is not None
    assert (found.seconds, found.info, (found.folder / "sub/two").read_text()) == (1.5, {"version": "7"}, "two")
    assert list(store.work.iterdir()) == []


def test_prune_removes_what_is_not_kept_and_not_being_built(store: Store) -> None:
    kept = publish(store).folder
    old, busy = store.artifacts / "thing-000000000000", store.artifacts / "other-part-000000000000"
    for folder in (old, busy):
        folder.mkdir()
    with store.lock("other-part"):
        assert store.prune([kept]) == [old]
    assert (kept.exists(), old.exists(), busy.exists()) == (True, False, True)
    assert store.prune([kept]) == [busy]


def touch_content(folder: Path) -> None:
    path = folder / "one"
    times = path.stat()
    path.write_text("eno")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "one").write_text("longer"),
        lambda folder: (folder / "sub/two").unlink(),
        lambda folder: (folder / "extra").write_text("x"),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text('{"format": 1'),
        lambda folder: (folder / MANIFEST).write_text("[]"),
        lambda folder: (folder / "one").chmod(0o777),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("sub/two")),
    ],
    ids=["changed", "missing", "foreign", "no-manifest", "half-manifest", "odd-manifest", "mode", "link"],
)
def test_damaged_result_is_refused_and_replaced(store: Store, damage: Callable[[Path], object]) -> None:
    damage(publish(store).folder)
    assert store.find("thing", KEY) is None
    publish(store)
    assert store.find("thing", KEY, full=True) is not None


def test_same_size_and_time_but_other_content_needs_the_full_check(store: Store) -> None:
    touch_content(publish(store).folder)
    assert store.find("thing", KEY) is not None
    assert store.find("thing", KEY, full=True) is None


def test_folder_without_rename_is_never_taken(store: Store) -> None:
    unfinished = store.work / "thing-1-1/out"
    unfinished.mkdir(parents=True)
    (unfinished / "one").write_text("one")
    assert store.find("thing", KEY) is None
    with store.lock("thing"), store.workspace("thing"):
        assert not unfinished.exists(), "remains of an interrupted build go first"


def test_workspace_leaves_other_recipes_alone(store: Store) -> None:
    other = store.work / "thing-else-77-1"
    other.mkdir(parents=True)
    with store.lock("thing"), store.workspace("thing"):
        assert other.exists()


def test_empty_result_is_an_error(store: Store) -> None:
    with store.lock("thing"), store.workspace("thing") as folder, pytest.raises(BuildError, match="left no files"):
        store.publish("thing", KEY, folder, seconds=0, info={})


def test_lock_of_another_process_is_waited_for(store: Store, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from lab.build._cache import Store
        with Store(Path({str(store.root)!r})).lock("thing"):
            print("held", flush=True)
            time.sleep(0.4)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert store.busy("thing")
    with store.lock("thing") as waited:
        assert waited
    assert process.wait() == 0
    assert not store.busy("thing")
    process.stdout.close()


def test_key_changes_with_name_and_every_input() -> None:
    keys = {
        make_key("a", {"x": 1, "y": [1, 2]}),
        make_key("b", {"x": 1, "y": [1, 2]}),
        make_key("a", {"x": 2, "y": [1, 2]}),
        make_key("a", {"x": 1, "y": [2, 1]}),
        make_key("a", {"x": 1}),
    }
    assert len(keys) == 5
    assert make_key("a", {"x": 1, "y": 2}) == make_key("a", {"y": 2, "x": 1})


def test_tree_digest_sees_names_contents_and_the_executable_bit(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    seen = {hash_tree(tmp_path)}
    (tmp_path / "a").write_text("2")
    seen.add(hash_tree(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(hash_tree(tmp_path))
    (tmp_path / "b").chmod(0o755)
    seen.add(hash_tree(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/b.pyc").write_text("3")
    assert hash_tree(tmp_path) in seen
    assert len(seen) == 4


def test_large_file_has_one_digest_with_holes_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.build._cache._SPARSE_FROM", 1 << 20)
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    with sparse.open("wb") as file:
        file.seek(5 << 20)
        file.write(b"data")
        file.truncate(9 << 20)
    full.write_bytes(sparse.read_bytes())
    assert hash_file(sparse) == hash_file(full)
    with full.open("r+b") as file:
        file.seek(7 << 20)
        file.write(b"x")
    assert hash_file(sparse) != hash_file(full)


def test_mounted_folder_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tmp_path / "held"
    (held / "proc").mkdir(parents=True)
    read = Path.read_text
    line = f"36 35 98:0 / {held}/proc rw - proc proc rw\n"
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: line if self.name == "mountinfo" else read(self, *a, **k)
    )
    with pytest.raises(BuildError, match="still mounted"):
        remove_tree(held)
    assert held.exists()


def test_last_seconds_are_remembered(store: Store) -> None:
    assert store.last_seconds("thing") is None
    store.remember_seconds("thing", 521.04)
    store.remember_seconds("other", 1)
    assert store.last_seconds("thing") == 521.0
