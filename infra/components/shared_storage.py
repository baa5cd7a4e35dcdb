"""Which StorageClass the stack's volumes take: the site's own, which keeps data, or one that deletes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.storage.v1 import StorageClass

from infra.components._names import MANAGED_BY, check_name
from infra.components._parts import Part
from infra.errors import ArgsError
from tandem.labels import SHARED_STORAGE

KEEPING_CLASS: Final = "tandem-shared"
"""Made by the role `local_path_storage` with reclaim policy Retain. The stack uses it and never changes it."""

DELETING_CLASS: Final = "tandem-shared-delete"

PROVISIONER: Final = "rancher.io/local-path"
"""What serves both classes: local-path-provisioner on the shared file system."""


@dataclass(frozen=True, kw_only=True)
class StorageClassArgs(Part):
    """A further class on the same shared file system.

    Args:
        keep_data: a volume outlives its claim and waits for a person.
        description: what for; kept as an annotation.
    """

    keep_data: bool = True
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class SharedStorageArgs:
    """The arguments of `SharedStorage`.

    Args:
        keep_data: volumes outlive `pulumi destroy` and wait for a person. False: data goes with its claim.
        classes: further ones by name, for apps whose data is to be treated differently.
    """

    keep_data: bool = True
    classes: Mapping[str, StorageClassArgs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        for name in self.classes:
            check_name(name, "storage_classes")
            if name in (KEEPING_CLASS, DELETING_CLASS):
                raise ArgsError("storage_classes", name, "is made anyhow, by site.yml or by keep_data", "another name")


def storage_class_name(*, keep_data: bool) -> str:
    """The class that a stack's volumes take."""
    return KEEPING_CLASS if keep_data else DELETING_CLASS


class SharedStorage(pulumi.ComponentResource):
    """The stack's StorageClass; creates one when data is to be deleted, and those that the stack adds."""

    def __init__(self, name: str, args: SharedStorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tandem:components:SharedStorage", name, None, opts)
        self.class_name = storage_class_name(keep_data=args.keep_data)
        if not args.keep_data:
            self._make(ObjectMetaArgs(name=DELETING_CLASS, labels={MANAGED_BY: "pulumi"}), keep_data=False)
        for class_name, each in args.classes.items():
            said = {"description": each.description} if each.description else None
            # The label tells the checklist that the class is not one of a node's own disk.
            labels = {MANAGED_BY: "pulumi", SHARED_STORAGE: "true"}
            self._make(ObjectMetaArgs(name=class_name, labels=labels, annotations=said), keep_data=each.keep_data)
        self.register_outputs({"class_name": self.class_name})

    def _make(self, metadata: ObjectMetaArgs, *, keep_data: bool) -> None:
        StorageClass(
            str(metadata.name),
            metadata=metadata,
            provisioner=PROVISIONER,
            reclaim_policy="Retain" if keep_data else "Delete",
            # Not WaitForFirstConsumer: the provisioner's helper pod would be tied to one node, which may be dead.
            volume_binding_mode="Immediate",
            opts=pulumi.ResourceOptions(parent=self),
        )
