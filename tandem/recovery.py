"""How fast a cluster notices a lost node and acts: one set of numbers, its check, and what it predicts.

The numbers are spread over four programs (kubelet, kube-controller-manager, kube-apiserver, the workloads). This module
holds them once: the roles take flags from it, the stack takes tolerations, the audit compares a live cluster with it and
the drill prints its prediction beside the measurement.

The model follows kube-controller-manager's node lifecycle controller (pkg/controller/nodelifecycle in kubernetes
v1.36.3) and was corrected where the lab disagreed. With R the heartbeat interval, P the monitor period, G the grace:

- the last heartbeat before the fault is 0..R old; a monitor tick sees it 0..P late and stamps it with the tick's time;
- the first tick more than G after that stamp writes Ready=Unknown, another 0..P later: so [G - R, G + 2P] after the fault;
- endpoints and the NoExecute taint follow at once. (Up to 1.x releases that judged the condition read *before* the
  write, the taint came one P later; v1.36.3 passes the condition just written. The lab measured 0.5 s.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal

from tandem.labels import LABEL_PREFIX

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

LEASE_RENEW_FRACTION: Final = 0.25
"""kubelet renews its Lease every quarter of the lease's duration (nodeLeaseRenewIntervalFraction, pkg/kubelet/kubelet.go)."""

LEASE_RENEW_JITTER: Final = 0.04
"""...lengthened at random by up to 4 % (staging/src/k8s.io/component-helpers/apimachinery/lease/controller.go)."""

KUBELET_MAX_BACKOFF_SECONDS: Final = 7.0
"""A kubelet that failed to renew waits 0.2 s, doubling, at most this long before it tries again (same file)."""

REFLECTOR_BACKOFF_SECONDS: Final = 0.8
"""client-go's reflector waits this long before its first reconnect, doubling, each wait jittered by up to as much again."""

KCM_LEASE_DURATION_SECONDS: Final = 15.0
KCM_RENEW_DEADLINE_SECONDS: Final = 10.0
KCM_RETRY_PERIOD_SECONDS: Final = 2.0
"""kube-controller-manager's leader election defaults. One that cannot renew within the deadline exits."""

LEADER_JITTER_FACTOR: Final = 1.2
"""client-go refuses a renew deadline that is not above this times the retry period (tools/leaderelection)."""

MIN_HEARTBEATS_PER_GRACE: Final = 4.0
"""Fewer heartbeats than this within the grace period and one slow write makes a live node flap."""


class UnknownProfileError(ValueError):
    """Raised for a profile name that does not exist; the message lists those that do."""


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


@dataclass(frozen=True)
class Finding:
    """One judgement of `check`: `error` is to be refused unless the operator opts in by the rule's name."""

    level: Literal["error", "warning"]
    rule: str
    message: str
    fix: str

    def __str__(self) -> str:
        """The finding as one line for a terminal or a log."""
        return f"{self.level}: {self.rule}: {self.message}. Way out: {self.fix}"


@dataclass(frozen=True, kw_only=True)
class RecoveryProfile:
    """The numbers that govern detection and recovery. All times in seconds; None means "leave the program's default".

    `node_status_*` and `node_lease_duration_seconds` are kubelet's, `node_monitor_*` and `kcm_*` are
    kube-controller-manager's, the tolerations are kube-apiserver's defaults for new pods and the workloads' own,
    `http2_*` are environment variables of kubelet and kube-controller-manager that close a silently dead connection.
    `exclude_control_plane_from_disruption` labels control plane nodes `node.kubernetes.io/exclude-disruption`, so that the
    loss of both workers counts as full disruption and stops evictions.
    """

    name: str
    node_status_update_frequency_seconds: float
    node_status_report_frequency_seconds: float
    node_lease_duration_seconds: int
    node_monitor_period_seconds: float
    node_monitor_grace_period_seconds: float
    unreachable_toleration_seconds: int
    not_ready_toleration_seconds: int
    http2_read_idle_timeout_seconds: int | None = None
    http2_ping_timeout_seconds: int | None = None
    kcm_leader_elect_lease_duration_seconds: float | None = None
    kcm_leader_elect_renew_deadline_seconds: float | None = None
    kcm_leader_elect_retry_period_seconds: float | None = None
    exclude_control_plane_from_disruption: bool = False

    @property
    def heartbeat_seconds(self) -> float:
        """R: the longest regular interval between two signs of life, the Lease's or the node status', whichever is shorter.

        kubelet looks every `node_status_update_frequency_seconds` and writes an unchanged status only when the report
        frequency has passed; the controller takes a newer status or a newer Lease alike.
        """
        status = max(self.node_status_update_frequency_seconds, self.node_status_report_frequency_seconds)
        lease = self.node_lease_duration_seconds * LEASE_RENEW_FRACTION * (1 + LEASE_RENEW_JITTER)
        return min(status, lease)

    @property
    def kcm_lease_duration_seconds(self) -> float:
        """The controller-manager's leader lease, its default where the profile sets none."""
        return _default(self.kcm_leader_elect_lease_duration_seconds, KCM_LEASE_DURATION_SECONDS)

    @property
    def kcm_renew_deadline_seconds(self) -> float:
        """The controller-manager's renew deadline, its default where the profile sets none."""
        return _default(self.kcm_leader_elect_renew_deadline_seconds, KCM_RENEW_DEADLINE_SECONDS)

    @property
    def kcm_retry_period_seconds(self) -> float:
        """The controller-manager's retry period, its default where the profile sets none."""
        return _default(self.kcm_leader_elect_retry_period_seconds, KCM_RETRY_PERIOD_SECONDS)


