"""What putting an empty machine in a lost worker's place would do, and what forbids it. Pure functions.

A dead worker leaves a Node, a Lease and pods behind. Whoever removes them says that its pods write no more, and so
somebody has to know that the old machine is gone for good: nothing that can be seen from here proves it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .tandem_release import controller, ready, refusal  # relative: machines and the control node import this
from .tandem_whole import leaving


def replacement_refusals(
    name: str,
    node: Mapping[str, Any] | None,
    machine: Mapping[str, Any],
    workers: Sequence[str],
    entry: Mapping[str, Any] | None,
    *,
    gone: bool,
) -> list[str]:
    """What forbids it, as sentences; empty when nothing does.

    Args:
        name: the worker.
        node: the cluster's object, None when there is none.
        machine: as it says itself: `boot_id`, and `joined`, whether a kubelet was set up on it.
        workers: the inventory's.
        entry: the NFS server's record of it, None when it was not released.
        gone: whether somebody said that the old machine is gone for good.
    """
    if name not in workers:
        way_out = f"-e node=NAME, one of: {', '.join(workers) or 'none'}"
        return [refusal("replace-node", "node", name, "a worker of the inventory", way_out)]
    if not machine.get("boot_id"):
        way_out = "check its address and host key (docs/replace.md)"
        return [refusal(f"node {name}", "its answer", "none", "the machine in its place answers over SSH", way_out)]
    if machine["joined"]:
        return _joined_refusals(name, node, machine, entry)
    if node is not None and ready(node) == "True":
        rule = "its kubelet is dead; one that renews runs on another machine of this name"
        way_out = "find that machine and stop it, or correct the address in the inventory"
        return [refusal(f"node {name}", "Ready", "True, but the machine at its address is empty", rule, way_out)]
    if (node is not None or entry is not None) and not gone:
        rule = (
            "its pods are deleted by force and the share takes its name again, so the old machine must never run again"
        )
        way_out = "destroy or wipe it, then -e tandem_old_machine_gone=true"
        return [refusal(f"node {name}", "tandem_old_machine_gone", "false", rule, way_out)]
    return []


def _joined_refusals(
    name: str, node: Mapping[str, Any] | None, machine: Mapping[str, Any], entry: Mapping[str, Any] | None
) -> list[str]:
    """A machine that has a kubelet is the node itself, or one that has to be cleaned first."""
    if node is None:
        rule = "an empty machine, or the node itself"
        way_out = f"playbooks/reset.yml -e node={name} -e tandem_reset={name} cleans it"
        return [
            refusal(f"machine {name}", "its kubelet", "set up for a node that the cluster does not know", rule, way_out)
        ]
    if entry is not None:
        way_out = f"playbooks/readmit-node.yml -e node={name} takes it back after it has booted anew"
        return [refusal(f"node {name}", "phase", entry["phase"], "the node itself is not replaced", way_out)]
    if node["status"]["nodeInfo"].get("bootID") != machine["boot_id"]:
        rule = "its kubelet has told the cluster of this boot"
        way_out = f"wait until it is Ready, or clean it: playbooks/reset.yml -e node={name} -e tandem_reset={name}"
        return [refusal(f"node {name}", "boot id in the cluster", "another", rule, way_out)]
    return []


def reset_refusals(
    name: str,
    node: Mapping[str, Any] | None,
    pods: Iterable[Mapping[str, Any]],
    workers: Sequence[str],
    confirmed: str,
) -> list[str]:
    """What forbids cleaning a worker's machine, as sentences; empty when nothing does.

    Args:
        name: the worker.
        node: the cluster's object, None when there is none.
        pods: all pods, or those of the node.
        workers: the inventory's.
        confirmed: the name once more, as somebody gave it.
    """
    if name not in workers:
        way_out = f"-e node=NAME, one of: {', '.join(workers) or 'none'}"
        return [refusal("reset", "node", name, "a worker of the inventory", way_out)]
    if confirmed != name:
        rule = "the same name twice, so that nobody cleans a machine by a slip"
        return [refusal("reset", "tandem_reset", confirmed, rule, f"-e tandem_reset={name}")]
    if node is None:
        return []
    found = leaving(pods, name)
    left = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in [*found["evicted"], *found["bare"]]]
    if left or not node["spec"].get("unschedulable"):
        state = f"{', '.join(left) or 'none'}, {'cordoned' if node['spec'].get('unschedulable') else 'schedulable'}"
        way_out = f"`kubectl drain {name} --ignore-daemonsets`, then the same command"
        return [refusal(f"node {name}", "its pods", state, "a node is drained before its machine is cleaned", way_out)]
    return []


def bound(pods: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, str]]:
    """All pods that the cluster still has on a node, each with its UID; those of the node's own too."""
    return [
        {
            "name": f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
            "uid": pod["metadata"]["uid"],
            "owner": controller(pod).get("kind", ""),
        }
        for pod in pods
        if pod["spec"].get("nodeName") == name
    ]


def told(
    name: str, node: Mapping[str, Any] | None, machine: Mapping[str, Any], pods: Sequence[Mapping[str, str]]
) -> str:
    """The plan for people."""
    if machine["joined"]:
        return f"{name} is a node on this very machine; there is nothing to replace"
    if node is None:
        return f"{name} is no node yet; it joins"
    names = ", ".join(pod["name"] for pod in pods if pod["owner"] not in ("DaemonSet", "Node")) or "none"
    return f"{name} is removed from the cluster with what was left on it (pods: {names}), and joins anew"


def host_key(scan: str, fingerprint: str) -> str:
    """The host key (type and key, as known_hosts has them) with a fingerprint, of those that a machine offers.

    Args:
        scan: what `ssh-keyscan` printed.
        fingerprint: `SHA256:...`, as `ssh-keygen -l` prints it.

    Raises:
        ValueError: none of them has it; the message names those that there are.
    """
    found = {}
    for line in scan.splitlines():
        parts = line.split()
        if len(parts) < 3 or line.startswith("#"):
            continue
        try:
            digest = hashlib.sha256(base64.b64decode(parts[2], validate=True)).digest()
        except binascii.Error:
            continue
        found["SHA256:" + base64.b64encode(digest).decode().rstrip("=")] = f"{parts[1]} {parts[2]}"
    if fingerprint not in found:
        offered = ", ".join(f"{key} ({value.split()[0]})" for key, value in found.items()) or "none"
        raise ValueError(
            f"Nothing has been changed. tandem_host_key is {fingerprint}; rule: the machine offers a key with this "
            f"fingerprint; it offers {offered}; way out: read it from the machine's own console, not from the network"
        )
    return found[fingerprint]
