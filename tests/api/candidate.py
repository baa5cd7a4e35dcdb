"""A candidate as a process of its own: `python -m tests.api.candidate ...`. Says what happens in JSON lines.

Each line has `at` (CLOCK_BOOTTIME, which all processes of a machine share) and `event`. While it leads it can write a
ConfigMap through the fence, with the resourceVersion that it read, stamped with its epoch.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import cast

from bench.peers.tandem.candidate import Speaker, say
from tandem.runtime import ApiLeaseStore, Elector, ElectorSettings, LeadershipLost, NotElected, Shutdown, boottime
from tandem.runtime._election.core import Outcome, Verb
from tandem.runtime._election.guard import process_guard
from tandem.runtime.client import Client, connect_client
from tandem.runtime.elector import Leadership
from tandem.runtime.errors import ApiError
from tandem.runtime.resources import CONFIG_MAPS


class FaultSpeaker(Speaker):
    """Tells of failed requests too."""

    def request(self, *answer: object) -> None:
        """Say what failed."""
        verb, outcome, seconds = answer
        if outcome is not Outcome.DONE:
            say("request", verb=cast(Verb, verb).value, outcome=cast(Outcome, outcome).value, seconds=seconds)


async def write(client: Client, leadership: Leadership, name: str, stop: bool) -> None:
    """One fenced write; with `stop` the process is stopped between the question and the socket."""
    found = await client.get(CONFIG_MAPS, name, namespace="default", seconds=5)
    found["data"] = {"epoch": str(leadership.epoch), "by": leadership.identity, "at": str(boottime())}
    leadership.check()
    if stop:
        say("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        await client.replace(CONFIG_MAPS, found, seconds=5)
        say("wrote", epoch=leadership.epoch)
    except ApiError as error:
        say("refused", status=error.status, epoch=leadership.epoch)


async def work(client: Client, leadership: Leadership, shutdown: Shutdown, options: argparse.Namespace) -> None:
    """Until the process is asked to end, and then for the drain."""
    writes = 0
    asked = asyncio.create_task(shutdown.wait())
    while not asked.done():
        if options.write:
            writes += 1
            await write(client, leadership, options.write, writes == options.stop_at)
        await asyncio.wait({asked}, timeout=options.pause)
    say("draining")
    await asyncio.sleep(options.drain)
    say("drained", valid=leadership.is_valid())


async def main(options: argparse.Namespace) -> int:
    """Run; the status is that of a controller."""
    lease, deadline, retry = options.times
    settings = ElectorSettings(
        lease_name=options.lease,
        namespace="default",
        identity=options.identity,
        lease_duration=int(lease),
        renew_deadline=deadline,
        retry_period=retry,
        request_timeout=min(5.0, deadline / 2),
        cancel_margin=min(1.0, (lease - deadline) / 2),
    )
    async with (
        Shutdown() as shutdown,
        connect_client(options.kubeconfig) as client,
        connect_client(options.kubeconfig) as for_lease,
    ):
        store = ApiLeaseStore(for_lease, "default", options.lease)
        guard = None if options.no_guard else process_guard
        try:
            async with Elector(store, settings, shutdown=shutdown, guard=guard, observer=FaultSpeaker()) as leadership:
                await work(client, leadership, shutdown, options)
        except NotElected:
            say("not elected")
        except LeadershipLost:
            return 1
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--lease", required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--times", type=float, nargs=3, default=(15, 10, 2), metavar=("LEASE", "DEADLINE", "RETRY"))
    parser.add_argument("--drain", type=float, default=0.0)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--write", default="", metavar="CONFIGMAP")
    parser.add_argument("--stop-at", type=int, default=0, metavar="WRITE")
    parser.add_argument("--no-guard", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
