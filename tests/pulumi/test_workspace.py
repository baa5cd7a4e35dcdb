"""Where the lab's Pulumi state is kept, and what a stack file becomes there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from lab.pulumi.workspace import Workspace, WorkspaceError, cluster_key
from tests.pulumi.stack_files import ROOT


def kubeconfig(folder: Path, authority: str) -> Path:
    file = folder / f"{authority}.conf"
    entry = {"name": "c", "cluster": {"server": "https://127.0.0.1:16443", "certificate-authority-data": authority}}
    file.write_text(json.dumps({"clusters": [entry]}))
    return file


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "pulumi", None, tmp_path / "tools")
    made.prepare()
    return made


def test_passphrase_is_private_and_stays(workspace: Workspace) -> None:
    file = Path(workspace.settings()["PULUMI_CONFIG_PASSPHRASE_FILE"])
    before = file.read_text()
    assert len(before.strip()) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(workspace.folder.stat().st_mode) == 0o700
    workspace.prepare()
    assert file.read_text() == before
    assert sorted(each.name for each in workspace.folder.iterdir()) == ["home", "passphrase", "state-none"]


def test_environment_of_the_labs_own_tools(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "the user's own")
    environment = workspace.environment()
    assert environment["PULUMI_BACKEND_URL"] == f"file://{workspace.backend}"
    assert environment["PULUMI_SKIP_UPDATE_CHECK"] == "true"
    assert environment["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    assert environment["PATH"].split(os.pathsep)[0] == str(workspace.tools)
    assert "PULUMI_CONFIG_PASSPHRASE" not in environment
    assert "KUBECONFIG" not in workspace.settings()


def test_official_tools_are_left_as_they_are(tmp_path: Path) -> None:
    settings = Workspace(tmp_path, kubeconfig(tmp_path, "a"), None).settings()
    assert set(settings) == {
        "PULUMI_BACKEND_URL",
        "PULUMI_CONFIG_PASSPHRASE_FILE",
        "PULUMI_SKIP_UPDATE_CHECK",
        "KUBECONFIG",
    }


def test_a_new_cluster_starts_with_an_empty_state(tmp_path: Path) -> None:
    """A cluster made afresh under the same name and address must not look deployed already."""
    first, second = kubeconfig(tmp_path, "one"), kubeconfig(tmp_path, "two")
    assert cluster_key(first) != cluster_key(second)
    assert cluster_key(first) == cluster_key(kubeconfig(tmp_path, "one"))
    assert Workspace(tmp_path, first, None).backend != Workspace(tmp_path, second, None).backend


def test_stack_file_with_changes(workspace: Workspace) -> None:
    changes = {"profile": "article", "apps.web.replicas": 3, "apps.web.env.REV": "2", "cluster_check": "skip"}
    copy = workspace.write_stack_file("lab", changes)
    config = yaml.safe_load(copy.read_text())["config"]
    assert config["tandem:profile"] == "article"
    assert config["tandem:apps"]["web"]["replicas"] == 3
    assert config["tandem:apps"]["web"]["env"] == {"APP": "web", "REV": "2"}
    assert config["tandem:cluster_check"] == "skip"
    assert "&" not in copy.read_text(), "anchors are written out"
    committed = yaml.safe_load((ROOT / "stacks" / "Pulumi.lab.yaml").read_text())["config"]
    assert committed["tandem:profile"] == "balanced"


def test_the_salt_survives_the_next_copy(workspace: Workspace) -> None:
    copy = workspace.write_stack_file("lab", {})
    copy.write_text("encryptionsalt: v1:abc\n" + copy.read_text())
    assert yaml.safe_load(workspace.write_stack_file("lab", {}).read_text())["encryptionsalt"] == "v1:abc"


def test_unknown_stack_and_path(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="known: dev, lab, prod, staging"):
        workspace.write_stack_file("nope", {})
    with pytest.raises(WorkspaceError, match="is a value"):
        workspace.write_stack_file("lab", {"profile.deep": 1})
