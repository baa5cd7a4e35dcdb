"""What a profile predicts: a window per stage. The reasoning stands in `tandem.recovery`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from tandem._recovery.knobs import default
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
        start: from scheduled to Ready with the image present (2.4 to 7.6 s in a quiet lab, up to 20 s in one whose host
            was busy with other work).
        route: from Ready, or from the endpoint's removal, until clients notice: kube-proxy syncs at most once a second,
            but a starved control plane node of the lab took far longer.
        pods: how many pods the lost node runs. Each takes kube-controller-manager one write to leave its Services and
            one to be deleted; what exceeds its burst is written at its rate (`kcm_kube_api_qps`).
    """

    write: tuple[float, float] = (0.0, 0.75)
    endpoints: tuple[float, float] = (0.0, 6.0)
    taint: tuple[float, float] = (0.0, 4.0)
    start: tuple[float, float] = (0.5, 8.0)
    route: tuple[float, float] = (0.0, 6.0)
    pods: int = 30


@dataclass(frozen=True)
class Formula:
    """How a stage's window is reckoned, and where in Kubernetes that stands."""

    text: str
    source: str


_CONTROLLER: Final = "pkg/controller/nodelifecycle/node_lifecycle_controller.go"

FORMULAS: Final[Mapping[Stage, Formula]] = MappingProxyType(
    {
        "ready_unknown": Formula(
            "[G - R, G + 2P] + write",
            f"{_CONTROLLER}, tryUpdateNodeHealth: a look stamps a newer Lease or heartbeat with its own time, and the "
            "first look more than G later writes Unknown",
        ),
        "endpoints_out": Formula(
            "ready_unknown + endpoints + (pods - burst) / qps",
            f"{_CONTROLLER}, monitorNodeHealth: MarkPodsNotReady in the same look, one write a pod, one by one",
        ),
        "taint": Formula(
            "ready_unknown + taint",
            f"{_CONTROLLER}, processTaintBaseEviction judges the condition just written; doNoExecuteTaintingPass runs "
            "every 0.1 s (NodeEvictionPeriod), at most node-eviction-rate nodes a second after the first",
        ),
        "deleted": Formula(
            "taint + unreachable toleration + write + (pods - burst) / qps",
            "pkg/controller/tainteviction/taint_eviction.go: a timer a pod from the moment the taint is seen",
        ),
        "created": Formula("deleted + write", "pkg/controller/replicaset: a pod being deleted no longer counts"),
        "scheduled": Formula("created + write", "pkg/scheduler: one worker is left to choose"),
        "ready": Formula("scheduled + start", "kubelet: sandbox, volumes, container, readiness probe; measured"),
        "serving": Formula(
            "ready + route (a spread app: endpoints_out + route)",
            "pkg/proxy/apis/config/v1alpha1/defaults.go: rules are synced at most once a second",
        ),
    }
)
"""The formula of each stage. `write`, `endpoints`, `taint`, `start`, `route` and `pods` are `Pace`'s; sources are those
of Kubernetes v1.36.3. The pause between two looks begins when one has ended (wait.UntilWithContext), so with many nodes
P is a little longer than it says."""


def write_queue_seconds(recovery: RecoveryProfile, pods: int) -> float:
    """How long kube-controller-manager's own rate limit holds back the last of `pods` writes, in seconds."""
    qps = recovery.kcm_kube_api_qps or float(default("kcm_kube_api_qps"))
    burst = recovery.kcm_kube_api_burst or float(default("kcm_kube_api_burst"))
    return max(0.0, pods - burst) / qps


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
    unknown = Window(max(0.0, grace - recovery.longest_heartbeat_seconds), grace + 2 * period).plus(*pace.write)
    queued = write_queue_seconds(recovery, pace.pods)
    out = unknown.plus(*pace.endpoints).plus(0, queued)
    taint = unknown.plus(*pace.taint)
    tolerated = recovery.unreachable_toleration_seconds
    deleted = taint.plus(tolerated, tolerated).plus(*pace.write).plus(0, queued)
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
