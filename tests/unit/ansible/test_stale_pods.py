"""Pods of an earlier profile: found by owner, never a workload's own choice, and rolled within their budgets."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from plugins.module_utils import tandem_selectors as selectors
from plugins.module_utils import tandem_stale as stale
from plugins.module_utils import tandem_tuning as tuning
from plugins.modules import tandem_cluster, tandem_roll
from tandem._checklist import objects

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
BALANCED = tuning.settings("balanced")


def tolerations(not_ready: int | None = 300, unreachable: int | None = 300) -> list[dict[str, Any]]:
    pairs = ((NOT_READY, not_ready), (UNREACHABLE, unreachable))
    return [
        {"key": key, "effect": "NoExecute", **({} if seconds is None else {"tolerationSeconds": seconds})}
        for key, seconds in pairs
    ]


def pod(name: str, owner: dict[str, str], carried: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    fixed = {"namespace": "default", "name": name, "static": False, "deleting": False}
    return {**fixed, "owner": owner, "tolerations": carried, **changes}


SELECTOR = {"matchLabels": {"app": "web"}}


def cluster(
    *pods: dict[str, Any], own: list[dict[str, Any]] | None = None, allowed: int = 1, selector: Any = SELECTOR
) -> dict[str, Any]:
    template = {"tolerations": own or [], "labels": {"app": "web"}, "replicas": 2, "strategy": "RollingUpdate"}
    return {
        "pods": list(pods),
        "workloads": {
            "templates": {"default/Deployment/web": template, "default/StatefulSet/db": {**template, "labels": {}}},
            "replica_sets": {"default/web-1": {"kind": "Deployment", "name": "web"}},
            "budgets": [{"namespace": "default", "name": "web", "selector": selector, "allowed": allowed}],
        },
    }


OF_WEB = {"kind": "ReplicaSet", "name": "web-1"}


def test_old_pods_are_told_with_their_owner() -> None:
    found = stale.stale_pods(
        cluster(pod("web-1-a", OF_WEB, tolerations()), pod("web-1-b", OF_WEB, tolerations())), BALANCED
    )
    assert [(entry["owner"], entry["pods"], entry["held_by"]) for entry in found] == [
        ("default/Deployment/web", ["web-1-a", "web-1-b"], "")
    ]
    told = stale.stale_sentences(found)[0]
    assert told == (
        "default/Deployment/web: 2 pod(s) (web-1-a, web-1-b) still tolerate not-ready for 300 s instead of 30 s, "
        "unreachable for 300 s instead of 5 s"
    )


@pytest.mark.parametrize(
    "harmless",
    [
        pod("new", OF_WEB, tolerations(30, 5)),
        pod("static", {}, tolerations(), static=True),
        pod("going", OF_WEB, tolerations(), deleting=True),
        pod("without-limit", {"kind": "DaemonSet", "name": "agent"}, tolerations(None, None)),
    ],
    ids=lambda entry: entry["name"],
)
def test_these_are_not_old(harmless: dict[str, Any]) -> None:
    assert stale.stale_pods(cluster(harmless), BALANCED) == []


def test_what_a_template_asks_for_itself_is_its_own_choice() -> None:
    state = cluster(pod("web-1-a", OF_WEB, tolerations(60, 300)), own=tolerations(60, None)[:1])
    (entry,) = stale.stale_pods(state, BALANCED)
    assert entry["carried"] == {UNREACHABLE: 300}
    state = cluster(pod("web-1-a", OF_WEB, tolerations(60, 60)), own=tolerations(60, 60))
    assert stale.stale_pods(state, BALANCED) == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (cluster(pod("web-1-a", OF_WEB, tolerations()), allowed=0), "PodDisruptionBudget web allows no disruption"),
        (cluster(pod("bare", {}, tolerations())), "a Pod is not rolled"),
        (cluster(pod("job-1", {"kind": "Job", "name": "job"}, tolerations())), "a Job is not rolled"),
        (cluster(pod("x-0", {"kind": "StatefulSet", "name": "x"}, tolerations())), "its template is not there"),
    ],
    ids=["budget", "bare", "job", "gone"],
)
def test_what_must_not_be_rolled_is_told_why(state: dict[str, Any], words: str) -> None:
    (entry,) = stale.stale_pods(state, BALANCED)
    assert words in entry["held_by"]
    assert words in stale.stale_sentences([entry])[0]


def requirement(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": [*values]} if values else {})}]}


SELECTORS: list[tuple[Any, bool]] = [
    (None, False),
    ({}, True),
    ({"matchLabels": {}}, True),
    (SELECTOR, True),
    ({"matchLabels": {"app": "db"}}, False),
    (requirement("app", "In", "db", "web"), True),
    (requirement("app", "In", "db"), False),
    (requirement("tier", "In", "front"), False),
    (requirement("app", "NotIn", "db"), True),
    (requirement("app", "NotIn", "web"), False),
    (requirement("tier", "NotIn", "front"), True),
    (requirement("app", "Exists"), True),
    (requirement("tier", "Exists"), False),
    (requirement("tier", "DoesNotExist"), True),
    (requirement("app", "DoesNotExist"), False),
    ({**SELECTOR, **requirement("app", "NotIn", "web")}, False),
]
"""A budget's selector, and whether it covers the pods of `web`."""


