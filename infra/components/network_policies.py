"""Who may reach a stack's pods, for a cluster whose network enforces it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import (
    IPBlockArgs,
    NetworkPolicy,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)

from infra.components._app import App, AppArgs
from infra.components._names import MANAGED_BY, NAME, check_name
from infra.components._parts import Part
from infra.errors import ArgsError

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that the API server puts on every namespace."""


@dataclass(frozen=True, kw_only=True)
class NetworkPoliciesArgs(Part):
    """The arguments of `NetworkPolicies`.

    Args:
        enforced_by: `auto` looks in the cluster for a network that enforces policies, and without one warns and makes
            none: a policy that nobody enforces looks like protection. Any other word names the network and is believed,
            for a rendering without a cluster, or where listing DaemonSets is not allowed.
        from_namespaces: whose pods reach all pods of the stack, besides its own: Prometheus', the Ingress controller's.
        from_cidrs: addresses outside the cluster that reach all pods of the stack.
    """

    enforced_by: str = "auto"
    from_namespaces: Sequence[str] = ()
    from_cidrs: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        if not self.enforced_by.strip():
            raise ArgsError("network_policies.enforced_by", self.enforced_by, "auto, or who does", "calico")
        for name in self.from_namespaces:
            check_name(name, "network_policies.from_namespaces")
        for each in self.from_cidrs:
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                way_out = "10.1.0.0/16"
                raise ArgsError("network_policies.from_cidrs", each, str(error), way_out) from None


class NetworkPolicies(pulumi.ComponentResource):
    """One policy for the namespace, and one for each app that somebody reaches from outside at a node's port.

    What comes in is limited to the namespace itself and to what the arguments name; what goes out is not, for a rule
    that forgets DNS or the API server stops an app. kubelet's probes pass: a pod's own node may always reach it.
    """

    def __init__(
        self,
        name: str,
        args: NetworkPoliciesArgs,
        namespace: str,
        apps: Mapping[str, App],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("tandem:components:NetworkPolicies", name, None, opts)
        self._namespace = namespace
        self._make("tandem", LabelSelectorArgs(), [NetworkPolicyIngressRuleArgs(from_=_peers(args))])
        for app_name, app in apps.items():
            if ports := open_ports(app.args):
                # No peers: from anywhere. A node may hide the caller's address behind its own.
                rule = NetworkPolicyIngressRuleArgs(ports=ports)
                self._make(f"{app_name}-node-ports", LabelSelectorArgs(match_labels={NAME: app_name}), [rule])
        self.register_outputs({})

    def _make(self, name: str, pods: LabelSelectorArgs, ingress: Sequence[NetworkPolicyIngressRuleArgs]) -> None:
        NetworkPolicy(
            name,
            metadata=ObjectMetaArgs(name=name, namespace=self._namespace, labels={MANAGED_BY: "pulumi"}),
            spec=NetworkPolicySpecArgs(pod_selector=pods, policy_types=["Ingress"], ingress=list(ingress)),
            opts=pulumi.ResourceOptions(parent=self),
        )


def open_ports(args: AppArgs) -> list[NetworkPolicyPortArgs]:
    """The container's ports that the app offers on every node."""
    offered = [(args.port, "TCP")] if args.node_port is not None else []
    offered += [(each.port, each.protocol) for each in args.ports if each.node_port is not None]
    return [NetworkPolicyPortArgs(port=port, protocol=protocol) for port, protocol in offered]


def _peers(args: NetworkPoliciesArgs) -> list[NetworkPolicyPeerArgs]:
    own = [NetworkPolicyPeerArgs(pod_selector=LabelSelectorArgs())]
    others = [
        NetworkPolicyPeerArgs(namespace_selector=LabelSelectorArgs(match_labels={NAMESPACE_NAME: each}))
        for each in args.from_namespaces
    ]
    outside = [NetworkPolicyPeerArgs(ip_block=IPBlockArgs(cidr=each)) for each in args.from_cidrs]
    return own + others + outside
