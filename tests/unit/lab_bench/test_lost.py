"""The record of a recovery, and the page of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import lost
from tandem.drill.samples import Sample


def sample(at: float, *, app: str = "web", error: str | None = None) -> Sample:
    return Sample(app=app, client="w1/new", number=int(at), at=at, seconds=0.1, error=error)


def record(case: str = "site", **changes: Any) -> lost.Record:
    fields: dict[str, Any] = {
        "case": case,
        "lost": "the whole site",
        "back": "all at once",
        "nodes_seconds": 61.4,
        "whole_seconds": 99.6,
        "away": {"web": 80.2, "ledger-hold": 0.0},
        "resumed": {"web": 70.0, "ledger-hold": 0.0},
        "records": {"ledger-hold": 400, "ledger-replace": 2},
        "lost_records": 0,
        "doubled_records": 0,
        "profile": "article",
        "machine": "2 cores",
        "date": "2026-01-02",
        **changes,
    }
    return lost.Record(**fields)


def test_the_longest_pause_is_of_good_answers_of_that_app() -> None:
    samples = [sample(10), sample(11), sample(30), sample(20, error="timeout"), sample(25, app="other"), sample(31)]
    pause, over = lost.longest_pause(samples, "web", 10.5, 32)
    assert (round(pause, 1), over) == (19.0, 30.1)
    assert lost.longest_pause([], "web", 5, 9) == (4, 9), "nobody ever answered"
    assert lost.longest_pause([sample(50)], "web", 5, 9) == (4, 9), "what came later does not count"
    assert lost.longest_pause([sample(5.2), sample(8)], "web", 5, 20)[1] == 20, "and was away until the end"


def test_published_cases_are_replaced_one_by_one(tmp_path: Path) -> None:
    published = tmp_path / "published.json"
    assert lost.NONE_YET in lost.page(published)
    with pytest.raises(FileNotFoundError, match="test_everything_lost"):
        lost.publish(tmp_path / "none", published)
    lost.save(record("a"), tmp_path / "first")
    lost.save(record("b"), tmp_path / "first")
    assert lost.publish(tmp_path / "first", published) == ["a", "b"]
    lost.save(record("b", whole_seconds=5.0), tmp_path / "second")
    assert lost.publish(tmp_path / "second", published) == ["b"]
    assert [(each["case"], each["whole_seconds"]) for each in json.loads(published.read_text())] == [
        ("a", 99.6),
        ("b", 5.0),
    ]


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    lost.save(record("a"), tmp_path / "records")
    lost.publish(tmp_path / "records", tmp_path / "published.json")
    text = lost.page(tmp_path / "published.json")
    head, _, row = [line for line in text.splitlines() if line.startswith("|")]
    assert head == "| lost | back | nodes Ready | web | ledger-hold | whole | records | lost | doubled |"
    assert row == "| the whole site | all at once | 61 | 70 (80) | not away | 100 | 402 | 0 | 0 |"
    assert "- 2026-01-02, profile article, 2 cores" in text
    assert lost.NONE_YET not in text
