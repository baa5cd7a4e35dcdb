"""Writes: fenced, on a stated version, under one manager, and none where nothing would change."""

from __future__ import annotations

import asyncio

import pytest

from tandem.runtime.errors import Conflict, Unavailable
from tandem.runtime.fence import NotLeading, OpenFence, StaleEpoch
from tandem.runtime.resources import CONFIG_MAPS, Object
from tandem.runtime.testing.cluster import FakeCluster, Fault
from tandem.runtime.testing.loop import virtual
from tandem.runtime.writer import Writer, merged


def config_map(**data: str) -> Object:
    return {"metadata": {"name": "a", "namespace": "default"}, "data": data}


class Fence(OpenFence):
    epoch = 5
    left = 100.0

    def check(self) -> float:
        if self.left <= 0:
            raise NotLeading("over")
        return self.left


class World:
    def __init__(self, **options: str) -> None:
        self.cluster = FakeCluster()
        self.fence = Fence()
        self.told: list[tuple[str, str]] = []
        self.writer = Writer(
            self.cluster.client(),
            self.fence,
            "manager",
            observer=lambda verb, outcome: self.told.append((verb, outcome)),
            **options,  # type: ignore[arg-type]
        )


@virtual
async def test_every_write_is_fenced_and_nothing_is_sent_without_a_lead() -> None:
    world = World()
    stored = world.cluster.put(CONFIG_MAPS, config_map(x="1"))
    world.fence.left = 0
    for write in (
        world.writer.create(CONFIG_MAPS, config_map()),
        world.writer.replace(CONFIG_MAPS, stored),
        world.writer.apply(CONFIG_MAPS, stored, {"data": {"x": "2"}}),
        world.writer.patch_status(CONFIG_MAPS, stored, {"done": True}),
    ):
        with pytest.raises(NotLeading):
            await write
    assert world.cluster.requests == []
    assert [outcome for _, outcome in world.told] == ["fenced"] * 4


@virtual
async def test_every_change_is_refused_when_the_object_is_newer_than_the_decision() -> None:
    world = World()
    stored = world.cluster.put(CONFIG_MAPS, config_map(x="1"))
    world.cluster.put(CONFIG_MAPS, config_map(x="successor's"))
    for write in (
        world.writer.replace(CONFIG_MAPS, stored),
        world.writer.apply(CONFIG_MAPS, stored, {"data": {"x": "2"}}),
        world.writer.patch_status(CONFIG_MAPS, stored, {"done": True}),
    ):
        with pytest.raises(Conflict):
            await write
    assert world.cluster.writes == []


@virtual
async def test_a_write_without_a_version_is_a_mistake_of_the_program() -> None:
    world = World()
    world.cluster.put(CONFIG_MAPS, config_map())
    with pytest.raises(ValueError, match="resourceVersion"):
        await world.writer.replace(CONFIG_MAPS, config_map(x="1"))
    with pytest.raises(ValueError, match="resourceVersion"):
        await world.writer.apply(CONFIG_MAPS, config_map(), {"data": {}})


@virtual
async def test_apply_says_who_and_on_which_version() -> None:
    world = World()
    stored = world.cluster.put(CONFIG_MAPS, config_map(x="1"))
    after = await world.writer.apply(CONFIG_MAPS, stored, {"metadata": {"labels": {"l": "v"}}, "data": {"y": "2"}})
    assert after["data"] == {"x": "1", "y": "2"}
    assert after["metadata"]["labels"] == {"l": "v"}
    (write,) = world.cluster.writes
    assert (write.verb, write.field_manager) == ("apply", "manager")


@virtual
async def test_a_write_does_not_outlive_the_lead() -> None:
    world = World()
    world.fence.left = 3.0
    world.cluster.faults.append(Fault(delay=float("inf")))
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await world.writer.create(CONFIG_MAPS, config_map())
    assert asyncio.get_running_loop().time() - started == pytest.approx(3.0)


@virtual
async def test_a_status_that_says_so_already_is_not_written_even_in_a_new_epoch() -> None:
    world = World(epoch_field="leaderEpoch")
    stored = world.cluster.put(CONFIG_MAPS, {**config_map(), "status": {"n": 1, "leaderEpoch": 2, "list": [1, 2]}})
    assert await world.writer.patch_status(CONFIG_MAPS, stored, {"n": 1, "gone": None, "list": [1, 2]}) is stored
    assert world.told == [("patch_status", "skipped")]
    after = await world.writer.patch_status(CONFIG_MAPS, stored, {"n": 2})
    assert after["status"] == {"n": 2, "leaderEpoch": 5, "list": [1, 2]}


@virtual
async def test_the_status_of_a_later_leader_stays() -> None:
    world = World(epoch_field="leaderEpoch")
    stored = world.cluster.put(CONFIG_MAPS, {**config_map(), "status": {"n": 1, "leaderEpoch": 6}})
    with pytest.raises(StaleEpoch):
        await world.writer.patch_status(CONFIG_MAPS, stored, {"n": 2})
    assert world.cluster.writes == []


@pytest.mark.parametrize(
    ("old", "patch", "expected"),
    [  # RFC 7386, appendix A, what concerns objects
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(old: object, patch: Object, expected: Object) -> None:
    assert merged(old, patch) == expected
