"""NetworkPolicies: made where somebody enforces them, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from infra import __main__ as program
from infra.cluster import ClusterError
from infra.errors import SettingsError
from infra.network import Reader, enforcer_of
from infra.settings import Settings, parse_settings
from tests.pulumi.registered import Registered, register
from tests.pulumi.stack_files import raw_config

APPS: dict[str, dict[str, Any]] = {
    "web": {"kind": "spread", "image": "app:1", "node_port": 30090},
    "api": {
        "kind": "spread",
        "image": "app:1",
        "ports": [{"name": "grpc", "port": 9000, "node_port": 30091}, {"name": "admin", "port": 9001}],
    },
    "quiet": {"kind": "spread", "image": "app:1"},
}


def raw(policies: dict[str, Any] | None, **more: str) -> dict[str, str]:
    given = {} if policies is None else {"tandem:network_policies": json.dumps(policies)}
    return raw_config("dev") | {"tandem:apps": json.dumps(APPS)} | given | more


def settings(policies: dict[str, Any] | None, **more: str) -> Settings:
    return parse_settings(raw(policies, **more), "dev")


def run(policies: dict[str, Any] | None) -> Registered:
    pulumi.runtime.set_all_config(raw(policies) | {"tandem:cluster_check": "skip"})
    try:
        return register(program.main, "dev")
    finally:
        pulumi.runtime.set_all_config({})


def daemon_set(name: str, ready: int = 2, *arguments: str) -> Mapping[str, Any]:
    return {"name": name, "ready": ready, "arguments": list(arguments)}


def answers(*found: Mapping[str, Any]) -> Reader:
    return lambda context: found


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    return said


@pytest.mark.parametrize(
    ("found", "who"),
    [
        ([daemon_set("kube-proxy"), daemon_set("calico-node")], "Calico"),
        ([daemon_set("cilium", 1)], "Cilium"),
        ([daemon_set("kube-router", 2, "--run-router=true")], "kube-router"),
    ],
)
def test_a_network_that_enforces_is_found(found: list[Mapping[str, Any]], who: str, warned: list[str]) -> None:
    assert enforcer_of(settings({}), answers(*found)) == who
    assert warned == []


@pytest.mark.parametrize(
    "found",
    [
        [],
        [daemon_set("kube-proxy"), daemon_set("kube-flannel-ds")],
        [daemon_set("calico-node", 0)],
        [daemon_set("kube-router", 2, "--run-firewall=false")],
    ],
)
def test_where_nobody_enforces_it_is_said_and_nothing_is_made(
    found: list[Mapping[str, Any]], warned: list[str]
) -> None:
    assert enforcer_of(settings({}), answers(*found)) is None
    (said,) = warned
    assert "no NetworkPolicy is made: nothing in the cluster would enforce it" in said
    assert "enforced_by: NAME" in said


def unreadable(context: str | None) -> list[Mapping[str, Any]]:
    raise ClusterError("rule: the list of DaemonSets must be readable; 403 Forbidden\n  way out: check KUBECONFIG")


def test_a_cluster_that_does_not_say_is_an_error_for_nothing_is_to_be_removed_by_a_guess() -> None:
    with pytest.raises(SettingsError, match=r"403 Forbidden[\s\S]*enforced_by: NAME"):
        enforcer_of(settings({}), unreadable)


def test_who_is_named_is_believed_and_who_is_not_asked_for_is_not_looked_for(warned: list[str]) -> None:
    assert enforcer_of(settings({"enforced_by": "our fabric"}), unreadable) == "our fabric"
    assert enforcer_of(settings(None), unreadable) is None
    assert warned == []
    assert enforcer_of(settings({}, **{"tandem:cluster_check": "skip"}), unreadable) is None
    assert "was not asked" in warned[0]


def test_the_stack_s_own_pods_and_those_that_are_named_come_in() -> None:
    registered = run({"enforced_by": "calico", "from_namespaces": ["monitoring"], "from_cidrs": ["10.1.0.0/16"]})
    policy = registered.one("NetworkPolicy", "tandem")
    assert policy.inputs["metadata"]["namespace"] == "tandem-dev"
    assert policy.spec["podSelector"] == {}
    assert policy.spec["policyTypes"] == ["Ingress"], "nothing that goes out is limited"
    (rule,) = policy.spec["ingress"]
    assert rule == {
        "from": [
            {"podSelector": {}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
            {"ipBlock": {"cidr": "10.1.0.0/16"}},
        ]
    }


def test_node_ports_are_open_to_all_and_nothing_else_is() -> None:
    registered = run({"enforced_by": "calico"})
    opened = {
        each.name: (each.spec["podSelector"]["matchLabels"], each.spec["ingress"])
        for each in registered.of("NetworkPolicy")
        if each.name != "tandem"
    }
    assert opened == {
        "web-node-ports": (
            {"app.kubernetes.io/name": "web"},
            [{"ports": [{"port": 8080, "protocol": "TCP"}]}],
        ),
        "api-node-ports": (
            {"app.kubernetes.io/name": "api"},
            [{"ports": [{"port": 9000, "protocol": "TCP"}]}],
        ),
    }


@pytest.mark.parametrize("policies", [None, {}])
def test_none_unless_asked_for_and_enforced(policies: dict[str, Any] | None) -> None:
    assert not run(policies).of("NetworkPolicy")


@pytest.mark.parametrize(
    "given",
    [{"from_cidrs": ["10.1.0.1/16"]}, {"from_cidrs": ["here"]}, {"from_namespaces": ["A"]}, {"enforced_by": " "},
     {"egress": True}],
)  # fmt: skip
def test_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="tandem:network_policies"):
        settings(given)
