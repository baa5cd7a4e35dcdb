"""Merging into kubeadm's documents: ours by name, the operator's kept, kubeadm's lists never lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from plugins.module_utils import tandem_kubeadm as kubeadm
from plugins.module_utils import tandem_tuning as tuning
from tandem import recovery

CLUSTER: dict[str, Any] = {
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "ClusterConfiguration",
    "kubernetesVersion": "v1.36.3",
    "apiServer": {"extraArgs": [{"name": "audit-log-path", "value": "/var/log/audit.log"}], "certSANs": ["127.0.0.1"]},
    "controllerManager": {"extraArgs": [{"name": "profiling", "value": "false"}]},
}


def args(document: dict[str, Any], component: str) -> dict[str, str]:
    return kubeadm.flags(document[component], component)


@pytest.mark.parametrize("name", list(recovery.PROFILES))
def test_a_profile_reaches_the_document_and_the_operators_flags_stay(name: str) -> None:
    merged = kubeadm.merge_cluster_configuration(CLUSTER, tuning.settings(name))
    profile = recovery.profile(name)
    assert args(merged, "apiServer") == {"audit-log-path": "/var/log/audit.log", **recovery.api_server_args(profile)}
    assert args(merged, "controllerManager") == {"profiling": "false", **recovery.controller_manager_args(profile)}
    assert merged["apiServer"]["certSANs"] == ["127.0.0.1"]


@pytest.mark.parametrize("first", list(recovery.PROFILES))
@pytest.mark.parametrize("second", list(recovery.PROFILES))
def test_the_way_there_leaves_no_trace(first: str, second: str) -> None:
    through = kubeadm.merge_cluster_configuration(CLUSTER, tuning.settings(first))
    assert kubeadm.merge_cluster_configuration(through, tuning.settings(second)) == kubeadm.merge_cluster_configuration(
        CLUSTER, tuning.settings(second)
    )


def test_merging_twice_changes_nothing_and_the_input_is_not_touched() -> None:
    before = copy.deepcopy(CLUSTER)
    once = kubeadm.merge_cluster_configuration(CLUSTER, tuning.settings("balanced"))
    assert before == CLUSTER
    assert kubeadm.merge_cluster_configuration(once, tuning.settings("balanced")) == once


def test_one_component_alone() -> None:
    merged = kubeadm.merge_cluster_configuration(CLUSTER, tuning.settings("article"), ["controllerManager"])
    assert merged["apiServer"] == CLUSTER["apiServer"]
    assert "node-monitor-grace-period" in args(merged, "controllerManager")


def test_list_valued_flags_keep_what_kubeadm_puts_there() -> None:
    component = {"extraArgs": [{"name": "enable-admission-plugins", "value": "PodNodeSelector"}]}
    merged = kubeadm.merge_component(
        component, "apiServer", args={"enable-admission-plugins": "DefaultTolerationSeconds"}
    )
    assert merged["extraArgs"] == [
        {"name": "enable-admission-plugins", "value": "NodeRestriction,PodNodeSelector,DefaultTolerationSeconds"}
    ]


def test_an_operators_environment_stays_with_its_source() -> None:
    theirs = {"name": "TOKEN", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    component = {"extraEnvs": [theirs, {"name": "HTTP2_PING_TIMEOUT_SECONDS", "value": "9"}]}
    owned = ["HTTP2_PING_TIMEOUT_SECONDS"]
    kept = kubeadm.merge_component(
        component, "controllerManager", env={"HTTP2_PING_TIMEOUT_SECONDS": "2"}, owned_env=owned
    )
    assert kept["extraEnvs"] == [theirs, {"name": "HTTP2_PING_TIMEOUT_SECONDS", "value": "2"}]
    gone = kubeadm.merge_component(component, "controllerManager", owned_env=owned)
    assert gone["extraEnvs"] == [theirs]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "kubeadm.k8s.io/v1beta3"}, ["v1beta3", "kubeadm config migrate"]),
        ({"apiServer": {"extraArgs": {"audit-log-path": "x"}}}, ["apiServer.extraArgs", "v1beta3"]),
        (
            {"apiServer": {"extraArgs": [{"name": "v", "value": "1"}, {"name": "v", "value": "2"}]}},
            ["v twice", "'1'", "'2'"],
        ),
        (
            {"controllerManager": {"extraArgs": [{"name": "pod-eviction-timeout", "value": "30s"}]}},
            ["pod-eviction-timeout", "30s", "default-unreachable-toleration-seconds"],
        ),
        (
            {"apiServer": {"extraArgs": [{"name": "disable-admission-plugins", "value": "DefaultTolerationSeconds"}]}},
            ["disable-admission-plugins", "DefaultTolerationSeconds"],
        ),
        (
            {"apiServer": {"extraArgs": [{"name": "disable-admission-plugins", "value": "NodeRestriction"}]}},
            ["NodeRestriction"],
        ),
    ],
)
def test_what_cannot_be_merged_safely_is_refused(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(kubeadm.MergeError) as refused:
        kubeadm.merge_cluster_configuration({**CLUSTER, **change}, tuning.settings("balanced"))
    for word in [*words, "way out"]:
        assert word in str(refused.value)


def test_kubelet_fields_by_name_and_back() -> None:
    document = {"kind": "KubeletConfiguration", "cgroupDriver": "systemd", "nodeStatusUpdateFrequency": "0s"}
    tuned = kubeadm.merge_kubelet_configuration(document, tuning.settings("article"))
    assert tuned["cgroupDriver"] == "systemd"
    assert tuned["nodeStatusUpdateFrequency"] == "5s"
    assert tuned["nodeStatusReportFrequency"] == "5s"
    back = kubeadm.merge_kubelet_configuration(tuned, tuning.settings("stock"))
    assert set(back) == {"kind", "cgroupDriver"}
    assert kubeadm.merge_kubelet_configuration(document, tuning.settings("stock")) == document
