"""What releasing a node would do, and what forbids it. Pure functions over the API's objects and the fence's record.

A node is released when it is gone and its single writers hold: the NFS server refuses it first, then its pods are
deleted by force, so that they serve elsewhere. Deleting by force says that the old pod writes no more; the fence makes
that true for the share, and for the share alone. A pod with storage that the fence does not cover is therefore left.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .tandem_fencing import LIFTED, covered  # relative: machines and the control node import this under two names

TAINT: Final = "tandem-ha.io/released"
"""NoExecute: nothing runs on a node that the share refuses, also when its network heals before it boots anew."""

LOST: Final = frozenset({"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"})
"""What the controller-manager puts on a node that does not answer, or says that it is not Ready."""

LOCAL_VOLUMES: Final = frozenset(
    {"emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath", "image", "csi", "gitRepo"}
)
"""Volumes that no other node sees (inline CSI volumes are made for one pod on its node)."""


def refusal(where: str, key: str, value: Any, rule: str, way_out: str) -> str:
    """One refusal in the form that all of Tandem's share."""
    return f"{where}: {key} is {value!r}; rule: {rule}; way out: {way_out}"


def ready(node: Mapping[str, Any]) -> str:
    """A node's Ready condition."""
    conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", [])}
    return str(conditions.get("Ready", "Unknown"))


