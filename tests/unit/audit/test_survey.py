"""Whether each worker can be lost now, on constructed clusters: each reason by name; a healthy one passes."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.recovery import ARTICLE, BALANCED, pod_tolerations
from tandem.survey import Cluster, cluster_findings, survey, verdict

Object = dict[str, Any]
IMAGE = "tandem-ha.io/demo:0.1.0"
SHARE = {"tandem-ha.io/shared-storage": "mounted"}


def node(name: str, **labels: str) -> Object:
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "allocatable": {"cpu": "1", "memory": "1900Mi", "pods": "110"},
        "images": [{"names": [IMAGE]}],
    }
    return {"kind": "Node", "metadata": {"name": name, "labels": {**SHARE, **labels}}, "spec": {}, "status": status}


def deployment(name: str, replicas: int, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [], **spec}}
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "labels": {"tandem-ha.io/workload": "spread"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def pod(name: str, app: str, on: str, namespace: str = "shop", **spec: Any) -> Object:
    container = {"name": "app", "image": IMAGE, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app},
                     "ownerReferences": [{"kind": "ReplicaSet"}]},
        "spec": {"nodeName": on, "containers": [container], "tolerations": pod_tolerations(BALANCED), **spec},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def claim(name: str, volume: str, mode: str = "ReadWriteMany") -> Object:
    spec = {"volumeName": volume, "accessModes": [mode]}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def slice_(service: str, *nodes: str, namespace: str = "shop") -> Object:
    labels = {"kubernetes.io/service-name": service}
    endpoints = [{"nodeName": each, "conditions": {"ready": True}} for each in nodes]
    meta = {"name": f"{service}-1", "namespace": namespace, "labels": labels}
    return {"kind": "EndpointSlice", "metadata": meta, "endpoints": endpoints}


def hook(policy: str | None = "Fail") -> Object:
    one = {"name": "check.shop.example", "clientConfig": {"service": {"namespace": "shop", "name": "hook"}}}
    body = [one if policy is None else {**one, "failurePolicy": policy}]
    return {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "hook"}, "webhooks": body}


HEALTHY: list[Object] = [
    node("cp1", **{"node-role.kubernetes.io/control-plane": ""}),
    node("w1"),
    node("w2"),
    deployment("web", 2, topologySpreadConstraints=[
        {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}]),
    pod("web-1", "web", "w1"),
    pod("web-2", "web", "w2"),
    deployment("db", 1, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}]),
    pod("db-1", "db", "w1", volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}]),
    claim("db", "pv-1"),
    {"kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": {"hostPath": {"path": "/srv/x"}}},
]  # fmt: skip


def changed(**replaced: Object | None) -> list[Object]:
    """The healthy cluster with objects replaced by name (dashes as underscores), or removed."""
    by_name = {each["metadata"]["name"] + each["kind"][:1].lower(): each for each in HEALTHY}
    for key, value in replaced.items():
        name = key.replace("_", "-")
        if value is None:
            del by_name[name]
        else:
            by_name[name] = value
    return list(by_name.values())


def rules(objects: list[Object], worker: str = "w1") -> list[str]:
    return [f"{each.level} {each.rule}" for each in survey(Cluster(objects))[worker]]


def test_a_healthy_cluster_can_lose_each_worker() -> None:
    assert survey(Cluster(HEALTHY)) == {"w1": (), "w2": ()}
    assert verdict(()) == "yes"


def test_replicas_that_share_a_worker() -> None:
    objects = changed(web_2p=pod("web-2", "web", "w1"))
    assert rules(objects) == ["error one-basket"]
    assert rules(objects, "w2") == []
    unready = pod("web-2", "web", "w2")
    unready["status"]["conditions"][0]["status"] = "False"
    three = [*changed(web_2p=unready), pod("web-3", "web", "w1")]
    assert rules(three) == ["error one-basket"], "a replica that is not ready serves nobody"


def test_no_survivor_and_a_lost_worker() -> None:
    lost = node("w2")
    lost["status"]["conditions"][0]["status"] = "Unknown"
    found = survey(Cluster(changed(w2n=lost)))
    assert [each.rule for each in found["w1"]] == ["no-survivor"]
    assert [each.rule for each in found["w2"]] == ["node-not-ready"]
    assert verdict(found["w1"]) == "no"


def test_room_on_the_survivor() -> None:
    full = pod("other", "other", "w2")
    full["spec"]["containers"][0]["resources"]["requests"]["memory"] = "1800Mi"
    assert rules([*HEALTHY, deployment("other", 1), full]) == ["error no-capacity"]
    assert rules([*HEALTHY, deployment("other", 1), full], "w2") == ["error no-capacity"]


def test_spread_replicas_that_wait_need_no_room() -> None:
    big = pod("web-1", "web", "w1")
    big["spec"]["containers"][0]["resources"]["requests"]["memory"] = "1850Mi"
    assert rules(changed(web_1p=big)) == []


def test_an_image_that_the_survivor_must_pull() -> None:
    bare = node("w2")
    bare["status"]["images"] = []
    assert rules(changed(w2n=bare)) == ["warning image-missing"]
    bare["status"]["images"] = [{"names": [f"x:{n}"]} for n in range(50)]
    assert rules(changed(w2n=bare)) == [], "kubelet reports 50 images at most: a full list proves nothing"


def test_volumes() -> None:
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["w1"]}]}]
    local = {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}, "local": {"path": "/mnt"}}
    bound = {"kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": local}
    assert rules(changed(pv_1p=bound)) == ["error volume-on-node"]


def test_a_share_that_is_not_mounted_on_the_survivor() -> None:
    terms = [{"matchExpressions": [{"key": "tandem-ha.io/shared-storage", "operator": "In", "values": ["mounted"]}]}]
    needing = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    db = pod("db-1", "db", "w1", affinity=needing)
    off = node("w2", **{"tandem-ha.io/shared-storage": "away"})
    assert rules(changed(db_1p=db)) == []
    assert rules(changed(db_1p=db, w2n=off)) == ["error share-unmounted"]


def test_a_pod_that_nobody_would_make_again() -> None:
    bare = pod("debug", "debug", "w1")
    del bare["metadata"]["ownerReferences"]
    mirror = pod("static", "static", "w1")
    del mirror["metadata"]["ownerReferences"]
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert rules([*HEALTHY, bare, mirror]) == ["warning bare-pod"]


def test_a_budget_that_lets_none_go() -> None:
    budget: Object = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"disruptionsAllowed": 0, "expectedPods": 2, "currentHealthy": 1, "desiredHealthy": 1},
    }
    assert rules([*HEALTHY, budget]) == ["warning drain-blocked"]
    budget["status"]["disruptionsAllowed"] = 1
    assert rules([*HEALTHY, budget]) == []


def test_name_service_on_one_worker() -> None:
    dns = pod("coredns-1", "x", "w1", namespace="kube-system")
    dns["metadata"]["labels"] = {"k8s-app": "kube-dns"}
    assert rules([*HEALTHY, dns]) == ["error dns-lost"]
    other = pod("coredns-2", "x", "cp1", namespace="kube-system")
    other["metadata"]["labels"] = {"k8s-app": "kube-dns"}
    assert rules([*HEALTHY, dns, other]) == []


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([hook(), slice_("hook", "w1")], ["error webhook-lost"]),
        ([hook(None), slice_("hook", "w1", "w1")], ["error webhook-lost"]),
        ([hook("Ignore"), slice_("hook", "w1")], []),
        ([hook(), slice_("hook", "w1", "w2")], []),
        ([hook(), slice_("hook", "w2")], []),
        (
            [
                {
                    "kind": "APIService",
                    "metadata": {"name": "v1.x"},
                    "spec": {"service": {"namespace": "shop", "name": "x"}},
                },
                slice_("x", "w1"),
            ],
            ["warning api-lost"],
        ),
    ],
)
def test_webhooks_and_apis_with_one_endpoint(objects: list[Object], expected: list[str]) -> None:
    assert rules([*HEALTHY, *objects]) == expected


def api_server(*flags: str) -> Object:
    made = pod("kube-apiserver-cp1", "x", "cp1", namespace="kube-system")
    made["metadata"]["labels"] = {"component": "kube-apiserver"}
    made["spec"]["containers"][0]["command"] = ["kube-apiserver", *flags]
    return made


TUNED = ("--default-not-ready-toleration-seconds=30", "--default-unreachable-toleration-seconds=5")


def test_the_cluster_against_its_profile() -> None:
    tuned = Cluster([*HEALTHY, api_server(*TUNED)])
    assert cluster_findings(tuned, BALANCED, None) == []
    assert [each.rule for each in cluster_findings(tuned, None, None)] == ["no-profile"]
    assert [each.rule for each in cluster_findings(tuned, None, BALANCED)] == ["no-profile"]
    differs = cluster_findings(tuned, BALANCED, ARTICLE)
    assert [each.rule for each in differs] == ["profile-differs", "api-server-tolerations", *["tolerations"] * 3,
                                               "stale-tolerations"]  # fmt: skip
    stock = Cluster([*HEALTHY, api_server("--secure-port=6443")])
    assert [each.rule for each in cluster_findings(stock, BALANCED, None)] == ["api-server-tolerations"] * 2
