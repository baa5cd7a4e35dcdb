"""Preconditions on constructed clusters: each reason to refuse, by name, and a healthy one that passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem import survivability
from tandem.drill.apps import App, behaviour, discover
from tandem.recovery import ARTICLE, pod_tolerations
from tandem.survivability import Snapshot

Object = dict[str, Any]
IMAGE = "tandem-ha.io/demo:0.1.0"
APPS = (
    App("db", "demo", "Deployment", "replace", 1, {"app": "db"}),
    App("agent", "demo", "DaemonSet", "node-agent", 2, {"app": "agent"}),
)


def node(name: str, ready: str = "True", **labels: str) -> Object:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "1", "memory": "1900Mi", "pods": "110", "ephemeral-storage": "8Gi"},
            "images": [{"names": [IMAGE, "registry.k8s.io/pause@sha256:0"]}],
        },
    }


def pod(name: str, on: str, labels: dict[str, str], *, memory: str = "64Mi", namespace: str = "demo") -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "nodeName": on,
            "containers": [{"image": IMAGE, "resources": {"requests": {"cpu": "50m", "memory": memory}}}],
            "tolerations": pod_tolerations(ARTICLE),
        },
        "status": {"phase": "Running"},
    }


@pytest.fixture
def cluster() -> Snapshot:
    agent = pod("agent-1", "w1", {"app": "agent"})
    agent["spec"]["tolerations"] = [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    ]
    nodes = [node("cp1", **{"node-role.kubernetes.io/control-plane": ""}), node("w1"), node("w2")]
    return Snapshot(nodes, [pod("db-1", "w1", {"app": "db"}), agent], APPS)


def rules(snapshot: Snapshot, name: str = "w1", level: str = "error") -> list[str]:
    return [p.rule for p in survivability.judge(snapshot, name, ARTICLE) if p.level == level]


def test_a_healthy_cluster_passes_without_a_word(cluster: Snapshot) -> None:
    assert survivability.judge(cluster, "w1", ARTICLE) == ()


def test_an_unknown_node_is_refused_with_the_names_of_the_workers(cluster: Snapshot) -> None:
    (problem,) = survivability.judge(cluster, "w9", ARTICLE)
    assert problem.rule == "unknown-node"
    assert "w1, w2" in problem.fix


def test_a_control_plane_node_is_no_worker(cluster: Snapshot) -> None:
    assert rules(cluster, "cp1") == ["not-a-worker"]


def test_the_other_worker_must_be_ready_and_schedulable(cluster: Snapshot) -> None:
    cluster.nodes[2]["status"]["conditions"][0]["status"] = "Unknown"
    assert rules(cluster) == ["no-survivor"]
    cluster.nodes[2]["status"]["conditions"][0]["status"] = "True"
    cluster.nodes[2]["spec"]["unschedulable"] = True
    assert rules(cluster) == ["no-survivor"]


def test_a_node_that_is_lost_already_is_not_lost_again(cluster: Snapshot) -> None:
    cluster.nodes[1]["status"]["conditions"][0]["status"] = "False"
    assert rules(cluster) == ["node-not-ready"]


def test_images_must_be_on_the_survivor(cluster: Snapshot) -> None:
    cluster.nodes[2]["status"]["images"] = []
    (problem,) = survivability.judge(cluster, "w1", ARTICLE)
    assert problem.rule == "image-missing"
    assert IMAGE in problem.message
    assert "w2" in problem.message


def test_the_survivor_must_have_room(cluster: Snapshot) -> None:
    big = Snapshot(
        cluster.nodes, [pod("db-1", "w1", {"app": "db"}, memory="1Gi"), pod("x", "w2", {}, memory="1Gi")], APPS
    )
    (problem,) = survivability.judge(big, "w1", ARTICLE)
    assert problem.rule == "no-capacity"
    assert "memory 1024 Mi" in problem.message
    assert "876 Mi" in problem.message


def test_finished_pods_take_no_room(cluster: Snapshot) -> None:
    done = pod("job", "w2", {}, memory="1800Mi")
    done["status"]["phase"] = "Succeeded"
    assert rules(Snapshot(cluster.nodes, [*cluster.pods, done], APPS)) == []


def test_pods_must_carry_the_profiles_tolerations(cluster: Snapshot) -> None:
    stale = copy.deepcopy(cluster)
    stale.pods[0]["spec"]["tolerations"][1]["tolerationSeconds"] = 300
    (problem,) = survivability.judge(stale, "w1", ARTICLE)
    assert problem.rule == "tolerations"
    assert "db-1" in problem.message
    assert "300 s" in problem.message
    stale.pods[0]["spec"]["tolerations"] = []
    assert rules(stale) == ["tolerations"], "a pod without them would never be evicted"


def test_other_peoples_stale_tolerations_are_a_warning(cluster: Snapshot) -> None:
    dns = pod("coredns-1", "w1", {}, namespace="kube-system")
    dns["spec"]["tolerations"][0]["tolerationSeconds"] = 300
    everyone = Snapshot(cluster.nodes, [*cluster.pods, dns], APPS)
    assert rules(everyone) == []
    assert rules(everyone, level="warning") == ["stale-tolerations"]


def test_no_recorded_profile_is_a_warning(cluster: Snapshot) -> None:
    assert [p.rule for p in survivability.judge(cluster, "w1", None)] == ["no-profile"]


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("64Mi", 64 * 2**20), ("1", 1), ("2Gi", 2**31), ("1500k", 1.5e6), (3, 3)]
)
def test_quantities(text: str | int, number: float) -> None:
    assert survivability.quantity(text) == number


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("rancher/x:1", "docker.io/rancher/x:1"),
        ("10.0.0.1:5000/demo", "10.0.0.1:5000/demo:latest"),
        (IMAGE, IMAGE),
        ("registry.k8s.io/pause@sha256:0", "registry.k8s.io/pause@sha256:0"),
    ],
)
def test_image_names_are_compared_as_containerd_spells_them(name: str, full: str) -> None:
    assert survivability.image_name(name) == full


def workload(kind: str = "Deployment", replicas: int = 1, **template: Any) -> Object:
    return {
        "kind": kind,
        "metadata": {"name": "db", "namespace": "demo", "labels": {"tandem-ha.io/workload": "single-writer"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [], **template}},
        },
    }


def spread(policy: str | None, action: str = "DoNotSchedule") -> list[Object]:
    constraint = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": action}
    return [constraint if policy is None else {**constraint, "nodeTaintsPolicy": policy}]


@pytest.mark.parametrize(
    ("made", "modes", "expected"),
    [
        (workload(), [], "replace"),
        (workload(), ["ReadWriteMany"], "replace"),
        (workload(), ["ReadWriteOncePod"], "hold"),
        (workload("StatefulSet"), ["ReadWriteOncePod"], "stateful"),
        (workload("DaemonSet"), [], "node-agent"),
        (workload(replicas=2, topologySpreadConstraints=spread(None)), [], "spread-wait"),
        (workload(replicas=2, topologySpreadConstraints=spread("Honor")), [], "spread-crowd"),
        (workload(replicas=2, topologySpreadConstraints=spread(None, "ScheduleAnyway")), [], "spread-crowd"),
    ],
)
def test_behaviour_is_read_from_the_manifest(made: Object, modes: list[str], expected: str) -> None:
    assert behaviour(made, [{"spec": {"accessModes": modes}}] if modes else []) == expected


def test_apps_are_discovered_with_their_service_and_volume() -> None:
    labelled = workload(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}])
    labelled["spec"]["template"]["spec"]["containers"] = [{"env": [{"name": "DATA_DIR", "value": "/data"}]}]
    stranger = workload()
    stranger["metadata"]["labels"] = {}
    service = {
        "metadata": {"name": "db"},
        "spec": {"selector": {"app": "db"}, "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30081}]},
    }
    claim = {"metadata": {"name": "db"}, "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]}}
    volume = {"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": "/srv/tandem/pv"}}}
    (found,) = discover([labelled, stranger], [service], [claim], [volume])
    assert found == App(
        "db", "demo", "Deployment", "hold", 1, {"app": "db"}, "db", "10.96.0.9", 80, 30081, True, "/srv/tandem/pv"
    )
    assert found.owns({"app": "db", "pod-template-hash": "1"})
    assert not found.owns({"app": "web"})
