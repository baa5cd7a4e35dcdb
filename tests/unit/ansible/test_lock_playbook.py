"""Two real runs of ansible-playbook and one Lease: the second is refused, a killed first one leaves no lock."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.one_lease import Leases, serving

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"name": "held", "tandem_lock": {"kubeconfig": "{{ config }}"}, "register": "lock"},
            {
                "name": "ours",
                "tandem_lock": {"kubeconfig": "{{ config }}", "state": "confirmed", "identity": "{{ lock.identity }}"},
            },
            {"name": "working", "ansible.builtin.wait_for": {"timeout": "{{ seconds }}"}},
        ],
    }
]


WAITING = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {
            "control_plane_ha_kubeconfig": "{{ config }}",
            "control_plane_ha_api_timeout_seconds": 5,
            "preflight_answer": {"node": {"joined": True}},
        },
        "tasks": [
            {
                "name": "held",
                "ansible.builtin.import_tasks": str(ROOT / "roles" / "control_plane_ha" / "tasks" / "lock.yml"),
            }
        ],
    }
]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig for a server that runs for the test."""
    with serving(tmp_path) as path:
        yield path


def start(
    tmp_path: Path, config: Path, seconds: int, *arguments: str, plays: list[dict[str, Any]] = PLAYBOOK
) -> subprocess.Popen[str]:
    """A run that holds the lock and then works for some seconds."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump(plays))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", "localhost,", str(playbook)]
    command += ["--extra-vars", json.dumps({"config": str(config), "seconds": seconds}), *arguments]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def holder() -> str:
    return str((Leases.lease or {"spec": {}})["spec"].get("holderIdentity", ""))


def wait_for(condition: Any, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path, config: Path) -> None:
    first = start(tmp_path, config, 60)
    try:
        assert wait_for(holder, 90)
        assert str(first.pid) in holder(), "the lock is the playbook's, not that of a worker of it"
        second = start(tmp_path, config, 1)
        told, _ = second.communicate(timeout=120)
        assert second.returncode != 0
        assert "another run changes this cluster" in told
        assert f"process {first.pid}" in told
        checked = start(tmp_path, config, 1, "--check")
        assert checked.wait(timeout=120) == 0, "a check run takes no lock and is not kept out"
        assert str(first.pid) in holder()
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert wait_for(lambda: not holder(), 20), "given back within seconds of the kill"
    third = start(tmp_path, config, 1)
    told, _ = third.communicate(timeout=120)
    assert third.returncode == 0, told
    assert wait_for(lambda: not holder(), 20)


def test_an_api_server_that_starts_is_waited_for(tmp_path: Path, config: Path) -> None:
    Leases.forbidding = 1  # as before it knows its own rules
    told, _ = (run := start(tmp_path, config, 1, plays=WAITING)).communicate(timeout=120)
    assert run.returncode == 0, told
    assert Leases.forbidding == 0
    assert Leases.lease is not None
    Leases.forbidding = 1000
    told, _ = (run := start(tmp_path, config, 1, plays=WAITING)).communicate(timeout=120)
    Leases.forbidding = 0
    assert run.returncode != 0
    assert "403" in told, "bounded, and it says what the API said"


def test_a_kubeconfig_of_another_cluster_is_told_at_once(tmp_path: Path, config: Path) -> None:
    (other := tmp_path / "other").mkdir()
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other", *files]
    subprocess.run(argv, cwd=other, check=True, capture_output=True)
    document = yaml.safe_load(config.read_text())
    authority = base64.b64encode((other / "cert.pem").read_bytes()).decode()
    document["clusters"][0]["cluster"]["certificate-authority-data"] = authority
    config.write_text(yaml.safe_dump(document))
    told, _ = (run := start(tmp_path, config, 1, plays=WAITING)).communicate(timeout=120)
    assert run.returncode != 0
    assert "RETRYING" not in told
    assert "the file is of another cluster" in " ".join(told.split())
    assert Leases.lease is None
