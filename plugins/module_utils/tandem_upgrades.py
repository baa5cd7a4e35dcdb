"""Which nodes an upgrade has to visit, and what forbids it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .tandem_release import refusal

PACKAGES: Final = ("kubeadm", "kubelet", "kubectl")
KUBELET_SKEW: Final = 3
"""Minor versions that a kubelet may be older than the API server (Kubernetes' version skew policy)."""


def parsed(version: str) -> tuple[int, int, int]:
    """A version, with or without the leading v, as numbers; what follows the patch number is left out."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"{version!r} is no version of Kubernetes")
    return int(found[1]), int(found[2]), int(found[3])


def told_version(kubeadm_config: str) -> str:
    """The version that kubeadm-config names."""
    found = re.search(r"^kubernetesVersion: *[\"']?(v[^\s\"']+)", kubeadm_config, re.MULTILINE)
    return found[1] if found else ""


def machines(nodes: Mapping[str, Mapping[str, Any]], marker: str, first: str) -> dict[str, dict[str, Any]]:
    """What `pending` needs of each host, out of its state (module tandem_node).

    Args:
        nodes: host to its state.
        marker: the file that says that an upgrade began there and did not end.
        first: the host on which kubeadm changes its documents.
    """
    return {
        host: {
            "packages": {name: package["version"] for name, package in node["packages"].items()},
            "begun": bool(node["files"][marker]),
            "first": host == first,
        }
        for host, node in nodes.items()
    }


def pending(cluster: Mapping[str, Any], hosts: Mapping[str, Mapping[str, Any]], target: str) -> list[str]:
    """Hosts that are not at the target, in their order: those with another version, or half upgraded.

    Args:
        cluster: state of the cluster (module tandem_cluster).
        hosts: what the function `machines` makes of the hosts.
        target: the version, without the leading v.
    """
    found = []
    for host, machine in hosts.items():
        versions = [machine["packages"].get(name, "") for name in PACKAGES]
        behind = any(not version.startswith(f"{target}-") for version in versions)
        behind |= cluster["nodes"].get(host, {}).get("kubelet_version") != f"v{target}"
        behind |= bool(machine["first"]) and told_version(cluster["kubeadm_config"]) != f"v{target}"
        if behind or machine["begun"]:
            found.append(host)
    return found


def upgrade_findings(cluster: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    """What forbids it.

    Args:
        cluster: state of the cluster.
        site: `target` (without the leading v), `hosts` (nodes of the inventory), `offered` (versions of kubeadm in the
            repository; null when it was not asked), `etcd` (host to what is wrong with etcd there, empty when nothing),
            `families` (host to the family of its operating system, as `tandem_node` tells it).
    """
    if not cluster.get("reachable"):
        way_out = "bring it back, or restore it from a backup"
        return [refusal("cluster", "the API", cluster.get("error", ""), "a cluster that works", way_out)]
    target = str(site["target"])
    wanted, now = parsed(target), told_version(cluster["kubeadm_config"])
    found = _steps(now, target)
    nodes = cluster["nodes"]
    for name, node in sorted(nodes.items()):
        kubelet = parsed(node["kubelet_version"])
        if kubelet > wanted and name in site["hosts"]:
            found.append(_newer(name, node["kubelet_version"], target))
        if kubelet[1] < wanted[1] - KUBELET_SKEW or (name not in site["hosts"] and kubelet > wanted):
            rule = f"at most {KUBELET_SKEW} minor versions older than the control plane's {target}, and none newer"
            found.append(
                refusal(f"node {name}", "kubelet", node["kubelet_version"], rule, "upgrade it first, or take it out")
            )
        if node["ready"] != "True":
            rule = "every node is Ready before one is taken out"
            found.append(refusal(f"node {name}", "Ready", node["ready"], rule, "bring it back, or take it out"))
    for host, said in sorted(site["etcd"].items()):
        if said:
            found.append(refusal(f"node {host}", "etcd", said, "healthy, without an alarm", "mend etcd first"))
    for host, family in sorted(site["families"].items()):
        if family != "debian":
            way_out = "follow kubeadm's own guide there; site.yml keeps the profile afterwards"
            found.append(refusal(f"node {host}", "package manager", family or "unknown", "apt, as yet", way_out))
    missing = [host for host in site["hosts"] if host not in nodes]
    if missing:
        found.append(refusal("inventory", "hosts", missing, "nodes of the cluster", "join them first with site.yml"))
    offered: Sequence[str] | None = site["offered"]
    if offered is not None and not any(version.startswith(f"{target}-") for version in offered):
        rule = f"offers kubeadm {target}"
        way_out = "tandem_kubernetes_repository of that minor version"
        found.append(refusal("repository", "versions of kubeadm", sorted(set(offered))[-5:], rule, way_out))
    return found


def _steps(now: str, target: str) -> list[str]:
    if not now:
        return [refusal("cluster", "kubeadm-config", "no kubernetesVersion", "made by kubeadm", "see kubeadm's docs")]
    at, wanted = parsed(now), parsed(target)
    if wanted < at:
        return [_newer("cluster", now, target)]
    if wanted[:2] > (at[0], at[1] + 1):
        rule = "one minor version at a time"
        step = f"{at[0]}.{at[1] + 1}"
        return [refusal("cluster", "version", now, rule, f"upgrade to the newest {step} first, then to {target}")]
    return []


def _newer(where: str, now: str, target: str) -> str:
    rule = f"not newer than the target, {target}: kubeadm does not go back"
    return refusal(
        where, "version", now, rule, "restore the backup of before (playbooks/restore.yml), or a later target"
    )


def offered(index: str) -> list[str]:
    """Versions of kubeadm in an apt repository's index (Packages)."""
    found = []
    for stanza in index.split("\n\n"):
        if re.search(r"^Package: kubeadm$", stanza, re.MULTILINE):
            found += re.findall(r"^Version: (\S+)$", stanza, re.MULTILINE)
    return found
