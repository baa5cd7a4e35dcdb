"""`python3 -m tandem.rebalance`: what the CronJob runs, with the rights of its own account and one namespace."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from tandem.drill.api import connect
from tandem.rebalance.plan import SETTLED_SECONDS
from tandem.rebalance.run import BUDGET_SECONDS, rebalance


def main(argv: Sequence[str] | None = None) -> int:
    """Rebalance once; the exit status is 1 when an app is left crowded although every worker is there."""
    parser = argparse.ArgumentParser(prog="tandem.rebalance", description=__doc__)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--settled", type=float, default=SETTLED_SECONDS, metavar="SECONDS")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, metavar="SECONDS")
    options = parser.parse_args(argv)

    async def act() -> int:
        async with connect(None) as api:
            done = await rebalance(
                api,
                namespace=options.namespace,
                settled_seconds=options.settled,
                budget_seconds=options.budget,
                tell=say,
            )
        say(f"{len(done.moved)} moved")
        for app, why in done.left.items():
            say(f"left: {app}: {why}")
        # A worker that is away is no fault of this job: the next run looks again.
        return int(bool(set(done.left) - {"workers"}))

    return asyncio.run(act())


def say(text: str) -> None:
    """One line to the pod's log."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
