"""The check that a reconcile is idempotent: run until it is content, it writes nothing when it is run again.

A single instance is enough only under this condition: after a crash the next process lists everything and reconciles it
all once more. The check does just that, on a cluster in memory: a first pass over every object, more until nothing is
written, and then a second process, with caches of its own, that must not write at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from tandem.runtime.controller import Context, Controller, Result
from tandem.runtime.engine import Engine
from tandem.runtime.fence import OpenFence
from tandem.runtime.resources import EVENTS, Key
from tandem.runtime.testing.cluster import FakeCluster, Write

SETTLE_SECONDS: Final = 30.0
"""So long a controller may take to become content, in the loop's time (virtual, or real)."""


class NotIdempotent(AssertionError):  # noqa: N818 - what it says
    """A reconcile wrote again though nothing had changed; `writes` are what it wrote."""

    def __init__(self, message: str, writes: Sequence[Write]) -> None:
        super().__init__(message)
        self.writes = writes


async def assert_idempotent(
    controller: Controller,
    cluster: FakeCluster,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    ignore: Callable[[Write], bool] = lambda write: write.plural == EVENTS.plural,
) -> None:
    """Reconcile everything in `cluster` until it is as wanted, then once more from scratch.

    Run it in virtual time (`tandem.runtime.testing.loop.virtual`), or wait for `settle_seconds` twice.

    Args:
        controller: what is tried.
        cluster: objects to begin with.
        settle_seconds: after this long the first process has to have come to rest.
        ignore: writes that do not count; by default Events, which are new each time by their nature.

    Raises:
        NotIdempotent: the second process wrote, or asked for a change that the server found to be none; or a reconcile
            failed in the first; the message lists the writes with what would have to be compared before.
    """
    await _run(controller, cluster, settle_seconds)
    before = len(cluster.writes)
    failing = await _run(controller, cluster, settle_seconds)
    again = [write for write in cluster.writes[before:] if not ignore(write)]
    if again:
        lines = "\n".join(f"  {write.verb} {write.plural} {write.key} ({_changed(write)})" for write in again[:10])
        raise NotIdempotent(
            f"controller {controller.name} wrote {len(again)} times though nothing had changed:\n{lines}\n"
            "Compare what is wanted with what is observed before you write.",
            again,
        )
    if failing:
        raise NotIdempotent(f"controller {controller.name}: {failing} keys still fail; nothing is shown by that", ())


def _changed(write: Write) -> str:
    return "it changed the object" if write.changed else "it changed nothing, and cost a request"


async def _run(controller: Controller, cluster: FakeCluster, seconds: float) -> int:
    """One process for a while; returns how many keys were failing at its end."""
    failing: dict[Key, bool] = {}

    async def noted(key: Key, ctx: Context) -> Result:
        failing[key] = True
        result = await controller.reconcile(key, ctx)
        failing[key] = False
        return result

    tried = Controller(controller.name, noted, controller.watches, controller.settings)
    engine = Engine(tried, cluster.client("idempotence"))
    tasks = [asyncio.create_task(engine.follow()), asyncio.create_task(engine.work(OpenFence()))]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()
    return sum(failing.values())