STOCK: Final = RecoveryProfile(
    name="stock",
    node_status_update_frequency_seconds=10,
    node_status_report_frequency_seconds=300,
    node_lease_duration_seconds=40,
    node_monitor_period_seconds=5,
    node_monitor_grace_period_seconds=50,
    unreachable_toleration_seconds=300,
    not_ready_toleration_seconds=300,
)
"""Kubernetes' own defaults since 1.32 (the grace period was 40 s before: kubernetes/kubernetes#126287)."""

ARTICLE: Final = RecoveryProfile(
    name="article",
    node_status_update_frequency_seconds=5,
    # Set explicitly, kubelet's report frequency defaults to the same value (pkg/kubelet/apis/config/v1beta1/defaults.go).
    node_status_report_frequency_seconds=5,
    node_lease_duration_seconds=40,
    node_monitor_period_seconds=5,
    node_monitor_grace_period_seconds=20,
    unreachable_toleration_seconds=5,
    not_ready_toleration_seconds=5,
)
"""The settings of the reference article: re-creation after 25 to 30 s. An API stall of some 5 s can mark live nodes lost."""

BALANCED: Final = RecoveryProfile(
    name="balanced",
    node_status_update_frequency_seconds=10,
    # Kept at its default on purpose: the Lease is the cheap heartbeat, a full status write every few seconds is not.
    node_status_report_frequency_seconds=300,
    node_lease_duration_seconds=8,
    node_monitor_period_seconds=1,
    # 12 s of stale view at most (api_stall_seconds) + R 2.08 s + 2P, and almost a second to spare.
    node_monitor_grace_period_seconds=17,
    unreachable_toleration_seconds=5,
    # A kubelet that restarts says Ready=False for a moment; its pods must outlive that (kubernetes/kubernetes#122338).
    not_ready_toleration_seconds=30,
    http2_read_idle_timeout_seconds=3,
    http2_ping_timeout_seconds=2,
    # A controller-manager that loses the API gives up early and starts afresh, with a full grace period for every node.
    kcm_leader_elect_lease_duration_seconds=10,
    kcm_leader_elect_renew_deadline_seconds=5,
    kcm_leader_elect_retry_period_seconds=1,
    exclude_control_plane_from_disruption=True,
)
"""The default: as fast as flags can be without a short stall of the API marking live nodes lost."""

PROFILES: Final[Mapping[str, RecoveryProfile]] = MappingProxyType({p.name: p for p in (STOCK, ARTICLE, BALANCED)})
DEFAULT_PROFILE: Final = BALANCED.name


