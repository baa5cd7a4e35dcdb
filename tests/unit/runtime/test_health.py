"""Probes, metrics and logs as others read them: over HTTP, by the names of the field, a JSON object a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tandem.runtime.controller import Context, Controller, Done, Result, Watch
from tandem.runtime.engine import Engine
from tandem.runtime.fence import OpenFence
from tandem.runtime.health import Health
from tandem.runtime.logging import configure, get_logger
from tandem.runtime.metrics import Metrics
from tandem.runtime.resources import CONFIG_MAPS, Key, Object
from tandem.runtime.testing.cluster import FakeCluster, Fault


@asynccontextmanager
async def serving(health: Health) -> AsyncIterator[str]:
    async with health.serving("127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def ask(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_readiness_is_synced_caches_and_liveness_is_running_reflectors() -> None:
    cluster, metrics = FakeCluster(), Metrics()
    cluster.put(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default"}})
    fault = Fault(verb="list", delay=float("inf"))
    cluster.faults.append(fault)
    engine = Engine(Controller("test", reconcile, [Watch(CONFIG_MAPS)]), cluster.client(), metrics=metrics)
    health = Health(metrics.registry)
    health.live.add("test", engine.not_alive)
    health.ready.add("test", engine.not_ready)
    async with serving(health) as url:
        assert await ask(f"{url}/healthz") == (500, "test: the reflectors do not run\n")
        following = asyncio.create_task(engine.follow())
        await asyncio.sleep(0.05)
        assert await ask(f"{url}/healthz") == (200, "ok\n")
        assert await ask(f"{url}/readyz") == (500, "test: caches are not synced\n")
        following.cancel()
        await asyncio.wait([following])
        following = asyncio.create_task(engine.follow())  # the fault has been used up
        async with asyncio.timeout(30):
            while not engine.synced:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # Ready, and nobody asked who leads: no work has begun.
        assert await ask(f"{url}/readyz") == (200, "ok\n")
        following.cancel()
        await asyncio.wait([following])
        assert (await ask(f"{url}/healthz"))[0] == 500


async def reconcile(key: Key, _: Context) -> Result:
    if key.name == "bad":
        raise RuntimeError("no")
    return Done()


async def test_metrics_have_the_names_that_dashboards_know() -> None:
    cluster, metrics = FakeCluster(), Metrics()
    for name in ("a", "b", "bad"):
        cluster.put(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default"}})
    engine = Engine(Controller("test", reconcile, [Watch(CONFIG_MAPS)]), cluster.client(), metrics=metrics)
    tasks = [asyncio.create_task(engine.follow()), asyncio.create_task(engine.work(OpenFence()))]
    async with serving(Health(metrics.registry)) as url:
        await asyncio.sleep(0.3)
        status, text = await ask(f"{url}/metrics")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert status == 200
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert values['controller_runtime_reconcile_total{controller="test",result="success"}'] == 2
    assert values['controller_runtime_reconcile_errors_total{controller="test"}'] >= 2
    assert values['controller_runtime_reconcile_time_seconds_count{controller="test"}'] >= 4
    assert values['controller_runtime_max_concurrent_reconciles{controller="test"}'] == 4
    assert values['workqueue_adds_total{controller="test",name="test"}'] >= 3
    assert values['workqueue_retries_total{controller="test",name="test"}'] >= 2
    assert values['workqueue_depth{controller="test",name="test"}'] <= 1
    assert values['workqueue_longest_running_processor_seconds{controller="test",name="test"}'] < 30
    assert values['tandem_cache_objects{controller="test",resource="configmaps"}'] == 3
    assert values['tandem_reflector_lists_total{controller="test",resource="configmaps"}'] == 1


async def test_a_check_that_fails_itself_has_failed() -> None:
    health = Health(Metrics().registry)
    health.live.add("odd", lambda: str(1 // 0))
    async with serving(health) as url:
        assert await ask(f"{url}/healthz") == (500, "odd: ZeroDivisionError: integer division or modulo by zero\n")
    with pytest.raises(ValueError, match="odd"):
        health.live.add("odd", lambda: None)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure(level="info", stream=stream)
    yield stream
    configure(level="error", stream=io.StringIO())


def test_a_line_of_the_log_is_one_json_object_without_the_objects_of_the_cluster(logged: io.StringIO) -> None:
    def fails(secret: Object) -> None:
        raise RuntimeError("no good")

    get_logger("x").debug("not shown")
    try:
        fails({"data": {"password": "hunter2"}})
    except RuntimeError as error:
        get_logger("x").bind(key="a/b").error("failed", exc_info=error)
    logging.getLogger("tandem.runtime.elector").info("leading: lease=%s", "l")
    logging.getLogger("aiohttp").warning("a library's own words")
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["failed", "leading: lease=l", "a library's own words"]
    assert lines[0]["key"] == "a/b"
    assert lines[0]["level"] == "error"
    assert "no good" in json.dumps(lines[0]["exception"])
    assert "hunter2" not in logged.getvalue()
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        configure(level="loud")
