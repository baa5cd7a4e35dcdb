"""An image kept on every worker, so that a replacement starts without pulling, also while the registry is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import pulumi
from pulumi_kubernetes.apps.v1 import DaemonSet, DaemonSetSpecArgs
from pulumi_kubernetes.core.v1 import ContainerArgs, PodSpecArgs, PodTemplateSpecArgs, ResourceRequirementsArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.components._names import NAME, check_image, check_name, labels_of
from infra.components._pod import container_security, pod_security, worker_affinity
from infra.components._waits import NOT_AWAITED, one_node_at_a_time
from tandem.labels import EXEMPT_PREFIX

PAUSE_IMAGE: Final = "registry.k8s.io/pause:3.10.2"
"""What kubeadm 1.36 gives every pod as its sandbox: already on every node."""

UNPROBED: Final = "holds an image and serves nobody"
"""Why its pods carry no probes, as the checklist wants to read it."""


@dataclass(frozen=True, kw_only=True)
class ImagePrepullArgs:
    """The arguments of `ImagePrepull`.

    Args:
        namespace: where the DaemonSet goes.
        image: the image to keep.
        command: does nothing and succeeds, in that image; an image without any program but its own needs its own here.
        image_pull_policy: the app's.
        run_as_user: the app's.
        pause_image: what stays running: an image that every node has.
        deploy_timeout_seconds: how long `pulumi up` waits for all workers to have pulled.
        degraded: as the app's.
    """

    namespace: str
    image: str
    command: tuple[str, ...] = ("true",)
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    run_as_user: int = 65532
    pause_image: str = PAUSE_IMAGE
    deploy_timeout_seconds: int = 300
    degraded: bool = False

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_image(self.image)
        check_image(self.pause_image, "pause_image")


class ImagePrepull(pulumi.ComponentResource):
    """A DaemonSet whose init container has the image and ends at once, and whose pod then sleeps in the pause image.

    The ended container remains a user of the image, so kubelet's image garbage collection spares it.
    """

    def __init__(self, name: str, args: ImagePrepullArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check_name(name)
        super().__init__("tandem:components:ImagePrepull", name, None, opts)
        labels = labels_of(name, None)
        small = ResourceRequirementsArgs(requests={"cpu": "1m", "memory": "8Mi"}, limits={"memory": "32Mi"})
        spec = PodSpecArgs(
            init_containers=[
                ContainerArgs(
                    name="pull",
                    image=args.image,
                    image_pull_policy=args.image_pull_policy,
                    command=list(args.command),
                    resources=small,
                    security_context=container_security(),
                )
            ],
            containers=[
                ContainerArgs(
                    name="keep",
                    image=args.pause_image,
                    image_pull_policy="IfNotPresent",
                    resources=small,
                    security_context=container_security(),
                )
            ],
            affinity=worker_affinity(with_share=False),
            security_context=pod_security(args.run_as_user),
            automount_service_account_token=False,
            enable_service_links=False,
            termination_grace_period_seconds=1,
        )
        limit = f"{args.deploy_timeout_seconds}s"
        self.daemon_set = DaemonSet(
            name,
            metadata=ObjectMetaArgs(
                name=name,
                namespace=args.namespace,
                labels=labels,
                annotations={f"{EXEMPT_PREFIX}{rule}": UNPROBED for rule in ("readiness-probe", "liveness-probe")}
                | (NOT_AWAITED if args.degraded else {}),
            ),
            spec=DaemonSetSpecArgs(
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                update_strategy=one_node_at_a_time(degraded=True) if args.degraded else None,
                revision_history_limit=1,
                template=PodTemplateSpecArgs(metadata=ObjectMetaArgs(labels=labels), spec=spec),
            ),
            opts=pulumi.ResourceOptions(
                parent=self, custom_timeouts=pulumi.CustomTimeouts(create=limit, update=limit, delete=limit)
            ),
        )
        self.register_outputs({"daemon_set": self.daemon_set.metadata.name})
