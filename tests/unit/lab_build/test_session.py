"""A run of the build takes what is there, makes what is not, and shares with a second run."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.build import BuildError
from lab.build._cache import Store
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner
from lab.build._session import Session, missing_tools
from tests.unit.lab_build.conftest import Copy, Recorder


def test_needs_come_first_and_second_run_builds_nothing(store: Store, recorder: Recorder) -> None:
    recipes = [
        Copy("top", "t", ("left", "right")),
        Copy("left", "l", ("ground",)),
        Copy("right", "r"),
        Copy("ground", "g"),
    ]
    results = Session(recipes, store).ensure(["top"], recorder)
    assert (results["top"].folder / "text").read_text() == "t+l+g+r"
    assert [name for what, name in recorder.events if what == "built"] == ["ground", "left", "right", "top"]
    again = Recorder()
    Session(recipes, store).ensure(["top"], again)
    assert {what for what, _ in again.events} == {"cached"}


def test_change_of_a_need_rebuilds_what_stands_on_it_and_nothing_else(store: Store, recorder: Recorder) -> None:
    Session([Copy("top", "t", ("ground",)), Copy("side", "s"), Copy("ground", "g")], store).ensure(
        ["top", "side"], recorder
    )
    after = Recorder()
    Session([Copy("top", "t", ("ground",)), Copy("side", "s"), Copy("ground", "G")], store).ensure(
        ["top", "side"], after
    )
    assert [name for what, name in after.events if what == "built"] == ["ground", "top"]


class Failing(Recipe):
    name = "failing"
    summary = "fails half-way"

    def inputs(self) -> Mapping[str, object]:
        return {}

    def build(self, bench: Bench) -> None:
        (bench.out / "half").write_text("half")
        bench.run("sh", "-c", "echo reason of it; exit 3")


def test_failed_build_leaves_nothing_but_its_log(store: Store, recorder: Recorder) -> None:
    session = Session([Failing()], store)
    with pytest.raises(BuildError, match=r"ended with 3(.|\n)*reason of it"):
        session.ensure(["failing"], recorder)
    assert session.find(["failing"]) == {"failing": None}
    assert list(store.work.iterdir()) == []
    assert not store.busy("failing")


class Pinned(Copy):
    asked = 0

    def resolve(self, run: Runner, scratch: Path) -> Mapping[str, str]:
        type(self).asked += 1
        return {"version": str(type(self).asked)}


def test_versions_are_asked_for_once_until_a_refresh(store: Store, recorder: Recorder) -> None:
    Pinned.asked = 0
    recipe = Pinned("pinned", "p")
    first = Session([recipe], store).ensure(["pinned"], recorder)["pinned"].key
    assert Session([recipe], store).ensure(["pinned"], recorder)["pinned"].key == first
    assert Pinned.asked == 1
    assert Session([recipe], store).ensure(["pinned"], recorder, refresh=True)["pinned"].key != first
    assert Pinned.asked == 2


class Slow(Copy):
    def build(self, bench: Bench) -> None:
        time.sleep(0.3)
        super().build(bench)
        with (bench.store.root / "count").open("a") as file:
            file.write("x")


def _ensure(root: str) -> None:
    Session([Slow("slow", "s")], Store(Path(root))).ensure(["slow"], Recorder())


def test_two_builds_at_once_build_once(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    builds = [context.Process(target=_ensure, args=(str(store.root),)) for _ in range(3)]
    for build in builds:
        build.start()
    for build in builds:
        build.join(20)
    assert [build.exitcode for build in builds] == [0, 0, 0]
    assert (store.root / "count").read_text() == "x"
    assert Session([Slow("slow", "s")], store).find(["slow"], full=True)["slow"] is not None


def test_unknown_name_lists_what_there_is(store: Store, recorder: Recorder) -> None:
    with pytest.raises(BuildError, match=r"nothing is called 'kernle'; there are: kernel"):
        Session([Copy("kernel", "k")], store).ensure(["kernle"], recorder)


def test_missing_programs_are_named_together(store: Store, recorder: Recorder) -> None:
    recipe = Copy("thing", "t")
    recipe.host_tools = ("sh", "no-such-tool-b", "no-such-tool-a")
    assert "no-such-tool-a, no-such-tool-b" in missing_tools([recipe])
    with pytest.raises(BuildError, match="make setup"):
        Session([recipe], store).ensure(["thing"], recorder)


def test_interrupted_command_is_ended_with_its_children(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner("thing", tmp_path / "log")

    def interrupted(self: subprocess.Popen[str], *args: object) -> tuple[str, str]:
        deadline = time.monotonic() + 5
        while not (tmp_path / "child").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("sh", "-c", f"sleep 30 & echo $! > {tmp_path}/child.new; mv {tmp_path}/child.new {tmp_path}/child; wait")
    child = (tmp_path / "child").read_text().strip()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and _alive(child):
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
