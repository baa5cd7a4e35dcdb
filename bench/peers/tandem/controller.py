"""Ours in the benchmark: for every ConfigMap of a label it makes an annotation say what the data is.

It says what happens in JSON lines with CLOCK_BOOTTIME. With -lease it is elected, as in production; with -shards it is
one of several processes that share the namespaces out.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from tandem.runtime import (
    Context,
    Controller,
    ControllerSettings,
    Done,
    Key,
    Result,
    RunSettings,
    Scope,
    Watch,
    boottime,
    run,
)
from tandem.runtime.resources import CONFIG_MAPS

options = argparse.ArgumentParser()
options.add_argument("-annotation", required=True)
options.add_argument("-label", required=True)
options.add_argument("-expected", type=int, required=True)
options.add_argument("-workers", type=int, default=8)
options.add_argument("-lease", default="")
options.add_argument("-namespaces", default="")
options.add_argument("-delay", type=float, default=0.0)
chosen = options.parse_args()
seen: set[Key] = set()


def say(event: str) -> None:
    """One line."""
    print(json.dumps({"at": boottime(), "event": event}), flush=True)  # noqa: T201


async def reconcile(key: Key, ctx: Context) -> Result:
    """Write if, and only if, it is not so already."""
    if not seen:
        say("first")
    found = ctx.cache.get(key)
    if found is None:
        return Done()
    wanted = found["data"]["v"]
    if found["metadata"].get("annotations", {}).get(chosen.annotation) != wanted:
        await asyncio.sleep(chosen.delay)
        await ctx.writer.apply(CONFIG_MAPS, found, {"metadata": {"annotations": {chosen.annotation: wanted}}})
    seen.add(key)
    if len(seen) == chosen.expected:
        say("done")
    return Done()


if __name__ == "__main__":
    say("started")
    namespaces = tuple(filter(None, chosen.namespaces.split(",")))
    settings = RunSettings(
        elected=bool(chosen.lease),
        lease_name=chosen.lease,
        lease_namespace="default",
        scope=Scope(namespaces),
        health_port=None,
        log_level="warning",
    )
    watch = Watch(CONFIG_MAPS, label_selector=chosen.label)
    run(Controller("stamper", reconcile, [watch], ControllerSettings(concurrency=chosen.workers)), settings)
