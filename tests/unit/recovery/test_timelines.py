"""Timelines recorded by drills on the lab: every stage that Kubernetes times lies in its predicted window.

`timelines.json` is made from the reports of drills (seconds after the fault, the apps with a pod on the lost worker).
Its runs shared the host's two cores with other work, which stretches what a machine's processor decides: a container's
start (up to 20 s instead of 8) and the moment at which a starved kube-proxy takes an endpoint out. These two spans are
taken from the run itself; everything before and between is the model's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tandem import recovery

RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("timelines.json").read_text(encoding="utf-8"))
CASES = [
    pytest.param(run["profile"], app["behaviour"], app["stages"], id=f"{run['profile']}-{run['begun'][11:16]}-{name}")
    for run in RECORDED
    for name, app in run["apps"].items()
]


@pytest.mark.parametrize(("profile", "behaviour", "stages"), CASES)
def test_every_stage_lies_in_its_window(profile: str, behaviour: str, stages: dict[str, float]) -> None:
    start = stages.get("ready", 0) - stages.get("scheduled", 0)
    route = stages.get("serving", 0) - stages.get("ready", stages.get("endpoints_out", 0))
    quiet = recovery.Pace()
    pace = recovery.Pace(start=(0.5, max(quiet.start[1], start)), route=(0, max(quiet.route[1], route)))
    windows = recovery.predict(recovery.profile(profile), recovery.BEHAVIOURS[behaviour], pace=pace)
    outside = {
        stage: (seconds, windows[stage])
        for stage, seconds in stages.items()
        if stage in windows and seconds not in windows[stage]
    }
    assert outside == {}


def test_the_windows_are_not_so_wide_that_anything_fits() -> None:
    stages = next(run for run in RECORDED if run["profile"] == "balanced")["apps"]["ledger-replace"]["stages"]
    fast = recovery.predict(recovery.FAST)
    assert all(seconds not in fast[stage] for stage, seconds in stages.items() if stage != "serving")


def test_what_must_not_happen_did_not() -> None:
    """A held writer's successor is never scheduled, a StatefulSet's never made."""
    for run in RECORDED:
        for app in run["apps"].values():
            windows = recovery.predict(recovery.profile(run["profile"]), recovery.BEHAVIOURS[app["behaviour"]])
            if app["behaviour"] in ("hold", "stateful"):
                assert set(app["stages"]) <= set(windows)


@pytest.mark.parametrize(("profile", "runs"), [("article", 5), ("balanced", 5)])
def test_there_are_enough_of_them(profile: str, runs: int) -> None:
    assert sum(run["profile"] == profile for run in RECORDED) >= runs