def profile(name: str) -> RecoveryProfile:
    """The profile of this name.

    Raises:
        UnknownProfileError: no such profile; the message lists the names.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UnknownProfileError(f"unknown recovery profile {name!r}; known: {', '.join(PROFILES)}") from None


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What the cluster adds to the controllers' timing, in seconds, as (at least, at most). Defaults are the lab's.

    A machine of the lab does a system call in 54 us instead of 0.3 us; on real hardware these are upper bounds.

    Args:
        write: an API write and the watch event that shows it.
        endpoints: from Ready=Unknown until the EndpointSlice says not ready (0.9 s in the lab).
        taint: from Ready=Unknown until the NoExecute taint stands (0.5 s in the lab; the taint queue runs every 0.1 s).
        start: from scheduled to Ready with the image present (2.4 to 5.1 s in the lab).
        route: from Ready to the first good answer: EndpointSlice, kube-proxy (syncs at most once a second), client.
    """

    write: tuple[float, float] = (0.0, 0.75)
    endpoints: tuple[float, float] = (0.0, 1.5)
    taint: tuple[float, float] = (0.0, 1.0)
    start: tuple[float, float] = (0.5, 8.0)
    route: tuple[float, float] = (-0.5, 2.5)


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


def predict(
    recovery: RecoveryProfile, behaviour: Behaviour = "replace", *, pace: Pace | None = None
) -> dict[Stage, Window]:
    """When each stage is to be expected after a worker's power loss, for an app with a pod on it.

    A stage that the workload must not reach while the node is away is absent. `serving` of a spread app or node agent is
    the end of failed requests through its Service: its other replicas serve all along, so it follows `endpoints_out`.

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
    deleted = taint.plus(recovery.unreachable_toleration_seconds, recovery.unreachable_toleration_seconds).plus(*pace.write)
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


def api_stall_seconds(recovery: RecoveryProfile) -> float:
    """The longest that a short API outage can keep the controller-manager's view of a live node's heartbeat stale.

    Outages that outlast the renew deadline D make the controller-manager exit and give every node a fresh grace period.
    One that ends just before D can leave, at worst, kubelet in its longest back-off (7 s), or the controller-manager's
    informer at the start of a reconnect wait: attempts fall after at least 0.8, 2.4, 5.6, 12 s, and the wait that begins
    at the last of them before D lasts up to twice its nominal length. For D = 10 s that is 10 + 12.8 = 22.8 s, which is
    what a simulation of a 9.5 s outage gave as its maximum (22.3 s = 9.5 + 12.8; median 17 s).
    """
    deadline = recovery.kcm_renew_deadline_seconds
    wait, begun = REFLECTOR_BACKOFF_SECONDS, 0.0
    while begun + wait < deadline:
        begun += wait
        wait *= 2
    return deadline + max(2 * wait, KUBELET_MAX_BACKOFF_SECONDS)


def check(recovery: RecoveryProfile) -> tuple[Finding, ...]:
    """What is wrong (`error`) or risky (`warning`) in a profile, each with its numbers and a way out.

    Errors flap in normal operation or cannot work; kube-controller-manager itself validates none of the relations between
    kubelet's numbers and its own.
    """
    findings = [*_malformed(recovery)]
    if findings:
        return tuple(findings)  # the rest reckons with these numbers
    findings += _unworkable(recovery)
    grace, beat = recovery.node_monitor_grace_period_seconds, recovery.heartbeat_seconds
    if grace < MIN_HEARTBEATS_PER_GRACE * beat:
        findings.append(
            Finding(
                "error",
                "grace-heartbeats",
                f"grace {grace:g} s is less than {MIN_HEARTBEATS_PER_GRACE:g} heartbeats of {beat:g} s",
                f"raise the grace period to {MIN_HEARTBEATS_PER_GRACE * beat:g} s or shorten the node lease",
            )
        )
    idle, ping = recovery.http2_read_idle_timeout_seconds, recovery.http2_ping_timeout_seconds
    if idle is not None and ping is not None and idle + ping >= grace:
        findings.append(
            Finding(
                "error",
                "dead-connection",
                f"a silently dead connection is noticed after {idle} + {ping} s, not before the grace of {grace:g} s ends",
                "lower the HTTP/2 read-idle and ping timeouts (3 and 2 s serve) or raise the grace period",
            )
        )
    if recovery.not_ready_toleration_seconds == 0:
        findings.append(
            Finding(
                "error",
                "not-ready-toleration",
                "not-ready toleration 0 s: the restart of a kubelet would evict every pod of a live node",
                "set it to 15 s or more",
            )
        )
    needed = api_stall_seconds(recovery) + beat + 2 * recovery.node_monitor_period_seconds
    if grace < needed:
        findings.append(
            Finding(
                "warning",
                "api-stall",
                f"grace {grace:g} s is less than {needed:.1f} s, the longest view that an API outage shorter than the "
                f"controller-manager's renew deadline of {recovery.kcm_renew_deadline_seconds:g} s can leave stale "
                f"({api_stall_seconds(recovery):.1f} s), plus a heartbeat and two monitor periods: "
                "every live node can be marked lost at once, and all Services go empty",
                f"raise the grace period to {needed:.1f} s, or shorten the renew deadline",
            )
        )
    return tuple(findings)


def check_target(recovery: RecoveryProfile, target_seconds: float, *, pace: Pace | None = None) -> Finding | None:
    """An error when the profile cannot promise a single-replica app back within `target_seconds`, else None."""
    bound = bound_seconds(recovery, pace=pace)
    if bound <= target_seconds:
        return None
    faster = [p.name for p in PROFILES.values() if bound_seconds(p, pace=pace) <= target_seconds]
    return Finding(
        "error",
        "recovery-target",
        f"profile {recovery.name} promises a single-replica app back after {bound:.1f} s, the target is {target_seconds:g} s",
        f"choose {' or '.join(faster)}" if faster else "raise recovery_target_seconds: flags alone cannot be faster safely",
    )


def _malformed(recovery: RecoveryProfile) -> list[Finding]:
    """Values that are not numbers of the right kind, or not above zero."""
    found: list[Finding] = []
    for name in ("unreachable_toleration_seconds", "not_ready_toleration_seconds", "node_lease_duration_seconds"):
        value: object = getattr(recovery, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            found.append(
                Finding("error", "bare-integer", f"{name} is {value!r}, not a bare integer", "write seconds without a unit, e.g. 5")
            )
    for field in fields(recovery):
        value = getattr(recovery, field.name)
        if not field.name.endswith("_seconds") or field.name.endswith("toleration_seconds") or value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            found.append(Finding("error", "positive", f"{field.name} is {value!r}", "give a number of seconds above zero"))
    if (recovery.http2_read_idle_timeout_seconds is None) != (recovery.http2_ping_timeout_seconds is None):
        found.append(Finding("error", "dead-connection", "one HTTP/2 timeout is set without the other", "set both or neither"))
    return found


def _unworkable(recovery: RecoveryProfile) -> list[Finding]:
    """Leader election numbers with which kube-controller-manager refuses to start."""
    lease, deadline = recovery.kcm_lease_duration_seconds, recovery.kcm_renew_deadline_seconds
    retry = recovery.kcm_retry_period_seconds
    if lease > deadline > LEADER_JITTER_FACTOR * retry:
        return []
    return [
        Finding(
            "error",
            "leader-election",
            f"kube-controller-manager does not start with lease {lease:g} s, renew deadline {deadline:g} s, retry {retry:g} s",
            f"keep lease > renew deadline > {LEADER_JITTER_FACTOR:g} x retry period",
        )
    ]


def api_server_args(recovery: RecoveryProfile) -> dict[str, str]:
    """Flags of kube-apiserver, name without dashes to value. Empty when the profile's values are the defaults."""
    tolerations = (recovery.not_ready_toleration_seconds, recovery.unreachable_toleration_seconds)
    if tolerations == (STOCK.not_ready_toleration_seconds, STOCK.unreachable_toleration_seconds):
        return {}
    return {
        "default-not-ready-toleration-seconds": str(recovery.not_ready_toleration_seconds),
        "default-unreachable-toleration-seconds": str(recovery.unreachable_toleration_seconds),
    }


