"""Which profiles are refused or warned about, and why."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from tandem._recovery.knobs import KNOBS, default
from tandem._recovery.model import Pace, bound_seconds
from tandem._recovery.profiles import PROFILES, RecoveryProfile
from tandem.findings import Finding

KUBELET_MAX_BACKOFF_SECONDS: Final = 7.0
"""A kubelet that failed to renew waits 0.2 s, doubling, at most this long before it tries again (same file)."""

REFLECTOR_BACKOFF_SECONDS: Final = 0.8
"""client-go's reflector waits this long before it reconnects, doubling, each wait jittered by up to as much again."""

LEADER_JITTER_FACTOR: Final = 1.2
"""client-go refuses a renew deadline that is not above this times the retry period (tools/leaderelection)."""

MIN_HEARTBEATS_PER_GRACE: Final = 4.0
"""Fewer heartbeats than this within the grace period and one slow write makes a live node flap."""


def stale_view_seconds(outage_seconds: float) -> float:
    """The longest that an outage of the API leaves the controller-manager's view of a live node's heartbeat stale.

    When the API is back, kubelet may be in a back-off of as long as the outage was, 7 s at most; or the
    controller-manager's informer at the start of a reconnect wait: attempts fall after at least 0.8, 2.4, 5.6, 12 s,
    and the wait that begins at the last of them before the end lasts up to twice its nominal length. For 10 s that
    is 10 + 12.8 = 22.8 s, which is what a simulation of a 9.5 s outage gave (22.3 s = 9.5 + 12.8; median 17 s).
    """
    wait, begun = REFLECTOR_BACKOFF_SECONDS, 0.0
    while begun + wait < outage_seconds:
        begun += wait
        wait *= 2
    return outage_seconds + max(2 * wait, min(KUBELET_MAX_BACKOFF_SECONDS, outage_seconds))


def api_stall_seconds(recovery: RecoveryProfile) -> float:
    """The longest that a short API outage can keep the controller-manager's view of a live node's heartbeat stale.

    A controller-manager that cannot renew exits and gives every node a fresh grace period, so the worst is the outage
    that ends just before it (`kcm_survives_seconds`).
    """
    survives = kcm_survives_seconds(recovery)
    return max(stale_view_seconds(survives), survives + KUBELET_MAX_BACKOFF_SECONDS)


def kcm_survives_seconds(recovery: RecoveryProfile) -> float:
    """The longest outage that a leading controller-manager can outlive: the retry period and the renew deadline.

    client-go's `renew` (tools/leaderelection/leaderelection.go) gives each renewal its own context of the renew
    deadline, and begins the next one a retry period after the last that succeeded.
    """
    return recovery.kcm_retry_period_seconds + recovery.kcm_renew_deadline_seconds


def tolerated_stall_seconds(recovery: RecoveryProfile) -> float:
    """The longest stall of the API that cannot mark a live node lost, whatever its phase; infinite when none can.

    A stall is survived while `stale_view_seconds` + R + 2P stays within the grace period. Finite values are what a
    profile costs.
    """
    room = (
        recovery.node_monitor_grace_period_seconds
        - recovery.longest_heartbeat_seconds
        - 2 * recovery.node_monitor_period_seconds
    )
    if api_stall_seconds(recovery) <= room:
        return float("inf")
    longest, step = kcm_survives_seconds(recovery), 0.05
    survived = [n * step for n in range(int(longest / step) + 1) if stale_view_seconds(n * step) <= room]
    return round(max(survived, default=0.0), 2)


