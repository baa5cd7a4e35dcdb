"""The cluster is backed up: off the node, opened by its owner's key alone, proven; and nothing stays on the node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.tandem_kube import Kube
from tests.testinfra.playbooks import TIMEOUT_SECONDS, command, killed_after, outcome

MOMENTS = (12.0, 18.0, 24.0, 30.0, 36.0)

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3 * TIMEOUT_SECONDS)]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A key pair, and where backups go, of which one is kept."""
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=backup"]
    subprocess.run(
        [*argv, "-keyout", "backup.key", "-out", "backup.crt"], cwd=tmp_path, check=True, capture_output=True
    )
    return {
        "tandem_backup_certificate": str(tmp_path / "backup.crt"),
        "tandem_backup_key": str(tmp_path / "backup.key"),
        "tandem_backup_target": str(tmp_path / "kept"),
        "tandem_backup_keep": 1,
    }


def test_kept_off_the_node_sealed_and_proven(
    tmp_path: Path,
    given: dict[str, Any],
    kube: Kube,
    machine: Callable[[str], Any],
    profile: str,
    control_plane: list[str],
) -> None:
    status, told = outcome("backup", profile)
    assert status != 0
    assert "Nothing has been changed. tandem_backup_certificate is empty" in told
    status, told = outcome("backup", profile, "--check", **given)
    assert status == 0, told[-3000:]
    assert not (tmp_path / "kept").exists()
    pods = {pod["metadata"]["uid"] for pod in kube.get("/api/v1/pods")["items"]}
    for _ in range(2):
        status, told = outcome("backup", profile, **given)
        assert status == 0, told[-3000:]
    assert "opened with its key" in told
    [about] = (tmp_path / "kept").glob("*.json")
    [archive] = (tmp_path / "kept").glob("*.tar.cms")
    said = json.loads(about.read_text())
    assert said["etcd"]["keys"] > 100
    assert said["nodes"] == sorted(node["metadata"]["name"] for node in kube.get("/api/v1/nodes")["items"])
    print(f"backup: {said['etcd']}")
    opened = subprocess.run(
        ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(archive), "-inkey", "backup.key"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    ).stdout
    names = subprocess.run(["tar", "-t"], input=opened, check=True, capture_output=True).stdout.decode().split()
    assert {"etcd.db", "pki/ca.key", "pki/etcd/ca.key", "documents/kubeadm-config.yaml"} <= set(names)
    assert not machine(control_plane[0]).file("/var/lib/tandem/backup").exists
    assert {pod["metadata"]["uid"] for pod in kube.get("/api/v1/pods")["items"]} == pods


def test_killed_at_five_moments_and_run_again(
    tmp_path: Path, given: dict[str, Any], machine: Callable[[str], Any], profile: str, control_plane: list[str]
) -> None:
    for moment in MOMENTS:
        killed_after(command("backup", profile, **given), moment)
        for archive in (tmp_path / "kept").glob("*.tar.cms"):
            assert archive.with_name(archive.name.removesuffix(".tar.cms") + ".json").exists(), "half a backup"
    status, told = outcome("backup", profile, **given)
    assert status == 0, told[-3000:]
    assert "opened with its key" in told
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len([name for name in names if name.endswith(".json")]) == 1, "as many as are to be kept"
    assert not [name for name in names if name.endswith(".partial")]
    assert not machine(control_plane[0]).file("/var/lib/tandem/backup").exists
