"""A cluster's own words read as a profile: documents, flags and variables of running programs."""

from __future__ import annotations

import dataclasses

from tandem import recovery
from tandem.recovery import Sighting

DOCUMENT = Sighting("kubelet-config", configuration={"nodeLeaseDurationSeconds": 8, "nodeStatusUpdateFrequency": "4s"})
MANAGER = Sighting(
    "kube-controller-manager-cp1",
    arguments={
        "node-monitor-grace-period": "27s",
        "node-monitor-period": "250ms",
        "node-eviction-rate": "0.5",
        "kube-api-burst": "60",
    },
    environment={"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3", "HTTP2_PING_TIMEOUT_SECONDS": "2", "PATH": "/bin"},
)
SERVER = Sighting("kube-apiserver-cp1", arguments={"default-not-ready-toleration-seconds": "30"})


def test_nothing_set_is_stock() -> None:
    live = recovery.live_profile([Sighting("empty")], version="v1.35.2")
    assert dataclasses.replace(live.profile, name="stock") == recovery.STOCK
    assert live.sources == {}
    assert live.remarks == ()


def test_each_place_contributes_and_is_named() -> None:
    live = recovery.live_profile([DOCUMENT, MANAGER, SERVER], version="v1.36.3", excluded=True)
    profile = live.profile
    assert profile.node_monitor_grace_period_seconds == 27
    assert profile.node_monitor_period_seconds == 0.25
    assert profile.node_eviction_rate_per_second == 0.5
    assert profile.kcm_kube_api_burst == 60
    assert profile.not_ready_toleration_seconds == 30
    assert profile.unreachable_toleration_seconds == 300
    assert profile.http2_read_idle_timeout_seconds == 3
    assert profile.node_status_report_frequency_seconds == 4, "it follows an update frequency that is set"
    assert profile.exclude_control_plane_from_disruption
    assert live.sources["node_monitor_period_seconds"] == "kube-controller-manager-cp1"
    assert "unreachable_toleration_seconds" not in live.sources


def test_two_places_that_differ_are_told_and_the_later_wins() -> None:
    other = Sighting("kubelet of w1", configuration={"nodeLeaseDurationSeconds": 40})
    live = recovery.live_profile([DOCUMENT, other])
    assert live.profile.node_lease_duration_seconds == 40
    assert live.remarks == ("node_lease_duration_seconds: kubelet-config says 8, kubelet of w1 40",)


def test_what_cannot_be_understood_is_told_and_left_out() -> None:
    live = recovery.live_profile([Sighting("cm", arguments={"node-monitor-period": "soon"})], version="v1.20.0")
    assert live.profile.node_monitor_period_seconds == 5
    assert any("'soon'" in remark for remark in live.remarks)
    assert any("'v1.20.0'" in remark for remark in live.remarks)


def test_a_disabled_admission_plugin_is_an_error() -> None:
    server = Sighting("server", arguments={"disable-admission-plugins": "PodNodeSelector,DefaultTolerationSeconds"})
    live = recovery.live_profile([server])
    assert [finding.rule for finding in recovery.check(live.profile)] == ["admission-plugin"]


def test_flags_of_a_command_line() -> None:
    words = ["kube-apiserver", "--profiling=false", "--bare", "--a=1", "--a=2", "positional"]
    assert recovery.flag_values(words) == {"profiling": "false", "bare": "true", "a": "2"}
