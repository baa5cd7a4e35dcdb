"""A profile as each program wants it: flags, configuration fields, environment, tolerations."""

from __future__ import annotations

from tandem._recovery.duration import duration
from tandem._recovery.profiles import STOCK, RecoveryProfile


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
    """Flags of kube-controller-manager, name without dashes to value. Empty when the values are the defaults."""
    args: dict[str, str] = {}
    monitor = (recovery.node_monitor_period_seconds, recovery.node_monitor_grace_period_seconds)
    if monitor != (STOCK.node_monitor_period_seconds, STOCK.node_monitor_grace_period_seconds):
        args["node-monitor-period"], args["node-monitor-grace-period"] = (duration(value) for value in monitor)
    for name, value in (
        ("leader-elect-lease-duration", recovery.kcm_leader_elect_lease_duration_seconds),
        ("leader-elect-renew-deadline", recovery.kcm_leader_elect_renew_deadline_seconds),
        ("leader-elect-retry-period", recovery.kcm_leader_elect_retry_period_seconds),
    ):
        if value is not None:
            args[name] = duration(value)
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
        "nodeStatusUpdateFrequency": duration(recovery.node_status_update_frequency_seconds),
        "nodeStatusReportFrequency": duration(recovery.node_status_report_frequency_seconds),
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
