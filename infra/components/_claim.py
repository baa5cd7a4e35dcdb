"""The volume of an app with data on the shared file system."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core.v1 import (
    PersistentVolumeClaim,
    PersistentVolumeClaimSpecArgs,
    VolumeResourceRequirementsArgs,
)

from infra.components._app import App
from infra.components.shared_storage import KEEPING_CLASS
from infra.errors import ArgsError


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    """The arguments of an app with data.

    Args:
        storage_size: what the claim asks for, as a Kubernetes quantity. The shared file system does not enforce it.
        storage_class: a StorageClass whose volumes every worker can mount. A stack sets it by `keep_data`.
        protect: nothing deletes the claim: not a destroy, not a new name of the app. A stack sets it for all.
    """

    storage_size: str = "1Gi"
    storage_class: str = KEEPING_CLASS
    protect: bool = False


def check_storage(args: StorageArgs) -> None:
    """Check a `StorageArgs`; raises `ArgsError` for the first rule broken."""
    if not re.fullmatch(r"\d+(Mi|Gi|Ti)", args.storage_size):
        raise ArgsError("storage_size", args.storage_size, "must be a whole number of Mi, Gi or Ti", "1Gi")
    if not args.storage_class:
        raise ArgsError("storage_class", args.storage_class, "must name a StorageClass", KEEPING_CLASS)


def protection(*, protect: bool) -> pulumi.ResourceOptions:
    """Options of what holds data: Pulumi refuses to delete it, and once told to forget it, leaves it in the cluster."""
    return pulumi.ResourceOptions(protect=True, retain_on_delete=True) if protect else pulumi.ResourceOptions()


def volume_claim(app: App, args: StorageArgs, access_mode: str) -> PersistentVolumeClaim:
    """The app's claim, of the app's name."""
    return PersistentVolumeClaim(
        app.name,
        metadata=app.metadata(),
        spec=PersistentVolumeClaimSpecArgs(
            access_modes=[access_mode],
            storage_class_name=args.storage_class,
            resources=VolumeResourceRequirementsArgs(requests={"storage": args.storage_size}),
        ),
        opts=pulumi.ResourceOptions.merge(
            app.child(wait_seconds=app.args.deploy_timeout_seconds), protection(protect=args.protect)
        ),
    )