def check(recovery: RecoveryProfile) -> tuple[Finding, ...]:
    """What is wrong (`error`) or risky (`warning`) in a profile, each with its numbers and a way out.

    Errors flap in normal operation or cannot work; kube-controller-manager itself validates none of the relations
    between kubelet's numbers and its own.
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
    if not recovery.default_toleration_admission:
        findings.append(
            Finding(
                "error",
                "admission-plugin",
                "DefaultTolerationSeconds is disabled: pods without tolerations of their own are evicted at once by "
                "either taint, by the restart of a kubelet too",
                "take it off the API server's disable-admission-plugins",
            )
        )
    if idle is None and ping is None:
        found = _default_connection_timeouts(grace)
        findings += [found] if found else []
    elif idle is not None and ping is not None and idle + ping >= grace:
        findings.append(
            Finding(
                "error",
                "dead-connection",
                f"a silently dead connection is noticed after {idle} + {ping} s, not before the grace of {grace:g} s",
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
    longest = recovery.longest_heartbeat_seconds
    needed = api_stall_seconds(recovery) + longest + 2 * recovery.node_monitor_period_seconds
    if grace < needed:
        findings.append(
            Finding(
                "warning",
                "api-stall",
                f"grace {grace:g} s is less than {needed:.1f} s, the longest view that an API outage of up to "
                f"{kcm_survives_seconds(recovery):g} s (the controller-manager's renew deadline and retry period) can "
                f"leave stale ({api_stall_seconds(recovery):.1f} s), plus a heartbeat and two monitor periods: a stall "
                f"of more than {tolerated_stall_seconds(recovery):.1f} s can mark every live node lost at once, and "
                "all Services go empty",
                f"raise the grace period to {needed:.1f} s, or shorten the renew deadline or the retry period",
            )
        )
    return tuple(findings)


def check_target(recovery: RecoveryProfile, target_seconds: float, *, pace: Pace | None = None) -> Finding | None:
    """An error when the profile cannot promise a single-replica app back within `target_seconds`, else None."""
    bound = bound_seconds(recovery, pace=pace)
    if bound <= target_seconds:
        return None
    faster = [p for p in PROFILES.values() if bound_seconds(p, pace=pace) <= target_seconds]
    safe = [p.name for p in faster if tolerated_stall_seconds(p) == float("inf")]
    priced = [f"{p.name} (survives API stalls of up to {tolerated_stall_seconds(p):.1f} s only)" for p in faster]
    return Finding(
        "error",
        "recovery-target",
        f"profile {recovery.name} promises a single-replica app back after {bound:.1f} s, "
        f"the target is {target_seconds:g} s",
        f"choose {' or '.join(safe or priced)}"
        if faster
        else "raise recovery_target_seconds: flags alone cannot be faster safely",
    )


def _default_connection_timeouts(grace: float) -> Finding | None:
    """A warning when the programs' own HTTP/2 time-outs outlast the grace period (kubernetes/kubernetes#121793)."""
    idle, ping = default("http2_read_idle_timeout_seconds"), default("http2_ping_timeout_seconds")
    if idle + ping < grace:
        return None
    return Finding(
        "warning",
        "dead-connection",
        f"the HTTP/2 time-outs are the programs' own: a silently dead connection to the API is noticed after {idle:g} "
        f"+ {ping:g} s, not before the grace of {grace:g} s, so that a live node whose connection died is marked lost",
        "set the HTTP/2 read-idle and ping timeouts (3 and 2 s serve)",
    )


def _malformed(recovery: RecoveryProfile) -> list[Finding]:
    """Values that are not numbers of the right kind, or not above zero."""
    found: list[Finding] = []
    integers = ("unreachable_toleration_seconds", "not_ready_toleration_seconds", "node_lease_duration_seconds")
    for name in integers:
        value: object = getattr(recovery, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < (name == "node_lease_duration_seconds"):
            found.append(
                Finding(
                    "error",
                    "bare-integer",
                    f"{name} is {value!r}, not a bare integer",
                    "write seconds without a unit, e.g. 5",
                )
            )
    for field in fields(recovery):
        value = getattr(recovery, field.name)
        if value is None or not field.name.endswith("_seconds") or field.name in integers:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            found.append(
                Finding("error", "positive", f"{field.name} is {value!r}", "give a number of seconds above zero")
            )
    found += _out_of_range(recovery) if not found else []
    if (recovery.http2_read_idle_timeout_seconds is None) != (recovery.http2_ping_timeout_seconds is None):
        found.append(
            Finding("error", "dead-connection", "one HTTP/2 timeout is set without the other", "set both or neither")
        )
    return found


def _out_of_range(recovery: RecoveryProfile) -> list[Finding]:
    """Values that the program refuses, or that have no meaning."""
    found = []
    for entry in KNOBS:
        value: object = getattr(recovery, entry.field)
        if value is None or isinstance(value, bool):
            continue
        if not isinstance(value, int | float) or not entry.low <= value <= entry.high:
            found.append(
                Finding(
                    "error",
                    "range",
                    f"{entry.field} ({entry.setting}) is {value!r}",
                    f"keep it within {entry.low:g} and {entry.high:g} {entry.unit}".rstrip(),
                )
            )
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
            f"kube-controller-manager does not start with lease {lease:g} s, deadline {deadline:g} s, retry {retry:g}",
            f"keep lease > renew deadline > {LEADER_JITTER_FACTOR:g} x retry period",
        )
    ]
