"""The other molecule scenarios, on the cluster that `default` made: each breaks or changes it and puts it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.story import ROOT, Story
from tests.conftest import PROFILE

SCENARIOS = ("storage-faults", "upgrade", "rollback", "existing-cluster", "bad-input")


@pytest.mark.long
@pytest.mark.disruptive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, running_lab: Story, cluster: Path) -> None:
    running_lab.run(
        f"molecule-{scenario}",
        ["molecule", "test", "--scenario-name", scenario],
        env={"TANDEM_PROFILE": PROFILE, "TANDEM_MOLECULE_LAB": "reuse"},
    )


def test_every_scenario_is_run() -> None:
    found = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    assert found == {"default", *SCENARIOS}
