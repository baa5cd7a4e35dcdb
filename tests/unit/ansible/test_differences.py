"""Live values against wanted ones: each difference names host, key, wanted and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from plugins.module_utils import tandem_differences as checks
from plugins.module_utils import tandem_kubeadm as kubeadm
from plugins.module_utils import tandem_tuning as tuning

Node = Callable[..., dict[str, Any]]

SETTINGS = tuning.settings("balanced")
PATCH = {"spec": {"template": {"spec": {"tolerations": SETTINGS["pod_tolerations"]}}}}


def control_plane(node: Node, **flags: str) -> dict[str, Any]:
    processes = {
        "kubelet": {"pid": 1, "args": {}, "environ": SETTINGS["kubelet_env"]},
        "kube-apiserver": {
            "pid": 2,
            "args": {"enable-admission-plugins": "NodeRestriction", **SETTINGS["api_server_args"], **flags},
            "environ": {},
        },
        "kube-controller-manager": {
            "pid": 3,
            "args": dict(SETTINGS["controller_manager_args"]),
            "environ": SETTINGS["controller_manager_env"],
        },
    }
    return node(processes=processes)


def coredns(tolerations: list[dict[str, Any]], **status: int) -> dict[str, Any]:
    counts = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, **status}
    spec = {"replicas": 2, "template": {"spec": {"tolerations": tolerations}}}
    return {"metadata": {"generation": 3}, "spec": spec, "status": counts}


def cluster(**changes: Any) -> dict[str, Any]:
    document = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}
    ready = {"ready": "True", "labels": {}, "control_plane": False}
    return {
        "reachable": True,
        "nodes": {
            "cp": {**ready, "control_plane": True, "labels": {"node.kubernetes.io/exclude-disruption": ""}},
            "a": {**ready, "labels": {"share": "mounted"}},
        },
        "kubeadm_config": yaml.safe_dump(kubeadm.merge_cluster_configuration(document, SETTINGS)),
        "kubelet_config": yaml.safe_dump(kubeadm.merge_kubelet_configuration({}, SETTINGS)),
        "record": {"profile": "balanced"},
        "configz": {name: dict(SETTINGS["kubelet_configuration"]) for name in ("cp", "a")},
        "coredns": coredns(SETTINGS["pod_tolerations"]),
        "pods": [
            {"labels": {"k8s-app": "kube-dns"}, "deleting": False, "ready": True, "node": name} for name in ("cp", "a")
        ],
        "storage_class": {"provisioner": "x", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate"},
        "provisioner": {"status": {"availableReplicas": 1}},
        "node_restriction": {"asked": True, "refused": True, "status": 403, "as": "a"},
        **changes,
    }


CLUSTER_WANTED: dict[str, Any] = {
    "settings": SETTINGS,
    "nodes": ["cp", "a"],
    "workers": ["a"],
    "share_label": {"key": "share", "value": "mounted"},
    "coredns": PATCH,
    "storage_class": {"name": "c", "provisioner": "x", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate"},
}


def test_what_is_as_wanted_has_no_difference(node: Node) -> None:
    wanted = {"settings": SETTINGS, "control_plane": True, "held": ["kubelet"], "units": ["kubelet.service"]}
    assert checks.node_differences("cp", control_plane(node), wanted) == []
    assert checks.cluster_differences(cluster(), CLUSTER_WANTED) == []


def test_a_flag_that_differs_is_named_with_both_values(node: Node) -> None:
    live = control_plane(node, **{"default-unreachable-toleration-seconds": "300"})
    found = checks.node_differences("cp", live, {"settings": SETTINGS, "control_plane": True})
    assert checks.sentences(found) == [
        "cp: kube-apiserver --default-unreachable-toleration-seconds: wanted '5', found '300'"
    ]


def test_a_flag_of_ours_that_nobody_wants_any_more_is_named(node: Node) -> None:
    stock = tuning.settings("stock")
    found = checks.component_differences("cp", control_plane(node), "apiServer", stock)
    assert {entry["wanted"] for entry in found} == {"not set"}
    assert len(found) == 2


def test_a_flag_that_goes_back_to_kubeadms_own_value_is_gone(node: Node) -> None:
    """Taken out of extraArgs, enable-admission-plugins is there again with what kubeadm puts there by itself."""
    gone = tuning.settings("balanced", {"enable-admission-plugins": None, "profiling": None})
    live = control_plane(node)
    assert checks.component_differences("cp", live, "apiServer", gone) == []
    for flags in ({"enable-admission-plugins": "NodeRestriction,PodNodeSelector"}, {"profiling": "false"}):
        found = checks.component_differences("cp", control_plane(node, **flags), "apiServer", gone)
        assert [entry["key"] for entry in found] == [f"kube-apiserver --{next(iter(flags))}"]


def test_in_kubeadms_document_such_a_flag_is_not_there_at_all() -> None:
    gone = tuning.settings("balanced", {"enable-admission-plugins": None})
    document = kubeadm.merge_cluster_configuration(yaml.safe_load(cluster()["kubeadm_config"]), gone)
    document["apiServer"]["extraArgs"].append({"name": "enable-admission-plugins", "value": "NodeRestriction"})
    found = checks.document_differences(cluster(kubeadm_config=yaml.safe_dump(document)), gone)
    assert [entry["key"] for entry in found] == ["kubeadm-config apiServer --enable-admission-plugins"]


def test_a_missing_admission_plugin_is_named(node: Node) -> None:
    live = control_plane(node, **{"enable-admission-plugins": "PodNodeSelector"})
    found = checks.node_differences("cp", live, {"settings": SETTINGS, "control_plane": True})
    assert [entry["key"] for entry in found] == ["kube-apiserver --enable-admission-plugins"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"packages": {}}, "package kubelet"),
        ({"packages": {"kubelet": {"version": "1", "held": False}}}, "package kubelet"),
        ({"units": {"kubelet.service": {"active": "failed"}}}, "unit kubelet.service"),
        ({"foreign_manifests": ["x.yaml"]}, "/etc/kubernetes/manifests"),
        ({"mount": {"point": "/s", "source": "", "options": [], "immutable": True}}, "mount /s"),
        ({"mount": {"point": "/s", "source": "n:/x", "options": ["soft"], "immutable": True}}, "mount /s option"),
        ({"mount": {"point": "/s", "source": "n:/x", "options": ["hard"], "immutable": False}}, "bare mount point /s"),
    ],
)
def test_machine_differences(node: Node, changes: dict[str, Any], key: str) -> None:
    mounted = {"point": "/s", "source": "n:/x", "options": ["hard"], "immutable": True}
    wanted = {
        "held": ["kubelet"],
        "units": ["kubelet.service"],
        "mount": {"point": "/s", "source": "n:/x", "options": ["hard"]},
    }
    found = checks.node_differences("a", node(**{"mount": mounted, **changes}), wanted)
    assert [entry["key"] for entry in found] == [key]
    assert found[0]["host"] == "a"


def test_export_differences(node: Node) -> None:
    live = {"running": True, "clients": 2, "lease": 90, "grace": 90, "exports": ["/srv/x\t10.0.0.11(rw)"]}
    found = checks.node_differences(
        "n", node(nfs_server=live), {"export": {"path": "/srv/y", "lease": 15, "grace": 15}}
    )
    assert [(entry["key"], entry["wanted"]) for entry in found] == [
        ("NFS server lease time", 15),
        ("NFS server grace time", 15),
        ("export /srv/y", "exported"),
    ]


OPTIONS = "rw,sync,wdelay,hide,nocrossmnt,secure,root_squash,no_all_squash,no_subtree_check,fsid=3e1d0c5e,sec=sys"


@pytest.mark.parametrize(
    ("client", "options", "key"),
    [
        ("10.0.0.11", OPTIONS, None),
        ("10.0.0.11", OPTIONS.replace(",sync,", ",async,"), "export /srv/y to 10.0.0.11"),
        ("*", OPTIONS, "export /srv/y to *"),
        ("10.0.0.0/24", OPTIONS, "export /srv/y to 10.0.0.0/24"),
    ],
)
def test_exports_of_the_share_to_others_or_async(node: Node, client: str, options: str, key: str | None) -> None:
    """A line of /var/lib/nfs/etab, as the kernel's server was told; other folders are not ours to judge."""
    live = {"running": True, "clients": 2, "lease": 15, "grace": 15}
    exports = [f"/srv/y\t{client}({options})", f"/srv/other\t*({OPTIONS.replace(',sync,', ',async,')})"]
    wanted = {"path": "/srv/y", "lease": 15, "grace": 15, "clients": ["10.0.0.11", "10.0.0.12"]}
    found = checks.node_differences("n", node(nfs_server={**live, "exports": exports}), {"export": wanted})
    assert [entry["key"] for entry in found] == ([key] if key else [])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"reachable": False, "error": "refused"}, "API"),
        ({"record": {}}, "ConfigMap tandem-system/recovery-profile"),
        ({"configz": {"cp": dict(SETTINGS["kubelet_configuration"])}}, "kubelet configz"),
        (
            {
                "configz": {
                    n: {**SETTINGS["kubelet_configuration"], "nodeLeaseDurationSeconds": 40 if n == "a" else 8}
                    for n in ("cp", "a")
                }
            },
            "kubelet configz nodeLeaseDurationSeconds",
        ),
        ({"coredns": coredns([])}, "coredns tolerations"),
        ({"coredns": coredns(SETTINGS["pod_tolerations"], updatedReplicas=1)}, "pods of CoreDNS"),
        (
            {"pods": [{"labels": {"k8s-app": "kube-dns"}, "deleting": False, "ready": True, "node": "cp"}] * 2},
            "nodes that run CoreDNS",
        ),
        ({"storage_class": None}, "StorageClass c"),
        ({"provisioner": None}, "volume provisioner"),
        (
            {"node_restriction": {"asked": True, "refused": False, "status": 200, "as": "a"}},
            "change of another node by a's kubelet",
        ),
    ],
)
def test_cluster_differences(changes: dict[str, Any], key: str) -> None:
    assert [entry["key"] for entry in checks.cluster_differences(cluster(**changes), CLUSTER_WANTED)] == [key]


