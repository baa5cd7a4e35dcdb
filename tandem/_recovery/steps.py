"""In which order a live cluster takes new values, so that no state in between is worse than both ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from tandem._recovery.check import check
from tandem._recovery.profiles import RecoveryProfile

Part = Literal["kubelet", "controllerManager", "apiServer"]
"""What changes in one step: all kubelets one after the other, or a control plane component by kubeadm's name for it."""

PART_FIELDS: Final[Mapping[Part, tuple[str, ...]]] = MappingProxyType(
    {
        "kubelet": (
            "node_status_update_frequency_seconds",
            "node_status_report_frequency_seconds",
            "node_lease_duration_seconds",
        ),
        "controllerManager": (
            "node_monitor_period_seconds",
            "node_monitor_grace_period_seconds",
            "node_eviction_rate_per_second",
            "kcm_kube_api_qps",
            "kcm_kube_api_burst",
            "kcm_leader_elect_lease_duration_seconds",
            "kcm_leader_elect_renew_deadline_seconds",
            "kcm_leader_elect_retry_period_seconds",
        ),
        "apiServer": (
            "unreachable_toleration_seconds",
            "not_ready_toleration_seconds",
            "default_toleration_admission",
        ),
    }
)
"""Which fields of a profile each part carries. The HTTP/2 time-outs belong to two parts and are judged for both."""

_HTTP2: Final = ("http2_read_idle_timeout_seconds", "http2_ping_timeout_seconds")
_TIGHTEN: Final[tuple[Part, ...]] = ("kubelet", "controllerManager", "apiServer")
_LOOSEN: Final[tuple[Part, ...]] = ("apiServer", "controllerManager", "kubelet")


class NoSafeOrderError(ValueError):
    """No order of steps keeps the settings safe in between; the message names each order and its findings."""


@dataclass(frozen=True)
class Step:
    """One step, and the states that the cluster may be in after it.

    Two states, when kubelets and controller-manager give up dead connections after different times: one with the
    kubelets' time-outs, one with the controller-manager's. While kubelets change one after the other, each node is in
    a state of this step or of the one before.
    """

    part: Part
    states: tuple[RecoveryProfile, ...]


def steps(old: RecoveryProfile, new: RecoveryProfile) -> tuple[Step, ...]:
    """How a cluster goes from `old` to `new` one part at a time.

    To tighten, heartbeats get faster before the controller-manager gets less patient, and tolerations come last; to
    loosen, the reverse. What decides is the grace period: every rule bounds it from below by the kubelets' numbers, so
    a shorter one needs the new kubelets first, and a longer one may come before them.

    Raises:
        NoSafeOrderError: an error of `check`, which `old` does not have already, cannot be avoided on the way: `new`
            has it itself.
    """
    preferred, other = (_TIGHTEN, _LOOSEN) if _tightens(old, new) else (_LOOSEN, _TIGHTEN)
    refused: list[str] = []
    cautious: tuple[Step, ...] | None = None
    for order in (preferred, other):
        walked = _walk(old, new, order)
        errors = _fresh(old, new, walked, "error")
        if errors:
            refused.append(f"{' -> '.join(order)}: {'; '.join(errors)}")
        elif not _fresh(old, new, walked, "warning"):
            return walked
        else:
            cautious = cautious or walked
    if cautious:
        return cautious
    raise NoSafeOrderError(
        f"no safe order from the live settings to profile {new.name}: {' | '.join(refused)}; "
        "way out: go through another profile, stock for instance"
    )


def _tightens(old: RecoveryProfile, new: RecoveryProfile) -> bool:
    """Whether the way to `new` makes the cluster less patient; equal grace periods leave it to the heartbeats."""
    if new.node_monitor_grace_period_seconds != old.node_monitor_grace_period_seconds:
        return new.node_monitor_grace_period_seconds < old.node_monitor_grace_period_seconds
    if new.heartbeat_seconds != old.heartbeat_seconds:
        return new.heartbeat_seconds < old.heartbeat_seconds
    return new.unreachable_toleration_seconds <= old.unreachable_toleration_seconds


def _walk(old: RecoveryProfile, new: RecoveryProfile, order: tuple[Part, ...]) -> tuple[Step, ...]:
    """The states after each part, `new`'s values taken over in this order."""
    walked: list[Step] = []
    state, taken = old, set[Part]()
    for part in order:
        taken.add(part)
        changes = {field: getattr(new, field) for field in PART_FIELDS[part]}
        state = replace(state, name=f"{old.name} with {new.name}'s {', '.join(sorted(taken))}", **changes)
        ends = [
            replace(state, **{field: getattr(new if end in taken else old, field) for field in _HTTP2})
            for end in ("kubelet", "controllerManager")
        ]
        walked.append(Step(part, tuple(dict.fromkeys(ends))))
    return tuple(walked)


def _fresh(old: RecoveryProfile, new: RecoveryProfile, walked: tuple[Step, ...], level: str) -> list[str]:
    """Findings of a level on the way that `old` does not have; warnings that `new` has are its own affair as well."""
    known = {finding.rule for finding in check(old) if finding.level == level}
    if level == "warning":
        known |= {finding.rule for finding in check(new)}
    return [
        f"after {step.part}: {finding.message}"
        for step in walked
        for state in step.states
        for finding in check(state)
        if finding.level == level and finding.rule not in known
    ]
