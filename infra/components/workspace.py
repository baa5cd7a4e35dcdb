"""The namespace of a stack's apps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
from pulumi_kubernetes.core.v1 import Namespace
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._claim import protection
from infra.components._names import MANAGED_BY, check_name
from infra.errors import ArgsError
from tandem.labels import ADMISSION

PodSecurity = Literal["privileged", "baseline", "restricted"]
Admission = Literal["off", "warn", "deny"]
_RESERVED = ("default", "kube-system", "kube-public", "kube-node-lease", "tandem-system", "tandem-storage")


@dataclass(frozen=True, kw_only=True)
class WorkspaceArgs:
    """The arguments of a `Workspace`.

    Args:
        namespace: its name; `pulumi destroy` deletes it with everything in it.
        pod_security: the Pod Security Standard that is enforced. The components' pods satisfy `restricted`, and a
            warning tells of any that do not; `baseline` leaves room for what else a site runs there.
        protect: nothing deletes it, for its claims would go with it.
        admission: how it takes part in the cluster's admission policy (docs/policy.md): not at all, by warnings, or so
            that errors are refused.
    """

    namespace: str
    pod_security: PodSecurity = "baseline"
    protect: bool = False
    admission: Admission = "off"

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_name(self.namespace, "namespace")
        if self.namespace in _RESERVED:
            rule = "belongs to the cluster, and `pulumi destroy` would delete it"
            raise ArgsError("namespace", self.namespace, rule, "a namespace of the stack's own")


class Workspace(pulumi.ComponentResource):
    """A namespace that enforces a Pod Security Standard."""

    def __init__(self, name: str, args: WorkspaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tandem:components:Workspace", name, None, opts)
        self.namespace = args.namespace
        Namespace(
            args.namespace,
            metadata=ObjectMetaArgs(
                name=args.namespace,
                labels={
                    MANAGED_BY: "pulumi",
                    "pod-security.kubernetes.io/enforce": args.pod_security,
                    "pod-security.kubernetes.io/warn": "restricted",
                    **({} if args.admission == "off" else {ADMISSION: args.admission}),
                },
            ),
            opts=pulumi.ResourceOptions.merge(
                pulumi.ResourceOptions(
                    parent=self, custom_timeouts=pulumi.CustomTimeouts(create="1m", update="1m", delete="5m")
                ),
                protection(protect=args.protect),
            ),
        )
        self.register_outputs({"namespace": args.namespace})
