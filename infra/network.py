"""Does the cluster's network enforce NetworkPolicies? Asked before any is made.

The API server stores a policy whether or not anybody acts on it, and bridge networks such as the lab's, or plain
flannel, do not. So the programs that do are looked for by the names of their DaemonSets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pulumi

from infra.cluster import ClusterError, read_daemon_sets
from infra.errors import SettingsError
from infra.settings import Settings

ENFORCERS: Final[Mapping[str, str]] = {
    "antrea-agent": "Antrea",
    "calico-node": "Calico",
    "canal": "Canal",
    "cilium": "Cilium",
    "kube-network-policies": "kube-network-policies",
    "kube-router": "kube-router",
    "ovnkube-node": "OVN-Kubernetes",
    "weave-net": "Weave Net",
}
"""DaemonSet to network, as each project's own manifests name it."""

Reader = Callable[[str | None], Iterable[Mapping[str, Any]]]
"""Takes a kubeconfig context; returns `name`, `ready` (how many pods) and `arguments` of each DaemonSet."""


def enforcer_of(settings: Settings, read: Reader | None = None) -> str | None:
    """Who enforces the stack's NetworkPolicies; None when it asks for none, or, with a warning, when nobody is found.

    Args:
        settings: of the stack.
        read: reads the DaemonSets; from the cluster when None.

    Raises:
        SettingsError: they could not be read. Nothing is guessed, for policies that are there would be removed.
    """
    wanted = settings.network_policies
    if wanted is None:
        return None
    if wanted.enforced_by != "auto":
        return wanted.enforced_by
    if not settings.asks_cluster:
        pulumi.log.warn(f"no NetworkPolicy is made: the cluster was not asked who would enforce it\n  {WAY_OUT}")
        return None
    try:
        found = found_among((read or read_daemon_sets)(settings.kube_context))
    except ClusterError as error:
        where = f"stacks/Pulumi.{settings.stack}.yaml: tandem:network_policies.enforced_by = auto"
        raise SettingsError(f"{where}\n  {error}\n  or {WAY_OUT.removeprefix('way out: ')}") from None
    if found is None:
        known = ", ".join(sorted(ENFORCERS.values()))
        nobody = f"no NetworkPolicy is made: nothing in the cluster would enforce it (known: {known})"
        pulumi.log.warn(f"{nobody}\n  {WAY_OUT}")
    return found


WAY_OUT: Final = "way out: tandem:network_policies: {enforced_by: NAME} if the network does enforce them"


def found_among(daemon_sets: Iterable[Mapping[str, Any]]) -> str | None:
    """The first network that enforces policies and runs somewhere."""
    for each in daemon_sets:
        network = ENFORCERS.get(each["name"])
        # kube-router has parts that are switched off one by one; the firewall is the part that matters here.
        if network and each["ready"] > 0 and "--run-firewall=false" not in each["arguments"]:
            return network
    return None
