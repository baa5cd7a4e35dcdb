from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.runtime.control import ask
from lab.runtime.errors import LabError, NotRunningError, RefusedError
from lab.runtime.lock import folder_lock
from lab.runtime.paths import LabPaths
from lab.runtime.state import LabState, Process, boot_id
from lab.runtime.teardown import down


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no lab may end."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def state(supervisor: Process) -> LabState:
    return LabState(
        name="x", instance="i", supervisor=supervisor, api_port=16443, rootless=False, base_image=Path("/c/base.img")
    )


def test_a_process_is_known_by_more_than_its_number(bystander: subprocess.Popen[bytes]) -> None:
    process = Process.of(bystander.pid)
    assert process.alive()
    assert process.boot_id == boot_id()
    assert not process.model_copy(update={"start_time": process.start_time + 1}).alive()
    assert not process.model_copy(update={"boot_id": "another boot"}).alive()


def test_only_the_very_process_is_killed(bystander: subprocess.Popen[bytes]) -> None:
    process = Process.of(bystander.pid)
    assert not process.model_copy(update={"boot_id": "another boot"}).kill()
    assert bystander.poll() is None
    assert process.kill()
    assert bystander.wait() == -9
    assert not process.kill()


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as process:
        found = Process.of(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not found.alive()
        assert found.exists()
    assert not found.exists()


def test_a_parent_is_found() -> None:
    parent = Process.of("self").parent()
    assert parent is not None
    assert parent.pid == os.getppid()


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = state(Process.of(os.getpid()))
    written.write(tmp_path / "state.json")
    assert LabState.read(tmp_path / "state.json") == written
    assert LabState.read(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["", "{", "{}", '{"name": "x", "supervisor": 1}'])
def test_a_damaged_record_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(LabError, match="damaged"):
        LabState.read(tmp_path / "state.json")


def test_down_after_a_reboot_leaves_the_new_bearer_of_the_number_alone(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    paths = LabPaths(tmp_path, "x")
    paths.folder.mkdir()
    stale = Process.of(bystander.pid).model_copy(update={"boot_id": "the boot before"})
    state(stale).write(paths.state)
    paths.disks.mkdir()
    paths.disk("w1").write_text("a disk")
    report = down(paths)
    assert bystander.poll() is None
    assert (report.was_running, report.had_files, report.leftovers) == (False, True, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", ["", "{}", None])
def test_down_clears_what_a_crash_left_and_may_be_repeated(tmp_path: Path, record: str | None) -> None:
    paths = LabPaths(tmp_path, "x")
    paths.control_masters.mkdir(parents=True)
    if record is not None:
        paths.state.write_text(record)
    assert down(paths).had_files
    assert not down(paths).had_files
    assert list(tmp_path.iterdir()) == []


def test_two_commands_on_one_lab_exclude_each_other(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path, "x")
    with folder_lock(paths), pytest.raises(RefusedError, match="another command"), folder_lock(paths, wait_seconds=0.1):
        pass
    with folder_lock(paths, wait_seconds=0.1):
        pass


def test_asking_a_lab_that_is_not_there(tmp_path: Path) -> None:
    paths = LabPaths(tmp_path, "x")
    with pytest.raises(NotRunningError, match="not running"):
        ask(paths, {"op": "status"})
    paths.folder.mkdir()
    with pytest.raises(NotRunningError, match="not running"):
        ask(paths, {"op": "status"})
