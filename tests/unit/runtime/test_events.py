"""Events: one series instead of a thousand objects, no reconcile that fails for want of them."""

from __future__ import annotations

import asyncio

from tandem.runtime.errors import Unavailable
from tandem.runtime.events import EventRecorder
from tandem.runtime.fence import NotLeading, OpenFence
from tandem.runtime.resources import EVENTS, Object
from tandem.runtime.testing.cluster import FakeCluster, Fault
from tandem.runtime.testing.loop import virtual
from tandem.runtime.writer import Writer

POD: Object = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u1"}, "spec": {},
}  # fmt: skip


class World:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.outcomes: list[str] = []
        writer = Writer(self.cluster.client(), OpenFence(), "test")
        self.recorder = EventRecorder(writer, "tandem-ha.io/test", "me", count=self.outcomes.append)

    def stored(self) -> list[Object]:
        return self.cluster.objects(EVENTS)


@virtual
async def test_an_event_says_about_what_by_whom_and_why() -> None:
    world = World()
    world.recorder.record(POD, "Warning", "Alone", "one replica", action="Judge")
    await world.recorder.flush()
    (event,) = world.stored()
    assert event["regarding"] == {
        "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default", "uid": "u1",
    }  # fmt: skip
    said = [event[name] for name in ("type", "reason", "note", "action", "reportingController", "reportingInstance")]
    assert said == ["Warning", "Alone", "one replica", "Judge", "tandem-ha.io/test", "me"]
    assert event["metadata"]["namespace"] == "default"
    assert "series" not in event


@virtual
async def test_what_is_said_again_is_counted_in_one_object_and_few_writes() -> None:
    world = World()
    task = asyncio.create_task(world.recorder.run())
    for _ in range(20):
        world.recorder.record(POD, "Warning", "Alone", "one replica")
        await asyncio.sleep(0.25)
    world.recorder.close()
    await task
    (event,) = world.stored()
    assert event["series"]["count"] == 20
    assert len(world.cluster.writes) <= 8


@virtual
async def test_after_six_silent_minutes_a_new_series_begins() -> None:
    world = World()
    for _ in range(2):
        world.recorder.record(POD, "Warning", "Alone", "one replica")
        await world.recorder.flush()
        await asyncio.sleep(361)
    assert len(world.stored()) == 2


@virtual
async def test_a_talkative_object_is_silenced_and_others_are_not() -> None:
    world = World()
    for number in range(100):
        world.recorder.record(POD, "Normal", "Chatter", f"note {number}")
    world.recorder.record({**POD, "metadata": {**POD["metadata"], "uid": "u2"}}, "Normal", "Word", "note")
    await world.recorder.flush()
    assert len(world.stored()) == 26
    assert world.outcomes.count("dropped") == 75


@virtual
async def test_an_event_that_expired_on_the_server_is_begun_anew() -> None:
    world = World()
    world.recorder.record(POD, "Normal", "Word", "note")
    await world.recorder.flush()
    (event,) = world.stored()
    world.cluster.delete(EVENTS, event["metadata"]["name"], "default")
    world.recorder.record(POD, "Normal", "Word", "note")
    await world.recorder.flush()
    (event,) = world.stored()
    assert event["series"]["count"] == 2


@virtual
async def test_an_outage_delays_an_event_and_a_long_one_costs_it() -> None:
    world = World()
    task = asyncio.create_task(world.recorder.run())
    world.cluster.faults.append(Fault(error=Unavailable("refused"), times=2))
    world.recorder.record(POD, "Normal", "Word", "first")
    await asyncio.sleep(10)
    assert world.outcomes == ["recorded"]
    world.cluster.faults.append(Fault(error=Unavailable("refused"), times=3))
    world.recorder.record(POD, "Normal", "Word", "second")
    await asyncio.sleep(10)
    assert world.outcomes == ["recorded", "failed"]
    task.cancel()


@virtual
async def test_an_answer_that_was_lost_makes_no_second_event() -> None:
    world = World()
    world.cluster.faults.append(Fault(verb="create", error=Unavailable("reset"), after=True))
    task = asyncio.create_task(world.recorder.run())
    world.recorder.record(POD, "Normal", "Word", "note")
    await asyncio.sleep(5)
    assert len(world.stored()) == 1
    task.cancel()


@virtual
async def test_nothing_is_written_once_the_fence_is_closed() -> None:
    class Closed(OpenFence):
        def check(self) -> float:
            raise NotLeading("closed")

    world = World()
    world.recorder._writer = Writer(world.cluster.client(), Closed(), "test")
    world.recorder.record(POD, "Normal", "Word", "note")
    await world.recorder.run()  # returns: the lead is over
    assert world.cluster.requests == []
