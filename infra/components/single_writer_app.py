"""An app that writes to shared storage and must run once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs, DeploymentStrategyArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components._app import App, AppArgs
from infra.components._claim import StorageArgs, check_storage, volume_claim
from infra.components._names import NAME, check_name
from infra.components._pod import pod_template, tolerations_of
from infra.components.image_prepull import ImagePrepull, ImagePrepullArgs
from infra.errors import ArgsError
from tandem.labels import LABEL_PREFIX, SINGLE_WRITER, WHEN_UNREACHABLE
from tandem.recovery import Behaviour

WhenUnreachable = Literal["hold", "replace"]

ACCESS_MODE: Final[Mapping[WhenUnreachable, str]] = {
    # The scheduler starts no successor while any pod object still uses the claim: nobody ever writes twice.
    "hold": "ReadWriteOncePod",
    # Both pods may mount it, and after a cut cable both do. The mode says what is true.
    "replace": "ReadWriteMany",
}

FINDING: Final = f"{LABEL_PREFIX}/finding"
TWO_WRITERS: Final = "two writers when the worker is only cut off: its pod writes on while the replacement writes"


@dataclass(frozen=True, kw_only=True)
class SingleWriterAppArgs(StorageArgs, AppArgs):
    """The arguments of a `SingleWriterApp`.

    Args:
        when_unreachable: `hold`: when its node is lost the app stays away until the node is back or a person has made
            sure that it is off and deletes the pod; it never writes twice. `replace`: it is back on the survivor after
            the profile's time, and writes twice if the node was only cut off, which the audit reports.
        existing_claim: mount this claim, which somebody else made and keeps, instead of making one.
        existing_claim_exclusive: its access mode is ReadWriteOncePod, without which nothing makes `hold` true. The
            audit looks at the claim itself.
        pre_pull_command: a command in the image that does nothing and succeeds; see `ImagePrepull`.
    """

    stops_first: ClassVar[bool] = True

    OBJECTS: ClassVar[frozenset[str]] = AppArgs.OBJECTS | {"Deployment", "PersistentVolumeClaim", "DaemonSet"}

    when_unreachable: WhenUnreachable = "hold"
    existing_claim: str | None = None
    existing_claim_exclusive: bool = False
    pre_pull_command: tuple[str, ...] = ("true",)

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        check_storage(self)
        if self.existing_claim is None:
            return
        check_name(self.existing_claim, "existing_claim")
        if self.when_unreachable == "hold" and not self.existing_claim_exclusive:
            rule = "`hold` needs a claim that one pod may use, and this one is not known to be such"
            way_out = "existing_claim_exclusive: true if it is ReadWriteOncePod, or when_unreachable: replace"
            raise ArgsError("existing_claim", self.existing_claim, rule, way_out)

    @property
    def behaviour(self) -> Behaviour:
        """By `when_unreachable`."""
        return self.when_unreachable


class SingleWriterApp(App):
    """A Deployment of one replica that is stopped before its successor starts, its volume claim and its Service.

    A Deployment, not a StatefulSet: the latter never replaces a pod of a lost node. No PodDisruptionBudget: on a single
    replica it would make `kubectl drain` wait for ever.
    """

    kind: ClassVar[str] = "single-writer"

    def __init__(self, name: str, args: SingleWriterAppArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=SINGLE_WRITER, opts=opts)
        self.when_unreachable = args.when_unreachable
        annotations: dict[str, str] = {WHEN_UNREACHABLE: args.when_unreachable}
        if args.when_unreachable == "replace":
            annotations[FINDING] = TWO_WRITERS
        if args.existing_claim is None:
            self.claim = volume_claim(self, args, ACCESS_MODE[args.when_unreachable])
        claim_name = args.existing_claim or name
        self.prepull = ImagePrepull(
            f"{name}-prepull",
            ImagePrepullArgs(
                namespace=args.namespace,
                image=args.image,
                image_pull_policy=args.image_pull_policy,
                command=args.pre_pull_command,
                run_as_user=args.run_as_user,
                degraded=args.degraded,
            ),
            opts=self.child(),
        )
        self.deployment = Deployment(
            name,
            metadata=self.workload_metadata(annotations),
            spec=DeploymentSpecArgs(
                replicas=1,
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                strategy=DeploymentStrategyArgs(type="Recreate"),
                progress_deadline_seconds=args.deploy_timeout_seconds,
                revision_history_limit=3,
                # No preStop: nobody could take over while it sleeps, so it would only lengthen the gap.
                template=pod_template(
                    args,
                    self.labels,
                    annotations=annotations,
                    claim=claim_name,
                    tolerations=tolerations_of(args.profile),
                ),
            ),
            opts=self.child(depends_on=[self.claim] if self.claim else None, wait_seconds=args.deploy_timeout_seconds),
        )
        self.expose()
        self.register_outputs({"deployment": self.deployment.metadata.name, "claim": claim_name})

    def summary(self) -> dict[str, Any]:
        """The stack's output about the app."""
        return super().summary() | {"when_unreachable": self.when_unreachable}
