"""Reflectors against a real API server: ten thousand objects, a wire that breaks or goes silent, a storm of 410."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tandem.runtime import KubeClient, connect_client
from tandem.runtime.cache import Cache
from tandem.runtime.reflector import Reflector, ReflectorSettings
from tandem.runtime.resources import CONFIG_MAPS, Key, Object
from tandem.runtime.testing.localapi import LocalApi
from tests.api.pods import Wire

pytestmark = [pytest.mark.api, pytest.mark.timeout(300)]
MANY = 10_000


class Outcomes:
    """A reflector's observer that remembers."""

    def __init__(self) -> None:
        self.lists: list[tuple[int, float]] = []
        self.watches: list[str] = []

    def listed(self, objects: int, seconds: float) -> None:
        self.lists.append((objects, seconds))

    def watched(self, outcome: str) -> None:
        self.watches.append(outcome)


class Follower:
    """A reflector with its cache and what became of its requests."""

    def __init__(self, client: KubeClient, namespace: str, **settings: float) -> None:
        self.cache = Cache(CONFIG_MAPS)
        self.seen = Outcomes()
        self.deleted: list[str] = []
        self.cache.listen(lambda old, new: self.deleted.append(old["metadata"]["name"]) if old and not new else None)
        self.reflector = Reflector(
            client,
            self.cache,
            namespace=namespace,
            settings=ReflectorSettings(**settings),  # type: ignore[arg-type]
            observer=self.seen,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reflector.run())
        try:
            async with asyncio.timeout(120):
                await self.reflector.synced.wait()
            yield
            assert not task.done()
        finally:
            task.cancel()

    async def until(self, key: Key, value: str | None, seconds: float = 60) -> float:
        """Wait until the cache has this value (None: the object is gone); returns how long it took."""
        started = time.monotonic()
        async with asyncio.timeout(seconds):
            while ((self.cache.get(key) or {}).get("data") or {}).get("v") != value:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return time.monotonic() - started


def config_map(namespace: str, name: str, value: str = "0") -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "data": {"v": value}}


