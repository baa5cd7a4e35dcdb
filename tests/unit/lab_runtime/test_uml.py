from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.runtime import plan, uml
from lab.runtime.errors import LabError
from lab.runtime.machine import install_reboot
from lab.runtime.paths import LabPaths
from lab.runtime.state import Spec

KEY = "ssh-ed25519 AAAA tandem-lab-default"


def line(disk: str = "/state/default/disks/w1.cow") -> list[str]:
    return uml.command_line(
        plan.node("w1"), reboot=Path("/s/reboot"), disk=Path(disk), base_image=Path("/c/base.img"), authorized_key=KEY
    )


def test_the_command_line_of_a_worker() -> None:
    argv = line()
    assert argv[0] == "/s/reboot"
    assert "ubd0=/state/default/disks/w1.cow,/c/base.img" in argv
    assert "mem=2000M" in argv
    assert "vec0:transport=tap,ifname=tap-w1,depth=128,gro=1,mac=52:54:00:77:00:0b" in argv
    assert {"con0=null,fd:1", "con=null", "umid=w1", "seccomp=auto", "root=/dev/ubda", "rw"} <= set(argv)
    assert {"lab.ip=10.77.0.11/24", "lab.gw=10.77.0.1", "lab.name=w1"} <= set(argv)


def test_the_key_survives_the_kernels_command_line() -> None:
    (carried,) = [argument for argument in line() if argument.startswith("lab.sshkey=")]
    assert base64.b64decode(carried.removeprefix("lab.sshkey=")).decode() == KEY
    assert not any(c.isspace() for argument in line() for c in argument)


def test_it_fits_the_kernels_limit() -> None:
    assert len(" ".join(line())) < 2048


@pytest.mark.parametrize("disk", ["/a b/w1.cow", "/a,b/w1.cow", "/a:b/w1.cow"])
def test_a_path_that_uml_would_split_is_refused(disk: str) -> None:
    with pytest.raises(LabError, match="comma, colon or space"):
        line(disk)


def test_a_rebooting_kernel_gets_its_arguments_and_none_of_its_old_files(tmp_path: Path) -> None:
    kernel = tmp_path / "linux"
    kernel.write_text('#!/bin/sh\necho "$@"\nls /proc/self/fd\n')
    kernel.chmod(0o755)
    folder = tmp_path / "x"
    folder.mkdir()
    paths = LabPaths(tmp_path, "x")
    spec = Spec(
        name="x",
        instance="i",
        folder=folder,
        kernel=kernel,
        base_image=Path("/c/base.img"),
        authorized_key=KEY,
        apt_root=None,
        registry_root=None,
        api_port=16443,
        python=Path(sys.executable),
        rootless=False,
    )
    install_reboot(spec, paths)
    tap = os.open("/dev/null", os.O_RDWR)
    os.dup2(tap, 77)
    done = subprocess.run(
        [paths.reboot, "umid=w1", "mem=2000M"],
        env={"LAB_KERNEL": str(kernel), "PATH": "/usr/bin:/bin"},
        pass_fds=[77],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    os.close(tap)
    os.close(77)
    banner, arguments, *descriptors = done.stdout.split("\n")
    assert banner == "--- rebooting"
    assert arguments == "umid=w1 mem=2000M"
    assert "77" not in descriptors
    assert {"0", "1", "2"} <= set(descriptors)


@pytest.mark.parametrize(
    ("console", "said"),
    [
        (
            "[    1.2] up\n[ 3250.46] Kernel panic - not syncing: Segfault without recovery target\n[ 3250.46] CPU\n",
            "Segfault without recovery target",
        ),
        ("[ 9.1] reboot: System halted\n", ""),
        ("", ""),
        ("Kernel panic - not syncing: ", ""),
    ],
)
def test_a_panic_is_read_from_the_console(console: str, said: str) -> None:
    assert uml.panic_of(console) == said
