"""The molecule scenario `default`: syntax, converge, idempotence (0 changed on every host), verification."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.story import Story

pytestmark = pytest.mark.lab


def test_the_scenario_ran_all_its_actions(running_lab: Story, cluster: Path) -> None:
    coloured = next(running_lab.logs.glob("*-molecule.log")).read_text(encoding="utf-8")
    log = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    for action in ("syntax", "converge", "idempotence", "verify"):
        assert re.search(rf"default \S+ {action}: Executed: Successful", log), f"molecule's {action} did not succeed"
    assert re.search(r"[1-9]\d* passed", log), "the testinfra verifier ran no test"
    assert cluster.stat().st_mode & 0o777 == 0o600
