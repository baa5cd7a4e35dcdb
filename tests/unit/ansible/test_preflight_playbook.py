"""`ansible-playbook` with bad input stops in preflight: nothing is changed, and the message says what to do.

The machines are this one (connection local), so no lab is needed; each rule's own cases are in test_preflight_findings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def inventory(**changes: Any) -> dict[str, Any]:
    def hosts(**addresses: str) -> dict[str, Any]:
        return {"hosts": {name: {"tandem_address": address} for name, address in addresses.items()}}

    groups = {
        "control_plane": hosts(cp="10.0.0.10"),
        "workers": hosts(a="10.0.0.11", b="10.0.0.12"),
        "nfs_server": hosts(n="10.0.0.20"),
    }
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return {"all": {"vars": variables, "children": {**groups, **changes}}}


def run(tmp_path: Path, document: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump(document))
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    playbook = Path(sys.executable).with_name("ansible-playbook")
    command = [str(playbook), "--inventory", str(path), "playbooks/bootstrap.yml", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"workers": {"hosts": {"a": {"tandem_address": "10.0.0.11"}}}}, [], ["group workers", "at least 2 workers"]),
        (
            {"nfs_server": {}},
            ["--extra-vars", "tandem_profile=quick"],
            ["group nfs_server", "'quick'", "stock, article, balanced, fast"],
        ),
        (
            {"nfs_server": {"hosts": {"n": {"tandem_address": "10.0.0.11"}}}},
            [
                "--extra-vars",
                '{"tandem_api_server_args": {"pod-eviction-timeout": "30s"}}',
                "--extra-vars",
                "tandem_pod_subnet=10.1.0.0/16,fd00::/64",
            ],
            ["10.0.0.11", "default-unreachable-toleration-seconds", "dual stack"],
        ),
    ],
    ids=["one worker", "missing group and unknown profile", "duplicate address, dead flag, dual stack"],
)
def test_a_bad_inventory_is_refused(
    tmp_path: Path, changes: dict[str, Any], arguments: list[str], words: list[str]
) -> None:
    done = run(tmp_path, inventory(**changes), *arguments)
    assert done.returncode != 0
    assert "Nothing has been changed" in done.stdout + done.stderr
    for word in [*words, "rule: ", "way out: "]:
        assert word in done.stdout + done.stderr
    assert "The machine's state is known" not in done.stdout, "no machine was asked"


def test_unfit_and_unreachable_machines_are_refused(tmp_path: Path) -> None:
    document = inventory()
    document["all"]["children"]["workers"]["hosts"]["b"] |= {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
        "ansible_ssh_retries": 0,
    }
    extra = {
        "tandem_min_disk_gib": 999999,
        "preflight_architectures": ["riscv64"],
        "preflight_supported_systems": [{"id": "plan9", "version": 4}],
    }
    done = run(tmp_path, document, "--extra-vars", json.dumps(extra))
    told = done.stdout + done.stderr
    assert done.returncode != 0
    for word in ["['b']", "999999 GiB", "riscv64", "plan9 4 or newer", "tandem_address is '10.0.0.11'"]:
        assert word in told
    assert "changed=0" in told
    assert "Repositories" not in told
