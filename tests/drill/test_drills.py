"""One power loss and one partition on the lab with the profile `article`, through the real command line.

The order of the stages and the counts of lost and doubled records are asserted. Times depend on the host and are only
reported: `pytest -rP` shows them, and the reports stay in build/drill.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.demo import gather_writers, workers_of
from lab.story import Story
from tandem.recovery import STAGES

pytestmark = [pytest.mark.lab]

ROOT = Path(__file__).resolve().parents[2]
WRITERS = ("ledger-hold", "ledger-replace", "control")


def gather(story: Story) -> str:
    """Bring the two ledgers together on one worker, so that one drill hits both; returns the worker."""
    gather_writers(story)
    [node] = workers_of("ledger-replace")
    return node


def drill(scenario: str, node: str, kubeconfig: Path) -> dict[str, Any]:
    argv = [sys.executable, "-m", "tandem", "drill", scenario, node, "--driver", "lab", "--json"]
    done = subprocess.run(
        [*argv, "--kubeconfig", str(kubeconfig)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode in {0, 1}, f"the drill broke off with status {done.returncode}"
    made: dict[str, Any] = json.loads(done.stdout)
    for name, app in made["apps"].items():
        print(f"{scenario} {name} {app['behaviour']}: {app['stages']} writers {app['writers']}")
    return made


def assert_order(app: dict[str, Any], *stages: str) -> None:
    times = [app["stages"][stage] for stage in stages]
    assert None not in times, f"of {stages} some were never seen: {app['stages']}"
    assert all(earlier <= later for earlier, later in itertools.pairwise(times)), dict(zip(stages, times, strict=True))


def assert_common(made: dict[str, Any]) -> None:
    assert [f for f in made["findings"] if f["level"] == "failure"] == []
    assert made["verdict"] == "passed"
    assert made["profile"] == "article"
    for app in made["apps"].values():
        assert list(app["stages"]) == list(STAGES)
    for name in WRITERS:
        writers = made["apps"][name]["writers"]
        assert writers["lost"] == 0, name
        assert writers["acknowledged"] > 0, name
        assert writers["doubtful"] == [], name
    replace = made["apps"]["ledger-replace"]
    assert replace["on_node"] == 1
    assert_order(replace, "ready_unknown", "taint", "deleted", "created", "scheduled", "ready")
    assert_order(replace, "ready_unknown", "endpoints_out")
    # The clients and the watch are two witnesses: a busy host may tell of readiness after the first answer.
    assert replace["stages"]["serving"] > replace["stages"]["scheduled"]
    web = made["apps"]["web"]
    assert_order(web, "ready_unknown", "endpoints_out")
    assert_order(web, "taint", "deleted", "created")
    assert web["stages"]["scheduled"] is None, "`wait` keeps the replacement pending"
    for name in ("ledger-hold", "control"):
        assert made["apps"][name]["stages"]["scheduled"] is None, "no successor beside a pod that may still run"
        assert made["apps"][name]["writers"]["doubled"] == 0, name


def test_power_loss_loses_and_doubles_nothing(story: Story, deployed: Path) -> None:
    node = gather(story)
    made = drill("power-loss", node, deployed)
    assert_common(made)
    assert made["apps"]["ledger-replace"]["writers"]["doubled"] == 0
    requests = made["apps"]["ledger-replace"]["requests"]
    assert requests["cp1/new"]["failed"] > 0
    assert requests["pod/new"]["failed"] > 0
    assert (ROOT / "build" / "drill" / "latest" / "report.png").stat().st_size > 10_000


def test_a_partition_doubles_writes_with_replace_and_none_with_hold(story: Story, deployed: Path) -> None:
    node = gather(story)
    made = drill("partition", node, deployed)
    assert_common(made)
    doubled = made["apps"]["ledger-replace"]["writers"]["doubled"]
    assert doubled > 0, "the oracle must see the old pod write on"
    assert [f["app"] for f in made["findings"] if f["level"] == "danger"] == ["ledger-replace"]
