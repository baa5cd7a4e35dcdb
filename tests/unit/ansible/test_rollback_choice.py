"""Which state a rollback returns to, what a backup knows of the cluster, and what the plan says of a change."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from plugins.module_utils import tandem_kubeadm as kubeadm
from plugins.module_utils import tandem_plan_report as plan_report
from plugins.module_utils import tandem_tuning as tuning
from tandem import recovery

EMPTY = {"apiVersion": kubeadm.KUBEADM_API, "kind": "ClusterConfiguration", "kubernetesVersion": "v1.36.3"}


def cluster(
    name: str, kubelet_name: str | None = None, recorded: str | None = None, restored: str = ""
) -> dict[str, Any]:
    """A cluster whose control plane has one profile and whose kubelets another.

    `recorded` is the profile on record, `restored` the backup that was restored last.
    """
    labels = {"node.kubernetes.io/exclude-disruption": ""}
    record = {}
    if recorded:
        record = {"profile": recorded, "recovery.json": json.dumps(recovery.to_dict(recovery.profile(recorded)))}
        record["backup"] = restored
    kubelet = kubeadm.merge_kubelet_configuration({}, tuning.settings(kubelet_name or name))
    return {
        "version": "v1.36.3",
        "kubeadm_config": yaml.safe_dump(kubeadm.merge_cluster_configuration(EMPTY, tuning.settings(name))),
        "kubelet_config": yaml.safe_dump(kubelet),
        "record": record,
        "nodes": {
            "cp1": {"control_plane": True, "labels": labels, "kubelet_version": "v1.36.3"},
            "w1": {"control_plane": False, "labels": {}, "kubelet_version": "v1.36.3"},
        },
        "configz": {"cp1": {}, "w1": {}},
    }


def backup(name: str, state: dict[str, Any], *, whole: bool = True, going_to: str = "") -> dict[str, Any]:
    files = {
        f"documents/{key}.yaml": hashlib.sha256(state[key].encode()).hexdigest()
        for key in ("kubeadm_config", "kubelet_config")
    }
    return {
        "name": name,
        "whole": whole,
        "going_to": going_to,
        "files": files,
        "versions": {"kubernetes": "v1.36.3"},
    }


STOCK, ARTICLE, BALANCED = (cluster(name) for name in ("stock", "article", "balanced"))
HALF = cluster("stock", "balanced")
HALF_BACK = cluster("stock", "balanced", recorded="balanced")
DONE_BACK = cluster("stock", recorded="stock", restored="1")


def with_own_flag(state: dict[str, Any]) -> dict[str, Any]:
    document = yaml.safe_load(state["kubeadm_config"])
    document["controllerManager"]["extraArgs"].append({"name": "kube-api-qps", "value": "50"})
    return {**state, "kubeadm_config": yaml.safe_dump(document)}


OWN = {**with_own_flag(cluster("balanced", recorded="balanced")), "kubelet_config": "maxPods: 50\n"}
HALF_OWN = with_own_flag(cluster("balanced", recorded="balanced"))


@pytest.mark.parametrize(
    ("backups", "now", "wanted", "chosen"),
    [
        ([backup("1", STOCK)], BALANCED, "", "1"),
        ([backup("2", ARTICLE), backup("1", STOCK)], BALANCED, "", "2"),
        ([backup("2", BALANCED), backup("1", STOCK)], BALANCED, "", "1"),
        ([backup("2", HALF, whole=False), backup("1", STOCK)], BALANCED, "", "1"),
        ([backup("2", HALF, whole=False), backup("1", STOCK)], BALANCED, "2", "2"),
        ([backup("1", STOCK)], HALF, "", "1"),
        ([backup("2", BALANCED, going_to="1"), backup("1", STOCK)], HALF_BACK, "", "1"),
        (
            [backup("3", HALF, whole=False, going_to="1"), backup("2", BALANCED), backup("1", STOCK)],
            HALF_BACK,
            "",
            "1",
        ),
        (
            [backup("2", BALANCED, going_to="1"), backup("1", STOCK)],
            cluster("stock", recorded="balanced"),
            "",
            "1",
        ),
        ([backup("2", OWN, going_to="1"), backup("1", BALANCED)], HALF_OWN, "", "1"),
        (
            [backup("3", HALF, whole=False, going_to="1"), backup("2", BALANCED), backup("1", STOCK)],
            HALF,
            "",
            "1",
        ),
        (
            [backup("3", BALANCED, going_to="1"), backup("2", ARTICLE), backup("1", STOCK)],
            BALANCED,
            "",
            "2",
        ),
        ([backup("2", BALANCED, going_to="1"), backup("1", STOCK)], DONE_BACK, "", "2"),
        ([backup("2", BALANCED), backup("1", STOCK)], HALF_BACK, "", "2"),
        ([backup("2", BALANCED, going_to="0"), backup("1", STOCK)], HALF_BACK, "", "2"),
        ([backup("2", BALANCED, going_to="1"), backup("1", STOCK)], HALF_BACK, "2", "2"),
    ],
    ids=[
        "the last",
        "the newest",
        "not the present",
        "not a half-done",
        "by name",
        "out of a half-done one",
        "a killed rollback goes on",
        "one killed twice",
        "one killed before its record",
        "one of the operator's own flags",
        "one killed again before any change",
        "one killed before any change, by name",
        "a finished rollback is rolled back",
        "out of a half-done tuning",
        "one whose backup is gone",
        "a killed rollback given up by name",
    ],
)
def test_where_to_go_back_to(backups: list[Any], now: dict[str, Any], wanted: str, chosen: str) -> None:
    assert tuning.rollback_choice(backups, now, wanted) == chosen


@pytest.mark.parametrize(
    ("backups", "wanted", "words"),
    [
        ([], "", "way out: name one of none"),
        ([backup("1", STOCK)], "", "name one of 1 with -e tandem_backup=NAME"),
        ([backup("1", STOCK)], "7", "no backup '7'; there are: 1"),
        ([backup("1", HALF, whole=False)], "", "no backup of a finished state"),
    ],
    ids=["none", "the present one", "unknown", "half-done ones only"],
)
def test_nothing_to_go_back_to(backups: list[Any], wanted: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tuning.rollback_choice(backups, STOCK, wanted)


def test_another_release_is_refused() -> None:
    old = {**backup("1", STOCK), "versions": {"kubernetes": "v1.35.9"}}
    assert "v1.35.9" in tuning.refuse_version(old, STOCK)[0]
    assert tuning.refuse_version(backup("1", STOCK), {**STOCK, "version": "v1.36.9"}) == []


@pytest.mark.parametrize(
    ("state", "whole"),
    [
        (cluster("stock"), None),
        (cluster("balanced", recorded="balanced"), True),
        (cluster("stock", recorded="stock"), True),
        (cluster("balanced", recorded="article"), False),
        (cluster("balanced", "article", recorded="balanced"), False),
        ({**cluster("stock"), "record": {"profile": "x", "recovery.json": "{}"}}, False),
    ],
    ids=["never recorded", "as recorded", "stock", "another", "half", "unreadable"],
)
def test_whether_a_state_is_a_finished_one(state: dict[str, Any], whole: bool | None) -> None:
    assert tuning.is_whole(state) is whole


def test_an_operators_flag_that_no_profile_writes_does_not_make_a_state_half_done() -> None:
    assert tuning.is_whole(with_own_flag(cluster("balanced", recorded="balanced")))


def test_what_a_backup_knows(node: Callable[..., dict[str, Any]]) -> None:
    environ = {"HTTP2_PING_TIMEOUT_SECONDS": "2", "HTTP2_OTHER": "1"}
    nodes = {"cp1": node(), "w1": node(processes={"kubelet": {"pid": 1, "args": {}, "environ": environ}})}
    about = tuning.backup_about(cluster("balanced", recorded="balanced"), nodes, "lab")
    assert about["cluster"] == "lab"
    assert about["versions"] == {"kubernetes": "v1.36.3", "kubelets": {"cp1": "v1.36.3", "w1": "v1.36.3"}}
    assert about["kubelet_env"] == {"HTTP2_PING_TIMEOUT_SECONDS": "2"}
    assert about["exclude_control_plane"] is True
    assert about["whole"] is True
    assert about["going_to"] == ""
    assert tuning.backup_about(cluster("balanced"), nodes, "lab", "1")["going_to"] == "1"
    json.dumps(about)


@pytest.mark.parametrize("there", list(recovery.PROFILES))
def test_a_backup_of_a_profile_restores_that_profile(there: str, node: Callable[..., dict[str, Any]]) -> None:
    before, after = cluster("stock"), cluster(there)
    kept = {
        **tuning.backup_about(before, {"cp1": node()}, "lab"),
        "name": "1",
        "documents": {key: before[key] for key in ("kubeadm_config", "kubelet_config")},
    }
    wanted = tuning.backup_settings(kept)
    assert wanted["backup"] == "1"
    old, new = tuning.both_ends(after, wanted)
    assert (old.node_lease_duration_seconds, new.name) == (
        recovery.profile(there).node_lease_duration_seconds,
        "stock",
    )
    assert tuning.plan(old, new)
    restored = kubeadm.merge_cluster_configuration(yaml.safe_load(after["kubeadm_config"]), wanted)
    assert kubeadm.flags(restored.get("controllerManager") or {}, "") == {}


COREDNS = {"spec": {"template": {"spec": {"tolerations": tuning.settings("stock")["pod_tolerations"]}}}}


def test_the_plan_tells_order_times_and_settings(node: Callable[..., dict[str, Any]]) -> None:
    state = copy.deepcopy(STOCK)
    nodes = {"cp1": node(), "w1": node()}
    told = "\n".join(plan_report.report(state, tuning.settings("fast"), nodes, ["cp1"], COREDNS))
    for words in (
        "serving",
        "340.1 .. 381.0",
        "16.5 .. 40.0",
        "any short one",
        "up to 5.5 s",
        "--node-monitor-grace-period: 50 s -> 15 s",
        "HTTP2_PING_TIMEOUT_SECONDS: default -> 2 s",
        "kubelet on cp1, w1, one after the other",
        "kube-controller-manager on cp1",
        "warning: api-stall",
    ):
        assert words in told
    assert told.index("kubelet on") < told.index("kube-controller-manager on") < told.index("kube-apiserver on")
    back = "\n".join(plan_report.report(cluster("fast"), tuning.settings("stock"), nodes, ["cp1"], COREDNS))
    assert back.index("kube-apiserver on") < back.index("kube-controller-manager on") < back.index("kubelet on")


def quiet(name: str) -> dict[str, Any]:
    """A cluster that has a profile but for what is not in kubeadm's documents."""
    state = cluster(name)
    fields = ("nodeStatusUpdateFrequency", "nodeStatusReportFrequency", "nodeLeaseDurationSeconds")
    state["configz"] = {"cp1": dict(zip(fields, ("10s", "5m0s", 40), strict=True))}
    state["nodes"]["cp1"]["labels"] = {}
    return state


