"""Requests to the lab's apps while something is done to their nodes, from the control plane by their Services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lab.demo import NAMESPACE, kubectl_json
from lab.driver import LabDriver
from tandem.drill.clients import Remote, command
from tandem.drill.samples import Sample

RATE = 5.0
TIMEOUT_SECONDS = 3.0
"""Well above a slow answer of a busy lab: what takes longer was lost."""

SECONDS = 1800.0
WARM_UP_SECONDS = 4.0
VANTAGE = "cp1"


@dataclass
class Load:
    """The samples so far."""

    samples: list[Sample] = field(default_factory=list)

    def on_new_connections(self, app: str) -> list[Sample]:
        """A kept connection to a pod that ends may break between two requests; callers retry those."""
        return [each for each in self.samples if (each.app, each.client) == (app, f"{VANTAGE}/new")]

    def failed(self, app: str) -> list[str]:
        return [f"{each.at:.2f} {each.error}" for each in self.on_new_connections(app) if each.error]


@asynccontextmanager
async def load(apps: Sequence[str]) -> AsyncIterator[Load]:
    """Ask each app's Service as long as the context lasts."""
    found = Load()
    targets = []
    for app in apps:
        service = kubectl_json("get", "service", app, f"--namespace={NAMESPACE}")["spec"]
        port = service["ports"][0]["port"]
        targets.append({"app": app, "vantage": VANTAGE, "host": service["clusterIP"], "port": port, "write": False})
    program = command(targets, rate=RATE, kept_rate=1.0, timeout=TIMEOUT_SECONDS, seconds=SECONDS, stdin=True)
    remote = Remote(VANTAGE, LabDriver().command_on(VANTAGE, program), found.samples.append)
    await remote.start()
    try:
        await asyncio.sleep(WARM_UP_SECONDS)
        yield found
    finally:
        await remote.stop()