async def make(api: LocalApi, client: KubeClient, namespace: str, count: int) -> None:
    await asyncio.to_thread(api.request, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    names = iter(range(count))

    async def some() -> None:
        for number in names:
            await client.create(CONFIG_MAPS, config_map(namespace, f"c{number:05}"), seconds=60)

    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(some())


async def change(client: KubeClient, namespace: str, name: str, value: str) -> None:
    found = await client.get(CONFIG_MAPS, name, namespace=namespace, seconds=30)
    await client.replace(CONFIG_MAPS, {**found, "data": {"v": value}}, seconds=30)


def delete(api: LocalApi, namespace: str, name: str) -> None:
    api.request("DELETE", f"/api/v1/namespaces/{namespace}/configmaps/{name}")


async def test_ten_thousand_objects_are_listed_once_in_pages_and_followed(api: LocalApi, name: str) -> None:
    async with connect_client(str(api.kubeconfig())) as client:
        started = time.monotonic()
        await make(api, client, name, MANY)
        print(f"{MANY} objects made in {time.monotonic() - started:.1f} s")
        follower = Follower(client, name)
        async with follower.running():
            assert len(follower.cache) == MANY
            ((objects, seconds),) = follower.seen.lists
            print(f"{objects} objects listed in {seconds:.2f} s")
            await change(client, name, "c00042", "1")
            took = await follower.until(Key(name, "c00042"), "1")
            print(f"a change arrived after {took * 1000:.0f} ms")
            await asyncio.to_thread(delete, api, name, "c00043")
            await follower.until(Key(name, "c00043"), None)
            assert len(follower.cache) == MANY - 1
            assert len(follower.seen.lists) == 1


async def test_a_wire_that_is_cut_is_resumed_without_a_list(api: LocalApi, name: str, tmp_path: Path) -> None:
    async with (
        connect_client(str(api.kubeconfig())) as client,
        Wire(api.url) as wire,
        connect_client(wire.kubeconfig(api.kubeconfig(), tmp_path)) as cut_off,
    ):
        await make(api, client, name, 20)
        follower = Follower(cut_off, name)
        async with follower.running():
            for round_ in range(3):
                await asyncio.sleep(0.3)
                wire.cut()
                await change(client, name, "c00001", f"{round_}")
                await asyncio.to_thread(delete, api, name, f"c0001{round_}")
                took = await follower.until(Key(name, "c00001"), f"{round_}")
                await follower.until(Key(name, f"c0001{round_}"), None)
                print(f"in step again {took:.2f} s after the cut")
            assert follower.deleted == ["c00010", "c00011", "c00012"]
            assert len(follower.seen.lists) == 1
            assert follower.seen.watches.count("broken") >= 3


async def test_a_wire_that_goes_silent_is_noticed(api: LocalApi, name: str, tmp_path: Path) -> None:
    async with (
        connect_client(str(api.kubeconfig())) as client,
        Wire(api.url) as wire,
        connect_client(wire.kubeconfig(api.kubeconfig(), tmp_path)) as cut_off,
    ):
        await make(api, client, name, 5)
        follower = Follower(cut_off, name, idle_seconds=2, request_seconds=3)
        async with follower.running():
            wire.fall_silent()
            await change(client, name, "c00001", "1")
            await asyncio.sleep(5)
            assert follower.cache.get(Key(name, "c00001"))["data"] == {"v": "0"}  # type: ignore[index]
            wire.speak()
            took = await follower.until(Key(name, "c00001"), "1")
            print(f"in step again {took:.2f} s after the silence")
            assert "broken" in follower.seen.watches


async def test_a_storm_of_410_after_a_restart_of_the_server_ends_with_every_cache_right(
    own_api: LocalApi, name: str
) -> None:
    async with connect_client(str(own_api.kubeconfig())) as client:
        await make(own_api, client, name, 500)
        followers = [Follower(client, name) for _ in range(20)]
        async with AsyncExitStack() as stack, asyncio.timeout(200):
            for follower in followers:
                await stack.enter_async_context(follower.running())
            # Versions that the server's cache will not go back to: it begins anew at its restart.
            await asyncio.to_thread(own_api.kill_server)
            await asyncio.to_thread(own_api.start_server)
            async with connect_client(str(own_api.kubeconfig())) as other:
                for number in range(30):
                    await change(other, name, f"c{number:05}", "1")
                    await asyncio.to_thread(delete, own_api, name, f"c{number + 100:05}")
            started = time.monotonic()
            for follower in followers:
                await follower.until(Key(name, "c00029"), "1", 120)
                await follower.until(Key(name, "c00129"), None, 120)
            print(f"all 20 in step {time.monotonic() - started:.1f} s after the last change")
            stored = await client.list(CONFIG_MAPS, namespace=name, limit=0, seconds=30)
            versions = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in stored["items"]}
            for follower in followers:
                seen = {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in follower.cache}
                assert seen == versions
                assert len(follower.deleted) == 30
                assert len(follower.seen.lists) <= 4
            print("watches:", [follower.seen.watches for follower in followers][:3])


async def test_compacted_versions_are_answered_with_410_and_what_was_deleted_is_told(
    own_api: LocalApi, name: str, tmp_path: Path
) -> None:
    async with (
        connect_client(str(own_api.kubeconfig())) as client,
        Wire(own_api.url) as wire,
        connect_client(wire.kubeconfig(own_api.kubeconfig(), tmp_path)) as cut_off,
    ):
        await make(own_api, client, name, 10)
        follower = Follower(cut_off, name)
        async with follower.running():
            wire.fall_silent()
            wire.cut()
            await asyncio.to_thread(delete, own_api, name, "c00003")
            # More changes than the server's cache remembers for this kind (its window begins with 100).
            for number in range(150):
                await change(client, name, "c00001", str(number))
            await asyncio.to_thread(own_api.kill_server)
            await asyncio.to_thread(own_api.start_server)
            wire.speak()
            await follower.until(Key(name, "c00001"), "149")
            await follower.until(Key(name, "c00003"), None)
            assert follower.deleted == ["c00003"]
            assert "expired" in follower.seen.watches
            assert len(follower.seen.lists) == 2
