"""The API server is taken away and brought back: the real script, with programs that write down what they are asked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from lab.benches.api_server import Machine, SweepError

SYSTEMD_RUN = """#!/bin/sh
undo=true
while [ "$1" != /bin/sh ]; do
    case $1 in --property=ExecStopPost=*) undo=${1#--property=ExecStopPost=} ;; esac
    shift
done
"$@"; status=$?
echo undo >>"$LOG"
eval "$undo"
exit $status
"""


class OnThisMachine:
    """A lab whose control plane is this machine, without any power over it."""

    def ssh_argv(self, node: str, command: str) -> list[str]:
        return ["sh", "-c", command]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = {
        "systemd-run": SYSTEMD_RUN,
        "pkill": '#!/bin/sh\necho "pkill $*" >>"$LOG"\n[ ! -e "$LOG.none" ]\n',
        "nft": '#!/bin/sh\n[ "$1" = -f ] && rules=$(tr -s " \\n" " ")\necho "nft $* $rules" >>"$LOG"\n',
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


async def held(way: Any, seconds: float) -> tuple[float, list[float]]:
    lab: Any = OnThisMachine()
    begun: list[float] = []
    result = await Machine(lab).hold(way, seconds, lambda: begun.append(time.time()))
    assert result.ended == pytest.approx(time.time(), abs=5)
    return result.seconds, begun


def test_stopped_for_the_time_and_undone(log: Path) -> None:
    seconds, begun = asyncio.run(held("stop", 0.4))
    assert 0.4 <= seconds < 3
    assert len(begun) == 1
    acts = log.read_text().splitlines()
    assert acts[:3] == ["pkill -STOP -x kube-apiserver", "pkill -CONT -x kube-apiserver", "undo"]
    assert acts[3:] == ["pkill -CONT -x kube-apiserver", "nft delete table inet tandem_outage "]


def test_refused_before_it_is_killed_and_heard_again_after(log: Path) -> None:
    asyncio.run(held("kill", 0.2))
    first, second, third, *undone = log.read_text().splitlines()
    assert "ip daddr != 127.0.0.0/8 tcp dport 6443 reject with tcp reset" in first
    assert (second, third) == ("pkill -KILL -x kube-apiserver", "nft delete table inet tandem_outage ")
    assert undone[0] == "undo"


def test_a_server_that_does_not_run_is_an_error_and_is_undone_all_the_same(log: Path) -> None:
    log.with_name("log.none").touch()
    with pytest.raises(SweepError, match="cp1: `systemd-run"):
        asyncio.run(held("kill", 0.2))
    assert "undo" in log.read_text().splitlines()