def test_what_a_lost_worker_ran_is_not_awaited() -> None:
    lone = {"labels": {"k8s-app": "kube-dns"}, "deleting": False, "ready": True, "node": "cp"}
    changes: dict[str, Any] = {
        "coredns": coredns(SETTINGS["pod_tolerations"], readyReplicas=1),
        "pods": [lone, {**lone, "node": "b"}],
        "provisioner": None,
    }
    wanted = {**CLUSTER_WANTED, "lost": ["b"]}
    assert checks.cluster_differences(cluster(**changes), wanted) == []
    assert checks.cluster_differences(cluster(**changes), CLUSTER_WANTED) != []
    [told] = checks.cluster_differences(cluster(**(changes | {"pods": [{**lone, "node": "b"}]})), wanted)
    assert told["key"] == "nodes that run CoreDNS"


def test_pending_work_is_found_in_documents_and_in_processes(node: Node) -> None:
    live = cluster()
    nodes = {
        "cp": control_plane(node),
        "a": node(processes={"kubelet": {"pid": 1, "args": {}, "environ": SETTINGS["kubelet_env"]}}),
    }
    assert checks.pending_components(live, {"cp": nodes["cp"]}, SETTINGS) == []
    assert checks.pending_kubelets(live, nodes, SETTINGS) == []
    assert checks.pending_kubelets(live, {**nodes, "a": node()}, SETTINGS) == ["a"]
    assert checks.pending_kubelets(live, nodes, tuning.settings("article")) == ["cp", "a"]
    old = control_plane(node, **{"default-unreachable-toleration-seconds": "300"})
    assert checks.pending_components(live, {"cp": old}, SETTINGS) == ["apiServer"]
    assert checks.pending_components(live, {"cp": nodes["cp"]}, tuning.settings("stock")) == [
        "controllerManager",
        "apiServer",
    ]


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ([{"a": 1, "b": 2}], [{"a": 1}], True),
        ([{"a": 1}, {"a": 2}], [{"a": 1}], False),
        (None, {"a": 1}, False),
        ({"a": "1m0s"}, {"a": "60s"}, False),
    ],
)
def test_contains(found: Any, wanted: Any, same: bool) -> None:
    assert checks.contains(found, wanted) is same


