"""Stages from recorded events: constructed here, recorded in the lab in test_recordings.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tandem import recovery
from tandem.drill import timeline
from tandem.drill.apps import App
from tandem.drill.observe import Kind, Observation, distil
from tandem.drill.samples import Sample, summarize
from tandem.drill.timeline import Scene
from tandem.recovery import Behaviour

T0 = 1000.0
SCENE = Scene("w1", T0, T0 + 60, ("cp1", "pod"))


def app(behaviour: Behaviour = "replace", **kwargs: Any) -> App:
    return App("db", "demo", "Deployment", behaviour, 1, {"app": "db"}, "db", "10.96.0.9", 80, 30080, **kwargs)


def seen(after: float, kind: Kind, name: str, gone: bool = False, **facts: Any) -> Observation:
    return Observation(T0 + after, kind, name, f"uid-{name}", gone, facts)


def pod(
    after: float, name: str, node: str | None, *, ready: bool, deleting: bool = False, gone: bool = False
) -> Observation:
    facts = {"labels": {"app": "db"}, "node": node, "ready": ready, "deleting": deleting, "phase": "Running"}
    return seen(after, "pod", name, gone, **facts)


def endpoints(after: float, **ready: bool) -> Observation:
    return seen(
        after, "slice", "db-1", service="db", endpoints=[{"pod": p, "node": "w1", "ready": r} for p, r in ready.items()]
    )


def ask(
    after: float, error: str | None = None, by: str | None = "old", client: str = "cp1/new", seconds: float = 0.1
) -> Sample:
    return Sample("db", client, 1, T0 + after, seconds, error, by if error is None else None)


REPLACED = [
    seen(-5, "node", "w1", ready="True", taints=[]),
    pod(-5, "old", "w1", ready=True),
    endpoints(-5, old=True),
    seen(20.8, "node", "w1", ready="Unknown", taints=["node.kubernetes.io/unreachable:NoSchedule"]),
    endpoints(21.7, old=False),
    seen(21.3, "node", "w1", ready="Unknown", taints=["node.kubernetes.io/unreachable:NoExecute"]),
    pod(21.5, "old", "w1", ready=False),
    pod(26.8, "old", "w1", ready=False, deleting=True),
    pod(26.9, "new", None, ready=False),
    pod(27.0, "new", "w2", ready=False),
    pod(31.9, "new", "w2", ready=True),
    endpoints(32.0, old=False, new=True),
]
ASKED = [ask(-1), ask(0.1, "timeout", seconds=0.5), ask(30, "refused"), ask(33.7, by="new"), ask(34, by="new")]


def test_every_stage_of_a_replaced_app_is_found() -> None:
    assert timeline.stages(app(), REPLACED, ASKED, SCENE) == {
        "ready_unknown": 20.8,
        "endpoints_out": 21.7,
        "taint": 21.3,
        "deleted": 26.8,
        "created": 26.9,
        "scheduled": 27.0,
        "ready": 31.9,
        "serving": 33.8,
    }


def test_they_lie_inside_the_articles_windows() -> None:
    found = timeline.stages(app(), REPLACED, ASKED, SCENE)
    assert all(found[stage] in window for stage, window in recovery.predict(recovery.ARTICLE).items())


def test_what_happens_after_the_end_of_the_observation_does_not_count() -> None:
    short = dataclasses.replace(SCENE, until=T0 + 26.85)
    found = timeline.stages(app(), REPLACED, ASKED, short)
    assert found["deleted"] == 26.8
    assert (found["created"], found["ready"], found["serving"]) == (None, None, None)


def test_an_answer_of_the_lost_pod_is_no_recovery() -> None:
    """Partition: the old pod still answers whoever reaches it."""
    assert timeline.serving(app(), {"old"}, [ask(1, by="old"), ask(40, by="new")], SCENE) == 40.1


def test_an_answer_from_outside_is_no_proof_that_the_service_works() -> None:
    assert timeline.serving(app(), {"old"}, [ask(10, by="new", client="outside-w2/new")], SCENE) is None


def test_a_spread_app_serves_again_when_requests_stop_failing() -> None:
    spread = app("spread-wait")
    failing = [ask(t / 10, "timeout" if t % 20 == 0 else None, "other") for t in range(220)]
    quiet = [ask(22 + t / 10, by="other") for t in range(100)]
    late = [ask(35, "timeout")]
    assert timeline.serving(spread, {"old"}, failing + quiet, SCENE) == pytest.approx(20.1)
    assert timeline.serving(spread, {"old"}, failing + quiet + late, SCENE) == pytest.approx(20.1), (
        "a straggler is no outage"
    )
    assert timeline.serving(spread, {"old"}, quiet, SCENE) == 0.0
    cut_short = dataclasses.replace(SCENE, until=T0 + 22)
    assert timeline.serving(spread, {"old"}, failing, cut_short) is None, "silence must have been seen"


def test_a_held_app_never_gets_beyond_created() -> None:
    held = [o for o in REPLACED if not (o.name == "new" and o.facts["node"])]
    found = timeline.stages(app("hold"), held, ASKED[:3], SCENE)
    assert found["created"] == 26.9
    assert all(found[stage] is None for stage in timeline.MUST_NOT_REACH["hold"])


def test_an_app_without_a_pod_on_the_node_shows_the_nodes_stages_only() -> None:
    elsewhere = [dataclasses.replace(o, facts={**o.facts, "node": "w2"}) if o.name == "old" else o for o in REPLACED]
    found = timeline.stages(app(), elsewhere, ASKED, SCENE)
    assert [stage for stage, seconds in found.items() if seconds is not None] == ["ready_unknown", "taint"]


def test_a_pod_that_left_the_node_before_the_fault_is_not_lost() -> None:
    assert (
        timeline.lost_pods(
            app(), [pod(-5, "old", "w1", ready=True), pod(-1, "old", "w1", ready=True, gone=True)], SCENE
        )
        == {}
    )


def test_without_a_service_nothing_is_expected_of_clients() -> None:
    agent = dataclasses.replace(app("node-agent"), service=None)
    assert timeline.expected(agent) == ("ready_unknown", "taint")


def test_requests_are_summed_between_fault_and_end() -> None:
    begin, end = T0, T0 + 10
    samples = [
        ask(-3),
        ask(-0.2, "timeout", seconds=0.5),  # under way when the fault came
        ask(1, seconds=0.3),
        ask(2, "timeout", seconds=0.5),
        ask(9.9, seconds=4),  # answered after the end
        ask(20),
    ]
    result = summarize(samples, begin, end)["cp1/new"]
    assert (result.sent, result.failed, result.slow) == (4, 3, 1)
    assert result.longest_gap_seconds == pytest.approx(8.7)


def test_api_objects_are_reduced_to_facts() -> None:
    node = {
        "metadata": {"name": "w1", "uid": "u"},
        "spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    }
    assert distil(1, "node", node).facts == {"ready": "Unknown", "taints": ["node.kubernetes.io/unreachable:NoExecute"]}
    bare = {"metadata": {"name": "p", "uid": "u", "deletionTimestamp": "now"}, "spec": {}}
    assert distil(1, "pod", bare).facts == {"labels": {}, "node": None, "ready": False, "deleting": True, "phase": None}
    slice_ = {
        "metadata": {"name": "s", "uid": "u", "labels": {"kubernetes.io/service-name": "db"}},
        "endpoints": [{"targetRef": {"name": "a"}, "conditions": {"ready": False}}, {"conditions": {}}],
    }
    assert [e["ready"] for e in distil(1, "slice", slice_).facts["endpoints"]] == [False, True]
