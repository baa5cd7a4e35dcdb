"""Drills recorded in the lab: their timelines come out as they did then, and lie inside their predicted windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tandem import recovery
from tandem.drill import report
from tandem.drill.recording import Recording, from_dict
from tandem.drill.timeline import expected, stages

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.json"))

# What stood outside when it was recorded, and why; a model that explained these would promise nothing.
KNOWN = {
    # kubelet asked for the claim before the API server's node authorizer knew of the pod, and tried again 20 s later.
    ("partition-balanced", "ledger-replace", "ready"),
    ("partition-balanced", "ledger-replace", "serving"),
}


def load(path: Path) -> Recording:
    return from_dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_stage_lies_inside_its_window(path: Path) -> None:
    seen = load(path)
    made = report.build(seen)
    outside = {
        (path.stem, name, stage)
        for name, app in made["apps"].items()
        for stage, (low, high) in app["prediction"].items()
        if app["stages"][stage] is None or not low <= app["stages"][stage] <= high
    }
    assert outside <= KNOWN
    assert made["verdict"] == "passed"


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_app_reached_what_its_behaviour_says(path: Path) -> None:
    seen = load(path)
    for app in seen.apps:
        found = stages(app, seen.observations, [s for s in seen.samples if s.app == app.name], seen.scene)
        lost = report.build(seen)["apps"][app.name]["on_node"]
        assert not lost or [stage for stage in expected(app) if found[stage] is None] == []


def test_the_power_loss_as_it_was_shown() -> None:
    made = report.build(load(Path(__file__).parent / "fixtures" / "power-loss-balanced.json"))
    assert made["apps"]["ledger-replace"]["stages"] == {
        "ready_unknown": 15.87,
        "endpoints_out": 21.01,
        "taint": 19.54,
        "deleted": 25.34,
        "created": 26.28,
        "scheduled": 27.48,
        "ready": 35.14,
        "serving": 35.85,
    }
    assert list(made["apps"]["ledger-replace"]["stages"]) == list(recovery.STAGES)


def test_the_partition_doubled_writes_with_replace_alone() -> None:
    made = report.build(load(Path(__file__).parent / "fixtures" / "partition-balanced.json"))
    assert made["apps"]["ledger-replace"]["writers"]["doubled"] == 155
    assert made["apps"]["ledger-hold"]["writers"]["doubled"] == 0
