"""What a profile predicts: a window per stage. The reasoning stands in `tandem.recovery`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from tandem._recovery.profiles import RecoveryProfile

Stage = Literal["ready_unknown", "endpoints_out", "taint", "deleted", "created", "scheduled", "ready", "serving"]
STAGES: Final[tuple[Stage, ...]] = (
    "ready_unknown",
    "endpoints_out",
    "taint",
    "deleted",
    "created",
    "scheduled",
    "ready",
    "serving",
)
"""What happens to an app of a lost node, in order. The same names in predictions, timelines, reports and documents."""

Behaviour = Literal["replace", "hold", "spread-wait", "spread-crowd", "stateful", "node-agent"]
"""How a workload answers the loss of its node, which decides the stages that it can reach.

`replace`: one replica, a successor starts elsewhere. `hold`: the successor is created but not scheduled while the old
pod object exists (ReadWriteOncePod). `spread-wait`, `spread-crowd`: replicas on every node; the lost one waits for its
node or joins the survivor. `stateful`: StatefulSet, no successor while the old pod object exists. `node-agent`:
DaemonSet, whose pods tolerate the taint and belong to their node.
"""


@dataclass(frozen=True, order=True)
class Window:
    """A predicted interval, in seconds after the fault, both ends included."""

    low: float
    high: float

    def __contains__(self, seconds: object) -> bool:
        """Whether a measured time lies inside the window."""
        return isinstance(seconds, int | float) and self.low <= seconds <= self.high

    def plus(self, low: float, high: float) -> Window:
        """The window of something that happens `low` to `high` seconds after this."""
        return Window(self.low + low, self.high + high)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What the cluster adds to the controllers' timing, in seconds, as (at least, at most). Defaults are the lab's.

    A machine of the lab does a system call in 54 us instead of 0.3 us; on real hardware these are upper bounds.

    Args:
        write: an API write and the watch event that shows it.
        endpoints: from Ready=Unknown until the EndpointSlice says not ready (0.9 s in a quiet lab, 5.8 s in a busy one:
            one API write per pod, one after the other).
        taint: from Ready=Unknown until the NoExecute taint stands (0.5 to 3.6 s; the taint queue runs every 0.1 s).
        start: from scheduled to Ready with the image present (2.4 to 7.6 s in the lab).
        route: from Ready, or from the endpoint's removal, until clients notice: kube-proxy syncs at most once a second,
            but a starved control plane node of the lab took far longer.
    """

    write: tuple[float, float] = (0.0, 0.75)
    endpoints: tuple[float, float] = (0.0, 6.0)
    taint: tuple[float, float] = (0.0, 4.0)
    start: tuple[float, float] = (0.5, 8.0)
    route: tuple[float, float] = (0.0, 6.0)


_LAST_STAGE: Final[Mapping[Behaviour, Stage]] = MappingProxyType(
    {
        "replace": "serving",
        "hold": "created",
        "spread-wait": "created",
        "spread-crowd": "ready",
        "stateful": "deleted",
        "node-agent": "endpoints_out",
    }
)


BEHAVIOURS: Final[Mapping[str, Behaviour]] = MappingProxyType({name: name for name in get_args(Behaviour)})
"""Every behaviour by its name, for text that comes from outside."""


def predict(
    recovery: RecoveryProfile, behaviour: Behaviour = "replace", *, pace: Pace | None = None
) -> dict[Stage, Window]:
    """When each stage is to be expected after a worker's power loss, for an app with a pod on it.

    A stage that the workload must not reach while the node is away is absent. `serving` of a spread app or node agent
    is the end of failed requests through its Service: its other replicas serve on, so it follows `endpoints_out`.

    Args:
        recovery: the profile in force, on nodes and workloads alike.
        behaviour: how the workload answers the loss.
        pace: what this cluster adds; the lab's figures when None.
    """
    pace = pace or Pace()
    grace, period = recovery.node_monitor_grace_period_seconds, recovery.node_monitor_period_seconds
    unknown = Window(max(0.0, grace - recovery.heartbeat_seconds), grace + 2 * period).plus(*pace.write)
    out = unknown.plus(*pace.endpoints)
    taint = unknown.plus(*pace.taint)
    tolerated = recovery.unreachable_toleration_seconds
    deleted = taint.plus(tolerated, tolerated).plus(*pace.write)
    created = deleted.plus(*pace.write)
    scheduled = created.plus(*pace.write)
    ready = scheduled.plus(*pace.start)
    windows: dict[Stage, Window] = {
        "ready_unknown": unknown,
        "endpoints_out": out,
        "taint": taint,
        "deleted": deleted,
        "created": created,
        "scheduled": scheduled,
        "ready": ready,
        "serving": ready.plus(*pace.route),
    }
    last = STAGES.index(_LAST_STAGE[behaviour])
    reached = {stage: windows[stage] for stage in STAGES[: last + 1]}
    if behaviour == "node-agent":
        reached["taint"] = taint
    if behaviour in {"spread-wait", "spread-crowd", "node-agent"}:
        reached["serving"] = out.plus(*pace.route)
    return {stage: reached[stage] for stage in STAGES if stage in reached}


def bound_seconds(recovery: RecoveryProfile, *, pace: Pace | None = None) -> float:
    """The longest that a single-replica app is predicted to be away after its node's power loss, in seconds."""
    return predict(recovery, "replace", pace=pace)["serving"].high