def test_a_plan_for_what_is_there_is_empty(node: Callable[..., dict[str, Any]]) -> None:
    state = {**quiet("stock"), "coredns": COREDNS}
    told = plan_report.report(state, tuning.settings("stock"), {"cp1": node()}, ["cp1"], COREDNS)
    assert "  nothing" in told
    assert "No setting changes." in told


def test_the_plan_tells_of_coredns_alone(node: Callable[..., dict[str, Any]]) -> None:
    state = {**quiet("stock"), "coredns": {"spec": {"template": {"spec": {"tolerations": []}}}}}
    told = plan_report.report(state, tuning.settings("stock"), {"cp1": node()}, ["cp1"], COREDNS)
    assert "  CoreDNS, by a roll of its Deployment: tolerations" in told
    assert "  nothing" not in told
    assert "No setting changes." in told


def test_the_plan_tells_of_the_label_alone(node: Callable[..., dict[str, Any]]) -> None:
    state = {**quiet("stock"), "coredns": COREDNS}
    wanted = {**tuning.settings("stock"), "exclude_control_plane": True}
    told = plan_report.report(state, wanted, {"cp1": node()}, ["cp1"], COREDNS)
    assert "  node.kubernetes.io/exclude-disruption on cp1: absent -> present" in told
    assert "No setting changes." not in told
    assert "  nothing" in told


@pytest.mark.parametrize(("old", "new", "after"), [("stock", "fast", True), ("fast", "stock", False)])
def test_coredns_comes_with_the_control_plane(
    old: str, new: str, after: bool, node: Callable[..., dict[str, Any]]
) -> None:
    nodes = {"cp1": node(), "w1": node()}
    told = "\n".join(plan_report.report(cluster(old), tuning.settings(new), nodes, ["cp1"], COREDNS))
    assert told.index("kube-apiserver on") < told.index("CoreDNS, by")
    assert (told.index("kubelet on") < told.index("CoreDNS, by")) is after
