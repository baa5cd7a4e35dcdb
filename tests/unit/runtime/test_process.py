"""Whole processes (all but the kernel's part) on one cluster in memory: handover, shards, exit statuses, settings."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tandem.runtime._election.store import ApiLeaseStore
from tandem.runtime.controller import Context, Controller, ControllerSettings, Done, Result, Watch
from tandem.runtime.errors import Unavailable
from tandem.runtime.process import LOST, Cluster, serve
from tandem.runtime.resources import CONFIG_MAPS, EVENTS, LEASES, Key, Object
from tandem.runtime.scope import Scope, Shard
from tandem.runtime.settings import RunSettings
from tandem.runtime.shutdown import Shutdown
from tandem.runtime.testing.cluster import FakeCluster, Fault
from tandem.runtime.testing.loop import virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def free_lease(name: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 0},
    }


async def stamp(key: Key, ctx: Context) -> Result:
    """Writes who was here; slow, so that something is in flight."""
    obj = ctx.cache.get(key)
    assert obj is not None
    if obj.get("status", {}).get("seen") != obj["data"].get("x"):
        await asyncio.sleep(3)
        await ctx.writer.patch_status(CONFIG_MAPS, obj, {"seen": obj["data"].get("x")})
    return Done()


class World:
    """Processes by name, on one cluster."""

    def __init__(self, reconcile: Callable[[Key, Context], object] = stamp, **settings: object) -> None:
        self.cluster = FakeCluster()
        self.controller = Controller(
            "stamper",
            reconcile,  # type: ignore[arg-type]
            [Watch(CONFIG_MAPS)],
            ControllerSettings(epoch_field="leaderEpoch"),
        )
        self.settings = settings
        self.processes: dict[str, tuple[asyncio.Task[int], Shutdown]] = {}

    def start(self, name: str, **settings: object) -> None:
        chosen = RunSettings(
            **{"identity": name, "lease_namespace": "default", "health_port": None, **self.settings, **settings}  # type: ignore[arg-type]
        )
        client = self.cluster.client(name)
        elector = self.cluster.client(f"{name}-elector")
        ways = Cluster(client, lambda namespace, lease: ApiLeaseStore(elector, namespace, lease))

        async def process(shutdown: Shutdown) -> int:
            async with shutdown:
                return await serve(
                    self.controller, chosen, ways, shutdown=shutdown, guard=None, clock=now, rng=random.Random(name)
                )

        shutdown = Shutdown(signals=(), drain_seconds=chosen.drain_seconds)
        self.processes[name] = (asyncio.create_task(process(shutdown)), shutdown)

    async def kill(self, name: str) -> None:
        """As kill -9 does: nothing more is sent from now on, nothing is released."""
        self.cluster.faults.append(Fault(client=name, delay=float("inf"), times=None))
        self.cluster.faults.append(Fault(client=f"{name}-elector", delay=float("inf"), times=None))
        self.processes[name][0].cancel()
        await asyncio.sleep(0)

    async def end(self, name: str) -> int:
        task, shutdown = self.processes[name]
        shutdown.request("test")
        return await task

    def holder(self, lease: str = "stamper") -> str:
        found = self.cluster.find(LEASES, lease, "default")
        holder: str = found["spec"]["holderIdentity"] if found else ""
        return holder

    def writers(self) -> list[str]:
        return [write.client for write in self.cluster.writes if write.plural == "configmaps"]


@virtual
async def test_one_leads_the_other_is_warm_and_takes_over_at_once_when_the_lease_is_released() -> None:
    world = World()
    world.cluster.put(LEASES, free_lease("stamper"))
    for number in range(4):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number}", x="1"))
    world.start("a")
    await asyncio.sleep(1)
    world.start("b")
    await asyncio.sleep(29)
    assert world.holder() == "a"
    assert set(world.writers()) == {"a"}
    lists = [r for r in world.cluster.requests if r == ("b", "list", "configmaps")]
    assert len(lists) == 1
    for number in range(4):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number}", x="2"))
    await asyncio.sleep(1)
    asked = now()
    assert await world.end("a") == 0
    assert now() - asked == pytest.approx(2, abs=0.2)  # the rest of what was in flight
    await asyncio.sleep(5)
    assert world.holder() == "b"
    first = next(w for w in world.cluster.writes if w.client == "b" or world.cluster.writes[-1] is w)
    assert first.at - asked < 6
    assert [r for r in world.cluster.requests if r == ("b", "list", "configmaps")] == lists
    assert await world.end("b") == 0
    assert world.holder() == ""
    said = [(event["regarding"]["kind"], event["note"]) for event in world.cluster.objects(EVENTS)]
    assert sorted(said) == [("Lease", "a became leader"), ("Lease", "b became leader")]


@virtual
async def test_after_a_crash_the_other_leads_when_the_lease_is_over_and_never_both_write() -> None:
    world = World()
    world.cluster.put(LEASES, free_lease("stamper"))
    world.start("a")
    await asyncio.sleep(1)
    world.start("b")
    await asyncio.sleep(10)
    for number in range(50):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number}", x="1"))
    await asyncio.sleep(4)
    await world.kill("a")
    killed = now()
    while world.holder() != "b":  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(0.1)
    assert 12.9 <= now() - killed <= 15.6
    await asyncio.sleep(60)
    epochs = [w.body["status"]["leaderEpoch"] for w in world.cluster.writes if w.plural == "configmaps"]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 2
    stored = world.cluster.objects(CONFIG_MAPS)
    assert all(obj["status"]["seen"] == "1" for obj in stored)
    await world.end("b")


@virtual
async def test_a_stolen_lease_stops_the_writes_and_the_status_says_so() -> None:
    world = World()
    world.cluster.put(LEASES, free_lease("stamper"))
    world.start("a")
    await asyncio.sleep(5)
    for number in range(20):
        world.cluster.put(CONFIG_MAPS, config_map(f"c{number}", x="1"))
    await asyncio.sleep(1)  # four are in flight
    lease = world.cluster.find(LEASES, "stamper", "default")
    assert lease is not None
    lease["spec"]["holderIdentity"] = "somebody else"
    world.cluster.put(LEASES, lease)
    before = len(world.cluster.writes)
    task, _ = world.processes["a"]
    async with asyncio.timeout(2):
        assert await task == LOST
    assert len(world.cluster.writes) == before
    assert world.holder() == "somebody else"


@virtual
async def test_an_outage_longer_than_the_renew_deadline_ends_the_process_and_a_shorter_one_does_not() -> None:
    world = World()
    world.cluster.put(LEASES, free_lease("stamper"))
    world.start("a")
    await asyncio.sleep(5)
    outage = Fault(error=Unavailable("refused"), times=None)
    world.cluster.faults.append(outage)
    await asyncio.sleep(5)
    world.cluster.faults.remove(outage)
    await asyncio.sleep(20)
    task, _ = world.processes["a"]
    assert not task.done()
    world.cluster.faults.append(outage)
    started = now()
    assert await task == LOST
    assert 8 <= now() - started <= 10.1


@virtual
async def test_work_that_does_not_end_is_cut_short_after_the_drain_and_the_lease_is_released() -> None:
    async def endless(_: Key, __: Context) -> Result:
        await asyncio.sleep(10_000)
        return Done()

    for elected in (True, False):
        world = World(endless, elected=elected, drain_seconds=30.0)
        world.cluster.put(LEASES, free_lease("stamper"))
        world.cluster.put(CONFIG_MAPS, config_map("c", x="1"))
        world.start("a")
        await asyncio.sleep(5)
        asked = now()
        assert await world.end("a") == 0
        assert now() - asked == pytest.approx(30, abs=0.5)
        assert world.holder() == ""


@virtual
async def test_a_follower_that_is_asked_to_end_ends_at_once_and_never_leads() -> None:
    world = World()
    world.start("a")
    await asyncio.sleep(20)
    world.start("b")
    await asyncio.sleep(5)
    asked = now()
    assert await world.end("b") == 0
    assert now() - asked < 1
    assert world.holder() == "a"
    await world.end("a")


SHARDS = (Shard("red", Scope(("red",))), Shard("blue", Scope(("blue",))), Shard("rest", Scope(("x", "y"))))


def sharded_world() -> World:
    world = World(shards=SHARDS)
    for shard in SHARDS:
        world.cluster.put(LEASES, free_lease(f"stamper-{shard.name}"))
    for namespace in ("red", "blue", "x", "y", "nobodys"):
        for number in range(5):
            world.cluster.put(CONFIG_MAPS, config_map(f"{namespace}-{number}", namespace, x="1"))
    return world


@virtual
async def test_shards_are_shared_out_and_one_process_takes_over_those_of_another() -> None:
    world = sharded_world()
    world.start("a")
    world.start("d")  # prefers another shard than "a" does
    await asyncio.sleep(20)
    holders = {shard.name: world.holder(f"stamper-{shard.name}") for shard in SHARDS}
    assert set(holders.values()) == {"a", "d"}
    stamped = {o["metadata"]["name"] for o in world.cluster.objects(CONFIG_MAPS) if o.get("status")}
    assert stamped == {f"{namespace}-{n}" for namespace in ("red", "blue", "x", "y") for n in range(5)}
    assert await world.end("a") == 0
    await asyncio.sleep(5)
    assert {world.holder(f"stamper-{shard.name}") for shard in SHARDS} == {"d"}
    for namespace in ("red", "blue", "x", "y"):
        world.cluster.put(CONFIG_MAPS, config_map(f"{namespace}-0", namespace, x="2"))
    await asyncio.sleep(10)
    seen = {o["status"]["seen"] for o in world.cluster.objects(CONFIG_MAPS) if o["metadata"]["name"].endswith("-0")
            and o["metadata"]["namespace"] != "nobodys"}  # fmt: skip
    assert seen == {"2"}
    await world.end("d")


@virtual
async def test_a_shards_watches_are_of_its_scope_only() -> None:
    world = sharded_world()
    world.start("a", candidate_for=("red",))
    await asyncio.sleep(20)
    assert {w.body["metadata"]["namespace"] for w in world.cluster.writes if w.plural == "configmaps"} == {"red"}
    assert world.holder("stamper-blue") == ""
    await world.end("a")


@virtual
async def test_a_process_that_loses_one_shard_gives_the_others_back_in_good_order() -> None:
    world = sharded_world()
    world.start("a")
    await asyncio.sleep(20)
    lease = world.cluster.find(LEASES, "stamper-red", "default")
    assert lease is not None
    lease["spec"]["holderIdentity"] = "somebody else"
    world.cluster.put(LEASES, lease)
    task, _ = world.processes["a"]
    async with asyncio.timeout(5):
        assert await task == LOST
    assert world.holder("stamper-red") == "somebody else"
    assert world.holder("stamper-blue") == world.holder("stamper-rest") == ""


def test_settings_come_from_the_environment() -> None:
    settings = RunSettings.from_environ(
        {
            "TANDEM_SHARDS": '[{"name": "a", "namespaces": ["x"]}, {"name": "b", "labelSelector": "t=1", '
            '"namespaces": ["y"]}]',
            "TANDEM_CANDIDATE_FOR": "a",
            "TANDEM_LEASE_DURATION": "30",
            "TANDEM_HEALTH_PORT": "none",
            "TANDEM_LOG_JSON": "false",
        },
        drain_seconds=20.0,
    )
    assert settings.shards == (Shard("a", Scope(("x",))), Shard("b", Scope(("y",), "t=1")))
    assert (settings.lease_duration, settings.health_port, settings.log_json) == (30, None, False)
    assert settings.drain_seconds == 20.0
    assert [part.name for part in settings.parts("c")] == ["c-a"]
    assert RunSettings.from_environ({"TANDEM_NAMESPACES": "x, y"}).scope == Scope(("x", "y"))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TANDEM_ELECTED": "maybe"}, "TANDEM_ELECTED='maybe'"),
        ({"TANDEM_LEASE_DURATION": "5"}, "renew_deadline"),
        ({"TANDEM_SHARDS": '[{"name": "a"}, {"name": "b"}]'}, "may act on the same object"),
        ({"TANDEM_SHARDS": '[{"name": "a"}]', "TANDEM_ELECTED": "false"}, "need an election"),
        ({"TANDEM_CANDIDATE_FOR": "a"}, "no shard"),
        ({"TANDEM_NAMESPACES": "x", "TANDEM_SHARDS": '[{"name": "a"}]'}, "scope and shards"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunSettings.from_environ(variables)
