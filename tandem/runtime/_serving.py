"""An aiohttp server on one port for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def listening(runner: web.BaseRunner, host: str, port: int) -> AsyncIterator[int]:
    """Answer while the block runs; at its end requests under way get the runner's `shutdown_timeout`.

    Args:
        runner: what answers, not yet set up.
        host: the address to listen on; empty takes all.
        port: the port; 0 takes any free one.

    Yields:
        The port.

    Raises:
        OSError: the port is taken.
    """
    await runner.setup()
    try:
        await web.TCPSite(runner, host or None, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
