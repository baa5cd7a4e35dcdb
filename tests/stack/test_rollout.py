"""Updates of the lab stack that go well, that fail half-way and are mended, and that are killed and resumed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.story import ROOT, Story, project_environment, python_module
from tests.conftest import PROFILE, wait_until
from tests.stack.load import load
from tests.stack.test_drain import whole
from tests.stack.test_incident import environment, fix, serving
from tests.stack.test_stack import pods, ready, rolled_out, up

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

BAD_IMAGE = "tandem-ha.io/demo:never-built"


@pytest.fixture
def committed(running_lab: Story, deployed: Path) -> Iterator[Story]:
    """The stack is whole, and as committed again in the end."""
    wait_until(whole, 180, "the stack is whole")
    yield running_lab
    up(running_lab, "rollout-as-committed")
    wait_until(whole, 300, "the stack is whole again")


def test_an_update_of_the_image_under_load_fails_no_request(committed: Story) -> None:
    digest = pods("web")[0]["status"]["containerStatuses"][0]["imageID"]

    async def run() -> tuple[int, list[str]]:
        async with load(["web"]) as found:
            change = ["--set", f"apps.web.image={digest}", *fix("image")]
            await asyncio.to_thread(up, committed, "rollout-image-under-load", *change)
            await asyncio.to_thread(wait_until, lambda: rolled_out("web"), 120, "the rollout")
            await asyncio.sleep(5)
            return len(found.on_new_connections("web")), found.failed("web")

    asked, failed = asyncio.run(run())
    assert {pod["spec"]["containers"][0]["image"] for pod in pods("web")} == {digest}
    print(f"{asked} requests on new connections during the update, {len(failed)} failed")
    assert asked > 100
    assert failed == []


def test_a_bad_image_leaves_the_old_replicas_serving_and_the_next_run_mends_it(committed: Story) -> None:
    async def run() -> tuple[str, float, list[str]]:
        async with load(["web"]) as found:
            settings = ["--set", f"apps.web.image={BAD_IMAGE}", "--set", "apps.web.deploy_timeout_seconds=60"]
            command = python_module("lab.pulumi", "up", "--profile", PROFILE, *settings)
            started = time.monotonic()
            said = await asyncio.to_thread(committed.run, "rollout-bad-image", command, accept=(255,))
            took = time.monotonic() - started
            olds = [pod for pod in pods("web") if ready(pod)]
            assert len(olds) == 2, "no old replica goes before a new one is ready"
            await asyncio.to_thread(up, committed, "rollout-mended", *fix("mended"))
            await asyncio.to_thread(wait_until, lambda: rolled_out("web"), 120, "the mended rollout")
            return said, took, found.failed("web")

    said, took, failed = asyncio.run(run())
    print(f"the run with the bad image failed after {took:.0f} s")
    assert BAD_IMAGE in said or "ImagePull" in said, "the cause is named"
    assert took < 60 + 120
    assert serving("web", "mended")
    assert failed == []


def test_a_run_that_was_killed_is_resumed(committed: Story) -> None:
    """All of its processes at once, in the middle of a rollout; the state keeps an operation that nobody ended."""
    command = python_module("lab.pulumi", "up", "--profile", PROFILE, *fix("resumed"))
    with (committed.logs / "rollout-killed.log").open("wb") as log:
        running = subprocess.Popen(
            command, cwd=ROOT, env=project_environment(None), stdout=log, stderr=log, start_new_session=True
        )
        try:
            # A new pod is there, so the Deployment was written; the run waits for the rollout now.
            begun = "the rollout has begun"
            wait_until(lambda: any(environment(pod).get("FIX") == "resumed" for pod in pods("web")), 180, begun)
            assert running.poll() is None, "it was to be killed in the middle"
        finally:
            kill_session(running)
    # The lock of the run that was killed is its own to take away, which the CLI tells whoever comes next.
    said = committed.run("rollout-locked", command, accept=(0, 255))
    if "pulumi cancel" in said:
        committed.run("rollout-cancel", python_module("lab.pulumi", "cancel"))
        said = up(committed, "rollout-resumed", *fix("resumed"))
    wait_until(lambda: rolled_out("web"), 180, "the rollout")
    assert serving("web", "resumed")
    again = up(committed, "rollout-resumed-again", *fix("resumed"), "--", "--expect-no-changes")
    assert "unchanged" in again


def kill_session(running: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, at once."""
    members = subprocess.run(
        ["ps", "--no-headers", "-o", "pid", "--sid", str(running.pid)], capture_output=True, text=True, check=False
    )
    for each in members.stdout.split():
        subprocess.run(["kill", f"-{signal.SIGKILL.value}", each], check=False, capture_output=True)
    running.wait()
