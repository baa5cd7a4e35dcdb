"""Which pod should move, and which app is crowded and must wait. Pure: the live objects in, a plan out.

Moved are pods of Deployments with a strict spread on hostname: there the scheduler itself puts the replacement on the
other worker. Without one it may come back to where it was, which would be an eviction for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tandem._checklist.objects import HOSTNAME, kind, labels, name, namespace, pod, replicas, selects, spec
from tandem.survivability import is_control_plane

Object = Mapping[str, Any]

SETTLED_SECONDS: Final = 60.0
"""How long a returned worker must have been Ready: one that flaps would take the pods with it again."""

_KEEPING_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True)
class Move:
    """One eviction that brings an app's replicas apart.

    Attributes:
        app: the Deployment, as `namespace/name`.
        pod: the name of the pod to evict, the youngest on the fullest worker.
        uid: of that pod, so that no other one of its name goes.
        source: the worker it is on.
        target: the worker with the fewest.
        skew: by how many replicas the two differ.
    """

    app: str
    pod: str
    uid: str
    source: str
    target: str
    skew: int

    def __str__(self) -> str:
        """For people."""
        return f"{self.app}: {self.pod} leaves {self.source}, which has {self.skew} replicas more than {self.target}"


@dataclass(frozen=True)
class Plan:
    """What should move, and what cannot now: by app, or by `workers` where nothing can, the reason."""

    moves: tuple[Move, ...] = ()
    waiting: Mapping[str, str] | None = None


def plan(objects: Iterable[Object], now: datetime, settled_seconds: float = SETTLED_SECONDS) -> Plan:
    """What there is to do.

    Args:
        objects: nodes, Deployments and pods, each with its `kind`.
        now: the time of the API server's world, with a zone.
        settled_seconds: how long each worker must have been Ready.
    """
    known = list(objects)
    nodes = [each for each in known if kind(each) == "Node" and not is_control_plane(each)]
    away = {name(each): why for each in nodes if (why := _away(each, now, settled_seconds))}
    crowded = list(_crowded(known, [name(each) for each in nodes]))
    if crowded and away:
        return Plan((), {"workers": "; ".join(f"{node} {why}" for node, why in away.items())})
    moves = tuple(move for move, reason in crowded if not reason)
    return Plan(moves, {move.app: reason for move, reason in crowded if reason} or None)


def _away(node: Object, now: datetime, settled_seconds: float) -> str:
    """Why a worker takes no pods, or may not keep them; empty when it does."""
    if spec(node).get("unschedulable"):
        return "is cordoned"
    if taints := [each["key"] for each in spec(node).get("taints") or () if each.get("effect") in _KEEPING_AWAY]:
        return f"has the taint {taints[0]}"
    ready = next((each for each in node["status"].get("conditions") or () if each["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return "is not Ready"
    since = (now - datetime.fromisoformat(ready["lastTransitionTime"])).total_seconds()
    return "" if since >= settled_seconds else f"is Ready for {max(since, 0):.0f} s only"


def _crowded(objects: Sequence[Object], workers: Sequence[str]) -> Iterable[tuple[Move, str]]:
    """Each crowded app with the move that would help, and why it must wait; the most crowded first."""
    pods = [each for each in objects if kind(each) == "Pod"]
    found = []
    for each in objects:
        limit = _strict_skew(each) if kind(each) == "Deployment" else None
        if limit is None or replicas(each) < 2:
            continue
        chosen = spec(each).get("selector")
        mine = [p for p in pods if namespace(p) == namespace(each) and selects(chosen, labels(p))]
        if (move := _move(each, mine, workers, limit)) is not None:
            found.append((move, _unready(each, mine)))
    return sorted(found, key=lambda pair: (-pair[0].skew, pair[0].app))


def _strict_skew(deployment: Object) -> int | None:
    """The skew that its strict spread on hostname allows; None without one."""
    constraints = pod(deployment).get("topologySpreadConstraints") or ()
    strict = [
        int(each["maxSkew"])
        for each in constraints
        if each.get("topologyKey") == HOSTNAME and each.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
    ]
    return min(strict, default=None)


def _move(deployment: Object, pods: Sequence[Object], workers: Sequence[str], limit: int) -> Move | None:
    staying = [each for each in pods if "deletionTimestamp" not in each["metadata"] and _runs(each)]
    counts = {worker: [each for each in staying if spec(each).get("nodeName") == worker] for worker in workers}
    if not counts:
        return None
    source = max(counts, key=lambda worker: len(counts[worker]))
    target = min(counts, key=lambda worker: len(counts[worker]))
    skew = len(counts[source]) - len(counts[target])
    if skew <= limit:
        return None
    youngest = max(counts[source], key=lambda each: str(each["metadata"].get("creationTimestamp") or ""))
    app = f"{namespace(deployment)}/{name(deployment)}"
    return Move(app, name(youngest), str(youngest["metadata"]["uid"]), source, target, skew)


def _runs(pod_: Object) -> bool:
    return pod_.get("status", {}).get("phase") not in {"Succeeded", "Failed"}


def _unready(deployment: Object, pods: Sequence[Object]) -> str:
    """Why no pod of the app may go now; empty when one may."""
    wanted, status = replicas(deployment), deployment.get("status") or {}
    if spec(deployment).get("paused"):
        return "it is paused"
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return "an update has just begun"
    if status.get("updatedReplicas") != wanted or status.get("replicas") != wanted:
        return "an update is under way"
    if status.get("availableReplicas") != wanted:
        return f"{status.get('availableReplicas', 0)} of {wanted} replicas are available"
    if leaving := [name(each) for each in pods if "deletionTimestamp" in each["metadata"]]:
        return f"{leaving[0]} is on its way out"
    return ""
