"""Pods that a drain moves have to find room: what cannot be scheduled is told, and nothing that could be is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from plugins.module_utils import tandem_room as room
from plugins.module_utils import tandem_whole as whole
from tandem.survivability import quantity as other_quantity

CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def node(name: str, cpu: str = "1", memory: str = "1Gi", pods: str = "110", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": cpu, "memory": memory, "pods": pods},
        },
    }


def pod(name: str, where: str, cpu: str = "0", memory: str = "0", owner: str = "", **spec: Any) -> dict[str, Any]:
    owner = owner or name
    return {
        "metadata": {
            "namespace": "n",
            "name": name,
            "labels": {"pod-template-hash": "7d9"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"{owner}-7d9", "uid": owner, "controller": True}],
        },
        "spec": {
            "nodeName": where,
            "containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}],
            **spec,
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


NODES = [node("cp1", taints=[CONTROL_PLANE]), node("w1"), node("w2")]


def refused(*pods: dict[str, Any], nodes: Any = None, accept: tuple[str, ...] = ()) -> list[str]:
    return whole.drain_refusals("w1", nodes or NODES, [], pods, accept)


@pytest.mark.parametrize("text", ["0", "1", "250m", "1.5", "64Mi", "2Gi", "1Ti", "3k", "5M", "7G", "100000n", "1e3"])
def test_quantities(text: str) -> None:
    expected = {"100000n": 1e-4, "1e3": 1000.0}.get(text) or other_quantity(text)
    assert float(room.quantity(text)) == expected


def test_quantities_are_exact() -> None:
    assert room.quantity("0.1") + room.quantity("200m") == Decimal("0.3")
    assert room.quantity("1E") == 10**18
    assert room.quantity("1Ei") == 2**60
    with pytest.raises(ValueError, match="'1x' is no quantity"):
        room.quantity("1x")


def test_what_the_scheduler_counts_of_a_pod() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("100m"), {"name": "without"}],
        "initContainers": [container("50m"), container("30m", restartPolicy="Always"), container("200m")],
        "overhead": {"memory": "8Mi"},
    }
    assert room.requests({"spec": spec}) == {"cpu": Decimal("0.23"), "memory": 8 * 2**20, "pods": 1}
    spec["resources"] = {"requests": {"cpu": "1"}}
    assert room.requests({"spec": spec})["cpu"] == 1, "of the pod as a whole"


def test_a_single_writer_needs_room_on_the_survivor() -> None:
    full = pod("batch", "w2", "800m")
    [told] = refused(pod("ledger", "w1", "300m"), full)
    assert "n/ledger would need cpu 0.30; w2 would have cpu 0.20 left" in told
    assert "rule: what moves finds room" in told
    assert refused(pod("ledger", "w1", "200m"), full) == [], "it fits to the last bit"
    ended, leaves = pod("batch", "w2", "800m"), pod("batch", "w2", "800m")
    ended["status"]["phase"] = "Succeeded"
    leaves["metadata"]["deletionTimestamp"] = "now"
    assert refused(pod("ledger", "w1", "300m"), ended) == []
    assert refused(pod("ledger", "w1", "300m"), leaves) == []


def test_pods_that_fit_one_by_one_and_not_together() -> None:
    [told] = refused(pod("a", "w1", memory="600Mi"), pod("b", "w1", memory="600Mi"))
    assert "n/a, n/b would need memory 1200 Mi; w2 would have memory 1024 Mi left" in told
    [told] = refused(pod("a", "w1"), pod("b", "w1"), nodes=[node("w1"), node("w2", pods="1")])
    assert "n/a, n/b would need pods 2; w2 would have pods 1 left" in told
    third = [*NODES, node("w3")]
    assert refused(pod("a", "w1", memory="600Mi"), pod("b", "w1", memory="600Mi"), nodes=third) == []


def test_the_control_plane_counts_for_pods_that_tolerate_it() -> None:
    full = pod("batch", "w2", "1")
    tolerations = [{"key": CONTROL_PLANE["key"], "operator": "Exists"}]
    assert refused(pod("dns", "w1", "100m", tolerations=tolerations), full) == []
    assert "cpu 0.10" in refused(pod("dns", "w1", "100m"), full)[0]
    away = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["cp1"]}]}
            ]
        }
    }
    kept = pod("app", "w1", "100m", tolerations=tolerations, affinity={"nodeAffinity": away})
    assert "cpu 0.10" in refused(kept, full)[0]
    pinned = pod("here", "w1", nodeSelector={"kubernetes.io/hostname": "w1"})
    assert "n/here may run on none of them" in refused(pinned)[0]


HOSTNAME = {"topologyKey": "kubernetes.io/hostname"}
SPREAD = {**HOSTNAME, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
APART = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [HOSTNAME]}}


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({"topologySpreadConstraints": [SPREAD]}, False),
        ({"topologySpreadConstraints": [{**SPREAD, "minDomains": 2, "nodeTaintsPolicy": "Honor"}]}, False),
        ({"affinity": APART}, False),
        ({"topologySpreadConstraints": [{**SPREAD, "nodeTaintsPolicy": "Honor"}]}, True),
        ({"topologySpreadConstraints": [{**SPREAD, "whenUnsatisfiable": "ScheduleAnyway"}]}, True),
        ({}, True),
    ],
    ids=["spread", "spread over two", "anti-affinity", "crowd", "soft", "free"],
)
def test_of_several_pods_only_those_that_would_move_need_room(spec: dict[str, Any], counts: bool) -> None:
    pods = [pod("web-1", "w1", "600m", owner="web", **spec), pod("web-2", "w2", "600m", owner="web", **spec)]
    assert bool(refused(*pods)) is counts
    assert refused(*pods, accept=("n/Deployment/web",)) == [], "it may wait for the node"


def test_pods_of_a_lower_priority_make_room() -> None:
    batch = pod("batch", "w2", "1", priority=-10)
    assert refused(pod("ledger", "w1", "500m"), batch) == []
    assert refused(pod("low", "w1", "500m", priority=-10), batch) != []
    two = [pod("ledger", "w1", "500m"), pod("low", "w1", "600m", priority=-10)]
    assert "n/ledger, n/low would need cpu 1.10" in refused(*two)[0]


def test_what_stays_or_cannot_be_judged_is_not_counted() -> None:
    full, agent = pod("batch", "w2", "1"), pod("agent", "w1", "500m")
    agent["metadata"]["ownerReferences"][0]["kind"] = "DaemonSet"
    assert refused(agent, full) == []
    silent = node("w2")
    del silent["status"]["allocatable"]
    assert refused(pod("ledger", "w1", "500m"), full, nodes=[node("w1"), silent]) == []
    [told] = refused(pod("ledger", "w1", "500m"), full, nodes=[node("w1"), node("w2", unschedulable=True)])
    assert "cordoned" in told, "first things first"
    fresh = node("w2", taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    assert refused(pod("ledger", "w1", "500m"), nodes=[node("w1"), fresh]) == [], "it comes and goes"
