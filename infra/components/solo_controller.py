"""A controller of one replica: enough when a repeated reconcile does no harm and a gap of a minute is acceptable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pulumi

from infra.components._controller import RECREATE, Controller, ControllerArgs


@dataclass(frozen=True, kw_only=True)
class SoloControllerArgs(ControllerArgs):
    """The arguments of a `SoloController`.

    Args:
        elected: it acts only while it holds its Lease. `Recreate` lets no two copies run side by side during an
            update, and does nothing about the copy on a worker that is only cut off: without the Lease that one acts
            on while its replacement acts too. False is for a program that knows no election.
    """

    stops_first: ClassVar[bool] = True

    elected: bool = True
    drain_seconds: int = 30


class SoloController(Controller):
    """A Deployment of one replica that stops before its successor starts, its Lease and its rights.

    No standby: after the loss of its worker nobody acts until the pod was evicted, started elsewhere and, with the
    Lease, until that has run out. No PodDisruptionBudget: on one replica it would make `kubectl drain` wait for ever.
    """

    kind: ClassVar[str] = "solo"

    def __init__(self, name: str, args: SoloControllerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        self.deploy(args, replicas=1, strategy=RECREATE, elected=args.elected)
        self.register_outputs({"deployment": self.deployment.metadata.name})
