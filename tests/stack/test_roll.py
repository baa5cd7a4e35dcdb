"""An elected controller is rolled, and loses its leader's worker, while there is work for it: at no time do two act."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, kubectl, kubectl_json
from lab.runtime import Lab
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError, connect
from tests.conftest import wait_until
from tests.stack.leads import Claim, Write, claim, epochs, handovers, problems, write
from tests.unit.checklist.test_manifests import load

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

CONTROLLER = "auditor-a"
TEAM = "team-a"
ROLLS = 10
CHURN_SECONDS = 0.5
TAKEOVER_SECONDS = 40.0
"""Far beyond the lease of 15 s: what this ends is a shard that nobody takes over."""

RETURN_SECONDS = 240.0
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
REPORTS = f"/apis/tandem-ha.io/v1alpha1/namespaces/{TEAM}/highavailabilityreports"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{TEAM}/deployments"


def churned() -> dict[str, Any]:
    """A Deployment that has findings with one replica and fewer with two; paused, so that no pod is ever made."""
    (made,) = [each for each in load("spread-app-one-replica") if each["kind"] == "Deployment"]
    made["metadata"] = {**made["metadata"], "name": "churn", "namespace": TEAM}
    made["spec"]["paused"] = True
    return made


@pytest.fixture
def work(deployed: Path) -> Iterator[Path]:
    remove = kubectl("delete", "deployment", "churn", f"--namespace={TEAM}", "--ignore-not-found")
    subprocess.run(remove, check=True)
    try:
        yield deployed
    finally:
        subprocess.run(remove, check=True)


async def watch(api: Api, path: str, see: Callable[[dict[str, Any]], None], **query: str) -> None:
    """Pass on every version of what is there; a watch that ends goes on where it was, so none is missed."""
    listed = await api.get(path, **query)
    for item in listed["items"]:
        see(item)
    version = listed["metadata"]["resourceVersion"]
    while True:
        with suppress(*NETWORK_ERRORS):
            async for line in api.lines(path, watch="1", resourceVersion=version, allowWatchBookmarks="true", **query):
                event = json.loads(line)
                assert event["type"] != "ERROR", f"versions of {path} were missed: {event['object'].get('message')}"
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in {"ADDED", "MODIFIED"}:
                    see(event["object"])
        await asyncio.sleep(0.2)


async def churn(api: Api) -> None:
    """Give the auditor a reason to write, again and again."""
    body = churned()
    await api.request("POST", DEPLOYMENTS, body=body)
    replicas = 1
    while True:
        replicas = 3 - replicas
        body["spec"]["replicas"] = replicas
        with suppress(*NETWORK_ERRORS, ApiError):
            await api.request("PUT", f"{DEPLOYMENTS}/churn", body=body)
        await asyncio.sleep(CHURN_SECONDS)


@asynccontextmanager
async def watched(kubeconfig: Path) -> AsyncIterator[tuple[list[Claim], list[Write]]]:
    """The Lease's versions and the reports', while the churn goes on."""
    claims: list[Claim] = []
    writes: list[Write] = []

    def wrote(report: dict[str, Any]) -> None:
        if (seen := write(report)) is not None:
            writes.append(seen)

    by_name = {"fieldSelector": f"metadata.name={CONTROLLER}"}
    async with connect(kubeconfig) as api:
        tasks = [
            asyncio.create_task(watch(api, LEASES, lambda lease: claims.append(claim(lease)), **by_name)),
            asyncio.create_task(watch(api, REPORTS, wrote)),
            asyncio.create_task(churn(api)),
        ]
        try:
            yield claims, writes
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def roll() -> None:
    target = (f"deployment/{CONTROLLER}", f"--namespace={NAMESPACE}")
    subprocess.run(kubectl("rollout", "restart", *target), check=True, stdout=subprocess.DEVNULL)
    subprocess.run(kubectl("rollout", "status", *target, "--timeout=300s"), check=True, stdout=subprocess.DEVNULL)


def test_ten_rolls_under_load_and_never_two_leaders(work: Path) -> None:
    async def run() -> tuple[list[Claim], list[Write]]:
        async with watched(work) as (claims, writes):
            await wait_for_writes(writes)
            for number in range(ROLLS):
                await asyncio.to_thread(roll)
                print(f"roll {number + 1}: {len(handovers(claims))} handovers, {len(writes)} writes")
            await asyncio.sleep(5)
            return list(claims), list(writes)

    claims, writes = asyncio.run(run())
    assert problems(claims, writes) == []
    changed = handovers(claims)
    assert len(changed) >= ROLLS, "each roll takes the leader's pod at least once"
    assert all(each.released for each in changed), f"a leader that is asked to end gives its Lease back: {changed}"
    assert len(epochs(writes)) >= ROLLS, "the leaders had work"


async def wait_for_writes(writes: list[Write]) -> None:
    for _ in range(120):
        if writes:
            return
        await asyncio.sleep(1)
    pytest.fail("the auditor wrote no report of the churned namespace")


def powered_off(lab: Lab, pod: str) -> str:
    """Take the power of the pod's worker away; returns its name."""
    node = str(kubectl_json("get", "pod", pod, f"--namespace={NAMESPACE}")["spec"]["nodeName"])
    lab.power_off(node)
    return node


async def seen(happened: Callable[[], bool], since: float) -> float:
    """Wait for it, and return how many seconds after `since` it came."""
    while not happened():
        assert time.monotonic() < since + TAKEOVER_SECONDS, "nobody took over"
        await asyncio.sleep(0.05)
    return time.monotonic() - since


def whole() -> bool:
    """Whether both workers are Ready and both candidates are available."""
    status = kubectl_json("get", "deployment", CONTROLLER, f"--namespace={NAMESPACE}")["status"]
    nodes = kubectl_json("get", "nodes")["items"]
    up = [any(c["type"] == "Ready" and c["status"] == "True" for c in each["status"]["conditions"]) for each in nodes]
    return all(up) and status.get("availableReplicas") == status["replicas"] == 2


@pytest.mark.disruptive
def test_the_standby_takes_over_when_the_leaders_worker_loses_power(work: Path) -> None:
    lab = Lab()
    times: list[float] = []

    async def run() -> tuple[list[Claim], list[Write]]:
        async with watched(work) as (claims, writes):
            await wait_for_writes(writes)
            old = claims[-1]
            begun = time.monotonic()
            node = await asyncio.to_thread(powered_off, lab, old.holder.rpartition("_")[0])
            try:
                times.append(await seen(lambda: claims[-1].holder not in {"", old.holder}, begun))
                times.append(await seen(lambda: any(each.epoch > old.epoch for each in writes), begun))
                await asyncio.sleep(5)
            finally:
                await asyncio.to_thread(lab.power_on, node)
            await asyncio.to_thread(wait_until, whole, RETURN_SECONDS, f"{node} and its candidate are back")
            return list(claims), list(writes)

    claims, writes = asyncio.run(run())
    print(f"after the power loss the next lead began in {times[0]:.1f} s, its first write came after {times[1]:.1f} s")
    assert problems(claims, writes) == []
    assert [each.released for each in handovers(claims)][:1] == [False], "a dead leader releases nothing"
