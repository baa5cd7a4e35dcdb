"""A controller at work on a cluster in memory: keys, retries, fences, shutdown, and what ends the process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tandem.runtime.controller import Context, Controller, ControllerSettings, Done, RequeueAfter, Result, Watch
from tandem.runtime.engine import Engine
from tandem.runtime.errors import Conflict, Unavailable
from tandem.runtime.fence import NotLeading, OpenFence
from tandem.runtime.metrics import Metrics
from tandem.runtime.resources import CONFIG_MAPS, PODS, Key, Object
from tandem.runtime.scope import Scope
from tandem.runtime.shutdown import Shutdown
from tandem.runtime.testing.cluster import FakeCluster, Fault
from tandem.runtime.testing.loop import virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


class SwitchFence(OpenFence):
    """A fence with a handle."""

    def __init__(self) -> None:
        self.epoch = 3
        self.open = True

    def check(self) -> float:
        if not self.open:
            raise NotLeading("closed by the test")
        return 60.0


class World:
    def __init__(self, reconcile: Callable[[Key, Context], object], **settings: object) -> None:
        self.cluster = FakeCluster()
        self.calls: list[tuple[float, str]] = []
        self.running: Counter[Key] = Counter()
        self.most_at_once = 0
        self.fence = SwitchFence()
        self.shutdown = Shutdown(drain_seconds=45, signals=())
        self.metrics = Metrics()

        async def noted(key: Key, ctx: Context) -> Result:
            self.calls.append((now(), key.name))
            self.running[key] += 1
            assert self.running[key] == 1, "two workers on one key"
            self.most_at_once = max(self.most_at_once, self.running.total())
            try:
                result: Result = await reconcile(key, ctx)  # type: ignore[misc]
            finally:
                self.running[key] -= 1
            return result

        self.controller = Controller(
            "test",
            noted,
            [Watch(CONFIG_MAPS)],
            ControllerSettings(**settings),  # type: ignore[arg-type]
        )

    @asynccontextmanager
    async def at_work(self, scope: Scope | None = None) -> AsyncIterator[asyncio.Task[None]]:
        client = self.cluster.client()
        self.engine = Engine(self.controller, client, scope=scope or Scope(), metrics=self.metrics)
        following = asyncio.create_task(self.engine.follow())
        async with self.shutdown:
            working = asyncio.create_task(self.engine.work(self.fence, self.shutdown))
            await asyncio.sleep(1)
            try:
                yield working
            finally:
                for task in (working, following):
                    task.cancel()
                await asyncio.wait([working, following])

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"controller": "test", **labels}) or 0.0


async def done(_: Key, __: Context) -> Result:
    return Done()


@virtual
async def test_all_that_is_there_is_reconciled_once_then_what_changes() -> None:
    world = World(done)
    for name in "abc":
        world.cluster.put(CONFIG_MAPS, config_map(name))
    async with world.at_work():
        assert sorted(name for _, name in world.calls) == ["a", "b", "c"]
        world.cluster.put(CONFIG_MAPS, config_map("b", x="1"))
        await asyncio.sleep(1)
        assert [name for _, name in world.calls[3:]] == ["b"]
        assert world.count("controller_runtime_reconcile_total", result="success") == 4


@virtual
async def test_a_change_during_a_reconcile_is_seen_by_another_one_afterwards() -> None:
    seen: list[str] = []

    async def slow(key: Key, ctx: Context) -> Result:
        obj = ctx.cache.get(key)
        assert obj is not None
        seen.append(obj["data"].get("x", ""))
        await asyncio.sleep(10)
        return Done()

    world = World(slow)
    world.cluster.put(CONFIG_MAPS, config_map("a", x="old"))
    async with world.at_work():
        for number in range(5):
            world.cluster.put(CONFIG_MAPS, config_map("a", x=str(number)))
            await asyncio.sleep(1)
        await asyncio.sleep(30)
    assert seen == ["old", "4"]


@virtual
async def test_no_more_than_so_many_at_once() -> None:
    async def slow(_: Key, __: Context) -> Result:
        await asyncio.sleep(1)
        return Done()

    world = World(slow, concurrency=3)
    for number in range(12):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number}"))
    async with world.at_work():
        await asyncio.sleep(4)
        assert len(world.calls) == 12
        assert world.most_at_once == 3


@virtual
async def test_requeue_after_comes_back_without_news_and_is_replaced_by_the_next_result() -> None:
    results: Iterator[Result] = iter([RequeueAfter(100), RequeueAfter(50), Done()])

    async def reconcile(_: Key, __: Context) -> Result:
        return next(results)

    world = World(reconcile)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work():
        await asyncio.sleep(10)
        world.cluster.put(CONFIG_MAPS, config_map("a", x="1"))  # long before the 100 s are over
        await asyncio.sleep(500)
        times = [round(at) for at, _ in world.calls]
        assert times == [0, 11, 61]


@virtual
async def test_what_raises_is_tried_again_with_growing_delays_and_the_attempt_is_told() -> None:
    attempts: list[int] = []

    async def failing(_: Key, ctx: Context) -> Result:
        attempts.append(ctx.attempt)
        if len(attempts) < 6:
            raise RuntimeError("not yet")
        return Done()

    world = World(failing)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work():
        await asyncio.sleep(10)
        assert attempts == [0, 1, 2, 3, 4, 5]
        gaps = [b - a for (a, _), (b, _) in zip(world.calls, world.calls[1:], strict=False)]
        assert gaps == pytest.approx([0.005, 0.01, 0.02, 0.04, 0.08])
        assert world.count("controller_runtime_reconcile_errors_total") == 5
        world.cluster.put(CONFIG_MAPS, config_map("a", x="1"))
        await asyncio.sleep(1)
        assert attempts[-1] == 0  # success was remembered


@virtual
async def test_a_conflict_is_no_error() -> None:
    async def conflicting(_: Key, ctx: Context) -> Result:
        if ctx.attempt == 0:
            raise Conflict("modified", status=409)
        return Done()

    world = World(conflicting)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work():
        assert len(world.calls) == 2
        assert world.count("controller_runtime_reconcile_errors_total") == 0
        assert world.count("controller_runtime_reconcile_total", result="conflict") == 1


@virtual
async def test_a_reconcile_without_return_is_an_error_and_not_a_success() -> None:
    async def forgetful(_: Key, __: Context) -> None:
        return

    world = World(forgetful)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work():
        assert world.count("controller_runtime_reconcile_errors_total") > 0


@virtual
async def test_a_reconcile_that_exceeds_its_limit_fails() -> None:
    async def endless(_: Key, __: Context) -> Result:
        await asyncio.sleep(3600)
        return Done()

    world = World(endless, reconcile_seconds=5)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work():
        await asyncio.sleep(9)
        assert len(world.calls) == 2
        assert world.count("controller_runtime_reconcile_errors_total") == 1


@virtual
async def test_something_cancelled_inside_a_reconcile_does_not_take_the_worker_with_it() -> None:
    async def unlucky(_: Key, ctx: Context) -> Result:
        if ctx.attempt == 0:
            inner = asyncio.create_task(asyncio.sleep(100))
            inner.cancel()
            await inner
        return Done()

    world = World(unlucky, concurrency=1)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work() as working:
        assert not working.done()
        assert world.count("controller_runtime_reconcile_total", result="success") == 1


@virtual
async def test_a_key_that_went_stale_in_the_queue_is_dropped() -> None:
    async def slow(_: Key, __: Context) -> Result:
        await asyncio.sleep(10)
        return Done()

    world = World(slow, concurrency=1)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    world.cluster.put(CONFIG_MAPS, config_map("b"))
    async with world.at_work():
        world.cluster.delete(CONFIG_MAPS, "b", "default")
        await asyncio.sleep(20)
        assert [name for _, name in world.calls] == ["a"]
        assert world.count("controller_runtime_reconcile_total", result="absent") == 1


@virtual
async def test_with_reconcile_absent_a_deletion_is_reconciled() -> None:
    world = World(done, reconcile_absent=True)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work():
        world.cluster.delete(CONFIG_MAPS, "a", "default")
        await asyncio.sleep(1)
        assert len(world.calls) == 2


@virtual
async def test_a_second_watch_maps_its_objects_to_keys_before_and_after_a_change() -> None:
    world = World(done, reconcile_absent=True)

    def by_app(obj: Object) -> list[Key]:
        return [Key("default", obj["metadata"]["labels"]["app"])]

    world.controller = replace(world.controller, watches=[Watch(CONFIG_MAPS), Watch(PODS, maps=by_app)])
    pod = {"metadata": {"name": "p", "namespace": "default", "labels": {"app": "one"}}}
    async with world.at_work():
        world.cluster.put(PODS, pod)
        await asyncio.sleep(1)
        world.cluster.put(PODS, {"metadata": {**pod["metadata"], "labels": {"app": "two"}}})
        await asyncio.sleep(1)
        assert [name for _, name in world.calls] == ["one", "one", "two"]


@virtual
async def test_the_first_signal_drops_what_waits_and_finishes_what_is_in_flight() -> None:
    finished: list[str] = []

    async def slow(key: Key, _: Context) -> Result:
        await asyncio.sleep(20)
        finished.append(key.name)
        return Done()

    world = World(slow, concurrency=1)
    for name in "abc":
        world.cluster.put(CONFIG_MAPS, config_map(name))
    async with world.at_work() as working:
        world.shutdown.request("test")
        world.cluster.put(CONFIG_MAPS, config_map("d"))
        await asyncio.sleep(10)
        assert not working.done()
        await asyncio.sleep(10)
        assert working.done()
        assert finished == ["a"]
        assert len(world.calls) == 1


@virtual
async def test_cancelling_the_work_cancels_what_is_in_flight_and_waits_for_it() -> None:
    cleaned: list[float] = []

    async def slow(_: Key, __: Context) -> Result:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.5)
            cleaned.append(now())
        return Done()

    world = World(slow)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work() as working:
        working.cancel()
        await asyncio.wait([working])
        assert cleaned == [pytest.approx(1.5)]


@virtual
async def test_a_closed_fence_stops_writes_and_new_work_and_ends_the_work() -> None:
    refused: list[str] = []

    async def writing(key: Key, ctx: Context) -> Result:
        await asyncio.sleep(10)
        obj = ctx.cache.get(key)
        assert obj is not None
        try:
            await ctx.writer.patch_status(CONFIG_MAPS, obj, {"seen": True})
        except NotLeading:
            refused.append(key.name)
            raise
        return Done()

    world = World(writing, concurrency=2)
    for name in "abcd":
        world.cluster.put(CONFIG_MAPS, config_map(name))
    async with world.at_work() as working:
        world.fence.open = False
        await asyncio.sleep(15)
        assert sorted(refused) == ["a", "b"]
        assert world.cluster.writes == []
        assert working.done()
        assert working.exception() is None
        assert len(world.calls) == 2
    assert world.count("tandem_writes_total", verb="patch_status", outcome="fenced") == 2


@virtual
async def test_a_worker_that_dies_ends_the_work_with_its_reason() -> None:
    async def fatal(_: Key, __: Context) -> Result:
        raise GeneratorExit("no mere failure")

    world = World(fatal)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work() as working:
        assert isinstance(working.exception(), BaseExceptionGroup)


@virtual
async def test_a_broken_map_function_ends_the_following() -> None:
    world = World(done)

    def broken(_: Object) -> list[Key]:
        raise ZeroDivisionError

    world.controller = replace(world.controller, watches=[Watch(CONFIG_MAPS, maps=broken)])
    engine = Engine(world.controller, world.cluster.client())
    following = asyncio.create_task(engine.follow())
    working = asyncio.create_task(engine.work(world.fence))
    await asyncio.sleep(1)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    await asyncio.sleep(1)
    assert isinstance(following.exception(), ExceptionGroup)
    assert engine.not_alive() is not None
    working.cancel()
    await asyncio.wait([working])


@virtual
async def test_the_cache_is_warm_before_the_work_begins_and_nothing_is_listed_at_the_takeover() -> None:
    world = World(done)
    for number in range(50):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number}"))
    engine = Engine(world.controller, world.cluster.client())
    assert engine.not_ready() is not None
    following = asyncio.create_task(engine.follow())
    await asyncio.sleep(100)  # following
    assert engine.not_ready() is None
    assert world.calls == []
    before = len(world.cluster.requests)
    working = asyncio.create_task(engine.work(world.fence))
    await asyncio.sleep(0.1)
    assert len(world.calls) == 50
    assert len(world.cluster.requests) == before
    following.cancel()
    working.cancel()
    await asyncio.wait([following, working])


@virtual
async def test_health_notices_workers_that_are_all_stuck() -> None:
    async def stuck(_: Key, __: Context) -> Result:
        await asyncio.sleep(10_000)
        return Done()

    world = World(stuck, concurrency=2, stuck_seconds=300)
    for name in "ab":
        world.cluster.put(CONFIG_MAPS, config_map(name))
    async with world.at_work():
        await asyncio.sleep(290)
        assert world.engine.not_alive() is None
        await asyncio.sleep(20)
        assert "all 2 workers" in (world.engine.not_alive() or "")


@virtual
async def test_status_is_stamped_with_the_epoch_and_written_once() -> None:
    async def reconcile(key: Key, ctx: Context) -> Result:
        obj = ctx.cache.get(key)
        assert obj is not None
        await ctx.writer.patch_status(CONFIG_MAPS, obj, {"size": len(obj["data"])})
        return Done()

    world = World(reconcile, epoch_field="leaderEpoch")
    world.cluster.put(CONFIG_MAPS, config_map("a", x="1"))
    async with world.at_work():
        await asyncio.sleep(5)
        stored = world.cluster.find(CONFIG_MAPS, "a", "default")
        assert stored is not None
        assert stored["status"] == {"size": 1, "leaderEpoch": 3}
        assert [w.field_manager for w in world.cluster.writes] == ["test"]
        assert len(world.calls) == 2  # our own write came back as an event, and changed nothing


@virtual
async def test_the_status_of_a_later_leader_is_not_written_over() -> None:
    async def reconcile(key: Key, ctx: Context) -> Result:
        obj = ctx.cache.get(key)
        assert obj is not None
        await ctx.writer.patch_status(CONFIG_MAPS, obj, {"size": 7})
        return Done()

    world = World(reconcile, epoch_field="leaderEpoch")
    world.cluster.put(CONFIG_MAPS, {**config_map("a"), "status": {"size": 1, "leaderEpoch": 4}})
    async with world.at_work() as working:
        await asyncio.sleep(5)
        assert world.cluster.writes == []
        assert not working.done()
        assert world.count("controller_runtime_reconcile_errors_total") > 3


@virtual
async def test_events_are_written_before_the_work_returns() -> None:
    async def talkative(key: Key, ctx: Context) -> Result:
        obj = ctx.cache.get(key)
        assert obj is not None
        await asyncio.sleep(5)
        ctx.events.record(obj, "Normal", "Seen", "It is there.")
        return Done()

    world = World(talkative)
    world.cluster.put(CONFIG_MAPS, config_map("a"))
    async with world.at_work() as working:
        world.shutdown.request("test")
        await asyncio.wait([working])
        (event,) = [w.body for w in world.cluster.writes if w.plural == "events"]
        assert event["note"] == "It is there."
        assert event["regarding"]["name"] == "a"


@virtual
async def test_a_scope_of_namespaces_watches_each_and_nothing_else() -> None:
    world = World(done)
    for namespace in ("one", "two", "three"):
        world.cluster.put(CONFIG_MAPS, config_map(f"in-{namespace}", namespace))
    async with world.at_work(Scope(("one", "two"))):
        assert sorted(name for _, name in world.calls) == ["in-one", "in-two"]
        world.cluster.put(CONFIG_MAPS, config_map("late", "three"))
        await asyncio.sleep(1)
        assert len(world.engine.cache) == 2


@virtual
async def test_an_outage_of_the_api_delays_and_loses_nothing() -> None:
    async def writing(key: Key, ctx: Context) -> Result:
        obj = ctx.cache.get(key)
        assert obj is not None
        await ctx.writer.patch_status(CONFIG_MAPS, obj, {"seen": obj["data"].get("x", "")})
        return Done()

    world = World(writing)
    for number in range(20):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number:02}"))
    async with world.at_work():
        world.cluster.break_watches()
        world.cluster.faults.append(Fault(error=Unavailable("refused"), times=None))
        for number in range(20):
            world.cluster.put(CONFIG_MAPS, config_map(f"c{number:02}", x="new"))
        await asyncio.sleep(60)
        world.cluster.faults.clear()
        await asyncio.sleep(60)
        assert {o["status"]["seen"] for o in world.cluster.objects(CONFIG_MAPS)} == {"new"}
