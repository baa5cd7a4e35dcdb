"""The way in from outside: our small gateway on every worker, behind the address that the workers share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pulumi
from pulumi_kubernetes.core.v1 import ServiceAccount
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import IngressClass, IngressClassSpecArgs
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, Role, RoleBinding, RoleRefArgs, SubjectArgs

from infra.components._controller import RBAC_GROUP
from infra.components._names import check_image, check_name, labels_of
from infra.components._parts import Part, check_quantity, check_range
from infra.components.node_agent import NodeAgent, NodeAgentArgs
from infra.components.workspace import Workspace, WorkspaceArgs
from tandem.recovery import RecoveryProfile

NAME: Final = "gateway"
CONTROLLER: Final = "tandem-ha.io/gateway"
"""What the IngressClass says of who serves it."""

REQUESTS_PORT: Final = 8000
DRAIN_SECONDS: Final = 15
"""5 s in which it says that it is about to end and serves on, and 10 s for requests under way."""


@dataclass(frozen=True, kw_only=True)
class GatewayArgs(Part):
    """Tandem's gateway: HTTP from a port of every worker to the Services that Ingress objects of its class name.

    Args:
        image: of Tandem's controllers.
        ingress_class: the class's name; apps ask for it by `ingress.class_name`.
        port: of the workers; what `tandem_virtual_ip_port` of the inventory names.
        namespace: its own, for a port of the node is more than `baseline` allows.
        cpu_request: what the scheduler reserves on each worker.
        memory_request: the same for memory.
        memory_limit: above it the container is killed.
    """

    image: str
    ingress_class: str = "tandem"
    port: int = 80
    namespace: str = "tandem-gateway"
    cpu_request: str = "50m"
    memory_request: str = "64Mi"
    memory_limit: str = "192Mi"

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_image(self.image, "gateway.image")
        check_name(self.ingress_class, "gateway.ingress_class")
        check_name(self.namespace, "gateway.namespace")
        check_range("gateway.port", self.port, 1, 65535, "a TCP port of the workers")
        for name in ("cpu_request", "memory_request", "memory_limit"):
            check_quantity(f"gateway.{name}", getattr(self, name))


class Gateway(pulumi.ComponentResource):
    """A DaemonSet of gateways, the class that they serve, and the right to read what they need in one namespace.

    Args:
        args: its arguments.
        apps: the namespace whose Ingress objects it serves.
        profile: the cluster's recovery profile.
        degraded: a worker is away, and nobody waits for the gateway there.
        opts: after that namespace.
    """

    def __init__(
        self,
        args: GatewayArgs,
        *,
        apps: str,
        profile: RecoveryProfile,
        degraded: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("tandem:components:Gateway", NAME, None, opts)
        child, labels = pulumi.ResourceOptions(parent=self), labels_of(NAME, None)
        home = Workspace(args.namespace, WorkspaceArgs(namespace=args.namespace, pod_security="privileged"), child)
        at_home = pulumi.ResourceOptions(parent=self, depends_on=[home])
        account = ServiceAccount(
            NAME,
            metadata=ObjectMetaArgs(name=NAME, namespace=args.namespace, labels=labels),
            automount_service_account_token=False,
            opts=at_home,
        )
        there = ObjectMetaArgs(name=NAME, namespace=apps, labels=labels)
        watch = ["get", "list", "watch"]
        role = Role(
            NAME,
            metadata=there,
            rules=[
                PolicyRuleArgs(api_groups=["networking.k8s.io"], resources=["ingresses"], verbs=watch),
                PolicyRuleArgs(api_groups=[""], resources=["services"], verbs=watch),
            ],
            opts=child,
        )
        binding = RoleBinding(
            NAME,
            metadata=there,
            role_ref=RoleRefArgs(api_group=RBAC_GROUP, kind="Role", name=NAME),
            subjects=[SubjectArgs(kind="ServiceAccount", name=NAME, namespace=args.namespace)],
            opts=child,
        )
        IngressClass(
            args.ingress_class,
            metadata=ObjectMetaArgs(name=args.ingress_class, labels=labels),
            spec=IngressClassSpecArgs(controller=CONTROLLER),
            opts=child,
        )
        self.agent = NodeAgent(
            NAME,
            replace(_agent(args, apps, profile), degraded=degraded),
            pulumi.ResourceOptions(parent=self, depends_on=[account, role, binding]),
        )
        self.register_outputs({"daemon_set": self.agent.daemon_set.metadata.name})


def _agent(args: GatewayArgs, apps: str, profile: RecoveryProfile) -> NodeAgentArgs:
    container = {
        "name": "app",
        "command": ["python3", "-P", "-m", "tandem.controllers.gateway"],
        "ports": [{"name": "requests", "containerPort": REQUESTS_PORT, "hostPort": args.port, "protocol": "TCP"}],
    }
    return NodeAgentArgs(
        namespace=args.namespace,
        profile=profile,
        image=args.image,
        # Once it has seen the cluster it stays ready, also without the API server, until it is told to end.
        health_path="/readyz",
        env={
            "TANDEM_GATEWAY_CLASS": args.ingress_class,
            "TANDEM_GATEWAY_PORT": str(REQUESTS_PORT),
            "TANDEM_NAMESPACES": apps,
            "TANDEM_DRAIN_SECONDS": str(DRAIN_SECONDS - 5),
        },
        cpu_request=args.cpu_request,
        memory_request=args.memory_request,
        memory_limit=args.memory_limit,
        metrics_path="/metrics",
        startup_seconds=120,
        drain_seconds=DRAIN_SECONDS,
        termination_grace_seconds=2 * DRAIN_SECONDS,
        pod_spec_overrides={
            "serviceAccountName": NAME,
            "automountServiceAccountToken": True,
            "containers": [container],
        },
    )
