"""A program that belongs to every node: ingress, CNI, log shipper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pulumi
from pulumi_kubernetes.apps.v1 import DaemonSet, DaemonSetSpecArgs
from pulumi_kubernetes.core.v1 import TolerationArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components._app import App, AppArgs
from infra.components._names import NAME
from infra.components._pod import pod_template
from infra.components._waits import one_node_at_a_time
from tandem.labels import NODE_AGENT
from tandem.recovery import Behaviour


@dataclass(frozen=True, kw_only=True)
class NodeAgentArgs(AppArgs):
    """The arguments of a `NodeAgent`.

    Args:
        on_control_plane: run on control plane nodes too.
        exposed: make a Service, which sends callers to the agent on their own node.
    """

    OBJECTS: ClassVar[frozenset[str]] = AppArgs.OBJECTS | {"DaemonSet"}

    on_control_plane: bool = False
    exposed: bool = False

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        if not self.exposed:
            self._refuse_service("exposed: true")

    @property
    def behaviour(self) -> Behaviour:
        """It belongs to its node."""
        return "node-agent"


class NodeAgent(App):
    """A DaemonSet on the workers, updated one node at a time.

    Its pods carry no tolerations of the profile: they belong to their node, the DaemonSet controller itself makes them
    tolerate its loss, and an eviction would only kill the agent of a node that is cut off.
    """

    kind: ClassVar[str] = "node-agent"

    def __init__(self, name: str, args: NodeAgentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=NODE_AGENT, opts=opts)
        tolerations = []
        if args.on_control_plane:
            tolerations.append(
                TolerationArgs(key="node-role.kubernetes.io/control-plane", operator="Exists", effect="NoSchedule")
            )
        self.daemon_set = DaemonSet(
            name,
            metadata=self.workload_metadata(),
            spec=DaemonSetSpecArgs(
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                update_strategy=one_node_at_a_time(degraded=args.degraded),
                revision_history_limit=3,
                template=pod_template(
                    args, self.labels, tolerations=tolerations, on_control_plane=args.on_control_plane
                ),
            ),
            opts=self.child(wait_seconds=args.deploy_timeout_seconds),
        )
        if args.exposed:
            self.expose(traffic_distribution="PreferSameNode")
        self.register_outputs({"daemon_set": self.daemon_set.metadata.name})