OWN = {
    "evictionHard": {"memory.available": "200Mi", "imagefs.available": None},
    "authentication": {"webhook": {"cacheTTL": "60s"}},
    "memorySwap": {"swapBehavior": "NoSwap"},
}
OWN_DOCUMENT = {
    "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
    "evictionHard": {"imagefs.available": "15%", "nodefs.available": "10%"},
}
OWN_LIVE = {
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"cacheTTL": "1m0s", "enabled": True},
        "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
    },
    "evictionHard": {"nodefs.available": "10%", "memory.available": "200Mi"},
    "memorySwap": {"swapBehavior": "NoSwap"},
}


def test_structures_of_the_operators_own_are_judged_by_what_is_named(node: Node) -> None:
    """In the order and with the defaults that kubelet gives them, nothing is pending; another value is."""
    wanted = tuning.settings("balanced", {}, {}, OWN)
    document = yaml.safe_dump(kubeadm.merge_kubelet_configuration(OWN_DOCUMENT, wanted))
    live = {**SETTINGS["kubelet_configuration"], **OWN_LIVE}
    nodes = {"a": node(processes={"kubelet": {"pid": 1, "args": {}, "environ": SETTINGS["kubelet_env"]}})}
    state = cluster(kubelet_config=document, configz={"cp": live, "a": live})
    assert checks.pending_kubelets(state, nodes, wanted) == []
    assert checks.document_differences(state, wanted) == []
    assert checks.cluster_differences(state, {"settings": wanted, "nodes": ["cp", "a"]}) == []
    other = {**live, "evictionHard": {"memory.available": "100Mi"}}
    assert checks.pending_kubelets({**state, "configz": {"a": other}}, nodes, wanted) == ["a"]
    assert [entry["key"] for entry in checks.configz_differences("a", other, wanted["kubelet_configuration"])] == [
        "kubelet configz evictionHard"
    ]
    kept = yaml.safe_dump({**yaml.safe_load(document), "evictionHard": {"imagefs.available": "15%"}})
    found = checks.document_differences({**state, "kubelet_config": kept}, wanted)
    assert [entry["key"] for entry in found] == ["kubelet-config evictionHard"]


