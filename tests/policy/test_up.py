"""`pulumi up` of the admission policy with the real CLI on a real API server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.build import BuildError, artifacts
from lab.pulumi.workspace import Workspace, official_tools
from tandem import labels
from tandem.runtime.testing.localapi import LocalApi, Programs
from tests.api.test_admission import create, two_without_election, until

pytestmark = [pytest.mark.api, pytest.mark.timeout(1200)]

PROGRAM = """
import pulumi
from infra.components import AdmissionPolicy, AdmissionPolicyArgs, Workspace, WorkspaceArgs
from tandem import recovery
mode = pulumi.Config().require("mode")
environment = pulumi.Config().require("environment")
home = Workspace("workspace", WorkspaceArgs(namespace="shop", admission=mode))
balanced, protected = recovery.profile("balanced"), {"shop": {"ledger": "alone"}}
args = AdmissionPolicyArgs(profile=balanced, environment=environment, protected=protected)
AdmissionPolicy("admission", args, pulumi.ResourceOptions(depends_on=[home]))
"""


def test_up_then_up_again_then_from_warn_to_deny(tmp_path: Path) -> None:
    try:
        tools = artifacts.tools()
    except BuildError as error:
        pytest.fail(f"{error}")
    (tmp_path / "Pulumi.yaml").write_text("name: tiny\nruntime: python\nmain: program/\n")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text(PROGRAM)
    with LocalApi(Programs(tools / "etcd", tools / "kube-apiserver")) as api:
        workspace = Workspace(tmp_path / "pulumi", api.kubeconfig(), None if official_tools() else tools)
        workspace.prepare()
        env = workspace.environment()

        def pulumi(*arguments: str) -> str:
            argv = ["pulumi", *arguments, "--non-interactive", "--color", "never"]
            done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=500)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        def up(mode: str, *more: str, environment: str = "prod") -> None:
            config = ("--config", f"mode={mode}", "--config", f"environment={environment}")
            pulumi("up", "--yes", "--skip-preview", "--stack", "one", *config, *more)

        pulumi("stack", "init", "one", "--no-select")
        up("warn")
        bad = two_without_election("bad")
        until(lambda: "replicas-need-election" in create(api, bad, "shop").warned)
        assert create(api, bad, "shop").status == 201
        up("warn", "--expect-no-changes")

        up("deny")
        until(lambda: create(api, bad, "shop").status == 403)
        listed = api.request("GET", f"/api/v1/namespaces/shop/configmaps/{labels.PROTECTED_CONFIG_MAP}")
        assert listed["data"] == {"ledger": "alone"}
        # Another set of rules and variables: the API server merges them by name, in an order that must still hold. Not
        # dev, which leaves out whole policies: nobody here ends a deletion in the foreground.
        up("deny", environment="lab")
        up("deny")
