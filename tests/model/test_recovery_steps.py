"""Going from one profile to another: no state on the way is worse than both ends, for any pair."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem import recovery
from tandem.recovery import PART_FIELDS, RecoveryProfile
from tests.model.test_recovery_properties import profiles

HTTP2 = ("http2_read_idle_timeout_seconds", "http2_ping_timeout_seconds")


def errors(profile: RecoveryProfile) -> list[str]:
    return [finding.rule for finding in recovery.check(profile) if finding.level == "error"]


@st.composite
def sound(draw: st.DrawFn, name: str) -> RecoveryProfile:
    """A profile without an error: what breaks a rule is repaired rather than thrown away."""
    drawn = draw(profiles())
    both = drawn.http2_read_idle_timeout_seconds is not None and drawn.http2_ping_timeout_seconds is not None
    drawn = replace(
        drawn,
        name=name,
        not_ready_toleration_seconds=max(1, drawn.not_ready_toleration_seconds),
        http2_read_idle_timeout_seconds=drawn.http2_read_idle_timeout_seconds if both else None,
        http2_ping_timeout_seconds=drawn.http2_ping_timeout_seconds if both else None,
        kcm_leader_elect_renew_deadline_seconds=None,
        kcm_leader_elect_retry_period_seconds=None,
    )
    floor = 4 * drawn.heartbeat_seconds
    if both:
        idle, ping = drawn.http2_read_idle_timeout_seconds, drawn.http2_ping_timeout_seconds
        assert idle is not None and ping is not None  # noqa: PT018
        floor = max(floor, idle + ping + 0.5)
    return replace(drawn, node_monitor_grace_period_seconds=max(0.5, floor, drawn.node_monitor_grace_period_seconds))


@settings(max_examples=60)
@given(sound("old"), sound("new"))
def test_between_two_sound_profiles_there_is_a_way_and_it_is_sound(old: RecoveryProfile, new: RecoveryProfile) -> None:
    assert errors(old) == errors(new) == []
    walked = recovery.steps(old, new)
    assert sorted(step.part for step in walked) == sorted(PART_FIELDS)
    for step in walked:
        for state in step.states:
            assert errors(state) == [], f"after {step.part}"


@settings(max_examples=60)
@given(sound("old"), sound("new"))
def test_the_way_ends_where_it_is_to_end(old: RecoveryProfile, new: RecoveryProfile) -> None:
    label = new.exclude_control_plane_from_disruption
    last = recovery.steps(old, new)[-1].states
    assert {replace(state, name="", exclude_control_plane_from_disruption=label) for state in last} == {
        replace(new, name="")
    }


@settings(max_examples=60)
@given(sound("old"), sound("new"))
def test_a_step_changes_its_own_part_alone(old: RecoveryProfile, new: RecoveryProfile) -> None:
    walked = recovery.steps(old, new)
    for before, step in itertools.pairwise([None, *walked]):
        assert step is not None
        previous = before.states[0] if before else old
        for field in (name for part, names in PART_FIELDS.items() if part != step.part for name in names):
            assert all(getattr(state, field) == getattr(previous, field) for state in step.states), field


@pytest.mark.parametrize(
    ("old", "new"), list(itertools.permutations(recovery.PROFILES.values(), 2)), ids=lambda profile: profile.name
)
def test_named_profiles_go_over_into_each_other_without_a_new_warning(
    old: RecoveryProfile, new: RecoveryProfile
) -> None:
    allowed = {finding.rule for profile in (old, new) for finding in recovery.check(profile)}
    for step in recovery.steps(old, new):
        for state in step.states:
            assert {finding.rule for finding in recovery.check(state)} <= allowed


def test_the_other_order_would_not_do() -> None:
    """The planner's choice matters: the controller-manager first, on the way from stock to article, flaps."""
    early = replace(
        recovery.STOCK, **{field: getattr(recovery.ARTICLE, field) for field in PART_FIELDS["controllerManager"]}
    )
    assert "grace-heartbeats" in errors(early)
    assert next(step.part for step in recovery.steps(recovery.STOCK, recovery.ARTICLE)) == "kubelet"
    assert [step.part for step in recovery.steps(recovery.ARTICLE, recovery.STOCK)][-1] == "kubelet"


def test_kubelets_and_controller_manager_may_have_different_connection_timeouts_on_the_way() -> None:
    patient = replace(recovery.STOCK, http2_read_idle_timeout_seconds=30, http2_ping_timeout_seconds=10)
    brisk = replace(recovery.FAST, name="brisk")
    first = recovery.steps(patient, brisk)[0]
    assert first.part == "kubelet"
    assert {state.http2_read_idle_timeout_seconds for state in first.states} == {3, 30}


def test_a_target_with_an_error_of_its_own_is_refused_and_a_start_with_one_is_not() -> None:
    bad = replace(recovery.STOCK, name="bad", node_monitor_grace_period_seconds=8)
    with pytest.raises(recovery.NoSafeOrderError, match="way out"):
        recovery.steps(recovery.STOCK, bad)
    assert recovery.steps(bad, recovery.BALANCED)
