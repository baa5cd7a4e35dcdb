"""Whether a cluster is whole, and what it is without one of its nodes for a while. Pure functions of API objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .tandem_release import controller, pod_ready, ready, refusal, tainted

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


def drain_refusals(
    name: str,
    nodes: Sequence[Mapping[str, Any]],
    workloads: Iterable[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]],
    accept: Iterable[str],
) -> list[str]:
    """What forbids taking a node out for its reboot, as sentences; empty when nothing does.

    A node that an earlier run of ours has taken out already is not judged as cordoned.
    """
    mine = next((node for node in nodes if node["metadata"]["name"] == name), None)
    if mine is None:
        return [refusal("reboot", "node", name, "a node of the cluster", "correct the name")]
    ours = bool(marked(mine))
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
    bare = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in leaving(pods, name)["bare"]]
    if bare:
        rule, way_out = "nobody would make them anew", "delete them, or give them a controller"
        found.append(refusal(f"node {name}", "pods without a controller", ", ".join(bare), rule, way_out))
    return found
