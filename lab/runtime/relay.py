"""Bytes between two streams, until both ends have said goodbye or either is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

_CHUNK = 256 * 1024
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


async def join(one: Stream, other: Stream) -> None:
    """Carry bytes both ways; a half-closed direction leaves the other open. Closes both at the end."""
    pumps = [asyncio.create_task(_pump(one[0], other[1])), asyncio.create_task(_pump(other[0], one[1]))]
    try:
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        for pump in done:
            with suppress(OSError):
                pump.result()
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for _, writer in (one, other):
            writer.close()


def _notice_death(sock: socket.socket) -> None:
    """Have the kernel give the connection up 60 s after a machine is gone, so that relays do not pile up."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


async def open_first(targets: Sequence[tuple[str, int]], timeout_seconds: float) -> Stream:
    """A connection to the first of TARGETS that takes one.

    Raises:
        OSError: none did; the text names the last.
    """
    problem: OSError = OSError("no target")
    for address, port in targets:
        try:
            async with asyncio.timeout(timeout_seconds):
                stream = await asyncio.open_connection(address, port)
                _notice_death(stream[1].get_extra_info("socket"))
                return stream
        except TimeoutError:
            problem = OSError(f"{address}:{port} did not answer in {timeout_seconds:g} s")
        except OSError as error:
            problem = OSError(f"{address}:{port}: {error.strerror or error}")
    raise problem


def forwarder(targets: Callable[[], Sequence[tuple[str, int]]]) -> Callable[..., asyncio.Task[None]]:
    """A handler for asyncio.start_server that forwards each connection to the first target that takes it."""
    tasks: set[asyncio.Task[None]] = set()

    async def forward(client: Stream) -> None:
        try:
            server = await open_first(targets(), timeout_seconds=5.0)
        except OSError:
            client[1].close()
            return
        await join(client, server)

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
        task = asyncio.create_task(forward((reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    return handle
