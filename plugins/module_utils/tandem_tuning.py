"""From a recovery profile to the settings of each program, and in which order a live cluster may take them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from plugins.module_utils.tandem_kubeadm import environment, flags, is_zero
from tandem import recovery

KUBELET, CONTROLLER_MANAGER, API_SERVER = "kubelet", "controllerManager", "apiServer"

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    KUBELET: (
        "node_status_update_frequency_seconds",
        "node_status_report_frequency_seconds",
        "node_lease_duration_seconds",
    ),
    CONTROLLER_MANAGER: (
        "node_monitor_period_seconds",
        "node_monitor_grace_period_seconds",
        "kcm_leader_elect_lease_duration_seconds",
        "kcm_leader_elect_renew_deadline_seconds",
        "kcm_leader_elect_retry_period_seconds",
        "http2_read_idle_timeout_seconds",
        "http2_ping_timeout_seconds",
    ),
    API_SERVER: ("unreachable_toleration_seconds", "not_ready_toleration_seconds"),
}
"""Which fields of a profile each program carries: the state between two steps is a mixture of two profiles."""

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|us|ns|h|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class PlanError(ValueError):
    """No order of steps keeps the cluster's settings safe in between; the message names each order and its finding."""


def seconds(duration: Any) -> float:
    """A Kubernetes duration (`1m30s`, `250ms`, or a bare number of seconds) in seconds.

    Raises:
        ValueError: not a duration.
    """
    text = str(duration).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 5s, 1m30s or 250ms")
    return sum(float(part["number"]) * _UNIT_SECONDS[part["unit"]] for part in parts)


def settings(profile_name: str) -> dict[str, Any]:
    """What each program gets under a profile, as plain data for templates and filters.

    Raises:
        UnknownProfileError: no such profile.
    """
    chosen = recovery.profile(profile_name)
    return {
        "profile": chosen.name,
        "record": recovery.to_dict(chosen),
        "api_server_args": recovery.api_server_args(chosen),
        "controller_manager_args": recovery.controller_manager_args(chosen),
        "controller_manager_env": recovery.controller_manager_env(chosen),
        "kubelet_configuration": recovery.kubelet_configuration(chosen),
        "kubelet_env": recovery.kubelet_env(chosen),
        "pod_tolerations": recovery.pod_tolerations(chosen),
        "exclude_control_plane": chosen.exclude_control_plane_from_disruption,
        "owned": {part: list(names) for part, names in recovery.managed_names().items()},
    }


def live_profile(cluster: Mapping[str, Any], kubelet: Mapping[str, Any]) -> recovery.RecoveryProfile:
    """The profile that kubeadm's two documents amount to, whoever wrote them; what they leave out is the default."""
    api_server = flags(cluster.get("apiServer") or {}, "kubeadm-config apiServer")
    manager = flags(cluster.get("controllerManager") or {}, "kubeadm-config controllerManager")
    manager_env = environment(cluster.get("controllerManager") or {}, "kubeadm-config controllerManager")
    stock = recovery.STOCK
    found: dict[str, Any] = {}
    for field, source, name, kind in (
        ("not_ready_toleration_seconds", api_server, "default-not-ready-toleration-seconds", int),
        ("unreachable_toleration_seconds", api_server, "default-unreachable-toleration-seconds", int),
        ("node_monitor_period_seconds", manager, "node-monitor-period", seconds),
        ("node_monitor_grace_period_seconds", manager, "node-monitor-grace-period", seconds),
        ("kcm_leader_elect_lease_duration_seconds", manager, "leader-elect-lease-duration", seconds),
        ("kcm_leader_elect_renew_deadline_seconds", manager, "leader-elect-renew-deadline", seconds),
        ("kcm_leader_elect_retry_period_seconds", manager, "leader-elect-retry-period", seconds),
        ("node_status_update_frequency_seconds", kubelet, "nodeStatusUpdateFrequency", seconds),
        ("node_status_report_frequency_seconds", kubelet, "nodeStatusReportFrequency", seconds),
        ("node_lease_duration_seconds", kubelet, "nodeLeaseDurationSeconds", int),
    ):
        if not is_zero(source.get(name)):
            found[field] = kind(source[name])
    if "node_status_update_frequency_seconds" in found:
        # kubelet's own rule (pkg/kubelet/apis/config/v1beta1/defaults.go): the report follows an update that was set.
        found.setdefault("node_status_report_frequency_seconds", found["node_status_update_frequency_seconds"])
    for field, name in (
        ("http2_read_idle_timeout_seconds", "HTTP2_READ_IDLE_TIMEOUT_SECONDS"),
        ("http2_ping_timeout_seconds", "HTTP2_PING_TIMEOUT_SECONDS"),
    ):
        if name in manager_env:
            found[field] = int(manager_env[name]["value"])
    return replace(stock, name="live", **found)


def plan(current: recovery.RecoveryProfile, wanted: recovery.RecoveryProfile) -> list[str]:
    """The order in which kubelet, controller-manager and API server take the new values.

    To tighten, heartbeats get faster before the controller-manager gets less patient, and tolerations come last; to
    loosen, the reverse. No state on the way may have a finding of level error that the start does not have too.

    Raises:
        PlanError: neither order is safe all the way.
    """
    tighten = [KUBELET, CONTROLLER_MANAGER, API_SERVER]
    loosen = [API_SERVER, CONTROLLER_MANAGER, KUBELET]
    slower_heartbeat = wanted.heartbeat_seconds > current.heartbeat_seconds
    orders = (loosen, tighten) if slower_heartbeat else (tighten, loosen)
    refused = []
    for order in orders:
        problems = _problems_on_the_way(current, wanted, order)
        if not problems:
            return list(order)
        refused.append(f"{' -> '.join(order)}: {'; '.join(problems)}")
    raise PlanError(
        f"no safe order from the live settings to profile {wanted.name}: {' | '.join(refused)}; "
        "way out: go through another profile, stock for instance"
    )


def _problems_on_the_way(
    current: recovery.RecoveryProfile, wanted: recovery.RecoveryProfile, order: list[str]
) -> list[str]:
    known = {finding.rule for finding in recovery.check(current) if finding.level == "error"}
    state, problems = current, []
    for step in order:
        state = replace(
            state, name=f"live with {wanted.name}'s {step}", **{f: getattr(wanted, f) for f in FIELDS[step]}
        )
        problems += [
            f"after {step}: {finding.message}"
            for finding in recovery.check(state)
            if finding.level == "error" and finding.rule not in known
        ]
    return problems
