"""A lab's beginnings and ends, tidy and not; after each of them nothing is left on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.runtime import ExitCode, Lab
from tests.conftest import wait_until
from tests.lab.conftest import NAME, Cli, Footprint

pytestmark = pytest.mark.lab


def start_up() -> subprocess.Popen[str]:
    """`up` of nfs1 alone, not waited for."""
    argv = [sys.executable, "-P", "-m", "lab", "--name", NAME, "up", "--only", "nfs1"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)


def wait_for_boot(lab: Lab) -> int:
    """Wait until nfs1 is switched on, long before it has SSH; the supervisor's process id."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = lab.status()
        if "nfs1" in status.machines and status.machines["nfs1"].state == "running":
            assert status.supervisor is not None
            return status.supervisor
        time.sleep(0.02)
    pytest.fail("nfs1 was not switched on within 30 s")


def test_a_crash_of_the_supervisor_in_the_middle_of_up(lab: Lab, cli: Cli) -> None:
    lab.down()
    before = Footprint.now(lab)
    up = start_up()
    os.kill(wait_for_boot(lab), signal.SIGKILL)
    _, said = up.communicate(timeout=60)
    assert up.returncode == ExitCode.FAILED
    assert "nfs1 did not stay up" in said
    assert not lab.status().running
    assert cli("status").code == ExitCode.NOT_RUNNING
    left = Footprint.now(lab).left_since(before)
    assert set(left) <= {"files"}, left

    again = cli("up", "--only", "nfs1")
    assert again.code == 0, again.err
    assert cli("ssh", "nfs1", "hostname").out == "nfs1\n"

    # and a crash of a lab that was up, with a program of the user's in its network
    guest = subprocess.Popen(lab.exec_argv("sleep", "300"))
    wait_until(lambda: Path(f"/proc/{guest.pid}/comm").read_text() == "sleep\n", 10, "it is in the lab's network")
    supervisor = lab.status().supervisor
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    down = cli("down")
    assert down.code == 0
    assert down.out.count("ended:") == 1
    assert f"process {guest.pid} (sleep) was still in the lab's network" in down.out
    guest.wait(timeout=5)
    assert Footprint.now(lab).left_since(before) == {}
    assert "nothing to do" in cli("down").out


def test_a_crash_of_up_itself_leaves_a_lab_that_up_finishes_and_down_ends(lab: Lab, cli: Cli) -> None:
    before = Footprint.now(lab)
    up = start_up()
    supervisor = wait_for_boot(lab)
    up.kill()
    up.communicate(timeout=10)
    again = cli("up", "--only", "nfs1")
    assert again.code == 0, again.err
    assert "already up" in again.out
    assert lab.status().supervisor == supervisor
    assert lab.power_off("nfs1") is not None, "power-off right after the first boot"
    assert lab.power_on("nfs1"), "the pinned host key is still the machine's"
    down = cli("down")
    assert (down.code, down.err) == (0, "")
    assert down.out == "the lab 'lifecycle' is down; nothing is left of it\n"
    assert not Path(f"/proc/{supervisor}").exists()
    assert Footprint.now(lab).left_since(before) == {}
