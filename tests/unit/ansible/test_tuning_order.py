"""In which order a live cluster takes new values, and how its present values are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plugins.module_utils import tandem_kubeadm as kubeadm
from plugins.module_utils import tandem_tuning as tuning
from tandem import recovery

EMPTY = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("1m30s", 90), ("250ms", 0.25), ("5m0s", 300), ("1h", 3600), ("40", 40), (8, 8)]
)
def test_durations(text: str, seconds: float) -> None:
    assert tuning.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5 s", "fast", "5s!", "-5s"])
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        tuning.seconds(text)


@pytest.mark.parametrize("name", list(recovery.PROFILES))
def test_a_profile_written_is_a_profile_read(name: str) -> None:
    wanted = tuning.settings(name)
    cluster = kubeadm.merge_cluster_configuration(EMPTY, wanted)
    kubelet = kubeadm.merge_kubelet_configuration({}, wanted)
    profile = recovery.profile(name)
    live = tuning.live_profile(cluster, kubelet)
    assert (
        replace(live, name=name, exclude_control_plane_from_disruption=profile.exclude_control_plane_from_disruption)
        == profile
    )


def test_an_update_frequency_alone_sets_the_report_frequency_too() -> None:
    live = tuning.live_profile(EMPTY, {"nodeStatusUpdateFrequency": "4s"})
    assert live.node_status_report_frequency_seconds == 4


def test_what_kubeadm_writes_for_the_default_is_the_default() -> None:
    live = tuning.live_profile(EMPTY, {"nodeStatusUpdateFrequency": "0s", "nodeLeaseDurationSeconds": 0})
    assert replace(live, name="stock") == recovery.STOCK


def test_tighten_kubelets_first_and_loosen_them_last() -> None:
    stock, article, balanced = (recovery.profile(name) for name in ("stock", "article", "balanced"))
    assert tuning.plan(stock, article) == ["kubelet", "controllerManager", "apiServer"]
    assert tuning.plan(article, balanced) == ["apiServer", "controllerManager", "kubelet"]
    assert tuning.plan(balanced, article) == ["kubelet", "controllerManager", "apiServer"]
    assert tuning.plan(balanced, stock) == ["apiServer", "controllerManager", "kubelet"]


def test_no_safe_order_is_told() -> None:
    impossible = replace(recovery.STOCK, name="impossible", node_monitor_grace_period_seconds=8)
    with pytest.raises(recovery.NoSafeOrderError, match="no safe order"):
        tuning.plan(recovery.STOCK, impossible)
