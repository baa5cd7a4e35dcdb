"""Which StorageClass the stack's volumes take: the site's own, which keeps data, or one that deletes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.storage.v1 import StorageClass

from infra.components._names import MANAGED_BY

KEEPING_CLASS: Final = "tandem-shared"
"""Made by the role `local_path_storage` with reclaim policy Retain. The stack uses it and never changes it."""

DELETING_CLASS: Final = "tandem-shared-delete"

PROVISIONER: Final = "rancher.io/local-path"
"""What serves both classes: local-path-provisioner on the shared file system."""


@dataclass(frozen=True, kw_only=True)
class SharedStorageArgs:
    """The arguments of `SharedStorage`.

    Args:
        keep_data: volumes outlive `pulumi destroy` and wait for a person. False: data goes with its claim.
    """

    keep_data: bool = True


def storage_class_name(*, keep_data: bool) -> str:
    """The class that a stack's volumes take."""
    return KEEPING_CLASS if keep_data else DELETING_CLASS


class SharedStorage(pulumi.ComponentResource):
    """The stack's StorageClass; creates one only when data is to be deleted."""

    def __init__(self, name: str, args: SharedStorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tandem:components:SharedStorage", name, None, opts)
        self.class_name = storage_class_name(keep_data=args.keep_data)
        if not args.keep_data:
            StorageClass(
                DELETING_CLASS,
                metadata=ObjectMetaArgs(name=DELETING_CLASS, labels={MANAGED_BY: "pulumi"}),
                provisioner=PROVISIONER,
                reclaim_policy="Delete",
                # Not WaitForFirstConsumer: the provisioner's helper pod would be tied to one node, which may be dead.
                volume_binding_mode="Immediate",
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({"class_name": self.class_name})
