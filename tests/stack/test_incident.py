"""A fix is deployed while a worker is off: the run ends in time and names the cause; `degraded` gets the fix out."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, kubectl
from lab.runtime import Lab
from lab.story import Story, python_module
from tests.conftest import PROFILE, wait_until
from tests.stack.load import load
from tests.stack.test_drain import whole
from tests.stack.test_return import ready_nodes
from tests.stack.test_stack import pods, ready, up

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3600)]

WAIT_SECONDS = 90
"""What the app's `deploy_timeout_seconds` is set to here: the stated time of a run that waits in vain."""

OWN_SECONDS = 120
"""What a run takes by itself, the start of program and provider on a busy host included."""

REPLACED_SECONDS = 240


@dataclass(frozen=True)
class Incident:
    """Who is off, and the pod of the single writer that cannot end there."""

    worker: str
    stuck: str


def nodes_of(app: str) -> dict[str, str]:
    """Pods of the app that are not on their way out, by name: their nodes."""
    return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in pods(app)}


@pytest.fixture(scope="module")
def incident(running_lab: Story, deployed: Path) -> Iterator[Incident]:
    """The worker of `ledger-replace` is off, and that app serves on the other one already."""
    wait_until(whole, 180, "the stack is whole before a worker goes off")
    ((stuck, worker),) = nodes_of("ledger-replace").items()
    lab = Lab()
    lab.power_off(worker)
    try:
        wait_until(lambda: worker not in ready_nodes(), 120, f"{worker} is lost")

        def replaced() -> bool:
            return any(ready(pod) and pod["spec"]["nodeName"] != worker for pod in pods("ledger-replace"))

        wait_until(replaced, REPLACED_SECONDS, "the single writer serves on the other worker")
        yield Incident(worker, stuck)
    finally:
        lab.power_on(worker)
        wait_until(lambda: ready_nodes() == {"cp1", "w1", "w2"}, 240, f"{worker} is Ready again")
        up(running_lab, "as-committed-after-the-incident")
        wait_until(whole, 300, "everything is back")


def fix(word: str) -> list[str]:
    """Settings of `web` that roll its pods."""
    return ["--set", f"apps.web.env.FIX={word}", "--set", f"apps.web.deploy_timeout_seconds={WAIT_SECONDS}"]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}


def serving(app: str, word: str) -> bool:
    """Whether what serves is of this fix, all of it."""
    fixes = [environment(pod).get("FIX") for pod in pods(app) if ready(pod) and pod["spec"].get("nodeName")]
    return bool(fixes) and set(fixes) == {word}


def test_without_the_switch_the_run_ends_in_time_and_names_the_cause(running_lab: Story, incident: Incident) -> None:
    command = python_module("lab.pulumi", "up", "--profile", PROFILE, *fix("first"))
    started = time.monotonic()
    said = running_lab.run("incident-without-the-switch", command, accept=(255,))
    took = time.monotonic() - started
    print(f"the run failed after {took:.0f} s, {WAIT_SECONDS} s of it waited in vain")
    assert took < WAIT_SECONDS + OWN_SECONDS
    assert f"worker away: {incident.worker} (not Ready since " in said
    assert "waited for in vain" in said
    assert "tandem:degraded true" in said
    assert any(ready(pod) for pod in pods("web")), "the app serves all the same"


def test_with_the_switch_the_fix_is_out_and_no_request_fails(running_lab: Story, incident: Incident) -> None:
    async def run() -> tuple[str, float, list[str]]:
        async with load(["web"]) as found:
            started = time.monotonic()
            command = python_module("lab.pulumi", "up", "--profile", PROFILE, "--set", "degraded=true", *fix("second"))
            said = await asyncio.to_thread(running_lab.run, "incident-degraded", command)
            took = time.monotonic() - started
            await asyncio.to_thread(wait_until, lambda: serving("web", "second"), 180, "the fix serves, and only it")
            await asyncio.sleep(5)
            assert len(found.on_new_connections("web")) > 50
            return said, took, found.failed("web")

    said, took, failed = asyncio.run(run())
    print(f"`pulumi up` of the degraded stack took {took:.0f} s")
    assert took < OWN_SECONDS, "nothing is waited for"
    assert f"degraded: worker away: {incident.worker}" in said
    assert "not waited for: agent, auditor, control, ledger-hold, ledger-replace, web" in said
    assert f"ledger-replace: {incident.stuck} cannot end" in said
    assert failed == [], "one replica serves all along"


def test_a_single_writer_changes_only_when_its_lost_pod_was_let_go(running_lab: Story, incident: Incident) -> None:
    """What the warning says: the pod that serves ends, and its successor waits for the one that cannot."""
    change = ["--set", "degraded=true", "--set", "apps.ledger-replace.env.FIX=third", *fix("second")]
    up(running_lab, "incident-single-writer", *change)
    wait_until(lambda: not any(ready(pod) for pod in pods("ledger-replace")), 120, "the pod that served has ended")
    time.sleep(15)
    assert not any(environment(pod).get("FIX") == "third" for pod in pods("ledger-replace"))
    # The worker is off, and this test knows it: that is what a release by hand would make sure of.
    gone = kubectl("delete", "pod", incident.stuck, f"--namespace={NAMESPACE}", "--force", "--grace-period=0")
    subprocess.run(gone, check=True, capture_output=True)
    back = wait_until(lambda: serving("ledger-replace", "third"), 180, "the fixed writer serves")
    print(f"the writer served {back:.0f} s after its lost pod was let go")
