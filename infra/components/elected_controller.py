"""A controller with a standby: two replicas, one of which acts, and exactly the rights that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.coordination.v1 import Lease
from pulumi_kubernetes.core.v1 import ServiceAccount
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs
from pulumi_kubernetes.rbac.v1 import (
    ClusterRole,
    ClusterRoleBinding,
    PolicyRuleArgs,
    Role,
    RoleBinding,
    RoleRefArgs,
    SubjectArgs,
)

from infra.components._app import App, AppArgs
from infra.components._names import NAME
from infra.components._pod import pod_template, tolerations_of
from infra.components.spread_app import spread_constraint
from infra.errors import ArgsError
from tandem import labels

RETRY_FACTOR: Final = 1.2
"""client-go refuses a renew deadline that is not above this times the retry period: its jitter."""

RELEASE_SECONDS: Final = 5
"""What the release of the Lease may take after the drain; with 10 s of margin, drain 45 s makes a grace of 60 s."""

MINIMUM_GRACE_SECONDS: Final = 60

RBAC_GROUP: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, kw_only=True)
class RightsArgs:
    """One rule of RBAC. No `*`: a controller names what it touches.

    Args:
        api_groups: e.g. `apps`; the core group is the empty text.
        resources: plurals, subresources as `pods/status`.
        verbs: e.g. `get`, `list`, `watch`.
        resource_names: these objects only; all when empty.
    """

    api_groups: Sequence[str]
    resources: Sequence[str]
    verbs: Sequence[str]
    resource_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse wildcards and rules that allow nothing; raises `ArgsError`."""
        for name in ("api_groups", "resources", "verbs"):
            given = getattr(self, name)
            if not given or "*" in given:
                way_out = "name them one by one"
                raise ArgsError(f"rights.{name}", list(given), "a controller names what it touches", way_out)

    def rule(self) -> PolicyRuleArgs:
        """The rule as RBAC spells it."""
        return PolicyRuleArgs(
            api_groups=list(self.api_groups),
            resources=list(self.resources),
            verbs=list(self.verbs),
            resource_names=list(self.resource_names) or None,
        )


@dataclass(frozen=True, kw_only=True)
class ElectedControllerArgs(AppArgs):
    """The arguments of an `ElectedController`; those of every app with a controller's defaults, and these.

    Args:
        command: what the container runs; the image's own when empty.
        replicas: at least two: one acts, the others wait with warm caches.
        ready_path: 200 when the caches are synced. Never leadership: a standby would never be Ready, and no update
            would ever end.
        lease_duration_seconds: how long a lead is valid after its last renewal, and how long a successor waits.
        renew_deadline_seconds: after so long without a renewal the leader gives up; below the duration.
        retry_period_seconds: between two tries.
        cluster_rights: what it may do everywhere.
        namespace_rights: what it may do in its own namespace, beside holding its Lease.
        conformance: what `tandem conform` has shown of the image, as its annotation says it.
    """

    command: Sequence[str] = ()
    replicas: int = 2
    ready_path: str = "/readyz"
    lease_duration_seconds: int = 15
    renew_deadline_seconds: float = 10
    retry_period_seconds: float = 2
    cluster_rights: Sequence[RightsArgs] = ()
    namespace_rights: Sequence[RightsArgs] = ()
    conformance: str = ""
    drain_seconds: int = 45
    termination_grace_seconds: int = MINIMUM_GRACE_SECONDS

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        if self.replicas < 2:
            rule = "an election needs somebody who waits: with one replica nobody leads until a new pod has started"
            raise ArgsError("replicas", self.replicas, rule, "replicas: 2")
        if self.termination_grace_seconds < MINIMUM_GRACE_SECONDS:
            rule = f"drain, release ({RELEASE_SECONDS} s) and margin of a controller need {MINIMUM_GRACE_SECONDS} s"
            way_out = f"termination_grace_seconds: {MINIMUM_GRACE_SECONDS}"
            raise ArgsError("termination_grace_seconds", self.termination_grace_seconds, rule, way_out)
        lease, deadline = self.lease_duration_seconds, self.renew_deadline_seconds
        if not lease > deadline > RETRY_FACTOR * self.retry_period_seconds > 0:
            rule = f"must hold: lease {lease} > renew deadline {deadline:g} > {RETRY_FACTOR} x retry"
            way_out = "lease_duration_seconds: 15, renew_deadline_seconds: 10, retry_period_seconds: 2"
            raise ArgsError("lease_duration_seconds", lease, rule, way_out)
        if not self.ready_path.startswith("/") or any(word in self.ready_path.lower() for word in ("leader", "lease")):
            rule = "readiness is asked of every replica and must not mean leadership"
            raise ArgsError("ready_path", self.ready_path, rule, "ready_path: /readyz")
        if self.node_port is not None:
            raise ArgsError("node_port", self.node_port, "a controller has no Service", "leave it out")


