"""With one worker left the core apps keep their places, and after its return `tandem rebalance` brings all back."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.demo import KUBECONFIG, NAMESPACE, kubectl, kubectl_json
from lab.story import Story, python_module
from tandem.survivability import quantity
from tests.conftest import wait_until
from tests.stack.load import load
from tests.stack.test_drain import DRAIN_SECONDS, drain, whole
from tests.stack.test_stack import per_node, pods, ready, up

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3600)]

IMAGE = "tandem-ha.io/demo:0.1.0"
CONTROLLERS = "tandem-ha.io/controllers:0.1.0"
CORE, OTHER = "till", "batch"
CORE_PART, OTHER_PART = 0.40, 0.55
"""Of what a worker has left: one of each has its place, two of the core app leave none for the other."""

CRON_SECONDS = 300


def free_cores(node: str) -> float:
    """What the node has left of its CPUs, by requests."""
    found = kubectl_json("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}")["items"]
    running = [pod for pod in found if pod["status"]["phase"] not in {"Succeeded", "Failed"}]
    asked = [
        quantity(container.get("resources", {}).get("requests", {}).get("cpu", "0"))
        for pod in running
        for container in pod["spec"]["containers"]
    ]
    return quantity(kubectl_json("get", "node", node)["status"]["allocatable"]["cpu"]) - sum(asked)


def settings() -> list[str]:
    """The two apps, sized by what the fuller worker has left, and the class of the core one."""
    left = min(free_cores("w1"), free_cores("w2"))
    common = {"kind": "spread", "image": IMAGE, "replicas": 2, "on_node_loss": "crowd"}

    def app(part: float, **more: Any) -> str:
        asked = {"cpu_request": f"{int(left * part * 1000)}m", "memory_request": "32Mi"}
        return yaml.safe_dump({**common, **asked, **more}, default_flow_style=True, width=10**6).strip()

    classes = "{core: {value: 100000, description: what the site lives on}}"
    core = app(CORE_PART, priority_class="core", env={"APP": CORE})
    other = app(OTHER_PART, env={"APP": OTHER})
    changes = (f"priority_classes={classes}", f"apps.{CORE}={core}", f"apps.{OTHER}={other}")
    return [word for change in changes for word in ("--set", change)]


@dataclass(frozen=True)
class Site:
    """The lab stack with the two apps."""

    story: Story
    settings: list[str]


@pytest.fixture(scope="module")
def site(running_lab: Story, deployed: Path) -> Iterator[Site]:
    wait_until(whole, 180, "the stack is whole")
    made = Site(running_lab, settings())
    try:
        up(running_lab, "half-capacity", *made.settings)
        yield made
    finally:
        subprocess.run(kubectl("uncordon", "w1"), check=True, stdout=subprocess.DEVNULL)
        up(running_lab, "half-capacity-as-committed")
        wait_until(whole, 300, "everything is back")


def serving(app: str) -> dict[str, int]:
    """Ready pods of the app, by node."""
    return per_node([pod for pod in pods(app) if ready(pod)])


def halved() -> None:
    """One worker is left: w1 is emptied, and the core app has both replicas on w2, in the place of another app's."""
    done = drain("w1", DRAIN_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(
        lambda: serving(CORE) == {"w2": 2}, 240, "both replicas of the core app serve on the worker that is left"
    )
    assert serving(OTHER) == {}, "what has no class made room"
    subprocess.run(kubectl("uncordon", "w1"), check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: serving(OTHER).get("w1") == 1, 240, "the other app serves again on the worker that came back")
    assert serving(CORE) == {"w2": 2}, "nothing moves by itself: the next loss would take both"


def apart() -> bool:
    return serving(CORE) == serving(OTHER) == {"w1": 1, "w2": 1}


def test_core_apps_win_and_a_rebalance_brings_all_back(site: Site) -> None:
    wait_until(apart, 240, "both apps are on both workers")
    halved()
    before = {event["metadata"]["uid"] for event in preemptions()}
    assert before, "the scheduler says whom it stopped"
    command = [
        *python_module("tandem", "rebalance", "-n", NAMESPACE),
        "--settled",
        "0",
        "--kubeconfig",
        str(KUBECONFIG),
    ]

    async def run() -> tuple[str, list[str]]:
        async with load([CORE]) as found:
            said = await asyncio.to_thread(site.story.run, "rebalance", command)
            await asyncio.sleep(5)
            return said, found.failed(CORE)

    said, failed = asyncio.run(run())
    print(said)
    assert f"{NAMESPACE}/{CORE}: " in said
    assert "1 moved" in said
    assert serving(CORE) == {"w1": 1, "w2": 1}
    assert failed == []
    wait_until(apart, 240, "the other app has found its place")
    assert "0 moved" in site.story.run("rebalance-again", command)


def preemptions() -> list[dict[str, Any]]:
    events = kubectl_json("get", "events", f"--namespace={NAMESPACE}", "--field-selector=reason=Preempted")["items"]
    return [event for event in events if event["involvedObject"]["name"].startswith(f"{OTHER}-")]


def test_the_cron_job_does_the_same(site: Site) -> None:
    """With the image of the controllers that this checkout builds."""
    wait_until(apart, 240, "both apps are on both workers")
    rebalance = f"{{image: '{CONTROLLERS}', schedule: '* * * * *', settled_seconds: 0, suspend: true}}"
    up(site.story, "half-capacity-cron", *site.settings, "--set", f"rebalance={rebalance}")
    halved()
    awake = ("patch", "cronjob", "rebalance", f"--namespace={NAMESPACE}", "--type=merge")
    subprocess.run(kubectl(*awake, '--patch={"spec": {"suspend": false}}'), check=True, stdout=subprocess.DEVNULL)
    took = wait_until(lambda: serving(CORE) == {"w1": 1, "w2": 1}, CRON_SECONDS, "the CronJob has moved a pod")
    print(f"the CronJob, once a minute, had brought the core app apart after {took:.0f} s")
