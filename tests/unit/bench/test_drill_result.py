"""The published figures of drills, from reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.bench import drill_result


def report(folder: Path, number: int, serving: float | None, gap: float, profile: str = "article") -> Path:
    """A drill's report, as far as the figures need it."""
    path = folder / str(number) / "report.json"
    path.parent.mkdir()
    requests = {"pod/new": {"longest_gap_seconds": gap}, "pod/kept": {"longest_gap_seconds": 99.0}}
    stages = {"ready_unknown": 20.0 + number, "serving": serving}
    apps = {"ledger-replace": {"stages": stages, "requests": requests}}
    path.write_text(json.dumps({"scenario": "power-loss", "profile": profile, "apps": apps}), encoding="utf-8")
    return path


def test_stages_are_given_as_median_and_longest(tmp_path: Path) -> None:
    runs = [report(tmp_path, 1, 34.0, 33.0), report(tmp_path, 2, 36.0, 35.5), report(tmp_path, 3, 41.0, 40.0)]
    result = drill_result("article", runs)
    assert result.samples == [34.0, 36.0, 41.0]
    assert result.table == [
        {
            "app": "ledger-replace",
            "ready unknown": "22.0 (23.0)",
            "serving": "36.0 (41.0)",
            "longest gap, client in a pod": "35.5 (40.0)",
        }
    ]


def test_a_stage_that_never_came_is_left_empty(tmp_path: Path) -> None:
    result = drill_result("article", [report(tmp_path, 1, 34.0, 33.0), report(tmp_path, 2, None, 60.0)])
    assert result.samples == [34.0]
    assert result.table[0]["serving"] == "34.0"


def test_a_report_of_another_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with the profile stock"):
        drill_result("article", [report(tmp_path, 1, 34.0, 33.0, profile="stock")])
