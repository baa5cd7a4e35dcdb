"""What every controller has in common: its arguments, its Leases, its rights, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pulumi_kubernetes.core.v1 import ServiceAccount, TopologySpreadConstraintArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
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
from infra.components._parts import Part
from infra.components._pod import pod_template, tolerations_of
from infra.errors import ArgsError
from tandem import labels

RETRY_FACTOR: Final = 1.2
"""client-go refuses a renew deadline that is not above this times the retry period: its jitter."""

RELEASE_SECONDS: Final = 5
"""What the release of the Lease may take after the drain; with 10 s of margin, drain 45 s makes a grace of 60 s."""

MINIMUM_GRACE_SECONDS: Final = 60

RBAC_GROUP: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, kw_only=True)
class RightsArgs(Part):
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
class ControllerArgs(AppArgs):
    """The arguments of every controller; those of every app with a controller's defaults, and these.

    Args:
        command: what the container runs; the image's own when empty.
        ready_path: 200 when the caches are synced. Never leadership: a standby would never be Ready, and no update
            would ever end.
        lease_duration_seconds: how long a lead is valid after its last renewal, and how long a successor waits.
        renew_deadline_seconds: after so long without a renewal the leader gives up; below the duration.
        retry_period_seconds: between two tries.
        cluster_rights: what it may do everywhere.
        namespace_rights: what it may do in its own namespace, beside holding its Lease.
        conformance: what `tandem conform` has shown of the image, as its annotation says it.
    """

    OBJECTS: ClassVar[frozenset[str]] = frozenset(
        {"Deployment", "Lease", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
        | {"ConfigMap", "Secret"}
    )

    command: Sequence[str] = ()
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
        self._refuse_service("leave it out")


ROLLING: Final = DeploymentStrategyArgs(
    type="RollingUpdate", rolling_update=RollingUpdateDeploymentArgs(max_surge=0, max_unavailable=1)
)
"""One goes before the next comes: each worker has its candidate, and there is no third place."""

RECREATE: Final = DeploymentStrategyArgs(type="Recreate")


class Controller(App):
    """A controller's Deployment, Lease and rights. Subclasses say how many replicas there are and how they change.

    The Lease is deployed without a spec: its holder belongs to the candidates, and no `pulumi up` touches it. That
    it is there spares the right to create Leases, and the wait of candidates that find none.
    """

    lease: Lease | None = None
    deployment: Deployment

    def __init__(self, name: str, args: ControllerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=labels.CONTROLLER, opts=opts)

    def deploy(
        self,
        args: ControllerArgs,
        *,
        replicas: int,
        strategy: DeploymentStrategyArgs,
        elected: bool = True,
        spread: Sequence[TopologySpreadConstraintArgs] = (),
        says: Mapping[str, str] | None = None,
        told: Mapping[str, str] | None = None,
        rights_in: Mapping[str, Sequence[RightsArgs]] | None = None,
    ) -> None:
        """Create Lease, account, rights and Deployment, in the order in which they need each other.

        Args:
            args: the controller's arguments.
            replicas: of the Deployment.
            strategy: of its updates.
            elected: with a Lease and the right to hold it.
            spread: topology spread constraints.
            says: annotations for the checklist beside those of every controller.
            told: environment variables beside those of every controller.
            rights_in: what it may do in other namespaces, which must exist.
        """
        before: list[pulumi.Resource] = []
        if elected:
            self.lease = Lease(self.name, metadata=self.metadata(), opts=self.child())
            before.append(self.lease)
        account = ServiceAccount(
            self.name, metadata=self.metadata(), automount_service_account_token=False, opts=self.child()
        )
        rights = self._rights(args, elected=elected, rights_in=rights_in or {})
        env = _environment(self.name, args, elected=elected) | dict(told or {}) | dict(args.env)
        self.deployment = Deployment(
            self.name,
            metadata=self.workload_metadata(_annotations(self.name, args, elected=elected) | dict(says or {})),
            spec=DeploymentSpecArgs(
                replicas=replicas,
                selector=LabelSelectorArgs(match_labels={NAME: self.name}),
                strategy=strategy,
                progress_deadline_seconds=args.deploy_timeout_seconds,
                revision_history_limit=3,
                template=pod_template(
                    replace(args, env=env),
                    self.labels,
                    tolerations=tolerations_of(args.profile),
                    spread=spread,
                    command=args.command,
                    ready_path=args.ready_path,
                    service_account=self.name,
                ),
            ),
            opts=self.child(depends_on=[*before, account, *rights], wait_seconds=args.deploy_timeout_seconds),
        )

    def _rights(
        self, args: ControllerArgs, *, elected: bool, rights_in: Mapping[str, Sequence[RightsArgs]]
    ) -> list[pulumi.Resource]:
        """A Role for its Lease and its namespace's objects, a ClusterRole for the rest, each bound to its account."""
        own = [*([_own_lease(self.name)] if elected else []), *args.namespace_rights]
        account = [SubjectArgs(kind="ServiceAccount", name=self.name, namespace=args.namespace)]
        # A name beyond its namespace: two stacks may each have a controller of this name.
        full_name = f"{args.namespace}:{self.name}"
        made: list[pulumi.Resource] = []

        def bind(logical: str, metadata: ObjectMetaArgs, name: str, rights: Sequence[RightsArgs]) -> None:
            rules = [each.rule() for each in rights]
            role = RoleRefArgs(api_group=RBAC_GROUP, kind="Role", name=name)
            made.append(Role(logical, metadata=metadata, rules=rules, opts=self.child()))
            made.append(RoleBinding(logical, metadata=metadata, role_ref=role, subjects=account, opts=self.child()))

        if own:
            bind(self.name, self.metadata(), self.name, own)
        for namespace, rights in rights_in.items():
            metadata = ObjectMetaArgs(name=full_name, namespace=namespace, labels=self.labels)
            bind(f"{self.name}-in-{namespace}", metadata, full_name, rights)
        if args.cluster_rights:
            metadata = ObjectMetaArgs(name=full_name, labels=self.labels)
            rules = [each.rule() for each in args.cluster_rights]
            role = RoleRefArgs(api_group=RBAC_GROUP, kind="ClusterRole", name=full_name)
            made.append(ClusterRole(self.name, metadata=metadata, rules=rules, opts=self.child()))
            made.append(
                ClusterRoleBinding(self.name, metadata=metadata, role_ref=role, subjects=account, opts=self.child())
            )
        return made

    def summary(self) -> dict[str, Any]:
        """The stack's output about the controller."""
        return super().summary() | {"lease": self.name if self.lease else None}


