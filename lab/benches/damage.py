"""What an outage of the API did to nodes that were alive throughout, counted from what watches delivered. Pure.

A watch that is resumed from a version of before the outage delivers every transition. Where the server could not resume
it (it was restarted, and its history begins with the restart), the list that follows still shows a flap that fell in
between: the Ready condition's own `lastTransitionTime` is another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tandem.drill.observe import Observation
from tandem.recovery import RecoveryProfile, kcm_survives_seconds, stale_view_seconds, tolerated_stall_seconds

UNREACHABLE: Final = "node.kubernetes.io/unreachable:NoExecute"
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """The last word on each object, by its uid."""

    nodes: Mapping[str, Facts]
    pods: Mapping[str, Facts]
    slices: Mapping[str, Facts]


@dataclass(frozen=True)
class Damage:
    """What live nodes lost.

    Args:
        lost: times that a Ready node was marked Unknown; every one is false, for no node failed.
        unseen: those of them that only the condition's `lastTransitionTime` shows.
        said_not_ready: times that a kubelet itself reported Ready=False.
        tainted: times that the NoExecute taint `unreachable` appeared.
        endpoints_lost: ready endpoints that were not ready, or not there, at some time afterwards.
        pods_evicted: pods that were deleted; static pods of the control plane do not count.
    """

    lost: int = 0
    unseen: int = 0
    said_not_ready: int = 0
    tainted: int = 0
    endpoints_lost: int = 0
    pods_evicted: int = 0


@dataclass(frozen=True)
class Beat:
    """One answered request for kube-controller-manager's Lease; epoch seconds, `renewed` by the holder's clock."""

    sent: float
    answered: float
    holder: str
    renewed: float


def state_of(observations: Iterable[Observation]) -> State:
    """The cluster as the observations leave it."""
    found: dict[str, dict[str, Facts]] = {"node": {}, "pod": {}, "slice": {}}
    for seen in observations:
        found[seen.kind].pop(seen.uid, None)
        if not seen.gone:
            found[seen.kind][seen.uid] = seen.facts
    return State(found["node"], found["pod"], found["slice"])


def damage(before: State, after: Sequence[Observation]) -> Damage:
    """What was lost between the state before an outage and the end of the observations after it."""
    nodes = dict(before.nodes)
    lost = unseen = said = tainted = 0
    lost_endpoints: set[tuple[str, str]] = set()
    evicted: set[str] = set()
    for seen in after:
        if seen.kind == "node" and seen.uid in nodes:
            was, now = nodes[seen.uid], {"ready": "Unknown", "taints": []} if seen.gone else seen.facts
            if was["ready"] == "True":
                lost += now["ready"] == "Unknown"
                said += now["ready"] == "False"
                unseen += now["ready"] == "True" and now.get("since") != was.get("since")
            tainted += UNREACHABLE in now["taints"] and UNREACHABLE not in was["taints"]
            nodes[seen.uid] = now
        elif seen.kind == "pod" and seen.uid in before.pods:
            was = before.pods[seen.uid]
            if not was["deleting"] and not _static(was) and (seen.gone or seen.facts["deleting"]):
                evicted.add(seen.uid)
        elif seen.kind == "slice" and seen.uid in before.slices:
            left = set() if seen.gone else _ready(seen.facts)
            lost_endpoints |= {(seen.uid, pod) for pod in _ready(before.slices[seen.uid]) - left}
    return Damage(lost + unseen, unseen, said, tainted, len(lost_endpoints), len(evicted))


def healthy(now: State) -> bool:
    """Whether every node is Ready and none is marked unreachable."""
    return bool(now.nodes) and all(n["ready"] == "True" and UNREACHABLE not in n["taints"] for n in now.nodes.values())


def whole(before: State, now: State) -> bool:
    """Whether every node is Ready and free of taints that it did not have, and every Service has as many endpoints."""
    for uid, was in before.nodes.items():
        node = now.nodes.get(uid)
        if node is None or node["ready"] != "True" or set(node["taints"]) - set(was["taints"]):
            return False
    return all(
        uid in now.slices and len(_ready(now.slices[uid])) >= len(_ready(was)) for uid, was in before.slices.items()
    )


def whole_since(before: State, observations: Sequence[Observation], since: float) -> float | None:
    """When the cluster became whole for good, by the observation that made it so.

    Args:
        before: what it has to be again.
        observations: all of them, in order.
        since: where to begin; returned when it was whole then and stayed so.

    Returns:
        None while it is not whole.
    """
    earlier = [seen for seen in observations if seen.at < since]
    objects: dict[tuple[str, str], Observation] = {(seen.kind, seen.uid): seen for seen in earlier}
    found: float | None = since if whole(before, state_of(objects.values())) else None
    for seen in observations[len(earlier) :]:
        objects[seen.kind, seen.uid] = seen
        if seen.kind == "pod":
            continue
        if not whole(before, state_of(objects.values())):
            found = None
        elif found is None:
            found = seen.at
    return found


def answered_again(beats: Sequence[Beat], struck: float) -> float | None:
    """When the first request that was sent during or after the outage was answered; None: not yet."""
    return next((beat.answered for beat in beats if beat.sent > struck), None)


def led_again(beats: Sequence[Beat], ended: float) -> Beat | None:
    """The first answer that shows a Lease renewed after the outage's end, by the holder's clock; None: not yet.

    A renewal stamped during the outage does not count: a stopped server takes it when it goes on, from a holder that
    may have given up meanwhile.
    """
    return next((beat for beat in beats if beat.renewed > ended), None)


def quiet_seconds(profile: RecoveryProfile, outage_seconds: float, *, manager_exited: bool) -> float:
    """How long after the API, or a new controller-manager, is back a false loss could still come, in seconds.

    A controller-manager that lived on may look at a stale view for as long as the model says; a new one begins with a
    fresh list and a full grace period, by which time no kubelet is in a back-off any more.
    """
    looks = 2 * profile.node_monitor_period_seconds
    return looks if manager_exited else stale_view_seconds(outage_seconds) - outage_seconds + looks


def predicted(profile: RecoveryProfile, outage_seconds: float) -> str:
    """What the model says of an outage of this length: `none` or `possible`, and why none."""
    if outage_seconds <= tolerated_stall_seconds(profile):
        return "none"
    if outage_seconds >= kcm_survives_seconds(profile):
        return "none: the controller-manager starts anew"
    return "possible"


def _ready(facts: Facts) -> set[str]:
    """The pods of a slice that are ready; endpoints without a pod (the API server's own) do not count."""
    return {entry["pod"] for entry in facts["endpoints"] if entry["ready"] and entry["pod"]}


def _static(facts: Facts) -> bool:
    return bool(facts["labels"].get("tier") == "control-plane")
