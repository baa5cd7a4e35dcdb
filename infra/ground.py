"""What a stack's apps stand on: namespaces, storage classes, priority classes."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components import PriorityClasses, SharedStorage, Workspace
from infra.settings import Settings


@dataclass(frozen=True)
class Ground:
    """What is there before the first app.

    Attributes:
        storage_class: that the stack's volumes take.
        namespace: of its apps.
        workspaces: all of its namespaces.
        resources: all of it, for those who must wait.
    """

    storage_class: str
    namespace: str
    workspaces: list[Workspace]
    resources: list[pulumi.Resource]


def lay_ground(settings: Settings, opts: pulumi.ResourceOptions | None = None) -> Ground:
    """Make what the apps need."""
    storage = SharedStorage("shared-storage", settings.storage, opts)
    own = Workspace("workspace", settings.workspace(settings.namespace), opts)
    others = [Workspace(f"namespace-{name}", settings.workspace(name), opts) for name in settings.namespaces]
    made: list[pulumi.Resource] = [storage, own, *others]
    if settings.priority_classes.classes:
        made.append(PriorityClasses("priority-classes", settings.priority_classes, opts))
    return Ground(storage.class_name, own.namespace, [own, *others], made)
