"""An app with a replica on every worker, so that the loss of one leaves it serving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.autoscaling.v2 import (
    CrossVersionObjectReferenceArgs,
    HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpecArgs,
    MetricSpecArgs,
    MetricTargetArgs,
    ResourceMetricSourceArgs,
)
from pulumi_kubernetes.core.v1 import TopologySpreadConstraintArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components._app import App, AppArgs
from infra.components._names import NAME
from infra.components._parts import AutoscalingArgs
from infra.components._pod import pod_template, tolerations_of
from infra.components._waits import NOT_AWAITED
from infra.errors import ArgsError
from tandem.labels import AUTOSCALED, REBALANCED_BY, SPREAD
from tandem.recovery import Behaviour


@dataclass(frozen=True, kw_only=True)
class SpreadAppArgs(AppArgs):
    """The arguments of a `SpreadApp`.

    Args:
        replicas: at least two; over the workers they differ by one at most. One, without a budget, in dev.
        one_is_enough: one replica is accepted; the stack says so where the checklist does: in dev.
        autoscaling: let an autoscaler set the number of replicas, which is then left out here.
        on_node_loss: `wait`: the replacement stays Pending until the node is back, and the spread heals by itself.
            `crowd`: it joins the survivor, which must have room; after the return somebody must rebalance (`tandem
            rebalance`, or `rebalance` of the stack), or the next loss takes all replicas.
        rebalanced_by: who brings replicas that crowd apart again. The stack says so of its own `rebalance`.
        pre_stop_seconds: how long a pod that is to stop goes on serving while its endpoint is withdrawn everywhere.
        max_surge: pods above `replicas` during an update.
        max_unavailable: pods below `replicas` during an update. 0 and a surge of 1 keep the full count serving, and
            need room for one pod more; 1 and 0 need no room. Both finish on two workers, for each revision is
            spread by itself.
    """

    OBJECTS: ClassVar[frozenset[str]] = AppArgs.OBJECTS | {
        "Deployment",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    }

    replicas: int = 2
    one_is_enough: bool = False
    autoscaling: AutoscalingArgs | None = None
    on_node_loss: Literal["wait", "crowd"] = "wait"
    rebalanced_by: str = ""
    pre_stop_seconds: int = 5
    max_surge: int = 1
    max_unavailable: int = 0

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        self._check_range("pre_stop_seconds", 0, 600, "seconds for the endpoint to disappear")
        super().__post_init__()
        if self.autoscaling and self.replicas != 2:
            rule = "the autoscaler sets the number, and two that set one number take it from each other"
            raise ArgsError("replicas", self.replicas, rule, "leave replicas out, or autoscaling")
        if self.replicas < (1 if self.one_is_enough else 2):
            raise ArgsError(
                "replicas",
                self.replicas,
                "one replica is away for the whole failover when its node is lost",
                "replicas: 2, or kind: single-writer for an app that must run once",
            )
        if self.max_surge < 0 or self.max_unavailable < 0 or self.max_surge + self.max_unavailable == 0:
            values = {"max_surge": self.max_surge, "max_unavailable": self.max_unavailable}
            way_out = "max_surge: 1, max_unavailable: 0"
            raise ArgsError("max_surge", values, "an update could never replace a pod", way_out)
        if self.max_unavailable >= self.replicas:
            rule = f"an update could stop all {self.replicas} replicas at once"
            raise ArgsError("max_unavailable", self.max_unavailable, rule, "max_unavailable: 0 or 1")

    @property
    def spare(self) -> bool:
        """Whether there is a replica to lose."""
        return self.replicas > 1

    @property
    def busy_seconds(self) -> int:
        """A pod serves through preStop and drains after it."""
        return self.pre_stop_seconds + self.drain_seconds

    @property
    def pods_on_survivor(self) -> int:
        """With `wait` the lost worker's replicas stay Pending; with `crowd` they come, as many as there may be."""
        most = self.autoscaling.max_replicas if self.autoscaling else self.replicas
        return most if self.on_node_loss == "crowd" else math.ceil(most / 2)

    @property
    def behaviour(self) -> Behaviour:
        """By `on_node_loss`; one replica alone starts elsewhere."""
        if not self.spare:
            return "replace"
        return "spread-wait" if self.on_node_loss == "wait" else "spread-crowd"