def test_a_default_shutdown_is_verified_and_one_of_the_operators_is_his(node: Node) -> None:
    wanted = tuning.settings("balanced", {}, {}, {}, ("", ""))
    nodes = {"a": node(processes={"kubelet": {"pid": 1, "args": {}, "environ": SETTINGS["kubelet_env"]}})}
    live = dict(SETTINGS["kubelet_configuration"])
    written = yaml.safe_dump(kubeadm.merge_kubelet_configuration({}, wanted))
    state = cluster(kubelet_config=written, configz={"a": live})
    assert checks.pending_kubelets(state, nodes, wanted) == ["a"]
    live |= {"shutdownGracePeriod": "45s", "shutdownGracePeriodCriticalPods": "15s"}
    assert checks.pending_kubelets(state, nodes, wanted) == []
    theirs = kubeadm.merge_kubelet_configuration({"shutdownGracePeriod": "2m0s"}, wanted)
    state["kubelet_config"] = yaml.safe_dump(theirs)
    assert checks.pending_kubelets(state, nodes, wanted) == []
    assert checks.document_differences(state, wanted) == []


TAKEN = {
    "maxPods": 200,
    "evictionHard": {"memory.available": "200Mi"},
    "syncFrequency": "0s",
    "iPTablesMasqueradeBit": 0,
}


@pytest.mark.parametrize(
    ("now", "untaken"),
    [
        (TAKEN, []),
        ({**TAKEN, "maxPods": None}, ["maxPods"]),
        ({**TAKEN, "maxPods": 110}, ["maxPods"]),
        ({**TAKEN, "evictionHard": {}}, ["evictionHard.memory.available"]),
        ({**TAKEN, "cpuManagerPolicy": "static"}, ["cpuManagerPolicy"]),
        ({"maxPods": "200", "evictionHard": {"memory.available": "200Mi"}, "runtimeRequestTimeout": "0s"}, []),
    ],
)
def test_what_a_kubelet_has_not_taken_is_told_and_made_up_for(
    node: Node, now: dict[str, Any], untaken: list[str]
) -> None:
    """Of a field that was taken out, configz tells nothing: only what the kubelet took at its time does."""
    ours = SETTINGS["kubelet_configuration"]
    processes = {"kubelet": {"pid": 1, "args": {}, "environ": SETTINGS["kubelet_env"]}}
    taken, new = (yaml.safe_dump({**each, **ours}) for each in (TAKEN, now))
    document, live = {**now, **ours}, cluster(kubelet_config=new)

    def told(kubelet: dict[str, Any]) -> list[str]:
        nodes = {"a": node(processes=processes, kubelet=kubelet)}
        found = checks.untaken_fields(nodes["a"], document)
        assert checks.pending_kubelets(live, nodes, SETTINGS) == (["a"] if found else [])
        differences = [(entry["host"], entry["key"]) for entry in checks.kubelet_node_differences(nodes, live)]
        assert differences == ([("a", "kubelet")] if found else [])
        return found

    assert told({"file": taken, "document": taken, "unfinished": False}) == untaken
    assert told({"file": new, "document": taken, "unfinished": True}) == untaken, "cut short before kubelet began"
    assert told({"file": new, "document": taken, "unfinished": False}) == [], "taken by kubeadm's own upgrade"
    assert told({"file": new, "document": new, "unfinished": False}) == []
    assert told({"file": taken, "document": "", "unfinished": False}) == [], "nothing is recorded"


@pytest.mark.parametrize(("patience", "told"), [(50.0, False), (45.0, False), (5.0, True), (None, False)])
def test_logind_waits_as_long_as_kubelet_needs(node: Node, patience: float | None, told: bool) -> None:
    live = {"shutdownGracePeriod": "45s", "shutdownGracePeriodCriticalPods": "15s"}
    nodes = {name: node(shutdown_delay_seconds=patience) for name in ("a", "nfs")}
    found = checks.kubelet_node_differences(nodes, cluster(configz={"a": live}))
    assert checks.sentences(found) == (
        ["a: logind InhibitDelayMaxSec: wanted \"45 s at least, for kubelet's shutdown\", found '5 s'"] if told else []
    )
