"""What must hold for every profile, named or not: a tick-by-tick model of the controller as the judge."""

from __future__ import annotations

import itertools
import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem import recovery
from tandem.recovery import Pace, RecoveryProfile

settings.register_profile("busy-host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-host")

seconds = st.floats(min_value=0.25, max_value=60, allow_nan=False)
instant = Pace(write=(0, 0), endpoints=(0, 0), taint=(0, 0), start=(0, 0), route=(0, 0))


@st.composite
def profiles(draw: st.DrawFn) -> RecoveryProfile:
    return RecoveryProfile(
        name="drawn",
        node_status_update_frequency_seconds=draw(seconds),
        node_status_report_frequency_seconds=draw(st.floats(min_value=1, max_value=300)),
        node_lease_duration_seconds=draw(st.integers(min_value=1, max_value=60)),
        node_monitor_period_seconds=draw(st.floats(min_value=0.25, max_value=10)),
        node_monitor_grace_period_seconds=draw(seconds),
        unreachable_toleration_seconds=draw(st.integers(min_value=0, max_value=300)),
        not_ready_toleration_seconds=draw(st.integers(min_value=0, max_value=300)),
        http2_read_idle_timeout_seconds=draw(st.one_of(st.none(), st.integers(min_value=1, max_value=30))),
        http2_ping_timeout_seconds=draw(st.one_of(st.none(), st.integers(min_value=1, max_value=30))),
        kcm_leader_elect_renew_deadline_seconds=draw(st.one_of(st.none(), st.floats(min_value=1, max_value=14))),
        kcm_leader_elect_retry_period_seconds=draw(st.one_of(st.none(), st.floats(min_value=0.5, max_value=5))),
    )


@given(profiles(), st.sampled_from(["replace", "hold", "spread-wait", "spread-crowd", "stateful", "node-agent"]))
def test_windows_are_ordered(profile: RecoveryProfile, behaviour: recovery.Behaviour) -> None:
    windows = recovery.predict(profile, behaviour)
    assert list(windows) == [stage for stage in recovery.STAGES if stage in windows]
    assert all(0 <= window.low <= window.high for window in windows.values())
    evicted = ("ready_unknown", "taint", "deleted", "created", "scheduled", "ready")
    for chain in (evicted, ("ready_unknown", "endpoints_out")):
        present = [windows[stage] for stage in chain if stage in windows]
        assert all(a.low <= b.low and a.high <= b.high for a, b in itertools.pairwise(present))


@given(profiles(), st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1))
def test_a_controller_simulated_tick_by_tick_stays_inside_the_window(
    profile: RecoveryProfile, age: float, phase: float
) -> None:
    """Heartbeat at -age*R, the longest; ticks at phase*P + k*P; the first tick at or after the heartbeat stamps it."""
    period, grace = profile.node_monitor_period_seconds, profile.node_monitor_grace_period_seconds
    beat = -age * profile.longest_heartbeat_seconds
    stamp = phase * period + math.ceil((beat - phase * period) / period) * period
    ticks = math.floor(grace / period) + 1  # the first tick *after* the grace has passed
    fired = stamp + ticks * period
    window = recovery.predict(profile, pace=instant)["ready_unknown"]
    assert window.low - 1e-6 <= max(fired, 0.0) <= window.high + 1e-6


@given(
    st.floats(min_value=1, max_value=10),
    st.floats(min_value=1, max_value=60),
    st.floats(min_value=-0.5, max_value=0.4999),
    st.lists(st.sampled_from([1.0, 1.02, 1.04]), min_size=100, max_size=100),
)
def test_a_kubelet_simulated_look_by_look_never_is_silent_for_longer(
    update: float, report: float, delay: float, jitter: list[float]
) -> None:
    """Looks follow one another by `update`, lengthened by up to 4 %; the first from the due time on reports."""
    changes = {"node_status_update_frequency_seconds": update, "node_status_report_frequency_seconds": report}
    profile = RecoveryProfile(**{**recovery.to_dict(recovery.STOCK), **changes, "node_lease_duration_seconds": 100_000})
    looks = itertools.accumulate(update * each for each in jitter)
    silent = next(look for look in looks if look >= report * (1 + delay))
    assert silent <= profile.longest_heartbeat_seconds + 1e-6


@given(profiles())
def test_a_profile_survives_the_record_in_the_cluster(profile: RecoveryProfile) -> None:
    assert recovery.from_dict(recovery.to_dict(profile)) == profile


@given(profiles())
def test_a_profile_that_passes_never_marks_a_node_lost_within_a_short_outage(profile: RecoveryProfile) -> None:
    if any(f.rule == "api-stall" or f.level == "error" for f in recovery.check(profile)):
        return
    ticks = 2 * profile.node_monitor_period_seconds
    assert (
        profile.node_monitor_grace_period_seconds - ticks - profile.longest_heartbeat_seconds + 1e-9
        >= recovery.kcm_survives_seconds(profile) + recovery.KUBELET_MAX_BACKOFF_SECONDS
    )


@given(profiles())
def test_every_setting_rendered_has_a_name_that_a_rollback_removes(profile: RecoveryProfile) -> None:
    names = recovery.managed_names()
    assert set(recovery.api_server_args(profile)) <= set(names["api_server_args"])
    assert set(recovery.controller_manager_args(profile)) <= set(names["controller_manager_args"])
    assert set(recovery.controller_manager_env(profile)) <= set(names["controller_manager_env"])
    assert set(recovery.kubelet_configuration(profile)) <= set(names["kubelet_configuration"])
    assert set(recovery.kubelet_env(profile)) <= set(names["kubelet_env"])


@settings(max_examples=50)
@given(st.floats(min_value=0.5, max_value=14.9))
def test_a_longer_deadline_never_shortens_the_stale_view(deadline: float) -> None:
    def stall(value: float) -> float:
        return recovery.api_stall_seconds(
            RecoveryProfile(**{**recovery.to_dict(recovery.STOCK), "kcm_leader_elect_renew_deadline_seconds": value})
        )

    assert stall(deadline) <= stall(deadline + 0.1) + 1e-9
