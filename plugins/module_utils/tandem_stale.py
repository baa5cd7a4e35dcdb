"""Pods that still carry the tolerations of an earlier profile. Pure functions over the facts of `tandem_cluster`.

The API server gives its default tolerations to a pod when it is made, so a change reaches new pods only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from plugins.module_utils.tandem_selectors import selects

KINDS: Final = ("Deployment", "StatefulSet")
"""What can be rolled by a rollout restart. A DaemonSet's pods tolerate both taints without end."""


def stale_pods(cluster: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Old pods by their owner: who must make new ones for the profile to hold for them.

    A toleration that the workload's template asks for itself is the workload's own choice and is left alone; so are
    static pods, pods that are going, and pods without a limit.

    Args:
        cluster: the facts of `tandem_cluster`, with workloads.
        settings: what is wanted; `pod_tolerations` of it.
    """
    wanted = {entry["key"]: entry["tolerationSeconds"] for entry in settings["pod_tolerations"]}
    found: dict[str, dict[str, Any]] = {}
    for pod in cluster["pods"]:
        if pod["static"] or pod["deleting"]:
            continue
        namespace, owner = pod["namespace"], _owner(cluster, pod)
        template = cluster["workloads"]["templates"].get(f"{namespace}/{owner['kind']}/{owner['name']}", {})
        own = {entry.get("key") for entry in template.get("tolerations", [])}
        carried = {
            entry["key"]: entry["tolerationSeconds"]
            for entry in pod["tolerations"]
            if entry.get("key") in wanted and "tolerationSeconds" in entry
        }
        old = {key: seconds for key, seconds in carried.items() if seconds != wanted[key] and key not in own}
        if not old:
            continue
        name = f"{namespace}/{owner['kind']}/{owner['name']}"
        entry = found.setdefault(name, {"owner": name, **owner, "namespace": namespace, "pods": [], "carried": old})
        entry["pods"].append(pod["name"])
    for name, entry in found.items():
        entry["wanted"] = {key: wanted[key] for key in entry["carried"]}
        entry["held_by"] = _held_by(cluster, name, entry)
    return [found[name] for name in sorted(found)]


def _owner(cluster: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """The workload that a pod belongs to, a Deployment behind its ReplicaSet; the pod itself when nobody owns it."""
    owner = pod.get("owner") or {}
    if owner.get("kind") == "ReplicaSet":
        above = cluster["workloads"]["replica_sets"].get(f"{pod['namespace']}/{owner['name']}")
        owner = above or owner
    return dict(owner) if owner else {"kind": "Pod", "name": str(pod["name"])}


def _held_by(cluster: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> str:
    """Why a workload is not to be rolled now, as a clause; empty when it may be."""
    if entry["kind"] not in KINDS:
        return f"a {entry['kind']} is not rolled: make it anew yourself"
    template = cluster["workloads"]["templates"].get(name)
    if template is None:
        return "its template is not there"
    if template["strategy"] == "OnDelete":
        return "its update strategy is OnDelete"
    for budget in cluster["workloads"]["budgets"]:
        covers = budget["namespace"] == entry["namespace"] and selects(budget["selector"], template["labels"])
        if covers and budget["allowed"] < 1:
            return f"PodDisruptionBudget {budget['name']} allows no disruption now"
    return ""


def stale_sentences(stale: Sequence[Mapping[str, Any]]) -> list[str]:
    """Old pods for people to read."""
    return [
        f"{entry['owner']}: {len(entry['pods'])} pod(s) ({', '.join(entry['pods'])}) still tolerate "
        + ", ".join(
            f"{key.rpartition('/')[2]} for {seconds} s instead of {entry['wanted'][key]} s"
            for key, seconds in sorted(entry["carried"].items())
        )
        + (f"; {entry['held_by']}" if entry["held_by"] else "")
        for entry in stale
    ]