class ElectedController(App):
    """A Deployment of candidates spread over the workers, their Lease, their rights and a budget.

    The Lease is deployed without a spec: its holder belongs to the candidates, and no `pulumi up` touches it. That
    it is there spares the right to create Leases, and the wait of candidates that find none.
    """

    kind: ClassVar[str] = "elected-controller"

    def __init__(self, name: str, args: ElectedControllerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=labels.CONTROLLER, opts=opts)
        self.lease = Lease(name, metadata=self.metadata(), opts=self.child())
        account = ServiceAccount(
            name, metadata=self.metadata(), automount_service_account_token=False, opts=self.child()
        )
        rights = self._rights(args)
        self.deployment = Deployment(
            name,
            metadata=self.metadata(_annotations(name, args)),
            spec=DeploymentSpecArgs(
                replicas=args.replicas,
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                # One goes before the next comes: each worker has its candidate, and there is no third place.
                strategy=DeploymentStrategyArgs(
                    type="RollingUpdate", rolling_update=RollingUpdateDeploymentArgs(max_surge=0, max_unavailable=1)
                ),
                progress_deadline_seconds=args.deploy_timeout_seconds,
                revision_history_limit=3,
                template=pod_template(
                    replace(args, env=_environment(name, args) | dict(args.env)),
                    self.labels,
                    tolerations=tolerations_of(args.profile),
                    spread=[spread_constraint(name, "wait")],
                    command=args.command,
                    ready_path=args.ready_path,
                    service_account=name,
                ),
            ),
            opts=self.child(depends_on=[self.lease, account, *rights], wait_seconds=args.deploy_timeout_seconds),
        )
        self.budget = PodDisruptionBudget(
            name,
            metadata=self.metadata(),
            spec=PodDisruptionBudgetSpecArgs(
                max_unavailable=1,
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                unhealthy_pod_eviction_policy="AlwaysAllow",
            ),
            opts=self.child(),
        )
        self.register_outputs({"deployment": self.deployment.metadata.name, "lease": self.lease.metadata.name})

    def _rights(self, args: ElectedControllerArgs) -> list[pulumi.Resource]:
        """A Role for its Lease and its namespace's objects, a ClusterRole for the rest, each bound to its account."""
        own_lease = RightsArgs(
            api_groups=["coordination.k8s.io"],
            resources=["leases"],
            verbs=["get", "list", "watch", "update"],
            resource_names=[self.name],
        )
        account = [SubjectArgs(kind="ServiceAccount", name=self.name, namespace=args.namespace)]
        made: list[pulumi.Resource] = [
            Role(
                self.name,
                metadata=self.metadata(),
                rules=[each.rule() for each in (own_lease, *args.namespace_rights)],
                opts=self.child(),
            ),
            RoleBinding(
                self.name,
                metadata=self.metadata(),
                role_ref=RoleRefArgs(api_group=RBAC_GROUP, kind="Role", name=self.name),
                subjects=account,
                opts=self.child(),
            ),
        ]
        if args.cluster_rights:
            # Cluster-wide names: two stacks may each have a controller of this name.
            metadata = ObjectMetaArgs(name=f"{args.namespace}:{self.name}", labels=self.labels)
            made += [
                ClusterRole(
                    self.name,
                    metadata=metadata,
                    rules=[each.rule() for each in args.cluster_rights],
                    opts=self.child(),
                ),
                ClusterRoleBinding(
                    self.name,
                    metadata=metadata,
                    role_ref=RoleRefArgs(
                        api_group=RBAC_GROUP, kind="ClusterRole", name=f"{args.namespace}:{self.name}"
                    ),
                    subjects=account,
                    opts=self.child(),
                ),
            ]
        return made

    def summary(self) -> dict[str, Any]:
        """The stack's output about the controller."""
        return super().summary() | {"lease": self.name}


def _annotations(name: str, args: ElectedControllerArgs) -> dict[str, str]:
    """What the controller says about itself, for the checklist."""
    times = (args.lease_duration_seconds, args.renew_deadline_seconds, args.retry_period_seconds)
    said = {
        labels.LEASE: name,
        labels.LEASE_SECONDS: "/".join(f"{each:g}" for each in times),
        labels.DRAIN_SECONDS: str(args.drain_seconds),
        labels.FIELD_MANAGER: name,
    }
    return said | ({labels.CONFORMANCE: args.conformance} if args.conformance else {})


def _environment(name: str, args: ElectedControllerArgs) -> dict[str, str]:
    """The same, for a controller of `tandem.runtime`; another one does not read it."""
    return {
        "TANDEM_LEASE_NAME": name,
        "TANDEM_LEASE_DURATION": str(args.lease_duration_seconds),
        "TANDEM_RENEW_DEADLINE": f"{args.renew_deadline_seconds:g}",
        "TANDEM_RETRY_PERIOD": f"{args.retry_period_seconds:g}",
        "TANDEM_DRAIN_SECONDS": str(args.drain_seconds),
        "TANDEM_HEALTH_PORT": str(args.port),
    }
