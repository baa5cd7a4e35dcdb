"""A whole drill on the miniature cluster: real HTTP, clients and share folder, from preconditions to report."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes_asyncio import client

from tandem.drill import output, recording, report
from tandem.drill.api import Api
from tandem.drill.driver import Driver
from tandem.drill.recording import Recording
from tandem.drill.run import Drill, Options, PreconditionError
from tandem.recovery import Stage

from .fake_cluster import PODS, Cluster, LocalDriver


class Quiet:
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.stages: list[Stage] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def stage(self, app: str, stage: Stage, seconds: float) -> None:
        self.stages.append(stage)

    def tick(self, elapsed: float | None, sent: int, failed: int) -> None:
        pass


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    share = tmp_path / "share"
    share.mkdir()
    made = Cluster(share)
    await made.fill()
    yield made
    for process in [*made.processes.values(), *made.logs.values()]:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    runner = web.AppRunner(cluster.application(), shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    settings = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with client.ApiClient(settings) as transport:
        yield Api(transport)
    cluster.end_watches()
    await runner.cleanup()


OPTIONS = Options(scenario="power-loss", node="w1", settle=1.0, rate=20.0, kept_rate=20.0)


async def drill(api: Api, cluster: Cluster, options: Options = OPTIONS) -> Recording:
    driver = LocalDriver(cluster, asyncio.get_running_loop())
    assert isinstance(driver, Driver)
    return await Drill(api, driver, options, Quiet()).run()


async def test_a_drill_from_preconditions_to_report(api: Api, cluster: Cluster, tmp_path: Path) -> None:
    seen = await drill(api, cluster)
    made = report.build(seen, target_seconds=30)
    stages = made["apps"]["db"]["stages"]
    order = ["ready_unknown", "endpoints_out", "deleted", "scheduled", "ready"]
    assert [stages[a] <= stages[b] for a, b in itertools.pairwise(order)] == [True] * 4
    assert 1.3 <= stages["serving"] < 8
    writers = made["apps"]["db"]["writers"]
    assert (writers["lost"], writers["doubled"], writers["doubtful"]) == (0, 0, ())
    assert writers["records"] >= writers["acknowledged"] > 100
    requests = made["apps"]["db"]["requests"]
    assert set(requests) == {
        f"{vantage}/{kind}"
        for vantage in ("cp1", "pod", "outside-w1", "outside-w2")
        for kind in ("new", "kept", "kept-wait")
    }
    assert requests["cp1/new"]["failed"] > 5
    assert requests["cp1/new"]["longest_gap_seconds"] > 1
    assert made["verdict"] == "passed", made["findings"]
    assert cluster.acts[:2] == ["power_off w1", "power_on w1"]
    assert made["returned_seconds"] is not None
    again = recording.from_dict(json.loads(json.dumps(seen.to_dict())))
    assert report.build(again, target_seconds=30)["apps"] == made["apps"]
    folder = output.save(tmp_path / "out", [(seen, made)])
    assert (tmp_path / "out" / "latest").resolve() == folder.resolve()
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


async def test_a_refused_drill_touches_nothing(api: Api, cluster: Cluster) -> None:
    cluster.node("w2", "False")
    with pytest.raises(PreconditionError, match="no-survivor"):
        await drill(api, cluster)
    assert cluster.acts == []
    assert cluster.logs == {}


async def phase(progress: Quiet, number: int) -> None:
    """Wait for the drill to tell its phase of this number."""
    async with asyncio.timeout(30):
        while len(progress.phases) < number:  # noqa: ASYNC110 - told from inside
            await asyncio.sleep(0.05)


async def test_a_rollout_under_way_is_waited_for(api: Api, cluster: Cluster) -> None:
    cluster.pod("db-old", "w1", ready=True, deletionTimestamp="2026-01-01T00:00:00Z")
    cluster.pod("db-new", None, ready=False)
    progress = Quiet()
    options = dataclasses.replace(OPTIONS, node="@db")
    task = asyncio.create_task(Drill(api, LocalDriver(cluster, asyncio.get_running_loop()), options, progress).run())
    await phase(progress, 2)
    assert progress.phases[1] == "waiting until db are rolled out"
    cluster.put(PODS, "db-old", "DELETED")
    cluster.pod("db-new", "w2", ready=True)
    await phase(progress, 3)
    task.cancel()
    await asyncio.wait({task})
    assert "starting clients" in progress.phases[2]


async def test_the_fault_waits_for_a_quiet_moment_but_not_for_ever(
    api: Api, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.drill.run.WARM_UP_SECONDS", 0.5)
    monkeypatch.setattr("tandem.drill.run.WARM_UP_LIMIT_SECONDS", 3.0)
    tested = Drill(api, LocalDriver(cluster, asyncio.get_running_loop()), OPTIONS, Quiet())
    noise = iter([0.5, 0.2, 0.01])
    monkeypatch.setattr(tested, "_silent", list)
    monkeypatch.setattr(tested, "_noise", lambda: next(noise))
    await tested._warm_up()
    assert next(noise, None) is None
    monkeypatch.setattr(tested, "_noise", lambda: 1.0)
    begun = time.monotonic()
    await tested._warm_up()
    assert time.monotonic() - begun >= 3.0


async def test_an_app_that_does_not_answer_stops_the_drill_before_the_fault(
    api: Api, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.drill.run.WARM_UP_SECONDS", 0.5)
    monkeypatch.setattr("tandem.drill.run.WARM_UP_LIMIT_SECONDS", 1.0)
    await cluster.end_pod("db-old")
    with pytest.raises(PreconditionError, match="no answer before the fault: db from cp1"):
        await drill(api, cluster)
    assert cluster.acts == []


async def test_an_interrupted_drill_undoes_the_fault(api: Api, cluster: Cluster) -> None:
    task = asyncio.create_task(drill(api, cluster))
    while not cluster.acts:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cluster.acts == ["power_off w1", "power_on w1"]
    async with asyncio.timeout(60):
        await asyncio.gather(*(process.wait() for process in cluster.logs.values()))


async def test_left_down_repairs_nothing_and_give_up_says_so(api: Api, cluster: Cluster) -> None:
    seen = await drill(api, cluster, dataclasses.replace(OPTIONS, leave_down=True, give_up_after=1.0))
    assert cluster.acts == ["power_off w1"]
    assert seen.capped
    made = report.build(seen)
    assert made["returned_seconds"] is None
    assert any("asked-for end" in f["message"] for f in made["findings"])
