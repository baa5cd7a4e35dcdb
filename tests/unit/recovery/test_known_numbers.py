"""The model against figures measured on a hand-made cluster, and against Kubernetes' own defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tandem import recovery
from tandem.recovery import ARTICLE, BALANCED, FAST, STOCK, Pace, RecoveryProfile, Window

# Seconds after power loss, one run each: article settings, and a single app served again with stock ones.
MEASURED_ARTICLE = {
    "ready_unknown": 20.8,
    "endpoints_out": 21.7,
    "taint": 21.3,
    "deleted": 26.8,
    "created": 26.8,
    "ready": 31.9,
    "serving": 33.8,
}


@pytest.mark.parametrize(("stage", "seconds"), MEASURED_ARTICLE.items())
def test_article_as_measured_lies_inside_its_window(stage: recovery.Stage, seconds: float) -> None:
    assert seconds in recovery.predict(ARTICLE)[stage]


def test_single_app_with_stock_settings_as_measured_lies_inside_its_window() -> None:
    assert 355.5 in recovery.predict(STOCK)["serving"]


@pytest.mark.parametrize(("profile", "outage"), [(STOCK, 49.0), (ARTICLE, 21.3)])
def test_outage_of_a_spread_app_as_measured_lies_inside_its_window(profile: RecoveryProfile, outage: float) -> None:
    assert outage in recovery.predict(profile, "spread-wait")["serving"]


def test_balanced_is_faster_than_article_at_its_worst_in_every_stage() -> None:
    slow, fast = recovery.predict(ARTICLE), recovery.predict(BALANCED)
    assert all(fast[stage].high < slow[stage].high for stage in recovery.STAGES)


def test_what_each_profile_is_warned_about() -> None:
    warned = {p.name: [(f.level, f.rule) for f in recovery.check(p)] for p in recovery.PROFILES.values()}
    assert warned == {
        "stock": [],
        "article": [("warning", "dead-connection"), ("warning", "api-stall")],
        "balanced": [],
        "fast": [("warning", "api-stall")],
    }


def test_what_fast_gains_and_what_it_costs() -> None:
    fast, balanced = recovery.predict(FAST)["serving"], recovery.predict(BALANCED)["serving"]
    assert fast.high == balanced.high - 15
    assert recovery.tolerated_stall_seconds(FAST) == pytest.approx(5.55)
    assert recovery.tolerated_stall_seconds(ARTICLE) == 0
    assert recovery.tolerated_stall_seconds(BALANCED) == float("inf")


@pytest.mark.parametrize(
    ("outage", "stale"), [(0.5, 2.1), (2, 5.2), (5, 11.4), (9.5, 22.3), (10, 22.8), (13, 38.6)], ids=str
)
def test_the_stale_view_that_an_outage_leaves(outage: float, stale: float) -> None:
    assert recovery.stale_view_seconds(outage) == pytest.approx(stale)


def test_writes_beyond_the_burst_wait_for_the_rate() -> None:
    full = Pace(pods=110)
    assert recovery.write_queue_seconds(STOCK, 30) == 0
    assert recovery.write_queue_seconds(STOCK, 110) == pytest.approx(4)
    assert recovery.predict(STOCK, pace=full)["endpoints_out"].high == pytest.approx(
        recovery.predict(STOCK)["endpoints_out"].high + 4
    )
    quick = dataclasses.replace(STOCK, kcm_kube_api_qps=100, kcm_kube_api_burst=200)
    assert recovery.write_queue_seconds(quick, 110) == 0


def test_default_deadlines_leave_a_view_stale_for_about_25_s_and_shorter_ones_less() -> None:
    times: dict[str, Any] = {"kcm_leader_elect_renew_deadline_seconds": 4, "kcm_leader_elect_retry_period_seconds": 1}
    assert recovery.api_stall_seconds(STOCK) == pytest.approx(24.8)
    assert recovery.api_stall_seconds(BALANCED) == pytest.approx(22.8)
    assert recovery.api_stall_seconds(dataclasses.replace(BALANCED, **times)) == pytest.approx(12.0)


def test_a_leader_outlives_an_outage_of_its_retry_period_and_its_deadline() -> None:
    assert recovery.kcm_survives_seconds(STOCK) == 12
    assert recovery.kcm_survives_seconds(BALANCED) == 10


def test_heartbeat_is_the_shorter_of_lease_renewal_and_status_report() -> None:
    assert STOCK.heartbeat_seconds == pytest.approx(10.4)
    assert ARTICLE.heartbeat_seconds == 5
    assert BALANCED.heartbeat_seconds == pytest.approx(2.08)


@pytest.mark.parametrize(
    ("update", "report", "lease", "longest"),
    [
        (5, 5, 400, 10.4),
        (5, 5, 40, 10.4),
        (5, 5, 20, 5.2),
        (10, 300, 40, 10.4),
        (10, 300, 40000, 460.4),
        (4, 10, 40000, 12.48 + 4.16),
        (10, 2, 40000, 10.4),
        (5, 10, 40000, 10.4 + 5.2),
    ],
)
def test_the_longest_heartbeat_is_one_that_kubelet_puts_off(
    update: float, report: float, lease: int, longest: float
) -> None:
    profile = dataclasses.replace(
        ARTICLE,
        node_status_update_frequency_seconds=update,
        node_status_report_frequency_seconds=report,
        node_lease_duration_seconds=lease,
    )
    assert profile.longest_heartbeat_seconds == pytest.approx(longest)


def test_a_put_off_heartbeat_opens_the_window_earlier_and_does_not_refuse_the_profile() -> None:
    window = recovery.predict(ARTICLE)["ready_unknown"]
    assert window.low == pytest.approx(9.6)
    assert window.high == pytest.approx(30.75)
    assert {f.rule for f in recovery.check(ARTICLE)} == {"dead-connection", "api-stall"}
    [stall] = [f for f in recovery.check(ARTICLE) if f.rule == "api-stall"]
    assert "less than 45.2 s" in str(stall)


def test_stock_sets_nothing_so_that_going_back_removes_our_settings() -> None:
    assert recovery.api_server_args(STOCK) == {}
    assert recovery.controller_manager_args(STOCK) == {}
    assert recovery.controller_manager_env(STOCK) == {}
    assert recovery.kubelet_configuration(STOCK) == {}
    assert recovery.kubelet_env(STOCK) == {}


def test_article_sets_the_articles_flags() -> None:
    assert recovery.api_server_args(ARTICLE) == {
        "default-not-ready-toleration-seconds": "5",
        "default-unreachable-toleration-seconds": "5",
    }
    assert recovery.controller_manager_args(ARTICLE) == {
        "node-monitor-period": "5s",
        "node-monitor-grace-period": "20s",
    }
    assert recovery.kubelet_configuration(ARTICLE)["nodeStatusUpdateFrequency"] == "5s"


def test_balanced_keeps_the_report_frequency_explicit() -> None:
    assert recovery.kubelet_configuration(BALANCED) == {
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": "5m0s",
        "nodeLeaseDurationSeconds": 8,
    }
    assert recovery.kubelet_env(BALANCED) == {
        "HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3",
        "HTTP2_PING_TIMEOUT_SECONDS": "2",
    }


def test_hold_is_created_but_never_scheduled_and_a_statefulset_never_created() -> None:
    assert list(recovery.predict(ARTICLE, "hold"))[-1] == "created"
    assert list(recovery.predict(ARTICLE, "stateful"))[-1] == "deleted"
    assert "deleted" not in recovery.predict(ARTICLE, "node-agent")


def test_unknown_profile_lists_those_that_exist() -> None:
    with pytest.raises(recovery.UnknownProfileError, match="'quick'; known: stock, article, balanced, fast"):
        recovery.profile("quick")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"node_monitor_grace_period_seconds": 19}, "grace-heartbeats"),
        ({"http2_read_idle_timeout_seconds": 10, "http2_ping_timeout_seconds": 10}, "dead-connection"),
        ({"http2_read_idle_timeout_seconds": 3}, "dead-connection"),
        ({"not_ready_toleration_seconds": 0}, "not-ready-toleration"),
        ({"unreachable_toleration_seconds": "5s"}, "bare-integer"),
        ({"unreachable_toleration_seconds": 2.5}, "bare-integer"),
        ({"unreachable_toleration_seconds": True}, "bare-integer"),
        ({"node_lease_duration_seconds": -1}, "bare-integer"),
        ({"node_monitor_period_seconds": 0}, "positive"),
        ({"node_monitor_period_seconds": "5s"}, "positive"),
        ({"node_monitor_period_seconds": 0.01}, "range"),
        ({"node_lease_duration_seconds": 40000}, "range"),
        ({"http2_read_idle_timeout_seconds": 5000, "http2_ping_timeout_seconds": 1}, "range"),
        ({"default_toleration_admission": False}, "admission-plugin"),
        ({"kcm_leader_elect_renew_deadline_seconds": 15}, "leader-election"),
        ({"kcm_leader_elect_renew_deadline_seconds": 2}, "leader-election"),
    ],
)
def test_what_cannot_work_is_an_error_with_a_way_out(change: dict[str, object], rule: str) -> None:
    errors = [f for f in recovery.check(dataclasses.replace(ARTICLE, **change)) if f.level == "error"]  # type: ignore[arg-type]
    assert [f.rule for f in errors] == [rule]
    assert errors[0].fix
    assert "Way out" in str(errors[0])


def test_target_names_the_profiles_that_would_meet_it() -> None:
    assert recovery.check_target(BALANCED, 60) is None
    finding = recovery.check_target(STOCK, 60)
    assert finding is not None
    assert finding.fix == "choose balanced"
    priced = recovery.check_target(BALANCED, 45)
    assert priced is not None
    assert priced.fix == "choose fast (survives API stalls of up to 5.5 s only)"
    hopeless = recovery.check_target(BALANCED, 10)
    assert hopeless is not None
    assert "flags alone" in hopeless.fix


def test_from_dict_names_what_is_wrong() -> None:
    data = recovery.to_dict(ARTICLE)
    assert recovery.from_dict(data) == ARTICLE
    with pytest.raises(ValueError, match="unknown field grace"):
        recovery.from_dict({**data, "grace": 5})
    del data["name"]
    with pytest.raises(ValueError, match="'name'"):
        recovery.from_dict(data)


def test_window_tells_in_from_out() -> None:
    assert 1.0 in Window(1, 2)
    assert 2.1 not in Window(1, 2)
    assert None not in Window(1, 2)
