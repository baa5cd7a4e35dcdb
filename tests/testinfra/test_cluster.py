"""The cluster as a whole: nodes, CoreDNS, the record of the profile."""

from __future__ import annotations

import json

from plugins.module_utils.tandem_kube import Kube
from tandem import recovery


def test_all_nodes_are_ready(kube: Kube, nodes: list[str]) -> None:
    items = kube.get("/api/v1/nodes")["items"]
    assert {item["metadata"]["name"] for item in items} == set(nodes)
    for item in items:
        conditions = {entry["type"]: entry["status"] for entry in item["status"]["conditions"]}
        assert conditions["Ready"] == "True", item["metadata"]["name"]


def test_coredns_is_spread_and_leaves_a_lost_node_in_time(kube: Kube, profile: str) -> None:
    pods = kube.get("/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns")["items"]
    running = [pod for pod in pods if pod["status"]["phase"] == "Running"]
    assert len({pod["spec"]["nodeName"] for pod in running}) >= 2
    wanted = {
        (entry["key"], entry["tolerationSeconds"]) for entry in recovery.pod_tolerations(recovery.profile(profile))
    }
    for pod in running:
        timed = {
            (entry["key"], entry["tolerationSeconds"])
            for entry in pod["spec"]["tolerations"]
            if "tolerationSeconds" in entry
        }
        assert timed == wanted


def test_the_profile_is_recorded(kube: Kube, profile: str) -> None:
    data = kube.get("/api/v1/namespaces/tandem-system/configmaps/recovery-profile")["data"]
    assert recovery.from_dict(json.loads(data["recovery.json"])) == recovery.profile(profile)


def test_new_pods_get_the_profiles_tolerations(kube: Kube, profile: str) -> None:
    pod = {"metadata": {"generateName": "test-"}, "spec": {"containers": [{"name": "a", "image": "none.invalid/a"}]}}
    made = kube.request("POST", "/api/v1/namespaces/default/pods?dryRun=All", body=pod)
    wanted = recovery.profile(profile)
    assert {entry["key"]: entry["tolerationSeconds"] for entry in made["spec"]["tolerations"]} == {
        "node.kubernetes.io/not-ready": wanted.not_ready_toleration_seconds,
        "node.kubernetes.io/unreachable": wanted.unreachable_toleration_seconds,
    }


def test_control_plane_counts_as_the_profile_says(kube: Kube, control_plane: list[str], profile: str) -> None:
    for name in control_plane:
        labels = kube.get(f"/api/v1/nodes/{name}")["metadata"]["labels"]
        excluded = "node.kubernetes.io/exclude-disruption" in labels
        assert excluded == recovery.profile(profile).exclude_control_plane_from_disruption
