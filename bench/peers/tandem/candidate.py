"""A candidate on Tandem's elector: the ten lines that a controller needs, and JSON lines with CLOCK_BOOTTIME."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from tandem.runtime import ApiLeaseStore, Elector, ElectorSettings, LeadershipLost, Loss, NotElected, Shutdown, boottime
from tandem.runtime.client import connect_client


def say(event: str, **details: object) -> None:
    """One line."""
    print(json.dumps({"at": boottime(), "event": event, **details}), flush=True)  # noqa: T201


class Speaker:
    """The observer of the election."""

    def leading(self, epoch: int) -> None:
        """Say it."""
        say("leading", epoch=epoch)

    def following(self, holder: str) -> None:
        """Say it."""
        say("following", holder=holder)

    def lost(self, reason: Loss) -> None:
        """Say it."""
        say("lost", reason=reason.name)

    def released(self) -> None:
        """Say it."""
        say("released")

    def request(self, *_: object) -> None:
        """Nothing."""


async def main(kubeconfig: str, lease: str, identity: str) -> int:
    """Lead until asked to end."""
    settings = ElectorSettings(lease_name=lease, namespace="default", identity=identity)
    async with Shutdown() as shutdown, connect_client(kubeconfig) as client:
        store = ApiLeaseStore(client, "default", lease)
        try:
            async with Elector(store, settings, shutdown=shutdown, observer=Speaker()):
                await shutdown.wait()
        except NotElected:
            return 0
        except LeadershipLost:
            return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("kubeconfig", "lease", "identity"):
        parser.add_argument(f"-{name}", required=True)
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.kubeconfig, options.lease, options.identity)))
