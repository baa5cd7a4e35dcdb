"""For a site that runs Longhorn instead of the shared file system: what becomes of pods on a worker that is down.

Not tried on a live Longhorn: its kind of setting was served by an API server and nobody acted on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
from pulumi_kubernetes.apiextensions import CustomResourcePatch
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._parts import Part

PodDeletionPolicy = Literal[
    "do-nothing",
    "delete-statefulset-pod",
    "delete-deployment-pod",
    "delete-both-statefulset-and-deployment-pod",
]


@dataclass(frozen=True, kw_only=True)
class LonghornSettingsArgs(Part):
    """The arguments of `LonghornSettings`.

    Args:
        node_down_pod_deletion_policy: whose pods Longhorn force-deletes on a node that is down, so that their volume
            can be attached elsewhere. Longhorn's default is `do-nothing`, under which a ReadWriteOnce volume stays
            attached to the lost node. It decides by the node's Ready condition, as Kubernetes does, and cannot tell
            one that is off from one that is only cut off.
        namespace: Longhorn's own.
    """

    node_down_pod_deletion_policy: PodDeletionPolicy
    namespace: str = "longhorn-system"


class LonghornSettings(pulumi.ComponentResource):
    """Patches the Setting that Longhorn itself made; a destroy gives the field back and removes nothing."""

    def __init__(self, name: str, args: LonghornSettingsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tandem:components:LonghornSettings", name, None, opts)

        def with_value(given: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
            # A Setting has its value at the top, where the SDK's resource takes nothing but metadata and spec.
            props = {**given.props, "value": args.node_down_pod_deletion_policy}
            return pulumi.ResourceTransformationResult(props, given.opts)

        CustomResourcePatch(
            "node-down-pod-deletion-policy",
            api_version="longhorn.io/v1beta2",
            kind="Setting",
            metadata=ObjectMetaArgs(
                name="node-down-pod-deletion-policy",
                namespace=args.namespace,
                # Longhorn's manager owns the field since it made the object.
                annotations={"pulumi.com/patchForce": "true"},
            ),
            opts=pulumi.ResourceOptions(parent=self, transformations=[with_value]),
        )
        self.register_outputs({})
