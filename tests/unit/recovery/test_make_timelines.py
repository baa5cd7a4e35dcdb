"""The tool that adds a drill to the recorded timelines takes what can be judged, and says why not otherwise."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tandem import recovery


def load() -> ModuleType:
    path = Path(__file__).with_name("make_timelines.py")
    spec = importlib.util.spec_from_file_location("make_timelines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load()


def drill(**changes: Any) -> dict[str, Any]:
    web = {"behaviour": "spread-wait", "on_node": 1, "stages": {"ready_unknown": 26.1, "deleted": None}}
    away = {"behaviour": "hold", "on_node": 0, "stages": {"ready_unknown": 26.1}}
    made = {
        "profile": "balanced",
        "scenario": "power-loss",
        "node": "w1",
        "begun": "2026-11-22T09:00:00+00:00",
        "verdict": "passed",
        "gave_up": False,
        "apps": {"web": web, "away": away},
    }
    return {**made, **changes}


def recorded(**changes: Any) -> dict[str, Any]:
    return {"profile": {**recovery.to_dict(recovery.BALANCED), **changes}, "capped": False}


def test_apps_with_a_pod_on_the_lost_node_and_the_stages_they_reached() -> None:
    made = tool.timeline(drill(), recorded())
    assert made["apps"] == {"web": {"behaviour": "spread-wait", "stages": {"ready_unknown": 26.1}}}
    assert (made["profile"], made["node"], made["scenario"]) == ("balanced", "w1", "power-loss")


@pytest.mark.parametrize(
    ("report", "recording", "said"),
    [
        (drill(verdict="failed"), recorded(), "promise was broken"),
        (drill(gave_up=True), recorded(), "gave up before"),
        (drill(profile=None), recorded(), "its profile is None"),
        (drill(), recorded(node_monitor_grace_period_seconds=17), "other numbers then: node_monitor_grace"),
    ],
)
def test_what_cannot_be_judged_is_left_out(report: Any, recording: Any, said: str) -> None:
    with pytest.raises(tool.UnfitError, match=said):
        tool.timeline(report, recording)


def test_an_end_that_was_asked_for_keeps_what_came_before() -> None:
    assert tool.timeline(drill(gave_up=True), {**recorded(), "capped": True})["apps"]


def test_the_same_drill_again_changes_nothing() -> None:
    known = json.loads(tool.TIMELINES.read_text(encoding="utf-8"))
    assert tool.text(tool.merged(known, known)) == tool.TIMELINES.read_text(encoding="utf-8")


def test_a_new_one_stands_with_its_profile() -> None:
    known = [tool.timeline(drill(begun=f"2026-11-22T0{n}:00:00+00:00"), recorded()) for n in (1, 3)]
    new = tool.timeline(drill(begun="2026-11-22T02:00:00+00:00"), recorded())
    assert [run["begun"][12] for run in tool.merged(known, [new])] == ["1", "2", "3"]