def controller_manager_args(recovery: RecoveryProfile) -> dict[str, str]:
    """Flags of kube-controller-manager, name without dashes to value. Empty when the profile's values are the defaults."""
    args: dict[str, str] = {}
    monitor = (recovery.node_monitor_period_seconds, recovery.node_monitor_grace_period_seconds)
    if monitor != (STOCK.node_monitor_period_seconds, STOCK.node_monitor_grace_period_seconds):
        args["node-monitor-period"], args["node-monitor-grace-period"] = (_duration(value) for value in monitor)
    for name, value in (
        ("leader-elect-lease-duration", recovery.kcm_leader_elect_lease_duration_seconds),
        ("leader-elect-renew-deadline", recovery.kcm_leader_elect_renew_deadline_seconds),
        ("leader-elect-retry-period", recovery.kcm_leader_elect_retry_period_seconds),
    ):
        if value is not None:
            args[name] = _duration(value)
    return args


def kubelet_configuration(recovery: RecoveryProfile) -> dict[str, str | int]:
    """Fields of KubeletConfiguration (durations as strings, the lease as an integer). Empty for the defaults.

    The report frequency is always written with the update frequency: left out, kubelet would set it to the same value.
    """
    ours = (
        recovery.node_status_update_frequency_seconds,
        recovery.node_status_report_frequency_seconds,
        recovery.node_lease_duration_seconds,
    )
    if ours == (
        STOCK.node_status_update_frequency_seconds,
        STOCK.node_status_report_frequency_seconds,
        STOCK.node_lease_duration_seconds,
    ):
        return {}
    return {
        "nodeStatusUpdateFrequency": _duration(recovery.node_status_update_frequency_seconds),
        "nodeStatusReportFrequency": _duration(recovery.node_status_report_frequency_seconds),
        "nodeLeaseDurationSeconds": recovery.node_lease_duration_seconds,
    }


