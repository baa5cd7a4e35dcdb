"""Whether a cluster is whole, and what it is without one of its nodes for a while. Pure functions of API objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .tandem_release import controller, pod_ready, ready, refusal, tainted
from .tandem_room import may_stay_away, takes, without_room

REBOOT: Final = "tandem-ha.io/reboot"
"""Annotation of a node that a reboot took out: the boot id that it had. By it a killed run knows how far it came."""

HOSTNAME: Final = "kubernetes.io/hostname"
STAYING: Final = ("DaemonSet", "Node")
"""Controllers whose pods belong to their node and serve nowhere else; a static pod's is its Node."""


def named(item: Mapping[str, Any]) -> str:
    """NAMESPACE/KIND/NAME of a workload."""
    return f"{item['metadata']['namespace']}/{item['kind']}/{item['metadata']['name']}"


def marked(node: Mapping[str, Any]) -> str:
    """The boot id that a node had when a reboot took it out; empty when none did."""
    text = (node["metadata"].get("annotations") or {}).get(REBOOT, "")
    try:
        return str(json.loads(text)["boot_id"]) if text else ""
    except (ValueError, KeyError, TypeError):
        return ""


def taken_out(node: Mapping[str, Any]) -> bool:
    """Whether a reboot has taken the node out and nobody has put it back since.

    A run that was killed leaves its annotation. Whoever uncordons the node then has put it back: pods are on it again,
    and a boot of any other cause must not pass for the one that was asked for.
    """
    return bool(marked(node)) and bool(node["spec"].get("unschedulable"))


def _short(item: Mapping[str, Any]) -> str:
    """What a workload lacks, as a clause; empty when it is whole."""
    status = item.get("status") or {}
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return "its controller has not seen it yet"
    if item["kind"] == "DaemonSet":
        have, want = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    else:
        have, want = status.get("readyReplicas", 0), item["spec"].get("replicas", 1)
    return "" if have >= want else f"{have} of {want} pods are Ready"


def not_whole(
    nodes: Iterable[Mapping[str, Any]], workloads: Iterable[Mapping[str, Any]], accept: Iterable[str] = ()
) -> list[str]:
    """What the cluster lacks to be whole, as clauses: Ready and schedulable nodes, workloads with all their pods.

    Args:
        nodes: all nodes.
        workloads: Deployments, StatefulSets and DaemonSets, each with its `kind`.
        accept: workloads (NAMESPACE/KIND/NAME) that may be as they are.
    """
    found = []
    for node in nodes:
        name = node["metadata"]["name"]
        if ready(node) != "True":
            found.append(f"node {name} is not Ready")
        elif node["spec"].get("unschedulable"):
            found.append(f"node {name} is cordoned")
        elif tainted(node):
            found.append(f"node {name} was released: playbooks/readmit-node.yml takes it back")
    accepted = set(accept)
    return found + [
        f"{named(item)}: {lack}" for item in workloads if (lack := _short(item)) and named(item) not in accepted
    ]


def on_the_way(
    name: str, nodes: Iterable[Mapping[str, Any]], workloads: Iterable[Mapping[str, Any]], accept: Iterable[str] = ()
) -> bool:
    """Whether what forbids taking a node out may pass by itself: pods that start. Nobody uncordons a node meanwhile.

    Args:
        name: the node; it may be cordoned, by an earlier run.
        nodes: all nodes.
        workloads: Deployments, StatefulSets and DaemonSets, each with its `kind`.
        accept: workloads (NAMESPACE/KIND/NAME) that may be as they are.
    """
    others = [node for node in nodes if node["metadata"]["name"] != name]
    held = any(node["spec"].get("unschedulable") or tainted(node) for node in others)
    return not held and bool(not_whole([], workloads, accept))


def leaving(pods: Iterable[Mapping[str, Any]], node: str) -> dict[str, list[Mapping[str, Any]]]:
    """A node's pods: those that have to be evicted (`evicted`), and those that nobody would make anew (`bare`)."""
    found: dict[str, list[Mapping[str, Any]]] = {"evicted": [], "bare": []}
    for pod in pods:
        owner = controller(pod)
        static = "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})
        ended = pod["status"].get("phase") in ("Succeeded", "Failed")
        if pod["spec"].get("nodeName") != node or static or ended or owner.get("kind") in STAYING:
            continue
        found["evicted" if owner else "bare"].append(pod)
    return found


