"""When a cluster is whole, and what forbids taking a node out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugins.module_utils import tandem_whole as whole

TAINT = "tandem-ha.io/released"


def node(name: str, ready: str = "True", boot: str = "", **spec: Any) -> dict[str, Any]:
    notes = {whole.REBOOT: json.dumps({"boot_id": boot})} if boot else {}
    return {
        "metadata": {"name": name, "annotations": notes},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"bootID": "b"}},
    }


def workload(name: str, have: int, want: int = 2, kind: str = "Deployment", seen: int = 3) -> dict[str, Any]:
    status = {"observedGeneration": seen, "readyReplicas": have, "numberReady": have, "desiredNumberScheduled": want}
    spec = {} if kind == "DaemonSet" else {"replicas": want}
    return {"kind": kind, "metadata": {"namespace": "n", "name": name, "generation": 3}, "spec": spec, "status": status}


def pod(name: str, where: str = "w1", owner: str = "", kind: str = "ReplicaSet", ready: bool = True) -> dict[str, Any]:
    owners = [{"kind": kind, "name": owner, "uid": owner, "controller": True}] if owner else []
    return {
        "metadata": {"namespace": "n", "name": name, "uid": name, "ownerReferences": owners},
        "spec": {"nodeName": where},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


NODES = [node("cp1"), node("w1"), node("w2")]


@pytest.mark.parametrize(
    ("item", "lack"),
    [
        (workload("a", 2), ""),
        (workload("a", 1), "1 of 2 pods are Ready"),
        (workload("a", 0, 0), ""),
        (workload("a", 2, seen=2), "its controller has not seen it yet"),
        (workload("a", 2, 3, "DaemonSet"), "2 of 3 pods are Ready"),
        (workload("a", 0, 1, "StatefulSet"), "0 of 1 pods are Ready"),
        ({**workload("a", 0), "status": {}}, "its controller has not seen it yet"),
    ],
)
def test_a_workload_is_whole_with_all_its_pods(item: dict[str, Any], lack: str) -> None:
    told = whole.not_whole(NODES, [item])
    assert told == ([f"{whole.named(item)}: {lack}"] if lack else [])
    assert whole.not_whole(NODES, [item], [whole.named(item)]) == []


def test_nodes_that_are_not_whole() -> None:
    sick = [node("a", "Unknown"), node("b", unschedulable=True), node("c", taints=[{"key": TAINT}])]
    told = whole.not_whole(sick, [])
    assert [each.split(" ", 3)[3] for each in told[:2]] == ["not Ready", "cordoned"]
    assert "readmit-node.yml" in told[2]


def test_pods_that_start_are_waited_for_and_a_cordon_is_not() -> None:
    starts = [workload("a", 1)]
    assert whole.on_the_way("w1", NODES, starts)
    assert not whole.on_the_way("w1", NODES, [workload("a", 2)])
    assert not whole.on_the_way("w1", NODES, starts, ["n/Deployment/a"])
    held = [node("cp1"), node("w1", unschedulable=True), node("w2")]
    assert whole.on_the_way("w1", held, starts), "cordoned by a run that was killed"
    assert not whole.on_the_way("w2", held, starts)
    assert not whole.on_the_way("w2", [node("w1", taints=[{"key": TAINT}])], starts)


def test_pods_that_leave() -> None:
    static = pod("static", owner="w1", kind="Node")
    static["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    ended = pod("ended", owner="job", kind="Job")
    ended["status"]["phase"] = "Succeeded"
    found = whole.leaving(
        [pod("a", owner="r"), pod("b"), pod("c", "w2", "r"), pod("d", owner="d", kind="DaemonSet"), static, ended], "w1"
    )
    assert {key: [each["metadata"]["name"] for each in pods] for key, pods in found.items()} == {
        "evicted": ["a"],
        "bare": ["b"],
    }


def test_what_is_alone_and_what_is_crowded() -> None:
    pods = [
        pod("web-1", "w1", "web"),
        pod("web-2", "w2", "web"),
        pod("ledger", "w1", "ledger"),
        pod("crowd-1", "w1", "crowd"),
        pod("crowd-2", "w1", "crowd"),
        pod("half-1", "w1", "half"),
        pod("half-2", "w2", "half", ready=False),
        pod("agent", "w1", "agent", kind="DaemonSet"),
        pod("etcd-w1", "w1", "w1", kind="Node"),
        pod("kube-apiserver-w1", "w1", "w1", kind="Node"),
    ]
    crowded, alone = whole.baskets(pods, "w1")
    assert crowded == ["n/ReplicaSet/crowd"]
    assert alone == {"ledger": "n/ReplicaSet/ledger", "half": "n/ReplicaSet/half"}


def test_what_forbids_a_reboot() -> None:
    pods = [pod("web-1", "w1", "web"), pod("web-2", "w2", "web")]

    def refused(name: str = "w1", nodes: Any = None, items: Any = (), more: Any = (), accept: Any = ()) -> list[str]:
        return whole.drain_refusals(name, nodes or NODES, items, [*pods, *more], accept)

    assert refused() == []
    assert "correct the name" in refused("w9")[0]
    assert "n/Deployment/a: 1 of 2" in refused(items=[workload("a", 1)])[0]
    assert refused(items=[workload("a", 1)], accept=["n/Deployment/a"]) == []
    assert "node w2 is cordoned" in refused(nodes=[node("w1"), node("w2", unschedulable=True)])[0]
    assert "is cordoned" in refused(nodes=[node("w1", unschedulable=True), node("w2")])[0], "by somebody else"
    assert "rollout restart" in refused(more=[pod("c1", "w1", "c"), pod("c2", "w1", "c")])[0]
    assert "n/bare" in refused(more=[pod("bare")])[0]


def test_a_node_that_we_took_out_is_not_refused_for_that() -> None:
    nodes = [node("w1", boot="a", unschedulable=True), node("w2")]
    assert whole.drain_refusals("w1", nodes, [workload("web", 1)], [pod("web-1", "w2", "web")], []) == []
    nodes[1] = node("w2", "False")
    assert "node w2 is not Ready" in whole.drain_refusals("w1", nodes, [], [], [])[0]
    assert whole.marked(nodes[0]) == "a"
    nodes[0]["metadata"]["annotations"][whole.REBOOT] = "not json"
    assert whole.marked(nodes[0]) == ""


def test_a_node_that_somebody_uncordoned_is_judged_like_any_other() -> None:
    nodes = [node("w1", boot="a"), node("w2")]
    assert not whole.taken_out(nodes[0]), "the annotation of a run that was killed"
    assert whole.taken_out(node("w1", boot="a", unschedulable=True))
    assert not whole.taken_out(node("w1", unschedulable=True)), "by somebody else"
    assert "n/Deployment/web: 1 of 2" in whole.drain_refusals("w1", nodes, [workload("web", 1)], [], [])[0]
    crowd = [pod("c1", "w1", "c"), pod("c2", "w1", "c")]
    assert "rollout restart" in whole.drain_refusals("w1", nodes, [], crowd, [])[0]


def test_services_and_where_they_answer() -> None:
    def entry(service: str, where: str | None, ready: bool) -> dict[str, Any]:
        labels = {"kubernetes.io/service-name": service}
        endpoints = [{"nodeName": where, "conditions": {"ready": ready}}]
        return {"metadata": {"namespace": "n", "labels": labels}, "endpoints": endpoints}

    slices = [entry("a", "w1", True), entry("a", "w2", True), entry("b", "w1", False), entry("c", None, True)]
    assert whole.services(slices) == {"n/a": {"w1", "w2"}, "n/b": set(), "n/c": set()}
