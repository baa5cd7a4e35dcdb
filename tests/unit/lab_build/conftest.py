from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.build._cache import Store
from lab.build._recipe import Bench, Recipe


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, name: str, summary: str, last_seconds: float | None) -> None:
        self.events.append(("started", name))

    def waiting(self, name: str) -> None:
        self.events.append(("waiting", name))

    def finished(self, name: str, seconds: float, *, cached: bool) -> None:
        self.events.append(("cached" if cached else "built", name))


class Copy(Recipe):
    """Writes a text of its own and what it needs."""

    def __init__(self, name: str, text: str, needs: tuple[str, ...] = ()) -> None:
        self.name = name
        self.summary = f"test recipe {name}"
        self.text = text
        self.needs = needs

    def inputs(self) -> Mapping[str, object]:
        return {"text": self.text}

    def build(self, bench: Bench) -> None:
        parts = [self.text, *((folder / "text").read_text() for folder in bench.needs.values())]
        (bench.out / "text").write_text("+".join(parts))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
