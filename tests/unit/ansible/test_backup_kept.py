"""Which backups stay in a folder that several clusters share, which one is restored, and where files are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from plugins.modules import tandem_seal

ROOT = Path(__file__).resolve().parents[3]


def play(
    tmp_path: Path, role: str, tasks_from: str, cwd: Path = ROOT, **variables: Any
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "playbooks" / "play.yml"
    path.parent.mkdir(exist_ok=True)
    tasks = [{"name": "Role", "ansible.builtin.import_role": {"name": role, "tasks_from": tasks_from}}]
    path.write_text(yaml.safe_dump([{"name": "Play", "hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", "localhost,", str(path)]
    argv += ["-v", "--connection", "local", "--extra-vars", json.dumps(variables)]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def backup(folder: Path, name: str, *kinds: str) -> set[str]:
    names = {f"{name}.{kind}" for kind in kinds or ("tar.cms", "json")}
    for each in names:
        (folder / each).write_text("{}")
    return names


def test_as_many_as_asked_for_and_no_halves_and_nobody_elses(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    backup(kept, "edge-20260101T000000Z")
    stays = backup(kept, "edge-20260102T000000Z") | backup(kept, "edge-20260103T000000Z")
    backup(kept, "edge-20260105T000000Z", "tar.cms.partial", "json")
    stays |= backup(kept, "edge-20260104T000000Z", "tar.cms")
    stays |= backup(kept, "edge-2-20250101T000000Z") | backup(kept, "edgy-20250101T000000Z", "tar.cms")
    stays |= backup(kept, "notes", "json")
    given: dict[str, Any] = {
        "cluster_backup_folder": str(kept),
        "cluster_backup_cluster": "edge",
        "cluster_backup_keep": 2,
    }
    for changed in ("changed=1", "changed=0"):
        done = play(tmp_path, "cluster_backup", "prune", **given)
        assert done.returncode == 0, done.stdout + done.stderr
        assert changed in done.stdout
        assert {path.name for path in kept.iterdir()} == stays


def test_the_newest_of_this_cluster_is_restored(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    backup(kept, "edge-20260102T000000Z")
    backup(kept, "edge-20260104T000000Z", "tar.cms")
    backup(kept, "edge-20260105T000000Z", "json")
    backup(kept, "edge-2-20260103T000000Z")
    given: dict[str, Any] = {
        "cluster_restore_folder": str(kept),
        "cluster_restore_cluster": "edge",
        "cluster_restore_key": "no.key",
    }
    done = play(tmp_path, "cluster_restore", "source", **given)
    assert "edge-20260102T000000Z.tar.cms" in done.stdout, done.stdout + done.stderr
    named = play(tmp_path, "cluster_restore", "source", **given, cluster_restore_backup="edge-20260101T000000Z")
    assert "holds 0 backups by the name edge-20260101T000000Z" in " ".join(named.stdout.split())


def key_pair(folder: Path) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=backup"]
    files = ["-keyout", "backup.key", "-out", "backup.crt"]
    subprocess.run([*argv, *files], cwd=folder, check=True, capture_output=True)


def test_an_archive_gets_its_name_when_it_was_opened(tmp_path: Path) -> None:
    key_pair(tmp_path)
    (tmp_path / "data").write_text("data")
    scratch, kept, name = tmp_path / "scratch", tmp_path / "kept", "edge-20260101T000000Z"
    scratch.mkdir()
    tandem_seal.seal(
        scratch / f"{name}.tar.cms", {"data": tmp_path / "data"}, (tmp_path / "backup.crt").read_text(encoding="utf-8")
    )
    given = {
        "cluster_backup_scratch": str(scratch),
        "tandem_backup_target": "kept",
        "tandem_cluster_name": "edge",
        "tandem_backup_key": "backup.key",
        "__cluster_backup_date": "20260101T000000Z",
        "cluster_backup_about": {"cluster": "edge"},
        "cluster_backup_sealed": {"sha256": "sum", "names": ["data"]},
        "cluster_backup_etcd": {"snapshot": {"revision": 1, "keys": 1, "seconds": 1}},
    }
    done = play(tmp_path, "cluster_backup", "leave", tmp_path, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in kept.iterdir()} == {f"{name}.tar.cms", f"{name}.json"}
    assert list(tandem_seal.unseal(kept / f"{name}.tar.cms", str(tmp_path / "backup.key"), None)) == ["data"]
    shared = {name: value for name, value in given.items() if name.startswith("tandem_")}
    found = play(tmp_path, "cluster_restore", "source", tmp_path, **shared)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "data: " in found.stdout, "opened with the key"
    for path in kept.iterdir():
        path.unlink()
    (tmp_path / "data").write_text("other")
    (scratch / f"{name}.tar.cms").write_bytes((scratch / f"{name}.tar.cms").read_bytes()[:-20])
    broken = play(tmp_path, "cluster_backup", "leave", tmp_path, **given)
    assert broken.returncode != 0
    assert {path.name for path in kept.iterdir()} == {f"{name}.tar.cms.partial"}


def test_certificate_and_key_are_found_where_the_command_is_given(tmp_path: Path) -> None:
    """Up to the question whether there is a cluster, which has no answer here."""
    key_pair(tmp_path)
    given = {
        "tandem_backup_certificate": "backup.crt",
        "tandem_backup_key": "backup.key",
        "tandem_kubeconfig": "/no/such",
    }
    done = play(tmp_path, "cluster_backup", "plan", tmp_path, **given)
    assert "The API does not answer" in " ".join(done.stdout.split()), done.stdout + done.stderr
    (tmp_path / "empty.key").write_text("")
    for name, wrong in (("tandem_backup_certificate", "other.crt"), ("tandem_backup_key", "empty.key")):
        refused = play(tmp_path, "cluster_backup", "plan", tmp_path, **{**given, name: wrong})
        told = " ".join(refused.stdout.split())
        assert f"Nothing has been changed. {name} is {tmp_path}/{wrong}: " in told, told
        assert "rule: a " in told
        assert "way out: correct the path" in told
        assert "The API does not answer" not in told
