"""What a stack tells of itself: endpoints, the checklist's verdict on what it declares, and predicted windows."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra import __main__ as program
from infra.declared import verdict
from infra.settings import parse_settings
from tandem import checklist, recovery
from tests.pulumi.registered import Registered, register
from tests.pulumi.stack_files import STACKS, raw_config

IMAGE = "example.org/app:1"


def run(monkeypatch: pytest.MonkeyPatch, stack: str, **changes: Any) -> tuple[Registered, dict[str, Any]]:
    """What is registered, and what is exported."""
    exported: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)
    changed = {f"tandem:{key}": json.dumps(value) for key, value in changes.items()}
    pulumi.runtime.set_all_config(raw_config(stack) | {"tandem:cluster_check": "skip"} | changed)
    return register(program.main, stack), exported


@pytest.mark.parametrize("stack", STACKS)
def test_the_verdict_is_the_checklist_s_on_what_goes_over_the_wire(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered, exported = run(monkeypatch, stack)
    objects = [each.inputs for each in registered.resources if each.type.startswith("kubernetes:")]
    profile = parse_settings(raw_config(stack), stack).profile
    assert exported["checklist"] == verdict(objects, stack, profile)
    assert exported["checklist"]["verdict"] == "passes"
    assert exported["storage_class"] in {"tandem-shared", "tandem-shared-delete"}
    assert "not_waited_for" not in exported


def test_a_patch_is_judged_and_a_secret_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is on the patched object, and an error of the checklist fails it."""
    pinned = {"Deployment": {"spec": {"template": {"spec": {"nodeName": "w1"}}}}}
    apps = {"web": {"kind": "spread", "image": IMAGE, "secret_env": {"PASSWORD": "open-sesame"}, "patch": pinned}}
    registered, exported = run(monkeypatch, "prod", apps=apps)
    assert registered.one("Deployment").pod["nodeName"] == "w1"
    found = exported["checklist"]
    assert found["verdict"] == "fails"
    assert [each for each in found["errors"] if "node-pinned" in each]
    assert "open-sesame" not in json.dumps(found)


def test_levels_are_those_of_the_environment() -> None:
    (writer,) = [each for each in [_one_replica()] if each]
    balanced = recovery.profile("balanced")
    assert [each for each in verdict([writer], "prod", balanced)["errors"] if ": replicas: " in each]
    assert not [each for each in verdict([writer], "dev", balanced)["errors"] if ": replicas: " in each]


def _one_replica() -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop", "labels": {"tandem-ha.io/workload": "spread"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": IMAGE}]}},
        },
    }


