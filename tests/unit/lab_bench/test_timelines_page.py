"""What is published of the recorded drills: power losses alone, and a verdict that may be against us."""

from __future__ import annotations

from typing import Any

from lab import timelines


def run(profile: str, endpoints_out: float, scenario: str = "power-loss") -> dict[str, Any]:
    app = {"behaviour": "replace", "stages": {"endpoints_out": endpoints_out}}
    return {"profile": profile, "scenario": scenario, "apps": {"ledger": app}}


def test_power_losses_are_counted_and_partitions_are_not() -> None:
    found = timelines.measured([run("article", 25), run("article", 30), run("article", 99, "partition")])
    assert found == {("article", "replace", "endpoints_out"): [25.0, 30.0]}
    header, first, *_ = timelines.rows(found)
    assert header == ["app", "stage", "`article`"]
    assert first[2].startswith("25.0 to 30.0 (2); at most ")


def test_the_verdict_says_when_ours_is_slower() -> None:
    better = timelines.measured([run("article", 30), run("balanced", 29)])
    assert timelines.verdict(better) == [
        "- `replace`, `endpoints_out`: 29.0 s under `balanced`, below 30.0 s under `article`."
    ]
    worse = timelines.measured([run("article", 30), run("balanced", 31)])
    assert "**not below**" in timelines.verdict(worse)[0]


def test_a_profile_without_drills_is_not_compared() -> None:
    assert timelines.verdict(timelines.measured([run("balanced", 29)])) == []