def _own_lease(name: str) -> RightsArgs:
    return RightsArgs(
        api_groups=["coordination.k8s.io"],
        resources=["leases"],
        verbs=["get", "list", "watch", "update"],
        resource_names=[name],
    )


def _annotations(name: str, args: ControllerArgs, *, elected: bool) -> dict[str, str]:
    """What the controller says about itself, for the checklist."""
    said = {labels.DRAIN_SECONDS: str(args.drain_seconds), labels.FIELD_MANAGER: name}
    if elected:
        times = (args.lease_duration_seconds, args.renew_deadline_seconds, args.retry_period_seconds)
        said |= {labels.LEASE: name, labels.LEASE_SECONDS: "/".join(f"{each:g}" for each in times)}
    return said | ({labels.CONFORMANCE: args.conformance} if args.conformance else {})


def _environment(name: str, args: ControllerArgs, *, elected: bool) -> dict[str, str]:
    """The same, for a controller of `tandem.runtime`; another one does not read it."""
    told = {"TANDEM_DRAIN_SECONDS": str(args.drain_seconds), "TANDEM_HEALTH_PORT": str(args.port)}
    if not elected:
        return told | {"TANDEM_ELECTED": "false"}
    return told | {
        "TANDEM_LEASE_NAME": name,
        "TANDEM_LEASE_DURATION": str(args.lease_duration_seconds),
        "TANDEM_RENEW_DEADLINE": f"{args.renew_deadline_seconds:g}",
        "TANDEM_RETRY_PERIOD": f"{args.retry_period_seconds:g}",
    }
