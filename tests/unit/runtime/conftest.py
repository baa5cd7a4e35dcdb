"""Logs as the runtime sets them up, and silent: what a test provokes is not for the reader."""

from __future__ import annotations

import io

import pytest

from tandem.runtime.logging import configure


@pytest.fixture(autouse=True, scope="session")
def _logs() -> None:
    configure(level="error", stream=io.StringIO())
