"""A controller with a standby: two replicas, one of which acts, and exactly the rights that it names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pulumi

from infra.components._controller import ROLLING, Controller, ControllerArgs, RightsArgs
from infra.components._summary import Seconds, predicted_lead
from infra.components.spread_app import spread_constraint
from infra.errors import ArgsError


@dataclass(frozen=True, kw_only=True)
class ElectedControllerArgs(ControllerArgs):
    """The arguments of an `ElectedController`.

    Args:
        replicas: at least two: one acts, the others wait with warm caches.
    """

    OBJECTS: ClassVar[frozenset[str]] = ControllerArgs.OBJECTS | {"PodDisruptionBudget"}

    replicas: int = 2

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        super().__post_init__()
        if self.replicas < 2:
            rule = "an election needs somebody who waits: with one replica nobody leads until a new pod has started"
            raise ArgsError("replicas", self.replicas, rule, "replicas: 2, or kind: solo")

    @property
    def pods_on_survivor(self) -> int:
        """The lost worker's candidates wait for its return."""
        return math.ceil(self.replicas / 2)

    def predicted(self) -> Seconds:
        """When the next candidate leads, in seconds after the power loss of the leader's worker."""
        return predicted_lead(self.lease_duration_seconds, self.retry_period_seconds)


class ElectedController(Controller):
    """A Deployment of candidates spread over the workers, their Lease, their rights and a budget."""

    kind: ClassVar[str] = "elected-controller"

    def __init__(self, name: str, args: ElectedControllerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)
        self.deploy(
            args,
            replicas=args.replicas,
            strategy=ROLLING,
            spread=[spread_constraint(name, "wait")],
            says=self._says(),
            told=self._told(),
            rights_in=self._rights_in(),
        )
        self.budget = self.one_at_a_time()
        self.register_outputs({"deployment": self.deployment.metadata.name, "lease": name})

    def _says(self) -> Mapping[str, str]:
        """Annotations beside those of every controller."""
        return {}

    def _told(self) -> Mapping[str, str]:
        """Environment variables beside those of every controller."""
        return {}

    def _rights_in(self) -> Mapping[str, Sequence[RightsArgs]]:
        """What it may do in other namespaces."""
        return {}
