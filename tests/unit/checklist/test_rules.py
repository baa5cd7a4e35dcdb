"""Every rule by small changes to good objects: the change breaks these rules and no other, or none."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tandem import checklist, recovery
from tandem.checklist import World, cel_validation, cel_variables
from tests.unit.checklist.changes import CHANGES, Change
from tests.unit.checklist.test_manifests import load

BALANCED = recovery.profile("balanced")


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_change(change: Change) -> None:
    objects, _ = change.apply()
    found = {each.rule for each in checklist.judge(objects, environment="prod", profile=BALANCED)}
    assert found == set(change.breaks)


def test_every_rule_has_levels_reasons_and_a_way_out() -> None:
    ids = [rule.id for rule in checklist.RULES]
    assert len(ids) == len(set(ids))
    for rule in checklist.RULES:
        assert set(rule.levels) == set(checklist.ENVIRONMENTS), rule.id
        assert re.fullmatch(r"[a-z][a-z-]+[a-z]", rule.id)
        assert rule.title
        assert rule.why
        assert rule.fix
        assert rule.kinds


def test_dev_forgives_one_replica_and_nothing_that_acts_twice() -> None:
    for rule in checklist.RULES:
        if rule.levels["dev"] == "error":
            assert rule.levels["prod"] == "error", rule.id
    one, *rest = load("spread-app-one-replica")
    assert not checklist.judge([one], environment="dev", profile=BALANCED)
    assert len(rest) == 2
    twice = checklist.judge(load("controller-two-without-election"), environment="dev", profile=BALANCED)
    assert {each.rule for each in twice if each.level == "error"} == {
        "replicas-need-election",
        "recreate-without-election",
    }


def test_without_a_profile_tolerations_must_only_be_limited() -> None:
    (stale, *_) = load("airflow-webserver-stale-tolerations")
    assert "tolerations" not in {each.rule for each in checklist.judge([stale])}
    assert "tolerations" in {each.rule for each in checklist.judge([stale], profile=BALANCED)}


def lease(renewed: str, holder: str = "auditor-1_x") -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}
    return {"kind": "Lease", "metadata": {"name": "auditor", "namespace": "tandem-system"}, "spec": spec}


@pytest.mark.parametrize(
    ("lease_", "message"),
    [
        (lease("1970-01-01T00:16:30.000000Z"), None),
        (lease("1970-01-01T00:16:20.000000Z"), "was last renewed 20 s ago"),
        (lease("1970-01-01T00:16:40.000000Z", ""), "nobody holds Lease auditor"),
    ],
)
def test_a_lease_that_nobody_renews(lease_: dict[str, Any], message: str | None) -> None:
    found = checklist.judge([*load("elected-controller-good"), lease_], profile=BALANCED, now=1000.0)
    assert [each.rule for each in found] == (["lease-held"] if message else [])
    assert all(message in each.message for each in found if message)


def test_a_deployed_lease_needs_no_create() -> None:
    objects = load("elected-controller-good")
    (role,) = [each for each in objects if each["kind"] == "Role"]
    del role["rules"][0]
    assert {each.rule for each in checklist.judge(objects, profile=BALANCED)} == {"lease-rbac"}
    made = [*objects, lease("1970-01-01T00:16:40.000000Z")]
    assert not checklist.judge(made, profile=BALANCED)


def test_an_exempted_finding_stays_listed_but_does_not_count() -> None:
    found = checklist.judge(load("spread-app-exempted"), profile=BALANCED)
    assert {each.exempted for each in found} >= {"the vendor publishes only latest"}
    assert not checklist.counted(found)


def test_objects_of_other_kinds_and_of_null_fields_are_no_trouble() -> None:
    odd: list[dict[str, Any]] = [
        {"kind": "ConfigMap", "metadata": {"name": "x"}},
        {"kind": "Deployment", "metadata": {"name": "x", "labels": None, "annotations": None}, "spec": None},
        {"kind": "Service", "metadata": {"name": "x"}, "spec": {"selector": None}},
        {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "x"}, "webhooks": None},
        {},
    ]
    checklist.judge(odd, profile=BALANCED)


def test_ten_thousand_objects_take_seconds_not_minutes() -> None:
    many = []
    for index in range(2500):
        for obj in load_good():
            meta = {**obj["metadata"], "namespace": f"ns-{index % 50}", "name": f"{obj['metadata']['name']}-{index}"}
            many.append({**obj, "metadata": meta})
    started = time.process_time()
    checklist.judge(many, profile=BALANCED)
    assert time.process_time() - started < 20


_GOOD: list[dict[str, Any]] = []


def load_good() -> list[dict[str, Any]]:
    if not _GOOD:
        _GOOD.extend([*load("spread-app-good"), *load("node-agent-good")])
    return _GOOD


def test_expressions_name_only_variables_that_there_are() -> None:
    for rule in checklist.RULES:
        if rule.cel is None:
            continue
        text = cel_validation(rule, BALANCED)
        given = list(cel_variables(text))
        for index, name in enumerate(given):
            used = re.findall(r"variables\.(\w+)", checklist.CEL_VARIABLES[name])
            assert set(used) <= set(given[:index]), f"{name} is defined before what it needs"
        assert "SECONDS" not in text.replace("lease-seconds", "")
    with pytest.raises(ValueError, match="more than one object"):
        cel_validation(checklist.rule("pdb-present"))
    with pytest.raises(ValueError, match="needs a recovery profile"):
        cel_validation(checklist.rule("tolerations"))
    with pytest.raises(KeyError, match="no rule 'nonsense'; known: replicas"):
        checklist.rule("nonsense")


def test_a_world_finds_what_belongs_together() -> None:
    objects = load("elected-controller-good")
    world = World(objects)
    assert [each["metadata"]["name"] for each in world.budgets(objects[0])] == ["auditor"]
    assert len(world.rules_of(objects[0])) == 3
