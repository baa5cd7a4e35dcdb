"""Claims of a running cluster: what uses them, and where their data are. Pure functions over the API's objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from .tandem_release import controller, ready  # relative: machines and the control node import this under two names

CLAIM: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
LONGHORN: Final = "driver.longhorn.io"
ROLE: Final = "tandem-ha.io/role"
SPARE: Final = "volume-adoption"
"""Label of the claim and the pod that exist for the time of a move."""
OTHERS: Final = {"DaemonSet": "daemonsets", "Job": "jobs", "CronJob": "cronjobs", "ReplicaSet": "replicasets"}


@dataclass(frozen=True)
class World:
    """What the API has, as it was read just now: one namespace, its volumes, the nodes and our records."""

    claim: Mapping[str, Any] | None = None
    volume: Mapping[str, Any] | None = None
    old: Mapping[str, Any] | None = None
    """The volume that the claim came from, when it was moved."""
    storage_class: Mapping[str, Any] | None = None
    nodes: Sequence[Mapping[str, Any]] = ()
    pods: Sequence[Mapping[str, Any]] = ()
    deployments: Sequence[Mapping[str, Any]] = ()
    statefulsets: Sequence[Mapping[str, Any]] = ()
    others: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By kind, those of `OTHERS`."""
    autoscalers: Sequence[Mapping[str, Any]] = ()
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """What the inventory says.

    Args:
        share: where workers mount it.
        class_name: the StorageClass on it.
        label: key and value on nodes that have it mounted.
        workers: their names.
        squash: what the server makes of root.
        paused: whether somebody said that GitOps tools are paused.
    """

    share: str
    class_name: str
    label: tuple[str, str]
    workers: Sequence[str]
    squash: str = "root_squash"
    paused: bool = False


def key_of(claim: str) -> str:
    """A claim's key in the record, and the name of its folder in the exchange."""
    return claim.replace("/", "_")


def spare_of(claim: str) -> str:
    """Name of the claim and the pod that exist for the time of a move."""
    return f"{claim.partition('/')[2][:200]}-tandem-adopt"


def claims_of(spec: Mapping[str, Any]) -> set[str]:
    """Names of the claims that a pod's spec uses."""
    volumes = spec.get("volumes") or []
    return {each["persistentVolumeClaim"]["claimName"] for each in volumes if each.get("persistentVolumeClaim")}


def template_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec of the pods that a workload makes."""
    spec = item["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    found: Mapping[str, Any] = spec["template"]["spec"]
    return found


def by_template(item: Mapping[str, Any], name: str) -> bool:
    """Whether a claim is one that a StatefulSet makes of its templates."""
    templates = item["spec"].get("volumeClaimTemplates") or []
    own = item["metadata"]["name"]
    return any(re.fullmatch(rf"{re.escape(each['metadata']['name'])}-{re.escape(own)}-\d+", name) for each in templates)


def owners(name: str, world: World) -> list[dict[str, Any]]:
    """The workloads that are stopped for the claim: `kind`, `name`, `replicas`."""
    found = [("Deployment", each) for each in world.deployments if name in claims_of(template_of(each))]
    found += [
        ("StatefulSet", each)
        for each in world.statefulsets
        if name in claims_of(template_of(each)) or by_template(each, name)
    ]
    return [
        {"kind": kind, "name": each["metadata"]["name"], "replicas": int(each["spec"].get("replicas", 1))}
        for kind, each in found
    ]


def object_of(kind: str, name: str, world: World) -> Mapping[str, Any]:
    """One of the workloads that `owners` names."""
    items = world.deployments if kind == "Deployment" else world.statefulsets
    return next(each for each in items if each["metadata"]["name"] == name)


def users(name: str, world: World) -> list[Mapping[str, Any]]:
    """All pods that use the claim, but for ours."""
    return [
        pod
        for pod in world.pods
        if name in claims_of(pod["spec"]) and pod["metadata"].get("labels", {}).get(ROLE) != SPARE
    ]


def root_of(pod: Mapping[str, Any], world: World) -> tuple[str, str]:
    """Kind and name of what makes a pod, a ReplicaSet's Deployment included."""
    found = controller(pod)
    if found.get("kind") == "ReplicaSet":
        for each in world.others.get("ReplicaSet", ()):
            if each["metadata"]["name"] == found["name"]:
                above = controller(each)
                return (above["kind"], above["name"]) if above else ("ReplicaSet", found["name"])
    return found.get("kind", "bare Pod"), found.get("name", pod["metadata"]["name"])


def kind_of(volume: Mapping[str, Any]) -> tuple[str, str]:
    """What a volume is (`local`, `longhorn`, or empty for anything else), and its path on the node."""
    spec = volume["spec"]
    if (spec.get("csi") or {}).get("driver") == LONGHORN:
        return "longhorn", ""
    path = str((spec.get("local") or spec.get("hostPath") or {}).get("path", ""))
    return ("local", path) if path else ("", "")


def on_share(volume: Mapping[str, Any], site: Site) -> bool:
    """Whether a volume is on the share already."""
    path = kind_of(volume)[1]
    inside = bool(path) and PurePosixPath(path).is_relative_to(site.share)
    return inside or volume["spec"].get("storageClassName") == site.class_name


def nodes_of(volume: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The nodes that a volume is bound to by their host names."""
    required = ((volume["spec"].get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or []
    names = {
        value
        for term in required
        for each in term.get("matchExpressions") or []
        if each["key"] == "kubernetes.io/hostname" and each["operator"] == "In"
        for value in each["values"]
    }
    return [node for node in nodes if node["metadata"].get("labels", {}).get("kubernetes.io/hostname") in names]


def pod_path(pod: Mapping[str, Any], volume: str) -> str:
    """Where a node has a CSI volume of a pod mounted."""
    return f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~csi/{volume}/mount"


def data_node(claim: str, world: World, site: Site, *, back: bool) -> Mapping[str, Any] | None:
    """The node that reads or takes the data of the old volume; None when there is not exactly one."""
    entry = world.records.get(key_of(claim))
    if back and entry is not None:
        return next((node for node in world.nodes if node["metadata"]["name"] == entry["node"]), None)
    if world.volume is None:
        return None
    if kind_of(world.volume)[0] == "local":
        found = nodes_of(world.volume, world.nodes)
        return found[0] if len(found) == 1 else None
    names = [pod["spec"].get("nodeName") for pod in users(claim.partition("/")[2], world)]
    found = [node for node in world.nodes if node["metadata"]["name"] in site.workers and ready(node) == "True"]
    found.sort(key=lambda node: node["metadata"]["name"] not in names)
    return found[0] if found else None
