"""`kubectl drain` of one worker under load, then of the other one: the first empties, the second is refused.

No machine goes off, but the workers are emptied one after the other, and what has one replica only is away meanwhile.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, kubectl, kubectl_json
from tests.conftest import wait_until
from tests.stack.load import Load, load
from tests.stack.test_stack import SHARDS, per_node, pods, ready, rolled_out

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3600)]

DRAIN_SECONDS = 180
"""A controller has 60 s to end its work, all others 30; the rest is for images and a busy lab."""

REFUSED_SECONDS = 45
"""How long the second drain tries: kubectl asks again every 5 s."""

SPREAD = "web"


def drain(node: str, seconds: int) -> subprocess.CompletedProcess[str]:
    argv = kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={seconds}s")
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def left_on(node: str) -> list[str]:
    """Pods of the stack's namespaces on the node that a drain should have taken away."""
    found = kubectl_json("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}")["items"]

    def owner(pod: dict[str, Any]) -> str:
        return str((pod["metadata"].get("ownerReferences") or [{"kind": "Node"}])[0]["kind"])

    return [pod["metadata"]["name"] for pod in found if owner(pod) not in {"DaemonSet", "Node"}]


def whole() -> bool:
    """Whether every app is as before: rolled out, and those of two replicas on both workers."""
    spread = all(per_node(pods(app)) == {"w1": 1, "w2": 1} for app in (SPREAD, *SHARDS))
    held = any(ready(pod) for pod in pods("control"))
    return spread and held and all(rolled_out(app) for app in (SPREAD, *SHARDS, "ledger-hold", "ledger-replace"))


@pytest.fixture
def workers(deployed: Path) -> Iterator[None]:
    """Both take pods again in the end, and everything is back."""
    wait_until(whole, 180, "the stack is whole before a worker is drained")
    try:
        yield
    finally:
        for node in ("w1", "w2"):
            subprocess.run(kubectl("uncordon", node), check=True, stdout=subprocess.DEVNULL)
        wait_until(whole, 300, "everything is back after the drains")


async def drains(found: Load) -> None:
    started = time.monotonic()
    first = await asyncio.to_thread(drain, "w1", DRAIN_SECONDS)
    took = time.monotonic() - started
    assert first.returncode == 0, first.stdout + first.stderr
    assert left_on("w1") == []
    print(f"w1 was empty after {took:.0f} s; {len(found.on_new_connections(SPREAD))} requests so far")
    assert found.failed(SPREAD) == [], "the replica on w2 serves all along"

    before = {pod["metadata"]["uid"] for pod in pods(SPREAD) if ready(pod)}
    assert len(before) == 1, "one serves on w2, and its sibling waits for w1"
    second = await asyncio.to_thread(drain, "w2", REFUSED_SECONDS)
    said = second.stdout + second.stderr
    assert second.returncode != 0, said
    assert "violate the pod's disruption budget" in said
    assert SPREAD in said, "it names the pod"
    # What has a budget keeps its last replica; kubectl goes on with the others, which have one replica and none.
    assert {pod["metadata"]["uid"] for pod in pods(SPREAD) if ready(pod)} == before
    for shard in SHARDS:
        assert len([pod for pod in pods(shard) if ready(pod)]) == 1, f"{shard} keeps the candidate that leads"
    assert found.failed(SPREAD) == []


def test_one_worker_can_be_emptied_and_the_second_then_not(workers: None) -> None:
    async def run() -> Load:
        async with load([SPREAD]) as found:
            await drains(found)
            return found

    found = asyncio.run(run())
    asked = found.on_new_connections(SPREAD)
    print(f"{len(asked)} requests on new connections to {SPREAD} in {NAMESPACE}, none failed")
    assert len(asked) > 100
