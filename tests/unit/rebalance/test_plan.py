"""Which pod moves after a node's return, and when none may: the plan alone, on made-up objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tandem.rebalance.plan import Plan, plan

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STRICT = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def node(name: str, ready: str = "True", since: float = 3600, **spec: Any) -> dict[str, Any]:
    at = (NOW - timedelta(seconds=since)).isoformat().replace("+00:00", "Z")
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": at}
    labels = {CONTROL_PLANE: ""} if name.startswith("cp") else {}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec} | {
        "status": {"conditions": [condition]}
    }


def deployment(name: str = "web", replicas: int = 2, **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas)
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"spec": {"topologySpreadConstraints": [STRICT]}},
    }
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "generation": 4},
        "spec": spec | changes.get("spec", {}),
        "status": {"observedGeneration": 4} | counts | changes.get("status", {}),
    }


def pods(app: str, *nodes: str) -> list[dict[str, Any]]:
    return [
        {
            "kind": "Pod",
            "metadata": {
                "name": f"{app}-{number}",
                "namespace": "shop",
                "uid": f"uid-{app}-{number}",
                "labels": {"app": app},
                "creationTimestamp": f"2026-11-22T11:0{number}:00Z",
            },
            "spec": {"nodeName": where},
            "status": {"phase": "Running"},
        }
        for number, where in enumerate(nodes)
    ]


WORKERS = [node("cp1"), node("w1"), node("w2")]


def moves(*objects: Any) -> list[tuple[str, str, str, str]]:
    return [(each.app, each.pod, each.source, each.target) for each in plan([*WORKERS, *objects], NOW).moves]


def test_nothing_moves_where_replicas_are_spread() -> None:
    assert plan([*WORKERS, deployment(), *pods("web", "w1", "w2")], NOW) == Plan()
    assert plan([*WORKERS, deployment(replicas=3), *pods("web", "w1", "w2", "w2")], NOW) == Plan()


def test_the_youngest_of_the_crowd_moves_to_the_worker_that_came_back() -> None:
    assert moves(deployment(), *pods("web", "w2", "w2")) == [("shop/web", "web-1", "w2", "w1")]


def test_one_move_an_app_and_the_most_crowded_first() -> None:
    crowd = [deployment(), *pods("web", "w1", "w1"), deployment("api", 4), *pods("api", "w2", "w2", "w2", "w2")]
    assert [each[0] for each in moves(*crowd)] == ["shop/api", "shop/web"]


@pytest.mark.parametrize(
    "spread",
    [
        [],
        [STRICT | {"whenUnsatisfiable": "ScheduleAnyway"}],
        [STRICT | {"topologyKey": "topology.kubernetes.io/zone"}],
    ],
)
def test_an_app_without_a_strict_spread_is_left_alone(spread: list[dict[str, Any]]) -> None:
    loose = deployment(spec={"template": {"spec": {"topologySpreadConstraints": spread}}})
    assert plan([*WORKERS, loose, *pods("web", "w2", "w2")], NOW) == Plan()


def test_a_wider_skew_that_was_asked_for_is_kept() -> None:
    wide = deployment(spec={"template": {"spec": {"topologySpreadConstraints": [STRICT | {"maxSkew": 2}]}}})
    assert plan([*WORKERS, wide, *pods("web", "w2", "w2")], NOW) == Plan()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": {"availableReplicas": 1}}, "1 of 2 replicas are available"),
        ({"status": {"updatedReplicas": 1}}, "an update is under way"),
        ({"status": {"observedGeneration": 3}}, "an update has just begun"),
        ({"spec": {"paused": True}}, "it is paused"),
    ],
)
def test_an_app_that_is_not_whole_waits(changes: dict[str, Any], why: str) -> None:
    found = plan([*WORKERS, deployment(**changes), *pods("web", "w2", "w2")], NOW)
    assert found == Plan((), {"shop/web": why})


def test_a_pod_on_its_way_out_is_waited_for_and_does_not_count() -> None:
    three = pods("web", "w2", "w2", "w1")
    three[2]["metadata"]["deletionTimestamp"] = "2026-11-22T11:59:00Z"
    assert plan([*WORKERS, deployment(), *three], NOW) == Plan((), {"shop/web": "web-2 is on its way out"})


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (node("w1", "Unknown"), "w1 is not Ready"),
        (node("w1", since=20), "w1 is Ready for 20 s only"),
        (node("w1", unschedulable=True), "w1 is cordoned"),
        (
            node("w1", taints=[{"key": "tandem-ha.io/released", "effect": "NoExecute"}]),
            "w1 has the taint tandem-ha.io/released",
        ),
    ],
)
def test_nothing_moves_to_a_worker_that_may_not_keep_it(returned: dict[str, Any], why: str) -> None:
    objects = [node("cp1"), returned, node("w2"), deployment(), *pods("web", "w2", "w2")]
    assert plan(objects, NOW) == Plan((), {"workers": why})


def test_one_worker_alone_is_no_crowd() -> None:
    assert plan([node("cp1"), node("w2"), deployment(), *pods("web", "w2", "w2")], NOW) == Plan()


def test_a_taint_that_only_prefers_is_no_hindrance() -> None:
    soft = node("w1", taints=[{"key": "example.org/slow", "effect": "PreferNoSchedule"}])
    found = plan([soft, node("w2"), deployment(), *pods("web", "w2", "w2")], NOW)
    assert [each.target for each in found.moves] == ["w1"]
