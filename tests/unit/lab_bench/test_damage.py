"""What counts as lost in an outage of the API."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lab.benches import damage
from lab.benches.damage import UNREACHABLE, Beat, Damage
from tandem.drill.observe import Kind, Observation
from tandem.recovery import ARTICLE, BALANCED, FAST, STOCK, stale_view_seconds

T0, T1 = "2026-11-22T08:00:00Z", "2026-11-22T08:10:00Z"


def seen(at: float, kind: Kind, name: str, gone: bool = False, **facts: Any) -> Observation:
    return Observation(at, kind, name, f"uid-{name}", gone, facts)


def node(at: float, name: str = "w1", ready: str = "True", since: str = T0, *taints: str) -> Observation:
    return seen(at, "node", name, ready=ready, since=since, taints=list(taints))


def pod(at: float, name: str, *, deleting: bool = False, gone: bool = False, **labels: str) -> Observation:
    return seen(at, "pod", name, gone, labels=labels, node="w1", ready=True, deleting=deleting, phase="Running")


def slices(at: float, *, gone: bool = False, **ready: bool) -> Observation:
    endpoints = [{"pod": name, "node": "w1", "ready": is_ready} for name, is_ready in ready.items()]
    endpoints.append({"pod": None, "node": None, "ready": at < 10})  # the API server's own: never counted
    return seen(at, "slice", "web", gone, service="web", endpoints=endpoints)


BEFORE = [
    node(1),
    node(1, "w2"),
    node(1, "cp1", "True", T0, "node-role.kubernetes.io/control-plane:NoSchedule"),
    pod(2, "a"),
    pod(2, "b"),
    pod(2, "going", deleting=True),
    pod(2, "kube-apiserver-cp1", tier="control-plane"),
    slices(3, a=True, b=True, slow=False),
]

CASES = [
    ("nothing", [], Damage()),
    ("heartbeats alone", [node(11), node(12, "w2")], Damage()),
    ("marked lost and back", [node(11, "w1", "Unknown", T1), node(12, "w1", "True", T1)], Damage(lost=1)),
    ("twice", [node(n, "w1", "Unknown" if n % 2 else "True", f"{T1}{n}") for n in range(11, 15)], Damage(lost=2)),
    ("both workers", [node(11, "w1", "Unknown", T1), node(11, "w2", "Unknown", T1)], Damage(lost=2)),
    ("a flap between two looks", [node(11, "w1", "True", T1)], Damage(lost=1, unseen=1)),
    ("a flap seen is not counted again", [node(11, "w1", "Unknown", T1), node(12, since=T1), node(13, since=T1)],
     Damage(lost=1)),
    ("kubelet's own word", [node(11, "w1", "False", T1), node(12, "w1", "True", T1)], Damage(said_not_ready=1)),
    ("removed from the API", [seen(11, "node", "w1", gone=True)], Damage(lost=1)),
    ("tainted until it is back",
     [node(11, "w1", "Unknown", T1, UNREACHABLE), node(12, "w1", "Unknown", T1, UNREACHABLE), node(13, since=T1)],
     Damage(lost=1, tainted=1)),
    ("a taint that stops no pod", [node(11, "w1", "True", T0, "node.kubernetes.io/unreachable:NoSchedule")], Damage()),
    ("an endpoint out and in again", [slices(11, a=False, b=True), slices(12, a=True, b=True)],
     Damage(endpoints_lost=1)),
    ("out, in and out: one endpoint", [slices(11, a=False, b=True), slices(12, a=True, b=True), slices(13, b=True)],
     Damage(endpoints_lost=1)),
    ("all of a slice", [slices(11, gone=True)], Damage(endpoints_lost=2)),
    ("one that was not ready before", [slices(11, a=True, b=True)], Damage()),
    ("evicted", [pod(11, "a", deleting=True), pod(12, "a", gone=True)], Damage(pods_evicted=1)),
    ("gone unseen", [pod(12, "a", gone=True), pod(12, "b", gone=True)], Damage(pods_evicted=2)),
    ("on its way out before", [pod(11, "going", deleting=True, gone=True)], Damage()),
    ("the killed server's mirror", [pod(11, "kube-apiserver-cp1", gone=True, tier="control-plane")], Damage()),
    ("born and gone within", [pod(11, "new"), pod(12, "new", gone=True)], Damage()),
]  # fmt: skip


@pytest.mark.parametrize(("after", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_counted(after: list[Observation], expected: Damage) -> None:
    assert damage.damage(damage.state_of(BEFORE), after) == expected


@pytest.mark.parametrize(
    ("after", "since"),
    [
        ([], 10),
        ([node(11)], 10),
        ([node(11, "w1", "Unknown", T1)], None),
        ([node(11, "w1", "Unknown", T1), node(14, since=T1)], 14),
        ([node(11, "w1", "Unknown", T1, UNREACHABLE), node(14, "w1", "True", T1, UNREACHABLE), node(15, since=T1)], 15),
        ([slices(11, a=True), node(12), slices(13, a=True, c=True)], 13),
        ([slices(11, a=True), slices(13, a=True, b=False)], None),
        ([slices(11, a=True), slices(13, a=True, b=True), node(20, "w2", "False", T1), node(21, "w2")], 21),
        ([pod(12, "a", gone=True)], 10),
        ([seen(11, "node", "w2", gone=True)], None),
    ],
)
def test_when_it_is_whole_again(after: list[Observation], since: float | None) -> None:
    assert damage.whole_since(damage.state_of(BEFORE), [*BEFORE, *after], 10) == since


def test_healthy_is_ready_and_reachable() -> None:
    assert damage.healthy(damage.state_of(BEFORE))
    assert not damage.healthy(damage.state_of([]))
    assert not damage.healthy(damage.state_of([*BEFORE, node(4, "w1", "False")]))
    assert not damage.healthy(damage.state_of([*BEFORE, node(4, "w1", "True", T0, UNREACHABLE)]))


BEATS = [
    Beat(8.0, 8.1, "old", 7.5),
    Beat(9.9, 10.4, "old", 9.5),  # asked before the outage of 10 to 20, answered in its first moment
    Beat(18.0, 20.3, "old", 15.0),  # stamped while the server was stopped, by a holder that has given up since
    Beat(20.5, 20.6, "old", 15.0),
    Beat(36.0, 36.1, "new", 36.0),
]


def test_the_first_answer_after_the_strike_is_of_a_request_sent_after_it() -> None:
    again = damage.answered_again(BEATS, 10)
    assert again == 20.3
    assert damage.answered_again(BEATS[:2], 10) is None


def test_a_renewal_stamped_during_the_outage_is_no_leader() -> None:
    led = damage.led_again(BEATS, 20)
    assert led is not None
    assert led.holder == "new"
    assert damage.led_again(BEATS[:-1], 20) is None


def test_how_long_a_false_loss_can_still_come() -> None:
    assert damage.quiet_seconds(BALANCED, 9.5, manager_exited=False) == stale_view_seconds(9.5) - 9.5 + 2
    assert damage.quiet_seconds(ARTICLE, 20, manager_exited=True) == 10


@pytest.mark.parametrize(
    ("profile", "seconds", "expected"),
    [
        (BALANCED, 9.5, "none"),
        (ARTICLE, 1.5, "possible"),
        (ARTICLE, 9.5, "possible"),
        (ARTICLE, 11.9, "possible"),
        (ARTICLE, 12, "none: the controller-manager starts anew"),
        (FAST, 5, "none"),
        (FAST, 8, "possible"),
        (STOCK, 20, "none"),
        (dataclasses.replace(ARTICLE, kcm_leader_elect_renew_deadline_seconds=4), 8, "none"),
    ],
)
def test_what_the_model_says_of_an_outage(profile: Any, seconds: float, expected: str) -> None:
    assert damage.predicted(profile, seconds).startswith(expected)
