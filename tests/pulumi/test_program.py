"""The whole program on each committed stack, and the check that stack and cluster speak of the same profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from infra import __main__ as program
from infra import cluster
from infra.cluster import ClusterError, Reader, refuse_other_profile
from infra.errors import SettingsError
from infra.settings import parse_settings
from tandem import recovery
from tests.pulumi.registered import Registered, register
from tests.pulumi.stack_files import STACKS, raw_config

BALANCED = recovery.profile("balanced")


def run(stack: str, changes: Mapping[str, str] | None = None) -> Registered:
    pulumi.runtime.set_all_config(raw_config(stack) | {"tandem:cluster_check": "skip"} | dict(changes or {}))
    return register(program.main, stack)


def record(name: str, **changed: float) -> dict[str, str]:
    numbers = recovery.to_dict(recovery.profile(name)) | changed
    return {"profile": name, "recovery.json": json.dumps(numbers)}


def answers(data: Mapping[str, str]) -> Reader:
    return lambda context: data


@pytest.mark.parametrize("stack", STACKS)
def test_stack(stack: str) -> None:
    registered = run(stack)
    settings = parse_settings(raw_config(stack), stack)
    namespaces = {each.inputs["metadata"]["name"] for each in registered.of("Namespace")}
    gateway = {settings.gateway.namespace} if settings.gateway else set()
    assert namespaces == {settings.namespace, *settings.namespaces, *gateway}
    pods = [each for kind in ("Deployment", "DaemonSet", "StatefulSet") for each in registered.of(kind)]
    shards = {f"auditor-{name}" for name in "ab"} if stack == "lab" else set()
    assert set(settings.apps) - {"auditor"} | shards <= {each.name for each in pods}
    for each in pods:
        assert each.inputs["metadata"]["namespace"] in {settings.namespace, *gateway}
        if each.type.endswith("Deployment"):
            assert each.pod["tolerations"] == recovery.pod_tolerations(settings.profile)
    assert len(registered.of("StorageClass")) == (0 if settings.keep_data else 1)


def test_lab_stack_is_what_the_drill_expects() -> None:
    registered = run("lab")
    ports = {each.name: each.spec["ports"][0]["nodePort"] for each in registered.of("Service")}
    assert ports == {"web": 30080, "ledger-hold": 30081, "ledger-replace": 30082, "control": 30083}
    kinds = {"web": "Deployment", "ledger-hold": "Deployment", "ledger-replace": "Deployment"}
    kinds |= {"agent": "DaemonSet", "control": "StatefulSet"}
    for name, kind in kinds.items():
        resource = registered.one(kind, name)
        assert resource.container["image"] == "tandem-ha.io/demo:0.1.0"
        assert {"name": "APP", "value": name} in resource.container["env"]
        assert {each["name"] for each in resource.container["env"]} >= {"NODE_NAME", "POD_NAME"}


def test_outputs_of_the_lab_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)
    run("lab")
    apps = exported["apps"]
    assert {name: (app["kind"], app["node_port"], app["when_unreachable"]) for name, app in apps.items()} == {
        "web": ("spread", 30080, None),
        "ledger-hold": ("single-writer", 30081, "hold"),
        "ledger-replace": ("single-writer", 30082, "replace"),
        "control": ("stateful", 30083, "hold"),
        "agent": ("node-agent", None, None),
        "auditor": ("sharded-auditor", None, None),
    }
    assert apps["auditor"]["leases"] == {"a": "auditor-a", "b": "auditor-b"}
    assert {app["namespace"] for app in apps.values()} == {"tandem-demo"}
    assert exported["profile"] == "balanced"


def test_nothing_is_registered_when_a_setting_is_wrong() -> None:
    with pytest.raises(SettingsError, match="no such recovery profile"):
        run("lab", {"tandem:profile": "quick"})


def test_same_profile_passes() -> None:
    refuse_other_profile(parse_settings(raw_config("prod"), "prod"), answers(record("balanced")))


def unreachable(context: str | None) -> Mapping[str, str]:
    raise ClusterError("rule: it must be readable; no route to host\n  way out: check KUBECONFIG")


@pytest.mark.parametrize(
    ("read", "rule", "way_out"),
    [
        (answers(record("stock")), "tuned with profile stock", "tandem:profile: stock"),
        (
            answers(record("balanced", node_monitor_grace_period_seconds=40)),
            f"node_monitor_grace_period_seconds is 40 there, {BALANCED.node_monitor_grace_period_seconds} here",
            "playbooks/tune.yml -e tandem_profile=balanced",
        ),
        (answers({}), "cannot be understood", "ansible-playbook site.yml"),
        (answers({"profile": "balanced", "recovery.json": "{"}), "cannot be understood", "ansible-playbook site.yml"),
        (answers(record("balanced") | {"recovery.json": "{}"}), "incomplete", "ansible-playbook site.yml"),
        (unreachable, "no route to host", "check KUBECONFIG"),
    ],
)
def test_other_profile_is_refused(read: Reader, rule: str, way_out: str) -> None:
    with pytest.raises(SettingsError) as caught:
        refuse_other_profile(parse_settings(raw_config("prod"), "prod"), read)
    message = str(caught.value)
    assert message.startswith("stacks/Pulumi.prod.yaml: tandem:profile = 'balanced'\n")
    assert rule in message
    assert way_out in message
    assert "tandem:cluster_check: skip" in message


@pytest.mark.parametrize("change", [{"tandem:cluster_check": "skip"}, {"tandem:render_directory": "build/rendered"}])
def test_no_cluster_is_asked_when_the_stack_says_so(change: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", said.append)
    refuse_other_profile(parse_settings(raw_config("prod") | change, "prod"), unreachable)
    assert "was not compared with profile balanced" in said[0]


def test_a_cluster_that_does_not_answer(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig whose server refuses connections: said at once, with the file to look at."""
    file = tmp_path / "config"
    cluster_entry = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster_entry],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(ClusterError, match="must be readable") as caught:
        cluster.read_record(None)
    assert "check KUBECONFIG" in str(caught.value)
    with pytest.raises(ClusterError, match="must be readable"):
        cluster.read_record("no-such-context")


def test_no_kubeconfig_at_all(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="must be readable"):
        cluster.read_record(None)
