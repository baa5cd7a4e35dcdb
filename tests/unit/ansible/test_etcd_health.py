"""Nothing takes a member of etcd away while another one is down, although every node is Ready."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.modules import tandem_etcd
from tests.stand_ins import install

ROOT = Path(__file__).resolve().parents[3]
ETCDCTL = """#!/bin/sh
case "$*" in
*"endpoint health --cluster")
    [ -e "{folder}/down" ] || exit 0
    [ ! -e "{folder}/starts" ] || rm "{folder}/down"
    echo "10.0.0.12 is unhealthy" >&2
    exit 1 ;;
*"alarm list") cat "{folder}/alarms" 2>/dev/null; exit 0 ;;
esac
exit 2
"""


@pytest.fixture
def etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which files make the machine's etcd sick; its etcdctl is there, and no other program of it."""
    program = tmp_path / "etcdctl"
    program.write_text(ETCDCTL.format(folder=tmp_path))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(tandem_etcd, "programs", lambda pid, names: {name: str(tmp_path / name) for name in names})
    monkeypatch.setattr(tandem_etcd, "processes", lambda: {"etcd": {"pid": 1, "args": {}}})
    monkeypatch.setattr(tandem_etcd, "MANIFEST", tmp_path / "etcd.yaml")
    monkeypatch.setattr(tandem_etcd, "POLL_SECONDS", 0.05)
    return tmp_path


def test_all_members_answer_and_none_has_raised_an_alarm(etcd: Path) -> None:
    assert tandem_etcd.health(0) == ""
    (etcd / "alarms").write_text("memberID:1 alarm:NOSPACE\n")
    assert tandem_etcd.health(0) == "memberID:1 alarm:NOSPACE"
    (etcd / "down").touch()
    assert "10.0.0.12 is unhealthy" in tandem_etcd.health(0.2)


def test_a_member_that_has_just_started_is_waited_for(etcd: Path) -> None:
    for file in ("down", "starts"):
        (etcd / file).touch()
    assert tandem_etcd.health(30) == ""


def test_a_node_whose_etcd_should_run_and_one_that_has_none(etcd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tandem_etcd, "processes", dict)
    assert tandem_etcd.health(0) == "", "it is elsewhere"
    (etcd / "etcd.yaml").touch()
    assert tandem_etcd.health(0.2) == "it does not run"


PLAN = {"refusals": [], "booted": False, "evicted": [], "away": [], "services": []}
READY = {"cluster": {"reachable": True, "nodes": {"cp1": {"ready": "True"}, "cp2": {"ready": "True"}}}}
DUE = {"certificates_due": {name: {"renew": True, "restart": ["etcd"]} for name in ("cp1", "cp2")}}
GIVEN: dict[str, dict[str, Any]] = {
    "certificates": DUE,
    "node_reboot": {"nodes": "cp1"},
    "cluster_upgrade": {"cluster_upgrade_pending": ["cp1"]},
}


def run(tmp_path: Path, role: str, part: str, sick: str, **given: Any) -> tuple[int, str, list[str]]:
    """A role's tasks; their status, what they said in one line, and what the machine's modules were asked."""
    answers: dict[str, dict[str, Any]] = {
        "tandem_etcd": {"sick": sick},
        "tandem_share": {"answered": True},
        "tandem_drain": PLAN,
        "tandem_cluster": READY,
    }
    log = install(tmp_path, answers)
    hosts = {"control_plane": ["cp1", "cp2"], "workers": ["w1", "w2"], "nfs_server": ["n"]}
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "tandem_kubeconfig": str(tmp_path / "none"),
        "preflight_answer": {"node": {"certificates": [], "processes": {}}},
    }
    children: dict[str, Any] = {group: {"hosts": {name: {} for name in names}} for group, names in hosts.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": variables, "children": children}}))
    task = {"name": "part", "ansible.builtin.import_role": {"name": role, "tasks_from": part}}
    where = "all" if (role, part) == ("node_reboot", "plan") else "control_plane"
    play = {"hosts": where, "gather_facts": False, "any_errors_fatal": True, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", f"{tmp_path}/hosts.yml"]
    done = subprocess.run(
        [*command, f"{tmp_path}/play.yml", "--extra-vars", json.dumps({**GIVEN[role], **given})],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LIBRARY": str(tmp_path / "library"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split()), log.read_text().splitlines()


@pytest.mark.parametrize(
    ("role", "part", "so_far"),
    [
        ("certificates", "plan", "Nothing has been changed"),
        ("certificates", "main", "cp1 was not touched"),
        ("node_reboot", "plan", "Nothing has been changed"),
        ("node_reboot", "main", "cp1 was not touched"),
        ("cluster_upgrade", "main", "cp1 was not touched"),
    ],
)
def test_a_member_that_is_down_stops_it(tmp_path: Path, role: str, part: str, so_far: str) -> None:
    status, told, asked = run(tmp_path, role, part, "10.0.0.12 is unhealthy")
    assert status != 0
    assert f"{so_far}. cp1: etcd is not healthy: 10.0.0.12 is unhealthy" in told
    assert "tandem_etcd healthy" in asked
    assert not {"tandem_restart None", "tandem_backup None", "tandem_drain drained", "tandem_files None"} & set(asked)


@pytest.mark.parametrize(("machine", "asks"), [("n", 0), ("w1", 2)])
def test_the_nfs_machine_alone_reboots_whatever_etcd_says(tmp_path: Path, machine: str, asks: int) -> None:
    status, told, asked = run(tmp_path, "node_reboot", "plan", "" if asks else "down", nodes=machine)
    assert status == 0, told
    assert asked.count("tandem_etcd healthy") == asks
