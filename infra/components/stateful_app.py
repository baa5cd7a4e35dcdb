"""A StatefulSet of one replica on the shared file system: what `SingleWriterApp` is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pulumi
from pulumi_kubernetes.apps.v1 import StatefulSet, StatefulSetSpecArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components._app import App, AppArgs
from infra.components._claim import StorageArgs, check_storage, volume_claim
from infra.components._names import NAME
from infra.components._pod import pod_template, tolerations_of
from infra.errors import ArgsError
from tandem.labels import STATEFUL_SET_REASON
from tandem.recovery import Behaviour


@dataclass(frozen=True, kw_only=True)
class StatefulAppArgs(StorageArgs, AppArgs):
    """The arguments of a `StatefulApp`.

    Args:
        reason: why it must be a StatefulSet although it stays away until its lost node is back; kept as an annotation.
    """

    stops_first: ClassVar[bool] = True

    OBJECTS: ClassVar[frozenset[str]] = AppArgs.OBJECTS | {"StatefulSet", "PersistentVolumeClaim"}

    reason: str

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        check_storage(self)
        if len(self.reason.split()) < 3:
            rule = "a StatefulSet never replaces the pod of a lost node, so it needs a stated reason"
            raise ArgsError("reason", self.reason, rule, "say why in a few words, or use kind: single-writer")

    @property
    def behaviour(self) -> Behaviour:
        """It stays away."""
        return "stateful"


class StatefulApp(App):
    """A StatefulSet, its claim and its Service.

    The StatefulSet controller starts no successor while the pod object of the lost node exists, and nobody removes it
    while the node is away. It carries no workload label: the blocking rules would have to refuse it.
    """

    kind: ClassVar[str] = "stateful"

    def __init__(self, name: str, args: StatefulAppArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, workload=None, opts=opts)
        self.claim = volume_claim(self, args, "ReadWriteMany")
        self.stateful_set = StatefulSet(
            name,
            metadata=self.workload_metadata({STATEFUL_SET_REASON: args.reason}),
            spec=StatefulSetSpecArgs(
                replicas=1,
                service_name=name,
                selector=LabelSelectorArgs(match_labels={NAME: name}),
                revision_history_limit=3,
                template=pod_template(args, self.labels, claim=name, tolerations=tolerations_of(args.profile)),
            ),
            opts=self.child(depends_on=[self.claim], wait_seconds=args.deploy_timeout_seconds),
        )
        self.expose()
        self.register_outputs({"stateful_set": self.stateful_set.metadata.name, "claim": self.claim.metadata.name})

    def summary(self) -> dict[str, Any]:
        """The stack's output about the app: it holds, by its nature."""
        return super().summary() | {"when_unreachable": "hold"}
