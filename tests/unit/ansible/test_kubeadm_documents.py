"""Merging into kubeadm's documents: ours by name, the operator's kept, kubeadm's lists never lost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.mark.parametrize(
    ("name", "present", "wanted", "merged"),
    [
        ("authorization-mode", "", "Webhook", "Node,RBAC,Webhook"),
        ("authorization-mode", "Webhook,Node,RBAC", "Webhook", "Webhook,Node,RBAC"),
        ("controllers", "", "-ttl", "*,bootstrapsigner,tokencleaner,-ttl"),
        ("controllers", "*,bootstrapsigner,tokencleaner", "-tokencleaner", "*,bootstrapsigner,-tokencleaner"),
        ("controllers", "*,bootstrapsigner,tokencleaner,-ttl", "ttl", "*,bootstrapsigner,tokencleaner,ttl"),
        ("disable-admission-plugins", "Priority", "PodSecurity,Priority", "Priority,PodSecurity"),
    ],
)
def test_lists_keep_their_order_and_what_kubeadm_needs(name: str, present: str, wanted: str, merged: str) -> None:
    component = {"extraArgs": [{"name": name, "value": present}]} if present else {}
    found = kubeadm.merge_component(component, "component", args={name: wanted})
    assert found["extraArgs"] == [{"name": name, "value": merged}]
    assert kubeadm.merge_component(found, "component", args={name: wanted}) == found


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
        ({"apiVersion": "kubeadm.k8s.io/v1beta2"}, ["v1beta2", "kubeadm upgrade apply"]),
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


FIXTURES = Path(__file__).with_name("fixtures")


def test_v1beta3_is_converted_as_kubeadm_does() -> None:
    """The second file is what `kubeadm config migrate` of v1.36.3 made of the first (its ClusterConfiguration)."""
    old = yaml.safe_load((FIXTURES / "kubeadm-config-v1beta3.yaml").read_text())
    assert kubeadm.converted(old) == yaml.safe_load((FIXTURES / "kubeadm-config-v1beta3-migrated.yaml").read_text())


def test_a_v1beta3_document_is_merged_and_its_flags_stay() -> None:
    old = yaml.safe_load((FIXTURES / "kubeadm-config-v1beta3.yaml").read_text())
    merged = kubeadm.merge_cluster_configuration(old, tuning.settings("article"))
    assert merged["apiVersion"] == kubeadm.KUBEADM_API
    assert args(merged, "apiServer")["enable-admission-plugins"] == "NodeRestriction,PodNodeSelector"
    assert args(merged, "controllerManager")["bind-address"] == "0.0.0.0"  # noqa: S104
    assert args(merged, "controllerManager")["node-monitor-grace-period"] == "20s"
    assert merged["proxy"] == {}


def test_external_etcd_of_v1beta3() -> None:
    old = {"apiVersion": kubeadm.OLD_KUBEADM_API, "etcd": {"external": {"endpoints": ["https://e:2379"]}}}
    assert kubeadm.converted(old)["etcd"]["external"]["httpEndpoints"] == ["https://e:2379"]


def test_the_operators_own_flags_come_and_go_by_name() -> None:
    there = tuning.settings("balanced", {"profiling": False, "enable-admission-plugins": "PodNodeSelector"}, {"v": 4})
    merged = kubeadm.merge_cluster_configuration(CLUSTER, there)
    assert args(merged, "apiServer")["profiling"] == "false"
    assert args(merged, "apiServer")["enable-admission-plugins"] == "NodeRestriction,PodNodeSelector"
    assert args(merged, "controllerManager")["v"] == "4"
    gone = tuning.settings("balanced", {"profiling": None}, {"v": None})
    back = kubeadm.merge_cluster_configuration(merged, gone)
    assert "profiling" not in args(back, "apiServer")
    assert "v" not in args(back, "controllerManager")
    assert args(back, "controllerManager")["profiling"] == "false", "only what was named goes"


def test_a_backup_comes_back_whole_and_leaves_the_version_alone() -> None:
    tuned = kubeadm.merge_cluster_configuration(CLUSTER, tuning.settings("balanced", {"audit-log-maxage": "x"}))
    kubelet = {"kind": "KubeletConfiguration", "nodeLeaseDurationSeconds": 0, "maxPods": 50}
    backup = {
        "name": "20260101T000000Z-1",
        "documents": {"kubeadm_config": yaml.safe_dump(CLUSTER), "kubelet_config": yaml.safe_dump(kubelet)},
        "kubelet_env": {},
    }
    wanted = tuning.backup_settings(backup)
    now = {**tuned, "kubernetesVersion": "v1.36.4"}
    restored = kubeadm.merge_cluster_configuration(now, wanted)
    assert restored == {**CLUSTER, "kubernetesVersion": "v1.36.4"}
    assert kubeadm.merge_kubelet_configuration({"maxPods": 110}, wanted) == kubelet
    assert wanted["profile"] == "stock"
    assert wanted["controller_manager_args"] == {"profiling": "false"}
    one = kubeadm.merge_cluster_configuration(now, wanted, ["apiServer"])
    assert one["apiServer"] == CLUSTER["apiServer"]
    assert one["controllerManager"] == tuned["controllerManager"]


def test_a_backup_without_a_document_is_refused() -> None:
    with pytest.raises(ValueError, match="no kubelet_config"):
        tuning.backup_settings({"name": "b", "documents": {"kubeadm_config": "a: 1"}})


def test_kubelet_fields_by_name_and_back() -> None:
    document = {"kind": "KubeletConfiguration", "cgroupDriver": "systemd", "nodeStatusUpdateFrequency": "0s"}
    tuned = kubeadm.merge_kubelet_configuration(document, tuning.settings("article"))
    assert tuned["cgroupDriver"] == "systemd"
    assert tuned["nodeStatusUpdateFrequency"] == "5s"
    assert tuned["nodeStatusReportFrequency"] == "5s"
    back = kubeadm.merge_kubelet_configuration(tuned, tuning.settings("stock"))
    assert set(back) == {"kind", "cgroupDriver"}
    assert kubeadm.merge_kubelet_configuration(document, tuning.settings("stock")) == document


def test_a_structure_is_merged_key_by_key() -> None:
    x509 = {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}
    document = {"authentication": {"webhook": {"enabled": True}, "x509": x509}, "evictionHard": {"a": "1", "b": "2"}}
    before = copy.deepcopy(document)
    own = {"authentication": {"anonymous": {"enabled": False}}, "evictionHard": {"a": None, "c": "3"}}
    wanted = tuning.settings("stock", {}, {}, own)
    merged = kubeadm.merge_kubelet_configuration(document, wanted)
    assert merged == {
        "authentication": {"webhook": {"enabled": True}, "x509": x509, "anonymous": {"enabled": False}},
        "evictionHard": {"b": "2", "c": "3"},
    }
    assert document == before
    assert kubeadm.merge_kubelet_configuration(merged, wanted) == merged


STEPS = [{"priority": 0, "shutdownGracePeriodSeconds": 60}, {"priority": 2000000000, "shutdownGracePeriodSeconds": 20}]
BY_PRIORITY = {"shutdownGracePeriodByPodPriority": STEPS}
OURS = {"shutdownGracePeriod": "45s", "shutdownGracePeriodCriticalPods": "15s"}
ZERO = {"shutdownGracePeriod": "0s", "shutdownGracePeriodCriticalPods": "0s"}
LONG = {"shutdownGracePeriod": "2m0s"}
SILENT = ("", "")


@pytest.mark.parametrize(
    ("document", "own", "given", "wanted", "seconds"),
    [
        ({}, {}, SILENT, OURS, 45),
        (ZERO, {}, SILENT, OURS, 45),
        (OURS, {}, SILENT, OURS, 45),
        (LONG, {}, SILENT, LONG, 120),
        (BY_PRIORITY, {}, SILENT, BY_PRIORITY, 80),
        (LONG, {}, (0, ""), {}, 0),
        (
            LONG,
            {},
            ("60", ""),
            {"shutdownGracePeriod": "1m0s", "shutdownGracePeriodCriticalPods": "15s"},
            60,
        ),
        (OURS, BY_PRIORITY, SILENT, BY_PRIORITY, 80),
        (BY_PRIORITY, {"shutdownGracePeriodByPodPriority": None}, SILENT, OURS, 45),
        ({}, LONG, SILENT, LONG, 120),
        (OURS, BY_PRIORITY, (0, ""), BY_PRIORITY, 80),
    ],
    ids=[
        "nothing there",
        "kubeadm's zeros",
        "ours",
        "the operator's",
        "by priority",
        "off",
        "set",
        "by priority in the inventory",
        "no longer by priority",
        "own field",
        "off and by priority",
    ],
)
def test_a_graceful_shutdown_that_is_there_stays_unless_another_is_asked_for(
    document: dict[str, Any], own: dict[str, Any], given: tuple[Any, Any], wanted: dict[str, Any], seconds: int
) -> None:
    settings = tuning.settings("stock", {}, {}, own, given)
    assert kubeadm.check_kubelet_configuration(document, settings) == []
    merged = kubeadm.merge_kubelet_configuration(document, settings)
    assert merged == wanted
    assert kubeadm.merge_kubelet_configuration(merged, settings) == merged
    assert kubeadm.shutdown_seconds(merged) == seconds


def test_a_mixture_that_kubelet_refuses_is_told_before() -> None:
    [told] = kubeadm.check_kubelet_configuration(BY_PRIORITY, tuning.settings("stock", {}, {}, {}, (60, 10)))
    for words in ("shutdownGracePeriodByPodPriority beside shutdownGracePeriod and", "rule: ", "way out: "):
        assert words in told
