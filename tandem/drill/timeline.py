"""From observations and samples to the stages of each app. Pure: the same recording always gives the same timeline."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tandem.drill.apps import App
from tandem.drill.observe import Observation
from tandem.drill.samples import Sample
from tandem.recovery import STAGES, Behaviour, Stage

QUIET_SECONDS: Final = 5.0
"""A spread app serves again once this long passes without a failed request on a new connection to its Service."""

EVICTING: Final = ("node.kubernetes.io/unreachable:NoExecute", "node.kubernetes.io/not-ready:NoExecute")
"""The taints by which the node lifecycle controller evicts."""

SUCCESSOR: Final[Collection[Behaviour]] = ("replace", "hold", "stateful")
"""Apps that are away until a successor answers; the others have replicas elsewhere."""

MUST_REACH: Final[dict[Behaviour, tuple[Stage, ...]]] = {
    "replace": ("ready_unknown", "endpoints_out", "taint", "deleted", "created", "scheduled", "ready", "serving"),
    "hold": ("ready_unknown", "endpoints_out", "taint", "deleted", "created"),
    "spread-wait": ("ready_unknown", "endpoints_out", "taint", "deleted", "created", "serving"),
    "spread-crowd": STAGES,
    "stateful": ("ready_unknown", "endpoints_out", "taint", "deleted"),
    "node-agent": ("ready_unknown", "endpoints_out", "taint", "serving"),
}
"""What each app is to reach while its node is away. An app without a Service has no endpoints and no clients."""

MUST_NOT_REACH: Final[dict[Behaviour, tuple[Stage, ...]]] = {
    "hold": ("scheduled", "ready", "serving"),
    "stateful": ("created", "scheduled", "ready", "serving"),
    "spread-wait": ("scheduled", "ready"),
}
"""What must not happen while the node is away: the promise of `hold`, the known gap of StatefulSets."""


@dataclass(frozen=True)
class Scene:
    """Where and when a fault struck.

    Args:
        node: the lost node.
        fault: its moment, seconds since the epoch by the drill's clock.
        until: the end of the observation: repair, or the end of the drill.
        service_vantages: vantage points whose clients use the Service's ClusterIP.
    """

    node: str
    fault: float
    until: float
    service_vantages: tuple[str, ...]


def expected(app: App) -> tuple[Stage, ...]:
    """The stages that the app is to reach, those left out that it cannot show."""
    without = () if app.service else ("endpoints_out", "serving")
    return tuple(stage for stage in MUST_REACH[app.behaviour] if stage not in without)


def lost_pods(app: App, observations: Iterable[Observation], scene: Scene) -> dict[str, str]:
    """The app's pods on the node at the fault, uid to name."""
    pods: dict[str, str] = {}
    for seen in observations:
        if seen.kind != "pod" or seen.at > scene.fault or not app.owns(seen.facts["labels"]):
            continue
        if seen.gone or seen.facts["node"] != scene.node:
            pods.pop(seen.uid, None)
        else:
            pods[seen.uid] = seen.name
    return pods


def stages(
    app: App, observations: Sequence[Observation], samples: Iterable[Sample], scene: Scene
) -> dict[Stage, float | None]:
    """Seconds after the fault of each stage, None for what did not happen before `until`.

    Args:
        app: the app.
        observations: everything seen, in order, from before the fault on.
        samples: the requests of all clients.
        scene: the fault.
    """
    lost = lost_pods(app, observations, scene)
    known = {o.uid for o in observations if o.kind == "pod" and o.at <= scene.fault}
    found: dict[Stage, float | None] = dict.fromkeys(STAGES)

    def note(stage: Stage, at: float) -> None:
        if found[stage] is None:
            found[stage] = round(at - scene.fault, 2)

    endpoints: dict[str, Observation] = {}
    leaving: set[str] = set()
    for seen in observations:
        if seen.at > scene.until:
            break
        if seen.kind == "slice" and seen.facts["service"] == app.service:
            endpoints.pop(seen.uid, None)
            if not seen.gone:
                endpoints[seen.uid] = seen
        if seen.at <= scene.fault:
            continue
        if seen.kind == "node" and seen.name == scene.node and not seen.gone:
            if seen.facts["ready"] != "True":
                note("ready_unknown", seen.at)
            if set(EVICTING) & set(seen.facts["taints"]):
                note("taint", seen.at)
        if not lost:
            continue
        if seen.kind == "slice" and seen.facts["service"] == app.service and app.service:
            ready = {e["pod"] for o in endpoints.values() for e in o.facts["endpoints"] if e["ready"]}
            if not ready & set(lost.values()):
                note("endpoints_out", seen.at)
        if seen.kind == "pod" and app.owns(seen.facts["labels"]):
            if seen.uid in lost and (seen.gone or seen.facts["deleting"]):
                leaving.add(seen.uid)
                if leaving == set(lost):
                    note("deleted", seen.at)
            elif seen.uid not in known and not seen.gone:
                note("created", seen.at)
                if seen.facts["node"]:
                    note("scheduled", seen.at)
                if seen.facts["ready"]:
                    note("ready", seen.at)
    if lost and app.service:
        found["serving"] = serving(app, set(lost.values()), samples, scene)
    return found


def serving(app: App, lost: Collection[str], samples: Iterable[Sample], scene: Scene) -> float | None:
    """When the app served again through its Service, by new connections; seconds after the fault.

    With a successor: the first good answer of a pod that was not lost. With replicas elsewhere: the end of the last
    failed request before five seconds without one; 0 when none failed.
    """
    clients = {f"{vantage}/new" for vantage in scene.service_vantages}
    mine = [s for s in samples if s.app == app.name and s.client in clients and scene.fault < s.end <= scene.until]
    if app.behaviour in SUCCESSOR:
        answers = [s.end for s in mine if s.error is None and s.pod not in lost]
        return round(min(answers) - scene.fault, 2) if answers else None
    if not mine:
        return None
    failures = sorted(s.end for s in mine if s.error is not None)
    # Silence that the end of the observation cuts short proves nothing, hence `until` as the last mark.
    for end, following in pairwise([*(failures or [scene.fault]), scene.until]):
        if following - end >= QUIET_SECONDS:
            return round(end - scene.fault, 2)
    return None
