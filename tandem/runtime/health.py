"""`/healthz`, `/readyz` and `/metrics` of a controller's process.

`/healthz` fails when restarting would help: all workers are stuck, or a task is dead. It is answered by the same event
loop that does the work, so a loop that is blocked does not answer, which is what the probe's time limit is for.
`/readyz` says that the caches are synced. It never asks who leads: a follower that were not ready would stop its own
rolling update for ever (the new pod waits for the Lease, the old one for the new pod).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from tandem.runtime._serving import listening

Check = Callable[[], str | None]
"""None when all is well, else what is wrong."""

PORT: Final = 8080


class Checks:
    """Named checks, for one of the two questions."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Ask this, too; a name is used once.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._checks:
            raise ValueError(f"there is a check {name!r} already")
        self._checks[name] = check

    def run(self) -> Mapping[str, str]:
        """What is wrong, by check; empty when nothing is."""
        found = {}
        for name, check in self._checks.items():
            try:
                problem = check()
            except Exception as error:  # noqa: BLE001 - a check that fails has failed
                problem = f"{type(error).__name__}: {error}"
            if problem is not None:
                found[name] = problem
        return found


class Health:
    """The two sets of checks and the metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live = Checks()
        self.ready = Checks()
        self._registry = registry

    @asynccontextmanager
    async def serving(self, host: str = "", port: int = PORT) -> AsyncIterator[int]:
        """Answer on a port (0 takes any free one) while the block runs; yields the port.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        async with listening(runner, host, port) as taken:
            yield taken

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self.live.run())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self.ready.run())

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(problems: Mapping[str, str]) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    return web.Response(status=500, text="".join(f"{name}: {problem}\n" for name, problem in problems.items()))