def test_endpoints_are_all_the_ways_to_an_app(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [{"name": "grpc", "port": 9000}, {"name": "dns", "port": 5353, "service_port": 53, "protocol": "UDP"}]
    ingress = {"host": "shop.example.org", "tls_secret": "web-tls"}
    apps = {
        "web": {"kind": "spread", "image": IMAGE, "node_port": 30080, "ports": ports, "ingress": ingress},
        "agent": {"kind": "node-agent", "image": IMAGE},
    }
    _, exported = run(monkeypatch, "staging", apps=apps)
    assert exported["apps"]["web"]["endpoints"] == [
        "http://web.tandem-staging.svc",
        "tcp://web.tandem-staging.svc:9000",
        "udp://web.tandem-staging.svc:53",
        "any node, port 30080",
        "https://shop.example.org/",
    ]
    assert exported["apps"]["agent"]["endpoints"] == []


def test_windows_are_the_model_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _, exported = run(monkeypatch, "lab")
    windows = {name: app["predicted_seconds"] for name, app in exported["apps"].items()}
    balanced = recovery.profile("balanced")
    back = recovery.predict(balanced, "replace")["serving"]
    assert windows["ledger-replace"]["serving"] == [round(back.low, 1), round(back.high, 1)]
    spread = recovery.predict(balanced, "spread-wait")
    assert windows["web"]["serving"] == [round(spread["serving"].low, 1), round(spread["serving"].high, 1)]
    for waiting in ("ledger-hold", "control"):
        assert set(windows[waiting]) == {"endpoints_out"}, "it does not serve before the worker is back"
    low, high = windows["auditor"]["next_leader"]
    assert 13 <= low <= 15 <= high <= 16, "one lease after the last renewal, which is one retry period old at most"


def test_a_degraded_stack_says_what_was_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, exported = run(monkeypatch, "staging", degraded=True)
    assert exported["not_waited_for"] == ["agent", "ledger", "web"]
    assert exported["checklist"]["verdict"] == "passes"


def test_crowding_apps_name_the_stack_s_rebalancer(monkeypatch: pytest.MonkeyPatch) -> None:
    apps = {
        "web": {"kind": "spread", "image": IMAGE, "on_node_loss": "crowd", "priority_class": "core"},
        "api": {"kind": "spread", "image": IMAGE, "priority_class": "core"},
    }
    _, alone = run(monkeypatch, "prod", apps=apps)
    assert [each for each in alone["checklist"]["warnings"] if "rebalancer" in each]
    registered, helped = run(monkeypatch, "prod", apps=apps, rebalance={"image": "example.org/controllers:1"})
    assert not [each for each in helped["checklist"]["warnings"] if "rebalancer" in each]
    said = {each.name: each.inputs["metadata"].get("annotations", {}) for each in registered.of("Deployment")}
    assert said["web"]["tandem-ha.io/rebalanced-by"] == "CronJob rebalance"
    assert "tandem-ha.io/rebalanced-by" not in said["api"]
    assert checklist.rule("rebalancer").id == "rebalancer"


def test_the_rebalancer_has_the_rights_that_it_needs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    registered, _ = run(
        monkeypatch, "prod", rebalance={"image": "example.org/controllers:1", "schedule": "*/5 * * * *"}
    )
    spec = registered.one("CronJob").spec
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("*/5 * * * *", "Forbid")
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["containers"][0]["command"][:6] == [
        "python3",
        "-P",
        "-m",
        "tandem.rebalance",
        "--namespace",
        "tandem-prod",
    ]
    assert pod["tolerations"] == recovery.pod_tolerations(recovery.profile("balanced"))
    (role,) = [each for each in registered.of("Role") if each.name == "rebalance"]
    rights = {
        (resource, verb) for rule in role.inputs["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert rights == {
        ("deployments", "get"),
        ("deployments", "list"),
        ("pods", "get"),
        ("pods", "list"),
        ("pods/eviction", "create"),
    }
    assert registered.one("ClusterRole", "rebalance").inputs["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    ]


@pytest.mark.parametrize("schedule", ["every hour", "* * * *", "*/5 * * * * *", "60m"])
def test_a_schedule_that_is_none(schedule: str) -> None:
    rebalance = json.dumps({"image": "example.org/controllers:1", "schedule": schedule})
    with pytest.raises(Exception, match=r"tandem:rebalance\.schedule"):
        parse_settings(raw_config("prod") | {"tandem:rebalance": rebalance}, "prod")


def test_the_gateway_reads_one_namespace_and_has_a_port_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    registered, _ = run(monkeypatch, "prod", gateway={"image": "example.org/controllers:1", "port": 8081})
    spec = registered.one("DaemonSet", "gateway").spec["template"]["spec"]
    (container,) = spec["containers"]
    assert container["command"] == ["python3", "-P", "-m", "tandem.controllers.gateway"]
    assert [each.get("hostPort") for each in container["ports"]] == [None, 8081]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("gateway", True)
    said = {each["name"]: each.get("value") for each in container["env"]}
    assert said["TANDEM_NAMESPACES"] == "tandem-prod"
    assert spec["terminationGracePeriodSeconds"] > int(said["TANDEM_DRAIN_SECONDS"]) + 5
    (role,) = [each for each in registered.of("Role") if each.name == "gateway"]
    assert role.inputs["metadata"]["namespace"] == "tandem-prod"
    assert {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in role.inputs["rules"]} == {
        (("ingresses",), ("get", "list", "watch")),
        (("services",), ("get", "list", "watch")),
    }
    home = registered.one("Namespace", "tandem-gateway").inputs["metadata"]["labels"]
    assert home["pod-security.kubernetes.io/enforce"] == "privileged", "a port of the node is more than baseline allows"
    assert registered.one("IngressClass").inputs["metadata"]["name"] == "tandem"


@pytest.mark.parametrize(("key", "value"), [("port", 0), ("image", "controllers"), ("ingress_class", "A B")])
def test_a_gateway_that_cannot_be(key: str, value: object) -> None:
    gateway = json.dumps({"image": "example.org/controllers:1", key: value})
    with pytest.raises(Exception, match=rf"tandem:gateway\.{key}"):
        parse_settings(raw_config("prod") | {"tandem:gateway": gateway}, "prod")
