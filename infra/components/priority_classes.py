"""Who keeps a place when one worker must carry both workers' pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.scheduling.v1 import PriorityClass

from infra.components._names import MANAGED_BY, check_name
from infra.components._parts import Part, check_range
from infra.errors import ArgsError

HIGHEST_VALUE = 1_000_000_000
"""Kubernetes keeps what is above for its own `system-` classes."""


@dataclass(frozen=True, kw_only=True)
class PriorityClassArgs(Part):
    """One class.

    Args:
        value: the higher goes first: into the queue of what waits for a place, and last out when kubelet runs short of
            memory. Apps without a class have 0.
        preempts: a pod of it that finds no place has others of lower value stopped. False: it waits, ahead of them.
        description: whom it is for.
    """

    value: int
    preempts: bool = True
    description: str = ""

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_range("value", self.value, -HIGHEST_VALUE, HIGHEST_VALUE, "beyond are Kubernetes' own classes")


@dataclass(frozen=True, kw_only=True)
class PriorityClassesArgs:
    """The arguments of `PriorityClasses`.

    Args:
        classes: by name. A class belongs to the whole cluster, so one stack makes it.
    """

    classes: Mapping[str, PriorityClassArgs]

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        for name in self.classes:
            check_name(name, "priority_classes")
            if name.startswith("system-"):
                raise ArgsError("priority_classes", name, "is Kubernetes' own", "another name, e.g. core")


class PriorityClasses(pulumi.ComponentResource):
    """The stack's classes. None is the default of the cluster: other stacks' pods stay as they are."""

    def __init__(self, name: str, args: PriorityClassesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tandem:components:PriorityClasses", name, None, opts)
        for class_name, each in args.classes.items():
            PriorityClass(
                class_name,
                metadata=ObjectMetaArgs(name=class_name, labels={MANAGED_BY: "pulumi"}),
                value=each.value,
                global_default=False,
                preemption_policy="PreemptLowerPriority" if each.preempts else "Never",
                description=each.description or None,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({"classes": list(args.classes)})
