"""A controller on kopf that does what ours does in the benchmark: it makes an annotation say what the data is.

Defaults, but without posting Events and with as many workers as it likes. It says what happens in JSON lines with
CLOCK_BOOTTIME.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from typing import Any

import kopf

options = argparse.ArgumentParser()
options.add_argument("-annotation", required=True)
options.add_argument("-label", required=True)
options.add_argument("-expected", type=int, required=True)
options.add_argument("-workers", type=int, default=8)
chosen = options.parse_args()
name, _, value = chosen.label.partition("=")
seen: set[tuple[str, str]] = set()


def say(event: str) -> None:
    """One line."""
    print(json.dumps({"at": time.clock_gettime(time.CLOCK_BOOTTIME), "event": event}), flush=True)  # noqa: T201


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """As the documentation advises for many objects."""
    settings.posting.enabled = False


@kopf.on.event("configmaps", labels={name: value})
async def stamp(body: kopf.Body, patch: kopf.Patch, namespace: str, **_: Any) -> None:
    """The same decision as ours."""
    if not seen:
        say("first")
    wanted = body.get("data", {}).get("v")
    if body.metadata.annotations.get(chosen.annotation) != wanted:
        patch.metadata.annotations[chosen.annotation] = wanted
        return  # done when it comes back so
    seen.add((namespace, str(body.metadata.name)))
    if len(seen) == chosen.expected:
        say("done")


if __name__ == "__main__":
    say("started")
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(kopf.operator(clusterwide=True))
