"""The molecule scenario `default`: syntax, converge, idempotence (0 changed on every host), verification."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.story import Story

pytestmark = pytest.mark.lab


def test_the_scenario_ran_all_its_actions(running_lab: Story, cluster: Path) -> None:
    log = next(running_lab.logs.glob("*-molecule.log")).read_text(encoding="utf-8")
    for action in ("syntax", "converge", "idempotence", "verify"):
        assert re.search(rf"default > {action}\b", log), f"molecule never came to {action}"
    assert re.search(r"\d+ passed", log), "the testinfra verifier ran no test"
    assert cluster.stat().st_mode & 0o777 == 0o600