def pod_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is Ready and stays."""
    return ready(pod) == "True" and "deletionTimestamp" not in pod["metadata"]


def tainted(node: Mapping[str, Any]) -> bool:
    """Whether a node carries our taint."""
    return any(taint["key"] == TAINT for taint in node["spec"].get("taints") or [])


def closed(node: Mapping[str, Any]) -> bool:
    """Whether the scheduler sends no pod to a node: it is cordoned, or the cluster has lost it."""
    taints = node["spec"].get("taints") or []
    return bool(node["spec"].get("unschedulable")) or any(
        taint["key"] in LOST and taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints
    )


def controller(item: Mapping[str, Any]) -> dict[str, str]:
    """Kind, name and UID of an object's controller; empty when it has none."""
    for reference in item["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return {key: str(reference[key]) for key in ("kind", "name", "uid")}
    return {}


def addresses(node: Mapping[str, Any], known: str) -> list[str]:
    """IPv4 addresses and pod networks from which a node's packets come."""
    status = [entry["address"] for entry in node["status"].get("addresses", []) if entry["type"].endswith("IP")]
    spec = node["spec"]
    found = [known, *status, *(spec.get("podCIDRs") or [spec.get("podCIDR", "")])]
    return [each for each in dict.fromkeys(found) if each and _is_ipv4(each)]


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True


class Volumes:
    """Where pods' volumes are: on the share, on the node, or on storage that the NFS server does not rule.

    Args:
        claims: PersistentVolumeClaims.
        volumes: PersistentVolumes.
        share: where nodes mount the share.
        servers: addresses and names of the NFS server.
    """

    def __init__(
        self,
        claims: Iterable[Mapping[str, Any]],
        volumes: Iterable[Mapping[str, Any]],
        share: str,
        servers: Iterable[str],
    ) -> None:
        self._claims = {(c["metadata"]["namespace"], c["metadata"]["name"]): c for c in claims}
        self._volumes = {v["metadata"]["name"]: v["spec"] for v in volumes}
        self._share, self._servers = share.rstrip("/"), set(servers)

    def of(self, pod: Mapping[str, Any]) -> tuple[bool, list[str]]:
        """Whether a pod has a volume on the share, and its volumes that the fence does not cover."""
        on_share, uncovered = False, []
        for volume in pod["spec"].get("volumes") or []:
            place = self._place(pod, volume)
            on_share = on_share or place == "share"
            if place not in ("share", "node"):
                uncovered.append(f"{volume['name']} ({place})")
        return on_share, uncovered

    def _place(self, pod: Mapping[str, Any], volume: Mapping[str, Any]) -> str:
        if "persistentVolumeClaim" in volume or "ephemeral" in volume:
            named = volume.get("persistentVolumeClaim", {}).get("claimName")
            claim = self._claims.get(
                (pod["metadata"]["namespace"], named or f"{pod['metadata']['name']}-{volume['name']}"), {}
            )
            spec = self._volumes.get(claim.get("spec", {}).get("volumeName", ""))
            return "a claim without a volume" if spec is None else self._backend(spec)
        return self._backend(volume)

    def _backend(self, spec: Mapping[str, Any]) -> str:
        if "nfs" in spec:
            return "share" if spec["nfs"]["server"] in self._servers else f"NFS of {spec['nfs']['server']}"
        path = str((spec.get("hostPath") or spec.get("local") or {}).get("path", ""))
        if path:
            return "share" if path == self._share or path.startswith(f"{self._share}/") else "node"
        if "csi" in spec and "capacity" in spec:  # a PersistentVolume, not a pod's own
            return f"CSI driver {spec['csi'].get('driver', '')}"
        if any(kind in spec for kind in LOCAL_VOLUMES):
            return "node"
        return "storage of another kind"


def refusals(
    name: str, nodes: Mapping[str, Mapping[str, Any]], workers: Sequence[str], record: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What forbids releasing a node, as sentences; empty when nothing does. See `unasked` for one thing more.

    Args:
        name: the node.
        nodes: the cluster's, by name.
        workers: the inventory's.
        record: of the fence, by node.
    """
    if name not in nodes or name not in workers:
        known = ", ".join(worker for worker in workers if worker in nodes) or "none"
        rule = "a worker of the inventory that is a node of the cluster"
        return [refusal("release-node", "node", name, rule, f"-e node=NAME, one of: {known}")]
    others = _others(name, nodes, workers, record)
    if any(reason == "" for reason in others.values()):
        return []
    told = ", ".join(f"{worker}: {reason}" for worker, reason in others.items()) or "none"
    rule = "one that is Ready, schedulable and not refused itself takes the pods over"
    return [refusal(f"node {name}", "other workers", told, rule, "bring one of them back first")]


def unasked(name: str, node: Mapping[str, Any] | None, *, accept_ready: bool) -> list[str]:
    """What forbids releasing a node unless the NFS server refuses it already: then an earlier release goes on.

    Args:
        name: the node.
        node: the cluster's object.
        accept_ready: whether a node that is Ready may be released all the same.
    """
    if node is None or ready(node) != "True" or accept_ready:
        return []
    way_out = (
        "see why you want it gone: `kubectl drain` moves pods of a node that works; to refuse it the share all the "
        "same, -e tandem_release_ready=true"
    )
    return [refusal(f"node {name}", "Ready", "True", "a node that lives is not released unasked", way_out)]


def heirs(
    name: str, nodes: Mapping[str, Mapping[str, Any]], workers: Sequence[str], record: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Workers that can take a node's pods over. Arguments as for `refusals`."""
    return [worker for worker, reason in _others(name, nodes, workers, record).items() if not reason]


def _others(
    name: str, nodes: Mapping[str, Mapping[str, Any]], workers: Sequence[str], record: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """The other workers, each with why it cannot take pods over; empty when it can."""
    refused = {each for each, entry in record.items() if entry["phase"] != LIFTED}
    return {worker: _unfit(nodes.get(worker), worker in refused) for worker in workers if worker != name}


def _unfit(node: Mapping[str, Any] | None, refused: bool) -> str:
    """Why a worker cannot take pods over; empty when it can."""
    if node is None:
        return "not a node of the cluster"
    if refused or tainted(node):
        return "refused by the NFS server itself"
    if ready(node) != "True":
        return f"Ready={ready(node)}"
    return "cordoned" if node["spec"].get("unschedulable") else ""


def sorted_pods(pods: Iterable[Mapping[str, Any]], node: str, volumes: Volumes) -> dict[str, list[dict[str, Any]]]:
    """The node's pods: those to be deleted by force (`forced`), and those that stay as they are, each with a reason.

    Pods of DaemonSets belong to the node and are not told; neither are static ones and those that have ended.
    """
    found: dict[str, list[dict[str, Any]]] = {"forced": [], "left": []}
    for pod in pods:
        owner, annotations = controller(pod), pod["metadata"].get("annotations") or {}
        if pod["spec"].get("nodeName") != node or owner.get("kind") in ("DaemonSet", "Node"):
            continue
        if "kubernetes.io/config.mirror" in annotations or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        share, uncovered = volumes.of(pod)
        entry: dict[str, Any] = {
            "name": f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
            "uid": pod["metadata"]["uid"],
            "owner": owner,
            "share": share,
        }
        if uncovered:
            reason = f"the NFS server's refusal does not cover {', '.join(uncovered)}"
            found["left"].append({**entry, "reason": reason})
        elif not owner:
            found["left"].append({**entry, "reason": "nobody would make it anew"})
        else:
            found["forced"].append(entry)
    return found


def awaited(
    pods: Sequence[Mapping[str, Any]], node: str, forced: Sequence[Mapping[str, Any]], volumes: Volumes, since: str
) -> dict[str, str]:
    """Controllers (UID to a name for people) that have to serve elsewhere before the release is done.

    They are those of the pods on the share that go, and, when an earlier attempt deleted them already, those of pods on
    the share that were made since and are not Ready.
    """
    found = {pod["owner"]["uid"]: _owner_name(pod["name"], pod["owner"]) for pod in forced if pod["share"]}
    for pod in pods:
        owner = controller(pod)
        new = since and pod["metadata"].get("creationTimestamp", "") >= since and pod["spec"].get("nodeName") != node
        if new and owner and not pod_ready(pod) and volumes.of(pod)[0]:
            found.setdefault(owner["uid"], _owner_name(f"{pod['metadata']['namespace']}/", owner))
    return found


def _owner_name(pod: str, owner: Mapping[str, str]) -> str:
    return f"{pod.partition('/')[0]}/{owner['kind']}/{owner['name']}"


def told(plan: Mapping[str, Any]) -> list[str]:
    """A plan for people to read."""
    names = ", ".join(pod["name"] for pod in plan["forced"]) or "none"
    return [
        f"{plan['node']} ({', '.join(plan['addresses'])}) is refused the share until it has booted anew",
        f"pods deleted by force: {names}",
        f"workloads that have to serve elsewhere: {', '.join(plan['awaited'].values()) or 'none'}",
        *(f"left as it is: {pod['name']}, for {pod['reason']}" for pod in plan["left"]),
    ]


def serving(pods: Iterable[Mapping[str, Any]], node: str) -> dict[str, str]:
    """Controllers (UID) with a Ready pod on another node, and which."""
    return {
        controller(pod)["uid"]: f"{pod['metadata']['name']} on {pod['spec']['nodeName']}"
        for pod in pods
        if controller(pod) and pod_ready(pod) and pod["spec"].get("nodeName") not in (None, "", node)
    }


def waiting_for(pods: Iterable[Mapping[str, Any]], node: str, uid: str) -> str:
    """Why a controller does not serve elsewhere yet, by the pod that should."""
    mine = [pod for pod in pods if controller(pod).get("uid") == uid and pod["spec"].get("nodeName") != node]
    if not mine:
        return "no new pod yet"
    pod = mine[0]
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"{pod['metadata']['name']} is not scheduled: {condition.get('message', '')}"
    return f"{pod['metadata']['name']} on {pod['spec'].get('nodeName')} is not Ready"


def readmission_refusals(
    name: str,
    node: Mapping[str, Any] | None,
    entry: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> list[str]:
    """What forbids taking a node back, as sentences; empty when nothing does.

    Args:
        name: the node.
        node: the cluster's object.
        entry: of the fence's record.
        machine: `boot_id`, as the machine itself says; empty when it does not answer.
    """
    if node is None:
        return [refusal("readmit-node", "node", name, "a node of the cluster", "join it first, or correct the name")]
    if not machine.get("boot_id"):
        return [
            refusal(f"node {name}", "its answer", "none", "the machine itself says that it booted anew", "start it")
        ]
    found, live = [], str(machine["boot_id"])
    if live in entry["boot_ids"] and entry["phase"] != LIFTED:
        rule = "a node is taken back after it has booted anew: until then its kernel may hold writes of before"
        way_out = f"`systemctl reboot` on {name} (or its power switch), then the same command"
        found.append(refusal(f"node {name}", "boot id", f"{live}, the one of its release", rule, way_out))
    elif node["status"]["nodeInfo"].get("bootID") != live:
        rule = "its kubelet has told the cluster of the new boot"
        found.append(refusal(f"node {name}", "boot id in the cluster", "another", rule, "wait until its kubelet runs"))
    elif ready(node) != "True":
        found.append(refusal(f"node {name}", "Ready", ready(node), "True", "see `journalctl -u kubelet` on it"))
    return found


def fence_differences(host: str, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Released nodes, as differences from a whole cluster; and a record whose rule somebody took away.

    Args:
        host: the NFS server.
        facts: of `tandem_node`: `nodes` (the record), `live` (networks that the packet filter refuses), `error`.
    """
    if facts.get("error"):
        return [{"host": host, "key": "record of released nodes", "wanted": "readable", "found": facts["error"]}]
    found = []
    for name, entry in facts.get("nodes", {}).items():
        told = f"{entry['phase']} since {entry['since']}; playbooks/readmit-node.yml -e node={name} takes it back"
        found.append({"host": host, "key": f"NFS server to {name}", "wanted": "not released", "found": told})
        refused = entry["addresses"] if entry["phase"] != LIFTED else []
        missing = [each for each in refused if not covered([each], facts.get("live", []))]
        if missing:
            told = f"lets {', '.join(missing)} pass: playbooks/release-node.yml -e node={name} refuses them again"
            found.append({"host": host, "key": f"packet filter to {name}", "wanted": "drops it", "found": told})
    return found
