"""Backups of the tuning's state: whole or not at all, checked when read, pruned, never where kubelet looks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import tandem_backup as backup


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is one second later than the one before."""
    now = iter(range(1_790_000_000, 1_790_009_999))
    real = time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda: real(next(now)))


def keep(folder: Path, text: str, *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    """Keep one state whose kubelet-config is `text`."""
    parameters = {
        "folder": str(folder),
        "files": [],
        "documents": {"kubelet_config": text, "kubeadm_config": "a: 1\n"},
        "about": {"profile": "balanced", "whole": True, "cluster": "lab", "versions": {"kubernetes": "v1.36.3"}},
        "keep": 10,
        "min_free_mib": 1,
    }
    return backup.present({**parameters, **changes}, check_mode=check_mode)


def test_a_state_is_kept_once_and_read_back(tmp_path: Path, clock: None) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "kube-apiserver.yaml").write_text("kind: Pod\n")
    first = keep(tmp_path / "b", "x: 1\n", files=[str(manifests), str(tmp_path / "absent")])
    assert first["changed"]
    again = keep(tmp_path / "b", "x: 1\n", files=[str(manifests)])
    assert not again["changed"]
    read = backup.read(tmp_path / "b", "")
    assert read["documents"] == {"kubelet_config": "x: 1\n", "kubeadm_config": "a: 1\n"}
    assert (read["profile"], read["cluster"], read["versions"]) == ("balanced", "lab", {"kubernetes": "v1.36.3"})
    assert read["name"] == f"20260921T141320Z-{read['digest'][:8]}"
    copy = tmp_path / "b" / read["name"] / "files" / str(manifests).lstrip("/") / "kube-apiserver.yaml"
    assert copy.read_text() == "kind: Pod\n"
    assert copy.stat().st_mode & 0o777 == 0o600


def test_a_changed_file_is_another_state(tmp_path: Path, clock: None) -> None:
    source = tmp_path / "config.yaml"
    source.write_text("1")
    assert keep(tmp_path / "b", "x", files=[str(source)])["changed"]
    source.write_text("2")
    assert keep(tmp_path / "b", "x", files=[str(source)])["changed"]
    assert len(backup.listed(tmp_path / "b")) == 2


def test_newest_first_and_by_name(tmp_path: Path, clock: None) -> None:
    for text in ("one", "two", "three"):
        keep(tmp_path, text)
    assert backup.read(tmp_path, "")["documents"]["kubelet_config"] == "three"
    oldest = backup.listed(tmp_path)[-1]["name"]
    assert backup.read(tmp_path, oldest)["documents"]["kubelet_config"] == "one"
    with pytest.raises(backup.BackupError, match=f"no backup 'nonsense'; there are: .*{oldest}"):
        backup.read(tmp_path, "nonsense")


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(backup.BackupError, match="holds no backup"):
        backup.read(tmp_path / "none", "")


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_backup_that_was_tampered_with_is_refused(tmp_path: Path, clock: None, harm: str) -> None:
    name = keep(tmp_path, "x")["backup"]["name"]
    path = tmp_path / name / "documents" / "kubelet_config.yaml"
    if harm == "change":
        path.write_text("y")
    else:
        path.unlink()
    with pytest.raises(backup.BackupError, match="missing or changed"):
        backup.read(tmp_path, "")


def test_pruned_to_a_number_but_never_the_last_complete_state(tmp_path: Path, clock: None) -> None:
    complete = keep(tmp_path, "complete")["backup"]["name"]
    for number in range(5):
        keep(tmp_path, f"half {number}", about={"whole": False}, keep=3)
    names = [record["name"] for record in backup.listed(tmp_path)]
    assert len(names) == 4
    assert complete in names
    later = keep(tmp_path, "complete again", keep=3)["backup"]["name"]
    names = [record["name"] for record in backup.listed(tmp_path)]
    assert complete not in names
    assert names[0] == later
    assert len(names) == 3


def test_an_attempt_that_breaks_leaves_nothing_and_the_next_cleans_up(
    tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(backup, "write", full)
        with pytest.raises(OSError, match="No space"):
            keep(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".partial-killed").mkdir()
    keep(tmp_path, "x")
    assert not (tmp_path / ".partial-killed").exists()


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    result = keep(tmp_path / "b", "x", check_mode=True)
    assert result["changed"]
    assert not (tmp_path / "b").exists()


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(backup.BackupError, match="nothing has been changed; way out: free some space"):
        keep(tmp_path / "b", "x", min_free_mib=10**12)
    assert not (tmp_path / "b").exists()


def test_no_inode_left_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize, f_files, f_favail = real.f_bavail, real.f_frsize, 100, 0

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(backup.BackupError, match="no inode"):
        keep(tmp_path, "x")


def test_what_is_no_backup_is_not_listed(tmp_path: Path) -> None:
    for name, text in (("a", "{"), ("b", json.dumps([])), ("c", json.dumps({"files": None}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / backup.RECORD).write_text(text)
    assert backup.listed(tmp_path) == []


def test_a_full_disk_is_refused_with_a_backup_of_this_state_already_there(tmp_path: Path) -> None:
    keep(tmp_path, "x")
    with pytest.raises(backup.BackupError, match="way out: free some space"):
        keep(tmp_path, "x", min_free_mib=10**12)


def test_a_state_that_a_rollback_leaves_is_kept_as_such_with_the_one_it_goes_to(tmp_path: Path, clock: None) -> None:
    about = {"profile": "balanced", "whole": True}
    goal = keep(tmp_path, "stock")["backup"]["name"]
    keep(tmp_path, "balanced", about=about)
    left = keep(tmp_path, "balanced", about={**about, "going_to": goal}, keep=1)
    assert left["changed"]
    assert left["backup"]["going_to"] == goal
    assert {record["name"] for record in left["backups"]} == {goal, left["backup"]["name"]}
    assert not keep(tmp_path, "balanced", about={**about, "going_to": goal}, keep=1)["changed"]
    assert keep(tmp_path, "balanced", about={**about, "going_to": ""}, keep=1)["changed"]
    assert goal not in {record["name"] for record in backup.listed(tmp_path)}
