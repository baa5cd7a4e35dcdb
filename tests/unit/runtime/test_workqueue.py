"""The work queue: client-go's promises (its workqueue tests), and that delays never pile up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
import uvloop

from tandem.runtime.testing.loop import virtual
from tandem.runtime.workqueue import QueueClosed, WorkQueue


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]


@virtual
async def test_a_key_added_while_it_is_processed_comes_again_but_only_when_the_worker_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


@virtual
async def test_done_without_news_queues_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.done(await queue.get())
    assert len(queue) == 0


@virtual
async def test_of_two_delays_the_sooner_holds() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 50)
    queue.add_after("a", 5)
    queue.add_after("a", 500)
    assert await queue.get() == "a"
    assert now() == pytest.approx(5)
    queue.done("a")
    await asyncio.sleep(1000)
    assert len(queue) == 0


@virtual
async def test_delays_come_due_in_order_of_time() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for delay in (3, 1, 2):
        queue.add_after(delay, delay)
    assert [await queue.get() for _ in range(3)] == [1, 2, 3]
    assert now() == pytest.approx(3)


@virtual
async def test_handing_out_a_key_cancels_its_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 10)
    queue.add("a")
    queue.done(await queue.get())
    await asyncio.sleep(100)
    assert len(queue) == 0
    assert queue.delayed == 0


@virtual
async def test_back_off_doubles_from_5_ms_to_1000_s_per_key_and_forget_starts_anew() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = []
    for _ in range(20):
        delays.append(queue.add_with_backoff("a"))
        queue.done(await queue.get())
    assert delays[:4] == [0.005, 0.01, 0.02, 0.04]
    assert delays[17:] == [655.36, 1000.0, 1000.0]
    assert now() == pytest.approx(sum(delays))
    assert queue.add_with_backoff("b") == 0.005
    assert queue.failures("a") == 20
    queue.forget("a")
    assert queue.add_with_backoff("a") == 0.005


@virtual
async def test_a_thousand_failures_still_wait_1000_s() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(1100):
        delay = queue.add_with_backoff("a")
        queue.done(await queue.get())
    assert delay == 1000.0


@virtual
async def test_shutdown_wakes_waiting_workers_drops_what_waits_and_leaves_what_is_processed() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("held")
    await queue.get()
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add_after("later", 5)
    queue.shut_down()
    for task in waiting:
        with pytest.raises(QueueClosed):
            await task
    queue.add("new")
    assert len(queue) == 0
    drained = asyncio.create_task(queue.drained())
    await asyncio.sleep(60)
    assert not drained.done()
    queue.done("held")
    await drained


@virtual
async def test_a_key_is_not_lost_when_the_worker_it_woke_is_cancelled() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first
    first.cancel()
    async with asyncio.timeout(1):
        assert await second == "a"


@virtual
async def test_no_key_is_ever_with_two_workers_and_none_is_forgotten() -> None:
    rng = random.Random(7)
    queue: WorkQueue[int] = WorkQueue()
    held: set[int] = set()
    wanted: dict[int, int] = {}
    seen: dict[int, int] = {}

    async def work() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueClosed:
                return
            assert key not in held
            held.add(key)
            seen[key] = wanted.get(key, 0)  # the state as this worker sees it
            await asyncio.sleep(rng.random())
            held.remove(key)
            if rng.random() < 0.2:
                queue.add_with_backoff(key)
            queue.done(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(work())
        for change in range(1, 2000):
            key = rng.randrange(12)
            wanted[key] = change
            if rng.random() < 0.5:
                queue.add(key)
            else:
                queue.add_after(key, rng.random() * 3)
            await asyncio.sleep(rng.random() * 0.1)
        await asyncio.sleep(60)
        queue.shut_down()
    assert seen == wanted


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_delays_of_less_than_a_millisecond_on_real_loops(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def run() -> None:
        rng = random.Random(3)
        queue: WorkQueue[int] = WorkQueue(base_seconds=0.0001, cap_seconds=0.01)
        finished: set[int] = set()

        async def work() -> None:
            while len(finished) < 500:
                key = await queue.get()
                await asyncio.sleep(0)
                if rng.random() < 0.6:
                    queue.add_with_backoff(key)
                else:
                    finished.add(key)
                    queue.forget(key)
                queue.done(key)
            queue.shut_down()

        for key in range(500):
            queue.add(key)
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(work() for _ in range(4)), return_exceptions=True)
        assert all(result is None or isinstance(result, QueueClosed) for result in results), results
        assert len(finished) == 500

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
