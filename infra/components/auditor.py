"""The auditor on a cluster, whole or in shards: its report's kind, and the rights that it needs and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, cast

import pulumi
from pulumi_kubernetes.apiextensions.v1 import CustomResourceDefinition, CustomResourceDefinitionSpecArgs
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._controller import RightsArgs
from infra.components._names import MANAGED_BY
from infra.components.elected_controller import ElectedController, ElectedControllerArgs
from infra.components.sharded_controller import ShardedController, ShardedControllerArgs
from infra.errors import ArgsError
from tandem.checklist import ENVIRONMENTS
from tandem.controllers.auditor.reports import custom_resource_definition
from tandem.controllers.auditor.rights import cluster_rules
from tandem.runtime.resources import CONFIG_MAPS, EVENTS, NODES

OF_ALL_SHARDS: Final = frozenset({NODES.plural, CONFIG_MAPS.plural})
"""What every shard looks at wherever it is: the nodes, and the recorded profile."""


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


def rights_of_all_shards() -> tuple[RightsArgs, ...]:
    """The part of them that a shard of namespaces needs in the whole cluster."""
    return _parts(lambda resource: resource in OF_ALL_SHARDS)


def rights_of_a_shard() -> tuple[RightsArgs, ...]:
    """The part of them that it needs in its own namespaces only."""
    return _parts(lambda resource: resource not in OF_ALL_SHARDS)


def rights_at_home() -> tuple[RightsArgs, ...]:
    """The part of them that it needs where its Lease is: to tell of its election."""
    return _parts(lambda resource: resource == EVENTS.plural)


def _parts(belongs: Callable[[str], bool]) -> tuple[RightsArgs, ...]:
    chosen = [(each, [name for name in each.resources if belongs(name)]) for each in auditor_rights()]
    return tuple(replace(each, resources=resources) for each, resources in chosen if resources)


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


@dataclass(frozen=True, kw_only=True)
class ShardedAuditorArgs(AuditorArgs, ShardedControllerArgs):
    """The arguments of a `ShardedAuditor`: those of an `Auditor` and of a `ShardedController`, by namespaces."""

    cluster_rights: Sequence[RightsArgs] = field(default_factory=rights_of_all_shards)
    scope_rights: Sequence[RightsArgs] = field(default_factory=rights_of_a_shard)
    namespace_rights: Sequence[RightsArgs] = field(default_factory=rights_at_home)

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        for each in self.shards:
            if each.label:
                rule = "a namespace has one report, which two shards of labels would both write"
                raise ArgsError("shards.label", each.label, rule, "namespaces: [team-a]")
        super().__post_init__()


class Auditor(ElectedController):
    """The auditor controller, and the kind of its reports."""

    kind: ClassVar[str] = "auditor"

    def __init__(self, name: str, args: AuditorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, replace(args, env=_told(args)), after_reports_kind(opts))

    def summary(self) -> dict[str, Any]:
        """The stack's output about the auditor."""
        return super().summary() | REPORTS_SHOWN


class ShardedAuditor(ShardedController):
    """An auditor for each group of namespaces, and the kind of their reports."""

    kind: ClassVar[str] = "sharded-auditor"

    def __init__(self, name: str, args: ShardedAuditorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, replace(args, env=_told(args)), after_reports_kind(opts))

    def summary(self) -> dict[str, Any]:
        """The stack's output about the auditor."""
        return super().summary() | REPORTS_SHOWN


def after_reports_kind(opts: pulumi.ResourceOptions | None) -> pulumi.ResourceOptions:
    """Make the kind of the reports; the options of what comes after it, so that the first reconcile finds it."""
    made = custom_resource_definition()
    # No parent: the component is not there yet.
    definition = CustomResourceDefinition(
        made["metadata"]["name"],
        metadata=ObjectMetaArgs(name=made["metadata"]["name"], labels={MANAGED_BY: "pulumi"}),
        # The SDK takes a mapping of wire names wherever it takes an Args object.
        spec=cast(CustomResourceDefinitionSpecArgs, made["spec"]),
        opts=opts,
    )
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[definition]))


def _told(args: AuditorArgs) -> Mapping[str, str]:
    return {"TANDEM_ENVIRONMENT": args.environment} | dict(args.env)


REPORTS_SHOWN: Final = {"reports": "kubectl get highavailabilityreports -A"}
