"""Everything a drill saw, as data: from it alone comes the report, so that a recording can be judged again later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from tandem.drill.apps import App
from tandem.drill.observe import Observation
from tandem.drill.oracle import Writers
from tandem.drill.samples import Sample
from tandem.drill.timeline import Scene

Scenario = Literal["power-loss", "partition"]

NOISE_SHARE: Final = 0.01
"""More failures than this before the fault: the drill waits a while for a quieter moment, and its report tells."""


@dataclass(frozen=True)
class Recording:
    """One drill.

    Args:
        scenario: what was done to the node.
        profile: the applied recovery profile as `tandem.recovery.to_dict` gives it, None when unknown.
        scene: where and when.
        apps: what was watched.
        observations: what the API showed, in order.
        samples: all requests.
        writers: the oracle's verdict per writing app.
        begun: when the drill started, seconds since the epoch.
        fault_call_seconds: how long the driver took to bring the fault about: the uncertainty of its moment.
        returned_seconds: from repair until the node and all apps were back; None when left down or not in time.
        gave_up: the observation ended before every expected stage was seen.
        capped: that end was asked for by --give-up-after.
        left_down: nothing was repaired.
        clock_uncertainty_seconds: the worst of all clients'.
        watch_breaks: how often a watch had to be taken up again.
        warnings: what the reader should know.
    """

    scenario: Scenario
    profile: Mapping[str, Any] | None
    scene: Scene
    apps: Sequence[App]
    observations: Sequence[Observation]
    samples: Sequence[Sample]
    writers: Mapping[str, Writers]
    begun: float
    fault_call_seconds: float
    returned_seconds: float | None
    gave_up: bool = False
    capped: bool = False
    left_down: bool = False
    clock_uncertainty_seconds: float = 0.0
    watch_breaks: int = 0
    warnings: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """The recording as JSON-ready data."""
        data = {key: value for key, value in vars(self).items() if key not in {"observations", "samples"}}
        data["scene"] = asdict(self.scene)
        data["apps"] = [asdict(app) for app in self.apps]
        data["writers"] = {name: asdict(writers) for name, writers in self.writers.items()}
        data["warnings"] = list(self.warnings)
        data["observations"] = [seen.to_dict() for seen in self.observations]
        data["samples"] = [sample.to_dict() for sample in self.samples]
        return data


def from_dict(data: Mapping[str, Any]) -> Recording:
    """The recording of `to_dict`'s data, or of the JSON made of it."""
    scene = {**data["scene"], "service_vantages": tuple(data["scene"]["service_vantages"])}
    return Recording(
        **{
            **data,
            "scene": Scene(**scene),
            "apps": [App(**app) for app in data["apps"]],
            "observations": [Observation(**seen) for seen in data["observations"]],
            "samples": [Sample(**sample) for sample in data["samples"]],
            "writers": {
                name: Writers(**{**writers, "epochs": tuple(writers["epochs"]), "doubtful": tuple(writers["doubtful"])})
                for name, writers in data["writers"].items()
            },
        }
    )