def services(slices: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Services (NAMESPACE/NAME) to the nodes on which they have ready endpoints."""
    found: dict[str, set[str]] = {}
    for each in slices:
        name = (each["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
        if not name:
            continue
        there = found.setdefault(f"{each['metadata']['namespace']}/{name}", set())
        for endpoint in each.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") and endpoint.get("nodeName"):
                there.add(str(endpoint["nodeName"]))
    return found


def baskets(pods: Sequence[Mapping[str, Any]], node: str) -> tuple[list[str], dict[str, str]]:
    """Workloads whose ready pods are all on the node: those of several pods, and those of one (UID to name).

    The first would be gone altogether, and need not: they are spread first. The second are single writers and the like,
    which are away while they move; that gap is told.
    """
    where: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        owner = controller(pod)
        if owner and owner["kind"] not in STAYING and pod_ready(pod):
            where.setdefault(owner["uid"], []).append(pod)
    crowded, alone = [], {}
    for uid, mine in where.items():
        if {pod["spec"].get("nodeName") for pod in mine} != {node}:
            continue
        owner = controller(mine[0])
        name = f"{mine[0]['metadata']['namespace']}/{owner['kind']}/{owner['name']}"
        if len(mine) > 1:
            crowded.append(name)
        else:
            alone[uid] = name
    return sorted(crowded), alone


def workload_of(pod: Mapping[str, Any]) -> str:
    """NAMESPACE/KIND/NAME of what a pod belongs to; of a Deployment's, not of its ReplicaSet."""
    meta, owner = pod["metadata"], controller(pod)
    kind, name = owner.get("kind", "Pod"), owner.get("name", meta["name"])
    suffix = f"-{(meta.get('labels') or {}).get('pod-template-hash', '')}"
    if kind == "ReplicaSet" and suffix != "-" and name.endswith(suffix):
        kind, name = "Deployment", name.removesuffix(suffix)
    return f"{meta['namespace']}/{kind}/{name}"


def moving(
    name: str, others: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]], accept: Iterable[str]
) -> list[Mapping[str, Any]]:
    """A node's pods that need room on other nodes while it is away.

    Those whose workload serves nowhere else, and those of several that nothing keeps off the other nodes. What is
    spread hard, one pod a node, waits for its node, and is meant to. Arguments as for `drain_refusals`.
    """
    _, alone = baskets(pods, name)
    accepted, found = set(accept), []
    for pod in leaving(pods, name)["evicted"]:
        if "deletionTimestamp" in pod["metadata"] or workload_of(pod) in accepted:
            continue
        takers = [node for node in others if takes(node, pod)]
        if controller(pod)["uid"] in alone or (takers and not may_stay_away(pod, takers)):
            found.append(pod)
    return found


def drain_refusals(
    name: str,
    nodes: Sequence[Mapping[str, Any]],
    workloads: Iterable[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]],
    accept: Sequence[str],
) -> list[str]:
    """What forbids taking a node out for its reboot, as sentences; empty when nothing does.

    A node that an earlier run of ours has taken out already is not judged as cordoned.

    Args:
        name: the node.
        nodes: all nodes.
        workloads: Deployments, StatefulSets and DaemonSets, each with its `kind`.
        pods: all pods.
        accept: workloads (NAMESPACE/KIND/NAME) that may be as they are, and whose pods may wait for the node.
    """
    mine = next((node for node in nodes if node["metadata"]["name"] == name), None)
    if mine is None:
        return [refusal("reboot", "node", name, "a node of the cluster", "correct the name")]
    ours = taken_out(mine)
    others = [node for node in nodes if node is not mine]
    lacks = not_whole(others if ours else nodes, [] if ours else workloads, accept)
    found = []
    if lacks:
        rule, way_out = (
            "a node is taken out of a whole cluster only",
            "mend it, or name workloads in tandem_reboot_accept",
        )
        found.append(refusal(f"node {name}", "the cluster", "; ".join(lacks), rule, way_out))
    crowded, _ = ([], {}) if ours else baskets(pods, name)
    if crowded:
        rule = "a Service keeps a ready endpoint: of several pods one is elsewhere"
        way_out = "`kubectl rollout restart` brings them apart"
        found.append(refusal(f"node {name}", "all ready pods", ", ".join(crowded), rule, way_out))
    # Of a cluster that is not whole nobody can say where its pods would go.
    rooms = [] if ours or lacks or crowded else without_room(moving(name, others, pods, accept), others, pods)
    if rooms:
        rule = "what moves finds room on the other nodes, else it is away for as long as the node is"
        way_out = "lower requests or free room there; workloads of several pods that may wait: tandem_reboot_accept"
        found.append(refusal(f"node {name}", "room on the other nodes", "; ".join(rooms), rule, way_out))
    bare = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in leaving(pods, name)["bare"]]
    if bare:
        rule, way_out = "nobody would make them anew", "delete them, or give them a controller"
        found.append(refusal(f"node {name}", "pods without a controller", ", ".join(bare), rule, way_out))
    return found
