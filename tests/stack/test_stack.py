"""The lab stack on the cluster: a second `pulumi up` has nothing to do, and its data is where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.demo import NAMESPACE, kubectl_json
from lab.story import Story, python_module
from tests.conftest import PROFILE

pytestmark = pytest.mark.lab


def test_a_second_up_changes_nothing(running_lab: Story, deployed: Path) -> None:
    output = running_lab.run("pulumi-up-again", python_module("lab.pulumi", "up", "--profile", PROFILE))
    resources = output[output.rindex("Resources:") :]
    assert "unchanged" in resources
    for verb in ("created", "updated", "deleted", "replaced"):
        assert verb not in resources, f"the second `pulumi up` {verb} something:\n{resources}"


def test_the_apps_are_spread_and_the_writers_are_one_each(deployed: Path) -> None:
    pods = [
        pod
        for pod in kubectl_json("get", "pods", f"--namespace={NAMESPACE}")["items"]
        if pod["status"]["phase"] == "Running"
    ]
    nodes_of: dict[str, list[str]] = {}
    for pod in pods:
        nodes_of.setdefault(pod["metadata"]["labels"].get("app.kubernetes.io/name", ""), []).append(
            pod["spec"]["nodeName"]
        )
    assert sorted(nodes_of["web"]) == ["w1", "w2"]
    assert sorted(nodes_of["agent"]) == ["w1", "w2"]
    for writer in ("ledger-hold", "ledger-replace", "control"):
        assert len(nodes_of[writer]) == 1