class SpreadApp(App):
    """A Deployment spread over the workers, a PodDisruptionBudget, and a Service that prefers the caller's own node.

    Callers on the survivor never meet a dead endpoint, because their own node's replica answers them.
    """

    kind: ClassVar[str] = "spread"

    def __init__(self, name: str, args: SpreadAppArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=SPREAD, opts=opts)
        self.on_node_loss = args.on_node_loss
        scaling = args.autoscaling
        said = {AUTOSCALED: f"{scaling.min_replicas}-{scaling.max_replicas}"} if scaling else {}
        if args.on_node_loss == "crowd" and args.rebalanced_by:
            said[REBALANCED_BY] = args.rebalanced_by
        # The old pod on the survivor would stay until a second new one is ready, for which there is no place.
        unavailable = max(args.max_unavailable, 1) if args.degraded else args.max_unavailable
        self.deployment = Deployment(
            name,
            metadata=self.workload_metadata(said),
            spec=DeploymentSpecArgs(
                replicas=None if scaling else args.replicas,
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                strategy=DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=RollingUpdateDeploymentArgs(max_surge=args.max_surge, max_unavailable=unavailable),
                ),
                # With a node away an update in `wait` cannot finish. Kubernetes says so, and `pulumi up` with it.
                progress_deadline_seconds=args.deploy_timeout_seconds,
                revision_history_limit=3,
                template=pod_template(
                    args,
                    self.labels,
                    pre_stop_seconds=args.pre_stop_seconds,
                    tolerations=tolerations_of(args.profile),
                    spread=[spread_constraint(name, args.on_node_loss)] if args.spare else (),
                ),
            ),
            opts=self.child(wait_seconds=args.deploy_timeout_seconds),
        )
        if args.spare:
            self.one_at_a_time()
        if scaling:
            HorizontalPodAutoscaler(
                name,
                metadata=self.metadata(NOT_AWAITED),
                spec=_autoscaler(name, scaling),
                opts=self.child(),
            )
        self.expose(traffic_distribution="PreferSameNode")
        self.register_outputs({"deployment": self.deployment.metadata.name})

    def summary(self) -> dict[str, Any]:
        """The stack's output about the app."""
        return super().summary() | {"on_node_loss": self.on_node_loss}


def _autoscaler(name: str, args: AutoscalingArgs) -> HorizontalPodAutoscalerSpecArgs:
    aims = {"cpu": args.cpu_percent, "memory": args.memory_percent}
    return HorizontalPodAutoscalerSpecArgs(
        scale_target_ref=CrossVersionObjectReferenceArgs(api_version="apps/v1", kind="Deployment", name=name),
        min_replicas=args.min_replicas,
        max_replicas=args.max_replicas,
        metrics=[
            MetricSpecArgs(
                type="Resource",
                resource=ResourceMetricSourceArgs(
                    name=resource, target=MetricTargetArgs(type="Utilization", average_utilization=percent)
                ),
            )
            for resource, percent in aims.items()
            if percent is not None
        ],
    )


def spread_constraint(name: str, on_node_loss: Literal["wait", "crowd"]) -> TopologySpreadConstraintArgs:
    """Over nodes the replicas of one revision differ by one at most; a pod that would break this stays Pending.

    `wait`: a tainted node still counts as an empty domain (nodeTaintsPolicy Ignore, the default), so its replica has no
    other place, and `min_domains` keeps this true when the Node object itself is gone.
    `crowd`: a tainted node does not count. `min_domains` must then be left out: with fewer domains than that the
    scheduler takes the emptiest domain as 0 (KEP-3022), and the survivor could again hold one replica only.
    """
    wait = on_node_loss == "wait"
    return TopologySpreadConstraintArgs(
        max_skew=1,
        topology_key="kubernetes.io/hostname",
        when_unsatisfiable="DoNotSchedule",
        label_selector=LabelSelectorArgs(match_labels={NAME: name}),
        # Each revision is spread by itself; else old pods decide where new ones may go, and an update can get stuck.
        match_label_keys=["pod-template-hash"],
        min_domains=2 if wait else None,
        node_taints_policy=None if wait else "Honor",
    )
