"""A controller for tests: each reconcile takes SLOW_SECONDS, then writes who did it and in which epoch."""

from __future__ import annotations

import asyncio
import os

from tandem.runtime import Context, Controller, ControllerSettings, Done, Key, Result, Watch, run
from tandem.runtime.resources import CONFIG_MAPS

SECONDS = float(os.environ.get("SLOW_SECONDS", "1"))
NAME = os.environ["CONTROLLER"]


async def reconcile(key: Key, ctx: Context) -> Result:
    """Slow, and once per change of `asked`."""
    found = ctx.cache.get(key)
    assert found is not None
    data = found.get("data", {})
    if data.get("answered") == data.get("asked"):
        return Done()
    if ctx.attempt < int(os.environ.get("FAIL_TIMES", "0")):
        raise RuntimeError("not yet")
    ctx.log.info("began")
    await asyncio.sleep(SECONDS)
    answer = {"answered": data["asked"], "by": os.environ["POD_NAME"], "epoch": str(ctx.epoch)}
    await ctx.writer.apply(CONFIG_MAPS, found, {"data": answer})
    ctx.log.info("finished")
    return Done()


if __name__ == "__main__":
    settings = ControllerSettings(concurrency=int(os.environ.get("CONCURRENCY", "4")))
    run(Controller(NAME, reconcile, [Watch(CONFIG_MAPS, label_selector=f"controller={NAME}")], settings))
