"""Under the real CLI, with the real provider and the language host: every stack previews, and errors reach the user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.pulumi.workspace import PROJECT, Workspace
from tests.pulumi.command import Pulumi, offline_workspace, runner
from tests.pulumi.stack_files import STACKS, raw_config

EXPECTED_KINDS = {
    "spread": {"apps/v1:Deployment", "core/v1:Service"},
    "single-writer": {
        "apps/v1:Deployment",
        "core/v1:PersistentVolumeClaim",
        "core/v1:Service",
        "apps/v1:DaemonSet",
    },
    "node-agent": {"apps/v1:DaemonSet"},
    "stateful": {"apps/v1:StatefulSet", "core/v1:PersistentVolumeClaim", "core/v1:Service"},
    "sharded-auditor": {"coordination.k8s.io/v1:Lease", "apiextensions.k8s.io/v1:CustomResourceDefinition"},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of its own, without a cluster."""
    return offline_workspace(tmp_path_factory.mktemp("pulumi"))


@pytest.fixture(scope="module")
def pulumi(workspace: Workspace) -> Pulumi:
    """Runs pulumi in the workspace and returns what it said."""
    return runner(workspace, seconds=300)


def stack_file(workspace: Workspace, stack: str, **changes: Any) -> str:
    file = workspace.write_stack_file(stack, changes)
    if not workspace.has_stack(stack):
        workspace.create_stack(stack)
    return str(file)


@pytest.mark.parametrize("stack", STACKS)
def test_preview(stack: str, workspace: Workspace, pulumi: Pulumi) -> None:
    """The provider's schema accepts every object of every stack, and the committed stack file stays as it was."""
    committed = PROJECT / "stacks" / f"Pulumi.{stack}.yaml"
    before = committed.read_bytes()
    file = stack_file(workspace, stack, cluster_check="skip")
    done = pulumi("preview", "--json", "--stack", stack, "--config-file", file)
    planned = json.loads(done.stdout)
    types = {step["newState"]["type"] for step in planned["steps"]}
    for app in json.loads(raw_config(stack)["tandem:apps"]).values():
        assert {f"kubernetes:{kind}" for kind in EXPECTED_KINDS[app["kind"]]} <= types
    assert ("kubernetes:policy/v1:PodDisruptionBudget" in types) == (stack != "dev"), "one replica has no budget"
    assert planned["changeSummary"] == {"create": len(planned["steps"])}
    assert committed.read_bytes() == before


def test_a_wrong_setting_is_told_without_a_traceback(workspace: Workspace, pulumi: Pulumi) -> None:
    file = stack_file(workspace, "dev", cluster_check="skip", profile="quick")
    done = pulumi("preview", "--stack", "dev", "--config-file", file, code=255)
    said = done.stdout + done.stderr
    assert "stacks/Pulumi.dev.yaml: tandem:profile" in said
    assert "way out: one of stock, article, balanced, fast" in said
    assert "Traceback" not in said


def test_no_cluster_is_told_before_anything_is_planned(workspace: Workspace, pulumi: Pulumi) -> None:
    file = stack_file(workspace, "dev")
    done = pulumi("preview", "--stack", "dev", "--config-file", file, code=255)
    said = done.stdout + done.stderr
    assert "ConfigMap tandem-system/recovery-profile must be readable" in said
    assert "cluster_check: skip" in said
    assert "Deployment" not in said


def test_what_is_rendered_for_kubectl_passes_the_audit() -> None:
    """`make render STACK=lab`, as far as it is ours, and `tandem audit` on what it wrote."""
    folder = PROJECT / "build" / "rendered-by-test"
    leftover = folder / "1-manifest" / "of-an-app-that-is-gone.yaml"
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.write_text("kind: Deployment\n")
    try:
        command(["lab.pulumi", "render", "--stack", "lab", "--output", str(folder.relative_to(PROJECT))])
        assert not leftover.exists()
        written = [yaml.safe_load(each.read_text()) for each in folder.rglob("*.yaml")]
        kinds = Counter(each["kind"] for each in written)
        assert kinds >= Counter(Deployment=5, StatefulSet=1, PodDisruptionBudget=3, Lease=2, Namespace=4)
        said = command(["tandem", "audit", str(folder), "--environment", "lab", "--profile", "balanced", "--json"])
        report = json.loads(said)
        assert report["judged"] == len(written)
    finally:
        shutil.rmtree(folder)


def command(arguments: list[str]) -> str:
    """Run one of the project's commands; what it said on standard output."""
    argv = [sys.executable, "-m", *arguments]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rendering_stays_in_the_checkout(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "lab.pulumi", "render", "--output", str(tmp_path)]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "must be below" in done.stderr


PROGRAM = """
import pulumi, helper
config = pulumi.Config()
helper.calls.append(1)
match config.get("how"):
    case "raise": raise ValueError("a mistake of the program")
    case "refuse": raise pulumi.RunError("refused, with a way out")
    case "exit": raise SystemExit(3)
pulumi.export("said", config.require("word"))
pulumi.export("calls", len(helper.calls))
pulumi.export("root", pulumi.get_root_directory())
pulumi.export("stack", f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}")
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, pulumi: Pulumi) -> Path:
    """A project with a program of a few lines and a module beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "Pulumi.yaml").write_text("name: tiny\nruntime: python\nmain: program/\n")
    (folder / "program").mkdir()
    (folder / "program" / "__main__.py").write_text(PROGRAM)
    (folder / "program" / "helper.py").write_text("calls = []\n")
    pulumi("stack", "init", "one", "--no-select", cwd=folder)
    return folder


def test_tiny_program(tiny: Path, pulumi: Pulumi) -> None:
    pulumi("up", "--yes", "--stack", "one", "--config", "word=hello", cwd=tiny)
    outputs = json.loads(pulumi("stack", "output", "--json", "--stack", "one", cwd=tiny).stdout)
    # `up` runs the program twice, for the preview and for the update; neither sees what the other left in memory.
    assert outputs == {"said": "hello", "calls": 1, "root": str(tiny), "stack": "organization/tiny/one"}


@pytest.mark.parametrize(
    ("how", "said", "not_said"),
    [
        ("raise", "ValueError: a mistake of the program", "ended with"),
        ("refuse", "error: refused, with a way out", "Traceback"),
        ("exit", "ended with exit code 3", "Traceback"),
    ],
)
def test_tiny_program_that_fails(how: str, said: str, not_said: str, tiny: Path, pulumi: Pulumi) -> None:
    done = pulumi("preview", "--stack", "one", "--config", f"how={how}", cwd=tiny, code=255)
    output = done.stdout + done.stderr
    assert said in output
    assert not_said not in output


def test_command_previews_without_a_cluster(tmp_path: Path) -> None:
    """`python -m lab.pulumi`, as a user types it."""
    argv = [sys.executable, "-m", "lab.pulumi", "preview", "--without-cluster", "--profile", "article"]
    env = {**os.environ, "TANDEM_LAB_STATE": str(tmp_path)}
    done = subprocess.run(argv, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to create" in done.stdout
    assert "was not compared with profile article" in done.stdout


def test_command_without_a_kubeconfig_says_what_to_run(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "lab.pulumi", "up", "--kubeconfig", str(tmp_path / "none")]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "make site" in done.stderr
