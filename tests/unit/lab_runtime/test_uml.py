from __future__ import annotations

import base64
from pathlib import Path

import pytest

from lab.runtime import plan, uml
from lab.runtime.errors import LabError

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
