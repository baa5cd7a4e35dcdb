"""The profile type and the named profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import ceil
from types import MappingProxyType
from typing import Any, Final

LEASE_RENEW_FRACTION: Final = 0.25
"""kubelet renews its Lease every quarter of the lease's duration (nodeLeaseRenewIntervalFraction, pkg/kubelet)."""

LEASE_RENEW_JITTER: Final = 0.04
"""...lengthened at random by up to 4 % (staging/src/k8s.io/component-helpers/apimachinery/lease/controller.go)."""

STATUS_LOOK_JITTER: Final = 0.04
"""kubelet's pause between two looks at its node's status is lengthened at random by up to this much of itself
(JitterUntil around syncNodeStatus, pkg/kubelet/kubelet.go)."""

STATUS_DELAY_FRACTION: Final = 0.5
"""After a status that changed, and after a start of kubelet, the next report of an unchanged one comes earlier or later
by up to this much of the report frequency (calculateDelay, pkg/kubelet/kubelet_node_status.go)."""

KCM_LEASE_DURATION_SECONDS: Final = 15.0
KCM_RENEW_DEADLINE_SECONDS: Final = 10.0
KCM_RETRY_PERIOD_SECONDS: Final = 2.0
"""kube-controller-manager's leader election defaults. One that cannot renew within the deadline exits."""


class UnknownProfileError(ValueError):
    """Raised for a profile name that does not exist; the message lists those that do."""


@dataclass(frozen=True, kw_only=True)
class RecoveryProfile:
    """The numbers that govern detection and recovery. All times in seconds; None means "leave the program's default".

    `node_status_*` and `node_lease_duration_seconds` are kubelet's, `node_monitor_*` and `kcm_*` are
    kube-controller-manager's, the tolerations are kube-apiserver's defaults for new pods and the workloads' own,
    `http2_*` are environment variables of kubelet and kube-controller-manager that close a silently dead connection.
    `exclude_control_plane_from_disruption` labels control plane nodes `node.kubernetes.io/exclude-disruption`, so that
    the loss of both workers counts as full disruption and stops evictions. `node_eviction_rate_per_second` and
    `kcm_kube_api_*` bound how fast kube-controller-manager taints nodes and writes pods; `default_toleration_admission`
    says that the API server's plug-in DefaultTolerationSeconds is on: these four are read from a live cluster and stay
    the operator's; no profile writes them. Default, range and source of each: `KNOBS`.
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
    node_eviction_rate_per_second: float | None = None
    kcm_kube_api_qps: float | None = None
    kcm_kube_api_burst: int | None = None
    default_toleration_admission: bool = True

    @property
    def heartbeat_seconds(self) -> float:
        """The nominal interval between two signs of life, the Lease's or the node status', the shorter one.

        kubelet looks every `node_status_update_frequency_seconds` and writes an unchanged status only when the report
        frequency has passed; the controller takes a newer status or a newer Lease alike. By it the settings are judged
        (`grace-heartbeats`); what may happen is reckoned with `longest_heartbeat_seconds`.
        """
        status = max(self.node_status_update_frequency_seconds, self.node_status_report_frequency_seconds)
        return min(status, self._lease_renewal_seconds)

    @property
    def longest_heartbeat_seconds(self) -> float:
        """R: the longest interval between two signs of life of a node that is well.

        A report that is due `1 + STATUS_DELAY_FRACTION` report frequencies after the last is written at the first look
        from then on. As many looks as fit before that may each be late by their jitter, and so may that one
        (isUpdateStatusPeriodExpired and tryUpdateNodeStatus, pkg/kubelet/kubelet_node_status.go of v1.36.3). 10.4 s
        for a look and a report every 5 s. The Lease's renewal ends the interval where it comes first.
        """
        update = self.node_status_update_frequency_seconds
        due = (1 + STATUS_DELAY_FRACTION) * self.node_status_report_frequency_seconds
        late = (1 + STATUS_LOOK_JITTER) * update
        status = min(due, (ceil(due / update) - 1) * late) + late
        return min(status, self._lease_renewal_seconds)

    @property
    def _lease_renewal_seconds(self) -> float:
        return self.node_lease_duration_seconds * LEASE_RENEW_FRACTION * (1 + LEASE_RENEW_JITTER)

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
    # Set explicitly, kubelet's report frequency defaults to the same (pkg/kubelet/apis/config/v1beta1/defaults.go).
    node_status_report_frequency_seconds=5,
    node_lease_duration_seconds=40,
    node_monitor_period_seconds=5,
    node_monitor_grace_period_seconds=20,
    unreachable_toleration_seconds=5,
    not_ready_toleration_seconds=5,
)
"""The settings of the reference article: re-creation after 25 to 30 s. A short API stall can mark live nodes lost."""

BALANCED: Final = RecoveryProfile(
    name="balanced",
    node_status_update_frequency_seconds=10,
    # Kept at its default on purpose: the Lease is the cheap heartbeat, a full status write every few seconds is not.
    node_status_report_frequency_seconds=300,
    node_lease_duration_seconds=8,
    node_monitor_period_seconds=1,
    # 22.8 s of stale view at most (api_stall_seconds) + R 2.08 s + 2P. With a renew deadline of 5 s, 17 s would do, but
    # beside a slow API server the controller-manager exited again and again, once in the middle of a failover, and
    # kubelet's restart back-off held every eviction back for over a minute (lab).
    node_monitor_grace_period_seconds=27,
    # One second off either: an outage that the controller-manager outlives lasts 10 s at most, not 12 s, which would
    # ask for a grace of 28.9 s and bring endpoints out later than `article` does.
    kcm_leader_elect_renew_deadline_seconds=9,
    kcm_leader_elect_retry_period_seconds=1,
    unreachable_toleration_seconds=5,
    # A kubelet that restarts says Ready=False for a moment; its pods must outlive that (kubernetes/kubernetes#122338).
    not_ready_toleration_seconds=30,
    http2_read_idle_timeout_seconds=3,
    http2_ping_timeout_seconds=2,
    exclude_control_plane_from_disruption=True,
)
"""The default: as fast as flags can be without a short stall of the API marking live nodes lost."""

FAST: Final = replace(
    BALANCED,
    name="fast",
    node_lease_duration_seconds=4,
    # A stall of the API is survived as long as the longest stale view it leaves, plus R + 2P, stays below this
    # (tolerated_stall_seconds): 5.5 s here. Two seconds less would survive 3.5 s, and below 12.5 s, 2.4 s alone.
    node_monitor_grace_period_seconds=15,
    unreachable_toleration_seconds=2,
)
"""Twelve to fifteen seconds faster than `balanced`, at a price: a stall of the API of more than some five seconds marks
every live node lost at once. All Services go empty, and pods are evicted from every worker two seconds later."""

PROFILES: Final[Mapping[str, RecoveryProfile]] = MappingProxyType({p.name: p for p in (STOCK, ARTICLE, BALANCED, FAST)})
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
