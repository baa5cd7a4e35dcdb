"""One power loss and one partition on the lab with the profile `article`, through the real command line.

The order of the stages and the counts of lost and doubled records are asserted. Times depend on the host and are only
reported: `pytest -rP` shows them, and the reports stay in build/drill.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client, config

from tandem.recovery import STAGES

pytestmark = [pytest.mark.lab]

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "tandem-demo"
WRITERS = ("ledger-hold", "ledger-replace", "control")


@asynccontextmanager
async def core(kubeconfig: Path) -> AsyncIterator[client.CoreV1Api]:
    """The cluster's core API."""
    settings = client.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)
    async with client.ApiClient(settings) as transport:
        yield client.CoreV1Api(transport)


async def ready_pod(api: client.CoreV1Api, app: str) -> Any:
    """The app's one Ready pod that is not on its way out; waits for it."""
    async with asyncio.timeout(180):
        while True:
            pods = (await api.list_namespaced_pod(NAMESPACE, label_selector=f"app.kubernetes.io/name={app}")).items
            ready = [
                pod
                for pod in pods
                if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
                and not pod.metadata.deletion_timestamp
            ]
            if len(ready) == 1 == len(pods):
                return ready[0]
            await asyncio.sleep(1)


async def gather(kubeconfig: Path) -> str:
    """Bring the two ledgers together on one worker, so that one drill hits both; returns the worker.

    They prefer each other's company when they are scheduled, so the one that moved away is started anew.
    """
    async with core(kubeconfig) as api:
        for _ in range(3):
            held, moved = await ready_pod(api, "ledger-hold"), await ready_pod(api, "ledger-replace")
            if held.spec.node_name == moved.spec.node_name:
                return str(held.spec.node_name)
            await api.delete_namespaced_pod(moved.metadata.name, NAMESPACE)
        return str((await ready_pod(api, "ledger-replace")).spec.node_name)


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


async def test_power_loss_loses_and_doubles_nothing(deployed: Path) -> None:
    node = await gather(deployed)
    made = drill("power-loss", node, deployed)
    assert_common(made)
    assert made["apps"]["ledger-replace"]["writers"]["doubled"] == 0
    requests = made["apps"]["ledger-replace"]["requests"]
    assert requests["cp1/new"]["failed"] > 0
    assert requests["pod/new"]["failed"] > 0
    assert (ROOT / "build" / "drill" / "latest" / "report.png").stat().st_size > 10_000


async def test_a_partition_doubles_writes_with_replace_and_none_with_hold(deployed: Path) -> None:
    node = await gather(deployed)
    made = drill("partition", node, deployed)
    assert_common(made)
    doubled = made["apps"]["ledger-replace"]["writers"]["doubled"]
    assert doubled > 0, "the oracle must see the old pod write on"
    assert [f["app"] for f in made["findings"] if f["level"] == "danger"] == ["ledger-replace"]
