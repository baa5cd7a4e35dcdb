"""The admission policy on the lab's own API server: what a person would break with kubectl is refused there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.demo import NAMESPACE, kubectl, kubectl_json
from lab.story import Story
from tandem import recovery
from tests.conftest import PROFILE, wait_until
from tests.stack.test_stack import up
from tests.unit.checklist.test_manifests import load

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

NAME = "sweeper"


def alone() -> dict[str, Any]:
    """A controller of one replica without an election, as the cluster's profile wants it; paused: it makes no pod."""
    (made,) = [each for each in load("controller-two-without-election") if each["kind"] == "Deployment"]
    made["metadata"] = {**made["metadata"], "name": NAME, "namespace": NAMESPACE}
    made["spec"] |= {"replicas": 1, "strategy": {"type": "Recreate"}, "paused": True}
    made["spec"]["template"]["spec"]["tolerations"] = recovery.pod_tolerations(recovery.profile(PROFILE))
    return made


def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(kubectl(*argv), capture_output=True, text=True, check=False, **more)


@pytest.fixture(scope="module")
def denied(running_lab: Story, deployed: Path) -> Iterator[None]:
    """The stack with its admission policy in force; without it again in the end."""
    up(running_lab, "admission-deny", "--set", "admission=deny")
    try:
        made = run("apply", "--server-side", "--filename=-", input=yaml.safe_dump(alone()))
        assert made.returncode == 0, made.stderr
        yield
    finally:
        run("delete", "deployment", NAME, f"--namespace={NAMESPACE}", "--ignore-not-found")
        up(running_lab, "admission-off")


def edit(expression: str) -> subprocess.CompletedProcess[str]:
    """`kubectl edit` with an editor that is a sed command."""
    editor = os.environ | {"KUBE_EDITOR": f"sed -i '{expression}'"}
    return run("edit", "deployment", NAME, f"--namespace={NAMESPACE}", env=editor)


def replicas(name: str) -> int:
    return int(kubectl_json("get", "deployment", name, f"--namespace={NAMESPACE}")["spec"]["replicas"])


def test_an_edit_to_three_replicas_without_an_election_is_refused(denied: None) -> None:
    # A policy is in force some seconds after it was stored.
    def refused() -> bool:
        tried = edit("s/^  replicas: 1$/  replicas: 3/")
        if tried.returncode == 0:
            edit("s/^  replicas: 3$/  replicas: 1/")
            return False
        assert "replicas-need-election" in tried.stderr, tried.stderr
        assert "Why on two workers" in tried.stderr
        assert "Way out" in tried.stderr
        return True

    wait_until(refused, 60, "the edit is refused")
    assert replicas(NAME) == 1


def test_an_edit_that_breaks_nothing_passes(denied: None) -> None:
    assert edit("s/^  revisionHistoryLimit: .*$/  revisionHistoryLimit: 5/").returncode == 0


def test_a_single_writer_is_not_scaled_to_two(denied: None) -> None:
    """`kubectl scale` shows the API server a name and a number only; the stack has listed its single writers."""

    def refused() -> bool:
        tried = run("scale", "deployment/ledger-hold", "--replicas=2", f"--namespace={NAMESPACE}")
        if tried.returncode == 0:
            run("scale", "deployment/ledger-hold", "--replicas=1", f"--namespace={NAMESPACE}")
        return tried.returncode != 0 and "ledger-hold" in tried.stderr

    wait_until(refused, 60, "the scaling is refused")
    assert replicas("ledger-hold") == 1
