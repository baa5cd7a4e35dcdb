"""The auditor on a cluster: its report's kind, and the controller with exactly the rights that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import pulumi
from pulumi_kubernetes.apiextensions.v1 import CustomResourceDefinition, CustomResourceDefinitionSpecArgs
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._controller import RightsArgs
from infra.components._names import MANAGED_BY
from infra.components.elected_controller import ElectedController, ElectedControllerArgs
from infra.errors import ArgsError
from tandem.checklist import ENVIRONMENTS
from tandem.controllers.auditor.reports import custom_resource_definition
from tandem.controllers.auditor.rights import cluster_rules


def auditor_rights() -> tuple[RightsArgs, ...]:
    """What the auditor itself says that it may do."""
    return tuple(
        RightsArgs(
            api_groups=each["apiGroups"],
            resources=each["resources"],
            verbs=each["verbs"],
            resource_names=each.get("resourceNames", ()),
        )
        for each in cluster_rules()
    )


@dataclass(frozen=True, kw_only=True)
class AuditorArgs(ElectedControllerArgs):
    """The arguments of an `Auditor`.

    Args:
        environment: whose levels of the checklist apply: dev, staging, prod or lab.
    """

    environment: str = "prod"
    command: Sequence[str] = ("python3", "-P", "-m", "tandem.controllers.auditor")
    cluster_rights: Sequence[RightsArgs] = field(default_factory=auditor_rights)
    memory_request: str = "96Mi"
    memory_limit: str = "256Mi"

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        if self.environment not in ENVIRONMENTS:
            rule = "the checklist has no levels for it"
            raise ArgsError("environment", self.environment, rule, f"one of {', '.join(ENVIRONMENTS)}")


class Auditor(ElectedController):
    """The auditor controller, and the kind of its reports."""

    kind: ClassVar[str] = "auditor"

    def __init__(self, name: str, args: AuditorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        made = custom_resource_definition()
        # No parent yet: the component below waits for it, so that the first reconcile finds its kind.
        definition = CustomResourceDefinition(
            made["metadata"]["name"],
            metadata=ObjectMetaArgs(name=made["metadata"]["name"], labels={MANAGED_BY: "pulumi"}),
            # The SDK takes a mapping of wire names wherever it takes an Args object.
            spec=cast(CustomResourceDefinitionSpecArgs, made["spec"]),
            opts=opts,
        )
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[definition]))
        env: Mapping[str, str] = {"TANDEM_ENVIRONMENT": args.environment} | dict(args.env)
        super().__init__(name, replace(args, env=env), after)

    def summary(self) -> dict[str, Any]:
        """The stack's output about the auditor."""
        return super().summary() | {"reports": "kubectl get highavailabilityreports -A"}
