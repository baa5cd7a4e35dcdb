"""Check mode says what kubeadm would write of CoreDNS, and asks nobody for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOLERATIONS = [{"key": "CriticalAddonsOnly", "operator": "Exists"}]


def patch(tolerations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"tolerations": tolerations}}}}


def checked(tmp_path: Path, live: list[dict[str, Any]]) -> str:
    """What `--check` prints of the role's tasks for CoreDNS, on a cluster whose Deployment has these tolerations."""
    deployment = {"metadata": {}, "spec": {"replicas": 2, **patch(live)["spec"]}}
    variables = {
        "control_plane_ha_answer": {"cluster": {"coredns": deployment, "pods": []}},
        "__control_plane_ha_coredns": patch(TOLERATIONS),
        "control_plane_ha_patches": "/nowhere",
    }
    play = {"hosts": "control_plane", "connection": "local", "gather_facts": False, "vars": variables}
    tasks = [{"ansible.builtin.import_tasks": str(ROOT / "roles/control_plane_ha/tasks/coredns.yml")}]
    playbook, inventory = tmp_path / "play.yml", tmp_path / "hosts.json"
    playbook.write_text(json.dumps([{**play, "tasks": tasks}]), encoding="utf-8")
    inventory.write_text(json.dumps({"all": {"children": {"control_plane": {"hosts": {"cp": {}}}}}}), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "--check", f"--inventory={inventory}"]
    answer = subprocess.run(
        [*command, str(playbook)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize(("live", "changes"), [([], 1), (TOLERATIONS, 0)], ids=["stock", "ours"])
def test_check_mode_tells_what_is_rolled(tmp_path: Path, live: list[dict[str, Any]], changes: int) -> None:
    told = checked(tmp_path, live)
    assert ("coredns tolerations: wanted" in told) is bool(changes)
    assert f"changed={changes} " in told
