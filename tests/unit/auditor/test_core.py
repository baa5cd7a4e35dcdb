"""The auditor's decisions: a namespace's report, the Events between two reports; repetition says nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from tandem.controllers.auditor import core
from tandem.controllers.auditor.core import Observed
from tandem.recovery import BALANCED
from tests.unit.audit.test_survey import node, pod
from tests.unit.checklist.test_manifests import load

WORKERS = [node("cp1", **{"node-role.kubernetes.io/control-plane": ""}), node("w1"), node("w2")]
AT, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"


def observed(*names: str, nodes: list[dict[str, Any]] = WORKERS, stamp: str = AT, more: Any = ()) -> Observed:
    objects = [obj for name in names for obj in load(name)]
    return Observed([*objects, *more], nodes, "prod", BALANCED, 1_000_000.0, stamp)


def report(seen: Observed, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return core.status(seen, core.judge(seen), previous)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [each for each in status["conditions"] if each["type"] == kind]
    return dict(found)


def test_a_good_namespace() -> None:
    status = report(observed("spread-app-good"))
    assert status["summary"] == {"errors": 0, "warnings": 0, "inferred": 0, "exempted": 0}
    assert status["findings"] == []
    assert condition(status, "ChecklistPassed")["status"] == "True"
    assert condition(status, "ChecklistPassed")["reason"] == "NoFindings"
    assert condition(status, "SurvivesWorkerLoss")["status"] == "True"


def test_findings_gravest_first_and_counted() -> None:
    status = report(observed("spread-app-neglected"))
    assert status["summary"] == {"errors": 7, "warnings": 4, "inferred": 0, "exempted": 0}
    levels = [each["level"] for each in status["findings"]]
    assert levels == ["error"] * 7 + ["warning"] * 4
    assert condition(status, "ChecklistPassed")["status"] == "False"
    assert {"namespace", "source"}.isdisjoint(status["findings"][0])


def test_exempted_findings_are_listed_with_their_reason_and_do_not_count() -> None:
    status = report(observed("spread-app-exempted"))
    assert status["summary"]["exempted"] == 3
    assert condition(status, "ChecklistPassed")["status"] == "True"
    assert {each["exempted"] for each in status["findings"]} >= {"the vendor publishes only latest"}
    assert core.notices(None, status) == []


def test_the_same_objects_give_the_same_report() -> None:
    first = report(observed("spread-app-neglected"))
    assert report(observed("spread-app-neglected", stamp=LATER), copy.deepcopy(first)) == first


def test_a_condition_keeps_its_moment_until_it_changes() -> None:
    bad = report(observed("spread-app-neglected"))
    good = report(observed("spread-app-good", stamp=LATER), bad)
    assert condition(good, "ChecklistPassed")["lastTransitionTime"] == LATER
    assert condition(good, "SurvivesWorkerLoss")["lastTransitionTime"] == AT


def test_new_findings_are_told_on_their_objects_and_resolved_ones_disappear() -> None:
    good, bad = report(observed("spread-app-good")), report(observed("spread-app-one-replica"))
    told = core.notices(good, bad)
    assert [(each.kind, each.name, each.type, each.reason) for each in told] == [
        ("Deployment", "shop", "Warning", "Replicas"),
        ("PodDisruptionBudget", "shop", "Warning", "PdbFitsReplicas"),
    ]
    assert "Way out: spec.replicas: 2" in told[0].note
    assert core.notices(bad, bad) == []
    resolved = core.notices(bad, good)
    assert [(each.kind, each.type, each.reason) for each in resolved] == [
        ("Deployment", "Normal", "Resolved"),
        ("PodDisruptionBudget", "Normal", "Resolved"),
    ]


def test_a_lease_that_grows_older_is_no_news() -> None:
    lease = {
        "kind": "Lease",
        "metadata": {"name": "auditor", "namespace": "tandem-system"},
        "spec": {"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": "1970-01-01T00:00:00.000000Z"},
    }
    seen = observed("elected-controller-good", more=[lease])
    one, two = report(seen), report(replace(seen, now=seen.now + 60))
    assert [each["rule"] for each in one["findings"]] == ["lease-held"]
    assert one != two
    assert core.notices(one, two) == []


def test_a_report_stays_small() -> None:
    many = []
    for index in range(60):
        (obj, *_) = load("spread-app-neglected")
        obj["metadata"]["name"] = f"shop-{index}"
        many.append(obj)
    status = report(observed(more=many))
    assert len(status["findings"]) == core.LISTED
    assert status["unlisted"] == 60 * 10 - core.LISTED
    assert status["summary"]["errors"] == 60 * 7


def test_survival_needs_two_ready_workers_and_no_crowd() -> None:
    lost = node("w2")
    lost["status"]["conditions"][0]["status"] = "Unknown"
    one = condition(report(observed("spread-app-good", nodes=[WORKERS[0], WORKERS[1], lost])), "SurvivesWorkerLoss")
    assert (one["status"], one["reason"], one["message"]) == ("False", "OneWorker", "1 of 2 workers are Ready")
    none = condition(report(observed("spread-app-good", nodes=[])), "SurvivesWorkerLoss")
    assert none["status"] == "Unknown"
    pods = [pod("shop-1", "x", "w1"), pod("shop-2", "x", "w1")]
    for each in pods:
        each["metadata"]["labels"] = {"app.kubernetes.io/name": "shop"}
    crowded = condition(report(observed("spread-app-good", more=pods)), "SurvivesWorkerLoss")
    assert (crowded["status"], crowded["reason"]) == ("False", "OneBasket")
    assert "all 2 ready pods of shop/shop are on w1" in crowded["message"]


def test_counts_for_metrics_leave_exempted_findings_out() -> None:
    assert core.counts(core.judge(observed("spread-app-exempted"))) == {}
    assert core.counts(core.judge(observed("spread-app-one-replica"))) == {
        ("replicas", "error"): 1,
        ("pdb-fits-replicas", "error"): 1,
    }
