"""The reflector: what is asked for after each kind of break, and that the cache ends up like the cluster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tandem.runtime.cache import Cache
from tandem.runtime.errors import Gone, TooManyRequests, Unavailable
from tandem.runtime.reflector import Reflector, ReflectorSettings
from tandem.runtime.resources import CONFIG_MAPS, Key, Object
from tandem.runtime.testing.cluster import FakeCluster, Fault
from tandem.runtime.testing.loop import virtual

GONE = Gone("too old", status=410, reason="Expired")


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "data": data}


class World:
    def __init__(self, objects: int = 0, **options: object) -> None:
        self.cluster = FakeCluster()
        for number in range(objects):
            self.cluster.put(CONFIG_MAPS, config_map(f"c{number:05}"))
        self.cache = Cache(CONFIG_MAPS)
        self.changes: list[tuple[str, str]] = []
        self.cache.listen(self._note)
        settings = ReflectorSettings(page=100, idle_seconds=1000)
        self.reflector = Reflector(
            self.cluster.client(),
            self.cache,
            settings=settings,
            rng=random.Random(1),
            **options,  # type: ignore[arg-type]
        )

    def _note(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        kind = "added" if old is None else "deleted" if new is None else "changed"
        self.changes.append((kind, obj["metadata"]["name"]))

    def asked(self, verb: str) -> int:
        return sum(1 for _, v, _ in self.cluster.requests if v == verb)

    def agrees(self) -> bool:
        stored = {(o["metadata"]["name"], o["metadata"]["resourceVersion"]) for o in self.cluster.objects(CONFIG_MAPS)}
        return stored == {(o["metadata"]["name"], o["metadata"]["resourceVersion"]) for o in self.cache}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reflector.run())
        try:
            async with asyncio.timeout(10):
                await self.reflector.synced.wait()
            yield
            assert not task.done()
        finally:
            task.cancel()


@virtual
async def test_lists_in_pages_then_follows_without_listing_again() -> None:
    world = World(objects=250)
    async with world.running():
        assert len(world.cache) == 250
        assert world.asked("list") == 3
        world.cluster.put(CONFIG_MAPS, config_map("new"))
        world.cluster.put(CONFIG_MAPS, config_map("c00000", changed="yes"))
        world.cluster.delete(CONFIG_MAPS, "c00001", "default")
        await asyncio.sleep(1)
        assert world.changes[250:] == [("added", "new"), ("changed", "c00000"), ("deleted", "c00001")]
        assert world.agrees()
        assert world.asked("list") == 3


@virtual
async def test_items_of_a_list_get_their_kind_back() -> None:
    world = World(objects=1)
    async with world.running():
        (obj,) = world.cache
        assert (obj["apiVersion"], obj["kind"]) == ("v1", "ConfigMap")


@virtual
async def test_a_watch_that_ends_is_resumed_at_once_and_nothing_is_lost() -> None:
    world = World(objects=5)
    async with world.running():
        for number in range(20):  # each watch is asked to end after 300 to 600 s
            await asyncio.sleep(250)
            world.cluster.put(CONFIG_MAPS, config_map("c00000", at=str(number)))
        await asyncio.sleep(1)
        assert world.agrees()
        assert world.asked("list") == 1
        assert 8 <= world.asked("watch") <= 18


@virtual
async def test_a_broken_watch_is_resumed_from_the_last_version_after_a_back_off() -> None:
    world = World(objects=5)
    async with world.running():
        await asyncio.sleep(10)
        world.cluster.break_watches()
        await asyncio.sleep(0)
        world.cluster.delete(CONFIG_MAPS, "c00003", "default")  # while nobody watches
        await asyncio.sleep(0.7)
        assert world.asked("watch") == 1
        await asyncio.sleep(0.6)  # 0.8 s with a jitter of at most one half
        assert world.asked("watch") == 2
        assert world.changes[5:] == [("deleted", "c00003")]
        assert world.asked("list") == 1


@virtual
async def test_410_lists_anew_and_tells_of_deletions_that_no_watch_showed() -> None:
    world = World(objects=5)
    async with world.running():
        await asyncio.sleep(1)
        world.cluster.break_watches()
        await asyncio.sleep(0.1)
        world.cluster.delete(CONFIG_MAPS, "c00003", "default")
        world.cluster.put(CONFIG_MAPS, config_map("c00004", changed="yes"))
        world.cluster.put(CONFIG_MAPS, config_map("new"))
        world.cluster.compact()
        world.cluster.put(CONFIG_MAPS, config_map("newer"))
        await asyncio.sleep(5)
        assert sorted(world.changes[5:]) == [
            ("added", "new"), ("added", "newer"), ("changed", "c00004"), ("deleted", "c00003")
        ]  # fmt: skip
        assert world.agrees()
        assert world.asked("list") == 2


@virtual
async def test_a_list_of_one_namespace_deletes_nothing_of_another() -> None:
    world = World(objects=2, namespace="default")
    world.cache.put({**config_map("foreign", "elsewhere"), "metadata": {"name": "foreign", "namespace": "elsewhere"}})
    async with world.running():
        assert Key("elsewhere", "foreign") in world.cache
        assert len(world.cache) == 3


@virtual
async def test_a_storm_of_410_is_met_with_growing_patience() -> None:
    world = World(objects=5)
    world.cluster.faults.append(Fault(verb="watch", error=GONE, times=None))
    async with world.running():
        await asyncio.sleep(120)
        assert world.asked("list") <= 10  # 0.8, 1.6, 3.2, ... 20..30 s; a tight loop would ask thousands of times
        world.cluster.faults.clear()
        world.cluster.put(CONFIG_MAPS, config_map("new"))
        await asyncio.sleep(31)
        assert world.agrees()


@virtual
async def test_a_continue_token_that_expires_leads_to_a_list_in_one_piece() -> None:
    world = World(objects=250)
    world.cluster.faults.append(Fault(verb="list", after=True, delay=1, times=1))
    task = asyncio.create_task(world.reflector.run())
    await asyncio.sleep(0.5)
    world.cluster.compact()  # while the first page is on its way
    await asyncio.sleep(10)
    assert world.agrees()
    assert world.asked("list") == 3  # first page, second page refused, whole
    task.cancel()


@virtual
async def test_retry_after_is_a_minimum() -> None:
    world = World(objects=1)
    world.cluster.faults.append(Fault(verb="watch", error=TooManyRequests("later", status=429, retry_after=20)))
    async with world.running():
        await asyncio.sleep(19)
        assert world.asked("watch") == 1
        await asyncio.sleep(12)
        assert world.asked("watch") == 2


@virtual
async def test_a_hung_request_ends_at_its_limit() -> None:
    world = World(objects=1)
    world.cluster.faults.append(Fault(verb="list", delay=float("inf")))
    task = asyncio.create_task(world.reflector.run())
    await asyncio.sleep(30 + 1.3)
    assert world.reflector.synced.is_set()
    task.cancel()


@virtual
async def test_a_silent_watch_counts_as_broken() -> None:
    world = World(objects=1)
    world.reflector._settings = ReflectorSettings(idle_seconds=90)
    async with world.running():
        await asyncio.sleep(89)
        assert world.asked("watch") == 1
        await asyncio.sleep(3)
        assert world.asked("watch") == 2
        assert world.asked("list") == 1


@virtual
async def test_watches_that_end_at_once_are_not_asked_for_in_a_tight_loop() -> None:
    world = World(objects=1)
    world.reflector._settings = ReflectorSettings(watch_seconds=(0.01, 0.02))
    async with world.running():
        await asyncio.sleep(60)
        assert world.asked("watch") < 10


@virtual
async def test_an_object_that_leaves_the_selector_is_deleted_and_comes_back_as_new() -> None:
    world = World(objects=2, label_selector="app=c00001")
    async with world.running():
        assert [o["metadata"]["name"] for o in world.cache] == ["c00001"]
        moved = config_map("c00001")
        moved["metadata"]["labels"] = {"app": "other"}
        world.cluster.put(CONFIG_MAPS, moved)
        await asyncio.sleep(1)
        world.cluster.put(CONFIG_MAPS, config_map("c00001"))
        await asyncio.sleep(1)
        assert world.changes == [("added", "c00001"), ("deleted", "c00001"), ("added", "c00001")]


@pytest.mark.parametrize("seed", range(20))
def test_after_any_schedule_of_faults_the_cache_is_the_cluster(seed: int) -> None:
    @virtual
    async def run() -> None:
        rng = random.Random(seed)
        world = World(objects=rng.choice([0, 3, 150]))
        errors = [GONE, Unavailable("reset"), TooManyRequests("later", status=429, retry_after=3)]
        shadow: set[str] = set()
        world.cache.listen(lambda old, new: shadow.add(new["metadata"]["name"]) if new else shadow.discard(
            (old or {})["metadata"]["name"]))  # fmt: skip
        task = asyncio.create_task(world.reflector.run())
        for _ in range(150):
            await asyncio.sleep(rng.expovariate(2))
            name = f"c{rng.randrange(20):05}"
            match rng.randrange(7):
                case 0 if world.cluster.find(CONFIG_MAPS, name, "default"):
                    world.cluster.delete(CONFIG_MAPS, name, "default")
                case 1:
                    world.cluster.break_watches()
                case 2:
                    world.cluster.compact()
                case 3:
                    verb = rng.choice(["list", "watch"])
                    world.cluster.faults.append(Fault(verb=verb, error=rng.choice(errors), after=rng.random() < 0.5))
                case _:
                    world.cluster.put(CONFIG_MAPS, config_map(name, at=str(rng.random())))
        world.cluster.faults.clear()
        await asyncio.sleep(120)
        assert not task.done()
        assert world.agrees()
        assert shadow == {o["metadata"]["name"] for o in world.cache}
        task.cancel()

    run()