def kubelet_env(recovery: RecoveryProfile) -> dict[str, str]:
    """Environment of kubelet: how fast it gives up a silently dead connection to the API (golang.org/x/net/http2)."""
    idle, ping = recovery.http2_read_idle_timeout_seconds, recovery.http2_ping_timeout_seconds
    if idle is None or ping is None:
        return {}
    return {"HTTP2_READ_IDLE_TIMEOUT_SECONDS": str(idle), "HTTP2_PING_TIMEOUT_SECONDS": str(ping)}


def controller_manager_env(recovery: RecoveryProfile) -> dict[str, str]:
    """Environment of kube-controller-manager: the same two variables as kubelet's."""
    return kubelet_env(recovery)


def managed_names() -> dict[str, tuple[str, ...]]:
    """Which names Tandem owns per component, so that going back to `stock` removes exactly these and nothing else."""
    http2 = ("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "HTTP2_PING_TIMEOUT_SECONDS")
    return {
        "api_server_args": ("default-not-ready-toleration-seconds", "default-unreachable-toleration-seconds"),
        "controller_manager_args": (
            "node-monitor-period",
            "node-monitor-grace-period",
            "leader-elect-lease-duration",
            "leader-elect-renew-deadline",
            "leader-elect-retry-period",
        ),
        "controller_manager_env": http2,
        "kubelet_configuration": ("nodeStatusUpdateFrequency", "nodeStatusReportFrequency", "nodeLeaseDurationSeconds"),
        "kubelet_env": http2,
        "control_plane_labels": ("node.kubernetes.io/exclude-disruption",),
    }


def pod_tolerations(recovery: RecoveryProfile) -> list[dict[str, str | int]]:
    """The two tolerations of a workload's pods: explicit, for the API server's defaults reach new pods only."""
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key, seconds in (
            ("node.kubernetes.io/not-ready", recovery.not_ready_toleration_seconds),
            ("node.kubernetes.io/unreachable", recovery.unreachable_toleration_seconds),
        )
    ]


def to_dict(recovery: RecoveryProfile) -> dict[str, Any]:
    """The profile as JSON-ready data, field name to value, as recorded in the cluster."""
    return asdict(recovery)


def from_dict(data: Mapping[str, Any]) -> RecoveryProfile:
    """The profile of `to_dict`'s data.

    Raises:
        ValueError: a field is missing or unknown; the message names it. Values are judged by `check`.
    """
    known = {field.name for field in fields(RecoveryProfile)}
    if unknown := sorted(set(data) - known):
        raise ValueError(f"recovery profile has unknown field {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        return RecoveryProfile(**data)
    except TypeError as error:
        raise ValueError(f"recovery profile is incomplete: {error}") from None


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


def _duration(seconds: float) -> str:
    """Seconds as Kubernetes writes a duration: `5s`, `5m0s`, `250ms`; minutes appear as `kubectl get` shows them back."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


__all__ = [
    "ARTICLE",
    "BALANCED",
    "DEFAULT_PROFILE",
    "LABEL_PREFIX",
    "PROFILES",
    "STAGES",
    "STOCK",
    "Behaviour",
    "Finding",
    "Pace",
    "RecoveryProfile",
    "Stage",
    "UnknownProfileError",
    "Window",
    "api_server_args",
    "api_stall_seconds",
    "bound_seconds",
    "check",
    "check_target",
    "controller_manager_args",
    "controller_manager_env",
    "from_dict",
    "kubelet_configuration",
    "kubelet_env",
    "managed_names",
    "pod_tolerations",
    "predict",
    "profile",
    "to_dict",
]
