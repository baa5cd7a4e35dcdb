"""`tandem rebalance`: what the user types, and what the exit status says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tandem.drill.api import NETWORK_ERRORS, ApiError, connect
from tandem.rebalance import run
from tandem.rebalance.plan import SETTLED_SECONDS, Plan

EXIT_LEFT, EXIT_UNREADABLE = 1, 4

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Look at this namespace only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would move, and move nothing.")]
Settled = Annotated[float, typer.Option(help="Seconds for which every worker must have been Ready.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Default: KUBECONFIG, else the user's own.")]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context.")]


def rebalance(
    namespace: Namespace = None,
    dry_run: DryRun = False,
    settled: Settled = SETTLED_SECONDS,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Bring replicas apart that crowd on one worker after the other one's return: one at a time, within budgets.

    Exit status: 0 nothing is crowded (any more), 1 something is, 4 the cluster cannot be read.
    """
    console = Console(highlight=False, soft_wrap=True)

    async def act() -> run.Outcome | Plan:
        async with connect(kubeconfig, context) as api:
            if dry_run:
                return await run.look(api, namespace, settled)
            return await run.rebalance(api, namespace=namespace, settled_seconds=settled, tell=console.print)

    try:
        found = asyncio.run(act())
    except (ApiError, *NETWORK_ERRORS) as error:
        Console(stderr=True).print(f"[red]{error}[/red]", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_UNREADABLE) from error
    if isinstance(found, Plan):
        for move in found.moves:
            console.print(f"would move: {move}")
        left, crowded = dict(found.waiting or {}), bool(found.moves)
    else:
        left, crowded = found.left, False
        console.print(f"{len(found.moved)} moved")
    for app, why in left.items():
        console.print(f"left: {app}: {why}")
    if left or crowded:
        raise typer.Exit(EXIT_LEFT)