@pytest.mark.parametrize(("selector", "covers"), SELECTORS, ids=str)
def test_a_budget_holds_what_its_selector_selects(selector: Any, covers: bool) -> None:
    """By the rules of policy/v1, as the checklist judges them too."""
    assert selectors.selects(selector, {"app": "web"}) is covers
    assert objects.selects(selector, {"app": "web"}) is covers
    (entry,) = stale.stale_pods(cluster(pod("web-1-a", OF_WEB, tolerations()), allowed=0, selector=selector), BALANCED)
    assert bool(entry["held_by"]) is covers
    budget = {"metadata": {"name": "web"}, "spec": {"selector": selector}, "status": {"disruptionsAllowed": 0}}
    assert tandem_roll.blocked([budget], {"app": "web"}) == ("web" if covers else "")


def test_a_budget_is_known_with_all_of_its_selector() -> None:
    class Answers:
        def get(self, path: str) -> dict[str, Any]:
            spec = {"selector": requirement("app", "Exists")}
            budget = {"metadata": {"namespace": "default", "name": "all"}, "spec": spec}
            return {"items": [budget] if path.endswith("poddisruptionbudgets") else []}

    api: Any = Answers()
    (budget,) = tandem_cluster.workloads(api)["budgets"]
    assert budget == {"namespace": "default", "name": "all", "selector": requirement("app", "Exists"), "allowed": 0}


class Api:
    """One Deployment that takes `steps` looks to roll."""

    def __init__(self, allowed: list[int]) -> None:
        self.allowed = allowed
        self.patched = 0
        self.looks = 0

    def get(self, path: str) -> dict[str, Any]:
        if path.endswith("poddisruptionbudgets"):
            allowed = self.allowed.pop(0) if len(self.allowed) > 1 else self.allowed[0]
            spec = {"selector": {"matchLabels": {"app": "web"}}}
            return {"items": [{"metadata": {"name": "web"}, "spec": spec, "status": {"disruptionsAllowed": allowed}}]}
        self.looks += bool(self.patched)
        done = not self.patched or self.looks > 2
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 2 if done else 1)
        template = {"metadata": {"labels": {"app": "web"}}}
        return {
            "metadata": {"generation": 1 + self.patched},
            "spec": {"replicas": 2, "template": template},
            "status": {"observedGeneration": 1 + self.patched, **counts},
        }

    def request(self, method: str, path: str, body: Any = None, headers: Any = None) -> dict[str, Any]:
        assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/default/deployments/web")
        assert tandem_roll.ANNOTATION in body["spec"]["template"]["metadata"]["annotations"]
        self.patched += 1
        return {}


WEB = {"namespace": "default", "kind": "Deployment", "name": "web"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tandem_roll, "POLL_SECONDS", 0.01)


def test_rolled_once_and_waited_for() -> None:
    api: Any = Api([1])
    tandem_roll.roll(api, WEB, 5)
    assert (api.patched, api.looks) == (1, 3)


def test_a_budget_is_waited_for() -> None:
    api: Any = Api([0, 0, 1])
    tandem_roll.roll(api, WEB, 5)
    assert api.patched == 1


def test_a_budget_that_never_allows_leaves_the_workload_alone() -> None:
    api: Any = Api([0])
    with pytest.raises(TimeoutError, match="PodDisruptionBudget web allows no disruption"):
        tandem_roll.roll(api, WEB, 0.1)
    assert api.patched == 0


def test_owner_is_the_controller() -> None:
    references = [{"kind": "Node", "name": "n"}, {"kind": "ReplicaSet", "name": "r", "controller": True}]
    assert tandem_cluster.owner_of({"metadata": {"ownerReferences": references}}) == {"kind": "ReplicaSet", "name": "r"}
    assert tandem_cluster.owner_of({"metadata": {}}) == {}


def test_the_input_is_not_touched() -> None:
    state = cluster(pod("web-1-a", OF_WEB, tolerations()))
    before = copy.deepcopy(state)
    stale.stale_pods(state, BALANCED)
    assert state == before
