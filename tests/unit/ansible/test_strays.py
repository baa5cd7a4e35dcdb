"""Pods that the cluster does not know are ended, and no others: real processes, in groups that a folder stands for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from plugins.modules import tandem_strays as strays

KNOWN, STRAY = "0021b26d-2210-42ec-b352-709b30f583da", "49fc0d52-69a9-42e4-a01f-f3fe629f04a9"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def group(root: Path, name: str, *members: int) -> Path:
    folder = root / "kubepods.slice" / "kubepods-burstable.slice" / name
    container = folder / "cri-containerd-0.scope"
    container.mkdir(parents=True)
    (container / "cgroup.procs").write_text("".join(f"{member}\n" for member in members))
    return folder


def started(
    running: ExitStack, program: str = "print('up', flush=True); import time; time.sleep(60)"
) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    running.callback(process.wait)
    running.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        ("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{0}.slice", STRAY),
        ("kubepods.slice/kubepods-pod{0}.slice", STRAY),
        ("kubepods/burstable/pod{1}", STRAY),
        ("kubelet.slice/kubepods.slice/kubepods-pod{0}.slice", STRAY),
        ("kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice", "0123456789abcdef0123456789abcdef"),
        ("kubepods.slice/kubepods-besteffort.slice", None),
        ("kubepods.slice/kubepods-podman.slice", None),
        ("system.slice/kubelet.service", None),
    ],
)
def test_pods_are_found_by_their_groups(path: str, uid: str | None, tmp_path: Path) -> None:
    folder = tmp_path / path.format(STRAY.replace("-", "_"), STRAY)
    folder.mkdir(parents=True)
    assert strays.pods(tmp_path) == ({uid: folder} if uid else {})


def test_one_that_listens_ends_by_itself_and_its_neighbour_lives(running: ExitStack, tmp_path: Path) -> None:
    stray, known = started(running), started(running)
    group(tmp_path, f"kubepods-burstable-pod{KNOWN.replace('-', '_')}.slice", known.pid)
    mine = group(tmp_path, f"kubepods-burstable-pod{STRAY.replace('-', '_')}.slice", stray.pid)
    begun = time.monotonic()
    strays.end([mine], 30)
    assert time.monotonic() - begun < 20, "it was not waited for"
    assert stray.wait() == -15
    assert known.poll() is None


def test_one_that_does_not_listen_is_killed(running: ExitStack, tmp_path: Path) -> None:
    stray = started(running, STUBBORN)
    strays.end([group(tmp_path, "x", stray.pid)], 0.3)
    assert stray.wait() == -9


def test_one_that_cannot_be_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "KILL_SECONDS", 0.2)
    monkeypatch.setattr(strays, "processes", lambda _: {4194303})
    with pytest.raises(strays.StrayError, match=r"4194303.*way out"):
        strays.end([tmp_path], 0.1)


def test_only_the_first_process_of_a_container_is_told_to_end(running: ExitStack) -> None:
    parent = started(
        running,
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('up', flush=True); time.sleep(60)",
    )
    [child] = [int(number) for number in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    try:
        assert strays.firsts({parent.pid, child}) == [parent.pid]
    finally:
        strays.send([child], signal.SIGKILL)


def test_what_has_ended_counts_no_more(running: ExitStack, tmp_path: Path) -> None:
    process = started(running)
    mine = group(tmp_path, "x", process.pid)
    assert strays.processes(mine) == {process.pid}
    process.kill()
    until = time.monotonic() + 10
    while strays.processes(mine):  # a zombie until it is waited for
        assert time.monotonic() < until
    assert process.returncode is None
