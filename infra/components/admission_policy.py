"""The availability checklist in the API server: what `kubectl edit` would break is refused by the cluster itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import pulumi
from pulumi_kubernetes.admissionregistration.v1 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpecArgs,
    ValidatingAdmissionPolicySpecArgs,
)
from pulumi_kubernetes.core.v1 import ConfigMap
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._app import App
from infra.components._names import MANAGED_BY, check_name
from infra.errors import ArgsError
from tandem import admission
from tandem.checklist import ENVIRONMENTS, Environment, environment_of
from tandem.labels import SINGLE_WRITER, SPREAD, WORKLOAD
from tandem.recovery import RecoveryProfile

_BOUNDS = ("alone", "spare")


@dataclass(frozen=True, kw_only=True)
class AdmissionPolicyArgs:
    """The arguments of an `AdmissionPolicy`.

    Args:
        profile: that the cluster was tuned with; the rule on tolerations carries its numbers.
        environment: whose levels of the checklist apply: dev, staging, prod or lab. One for the whole cluster.
        protected: namespace to name of a Deployment to `alone` (one replica at most) or `spare` (two or more, or none).
            `kubectl scale` and autoscalers show the API server a name and a number, nothing else; a Deployment that is
            not named here they scale as they like. The namespaces must exist.
    """

    profile: RecoveryProfile
    environment: str = "prod"
    protected: Mapping[str, Mapping[str, admission.Bound]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        if self.environment not in ENVIRONMENTS:
            rule = "the checklist has no levels for it"
            raise ArgsError("environment", self.environment, rule, f"one of {', '.join(ENVIRONMENTS)}")
        for namespace, bounds in self.protected.items():
            check_name(namespace, "protected")
            for name, bound in bounds.items():
                if bound not in _BOUNDS:
                    where = f"protected.{namespace}.{name}"
                    raise ArgsError(where, bound, "no such bound of a Deployment's replicas", f"one of {_BOUNDS}")


def admission_args(
    stack: str, profile: RecoveryProfile, namespace: str, apps: Mapping[str, App]
) -> AdmissionPolicyArgs:
    """The arguments for a stack's apps: the levels of its environment, and never two of a single writer by scaling."""
    known: dict[str | None, admission.Bound] = {SINGLE_WRITER: "alone", SPREAD: "spare"}
    workloads = {name: app.labels.get(WORKLOAD) for name, app in apps.items()}
    bounds = {name: known[workload] for name, workload in workloads.items() if workload in known}
    return AdmissionPolicyArgs(profile=profile, environment=environment_of(stack), protected={namespace: bounds})


class AdmissionPolicy(pulumi.ComponentResource):
    """ValidatingAdmissionPolicies and bindings made from the checklist's table: one of these a cluster.

    They judge nothing until a namespace carries the label `tandem-ha.io/admission`: `warn` for a first roll-out, `deny`
    to refuse what the environment calls an error.
    """

    def __init__(self, name: str, args: AdmissionPolicyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tandem:components:AdmissionPolicy", name, None, opts)
        policies: dict[str, pulumi.Resource] = {}
        for made in admission.manifests(cast(Environment, args.environment), args.profile):
            object_name = made["metadata"]["name"]
            metadata = ObjectMetaArgs(name=object_name, labels={MANAGED_BY: "pulumi"})
            # The SDK takes a mapping of wire names wherever it takes an Args object.
            if made["kind"] == "ValidatingAdmissionPolicy":
                policies[object_name] = ValidatingAdmissionPolicy(
                    object_name,
                    metadata=metadata,
                    spec=cast(ValidatingAdmissionPolicySpecArgs, made["spec"]),
                    opts=pulumi.ResourceOptions(parent=self),
                )
            else:
                ValidatingAdmissionPolicyBinding(
                    object_name,
                    metadata=metadata,
                    spec=cast(ValidatingAdmissionPolicyBindingSpecArgs, made["spec"]),
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[policies[made["spec"]["policyName"]]]),
                )
        for namespace, bounds in sorted(args.protected.items()):
            listed = admission.protected(namespace, bounds)
            ConfigMap(
                f"{namespace}-{listed['metadata']['name']}",
                metadata=ObjectMetaArgs(**listed["metadata"], labels={MANAGED_BY: "pulumi"}),
                data=listed["data"],
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({"environment": args.environment})
