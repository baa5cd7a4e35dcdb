"""The demo app of a drill: answers who it is, and appends records to a share in an order that can be judged afterwards.

Standard library only; one file, so that an image is an interpreter and this. Environment:

- `APP`, `NODE_NAME`, `POD_NAME`: what it answers with. `PORT`: where it listens (8080).
- `DATA_DIR`: a folder on the share. Unset: a stateless app, `POST /append` is refused with 404.

`GET /` answers `{app, node, pod, epoch, seq}`; `GET /healthz` answers 200 without touching the share; `POST /append`
with a JSON object answers `{epoch, node, pod, seq, ticket}` once the record is on stable storage.

**What makes the order trustworthy.** NFS has no atomic append and its clients cache, and clocks of two machines need
not agree, so neither one shared log nor time stamps can prove who wrote first. What is atomic on the server decides:

1. At start the process takes the next *epoch* by exclusive creation of `epoch-NNNNNN` (O_CREAT|O_EXCL).
2. It appends records to `records-NNNNNN.jsonl`, its own file, which nobody else writes; `fsync` puts them on the disk.
3. Then it takes the next *ticket*: `symlink("EPOCH:FIRST:LAST", "order/KKKKKKKKKK")`. A symbolic link is created with
   its content in one operation and fails when the name exists. A process tries number K only after it knows that K-1
   exists (its own, one it met as taken, or the highest it listed): creation order **is** number order, whoever writes.

Only then does it acknowledge. Records that wait at the same moment share one write, one fsync and one ticket. A record
without a ticket was never acknowledged. The clock in a record is for reading, not for judging.
"""
# os calls are the subject here, and a container speaks through its standard output:
# ruff: noqa: PTH101, PTH102, PTH118, PTH208, PTH211, T201

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_BODY_BYTES = 64 * 1024
MAX_BATCH = 256
DRAIN_SECONDS = 5.0
LINGER_SECONDS = 0.05
"""How long the first record of a batch waits for company: a ticket and an fsync for each would wear out a share."""


class ShareError(RuntimeError):
    """The share could not be used; the message says which path and why."""


@dataclass
class Pending:
    """One record on its way to the share, and the future of its acknowledgment."""

    data: dict[str, Any]
    done: Callable[[dict[str, Any] | None, str], None]


@dataclass
class Journal:
    """The writer's side of the share: an epoch, a log of its own, and tickets in a common order.

    Args:
        folder: the folder on the share.
        node: name of the node, written into each record.
        pod: name of the pod, written into the epoch's file.
    """

    folder: str
    node: str
    pod: str
    epoch: int = 0
    seq: int = 0
    ticket: int = 0
    _log: int = field(default=-1, repr=False)

    def open(self) -> None:
        """Take an epoch and open its log.

        Raises:
            ShareError: the folder cannot be read or written.
        """
        try:
            order = os.path.join(self.folder, "order")
            with contextlib.suppress(FileExistsError):
                os.mkdir(order)
            with contextlib.suppress(PermissionError):
                os.chmod(order, 0o777)  # noqa: S103  whoever reads the order at the end closes it with a ticket of its own
            number = _highest(self.folder, "epoch-")
            while True:
                number += 1
                try:
                    fd = os.open(self._path(f"epoch-{number:06}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                except FileExistsError:
                    continue
                break
            os.write(fd, json.dumps({"node": self.node, "pod": self.pod, "wall": time.time()}).encode() + b"\n")
            os.fsync(fd)
            os.close(fd)
            name = self._path(f"records-{number:06}.jsonl")
            self._log = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
            self.ticket = _highest(order, "")
            self.epoch = number
        except OSError as error:
            raise ShareError(f"cannot write to {self.folder}: {error}") from error

    def append(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put records on stable storage and into the common order; returns the acknowledgment of each.

        Raises:
            ShareError: nothing of the batch may be acknowledged.
        """
        first = self.seq + 1
        lines = []
        acks = []
        for seq, record in enumerate(records, first):
            lines.append(
                json.dumps({"epoch": self.epoch, "seq": seq, "node": self.node, "wall": time.time(), **record})
            )
            acks.append({"epoch": self.epoch, "node": self.node, "pod": self.pod, "seq": seq})
        self.seq += len(records)
        data = ("\n".join(lines) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._log, data) :]
            os.fsync(self._log)
            ticket = self._take_ticket(f"{self.epoch}:{first}:{self.seq}")
        except OSError as error:
            raise ShareError(f"cannot append to {self.folder}: {error}") from error
        return [{**ack, "ticket": ticket} for ack in acks]

    def _take_ticket(self, content: str) -> int:
        tries = 0
        while True:
            self.ticket += 1
            try:
                os.symlink(content, self._path("order", f"{self.ticket:010}"))
            except FileExistsError:
                tries += 1
                if (
                    tries % 16 == 0
                ):  # another writer is far ahead: what the listing shows exists, so jumping there is safe
                    self.ticket = max(self.ticket, _highest(self._path("order"), ""))
                continue
            return self.ticket

    def _path(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)


def _highest(folder: str, prefix: str) -> int:
    """The highest number among names `PREFIX<digits>` in a folder; 0 if there is none."""
    numbers = (name[len(prefix) :] for name in os.listdir(folder) if name.startswith(prefix))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


class Writer(threading.Thread):
    """The one thread that touches the share, so that a stalled mount never stalls `GET` or the probes."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(name="writer", daemon=True)
        self.journal = journal
        self.pending: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Write what waits, as one batch, until told to stop by None."""
        while (first := self.pending.get()) is not None:
            batch = [first]
            stop = False
            time.sleep(LINGER_SECONDS)
            while len(batch) < MAX_BATCH and not self.pending.empty():
                item = self.pending.get()
                if item is None:
                    stop = True
                    break
                batch.append(item)
            try:
                acks = self.journal.append([item.data for item in batch])
            except ShareError as error:
                print(error, file=sys.stderr, flush=True)
                for item in batch:
                    item.done(None, str(error))
            else:
                for item, ack in zip(batch, acks, strict=True):
                    item.done(ack, "")
            if stop:
                return


class Server:
    """The HTTP side: a small server for small requests, kept connections included.

    Args:
        app: the app's name.
        node: name of the node.
        pod: name of the pod.
        writer: the thread that appends, or None for a stateless app.
    """

    def __init__(self, app: str, node: str, pod: str, writer: Writer | None) -> None:
        self.app, self.node, self.pod, self.writer = app, node, pod, writer
        self.connections: set[asyncio.Task[None]] = set()
        self.busy = 0

    async def handle(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        """Serve one connection until its client closes it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self.connections.add(task)
        try:
            while await self._one(reader, out):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connections.discard(task)
            out.close()

    async def _one(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.busy += 1
        try:
            request, *lines = head.split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            parts = request.split(" ")
            length = headers.get("content-length", "0")
            if len(parts) != 3 or not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                await _send(out, 400, {"error": "malformed request or body above 64 KiB"}, keep=False)
                return False
            body = await reader.readexactly(int(length)) if int(length) else b""
            keep = headers.get("connection", "").lower() != "close" and parts[2] != "HTTP/1.0"
            status, answer = await self._answer(parts[0], parts[1].partition("?")[0], body)
            await _send(out, status, answer, keep=keep)
            return keep
        finally:
            self.busy -= 1

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        journal = self.writer.journal if self.writer else None
        if method == "GET" and path == "/healthz":
            return 200, {"ok": True}
        if method == "GET" and path == "/":
            state = {"epoch": journal.epoch, "seq": journal.seq} if journal else {"epoch": None, "seq": None}
            return 200, {"app": self.app, "node": self.node, "pod": self.pod, **state}
        if path != "/append":
            return 404, {"error": f"no {path} here; there are /, /healthz and /append"}
        if method != "POST":
            return 405, {"error": "append with POST"}
        if self.writer is None:
            return 404, {"error": "this app has no share (DATA_DIR is not set)"}
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            return 400, {"error": "the body must be a JSON object"}
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[int, dict[str, Any]]] = loop.create_future()

        def done(ack: dict[str, Any] | None, error: str) -> None:
            result = (200, ack) if ack is not None else (503, {"error": error})
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(result))

        record = {key: data[key] for key in ("client", "n") if key in data}
        self.writer.pending.put(Pending(record, done))
        return await future


async def _send(out: asyncio.StreamWriter, status: int, answer: dict[str, Any], *, keep: bool) -> None:
    body = json.dumps(answer).encode()
    reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}.get(status, "Unavailable")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    out.write(head.encode("latin-1") + body)
    await out.drain()


async def serve(server: Server, port: int, stop: asyncio.Event, ready: Callable[[int], None] = lambda _: None) -> None:
    """Serve until `stop`, then finish what is in flight within five seconds.

    Args:
        server: what answers.
        port: where to listen on all IPv4 addresses; 0 takes a free one.
        stop: set by a signal.
        ready: called with the port once it listens.
    """
    listener = await asyncio.start_server(server.handle, "0.0.0.0", port, backlog=256)  # noqa: S104
    ready(listener.sockets[0].getsockname()[1])
    await stop.wait()
    listener.close()
    deadline = time.monotonic() + DRAIN_SECONDS
    while server.busy and time.monotonic() < deadline:  # noqa: ASYNC110  a bounded wait at the very end
        await asyncio.sleep(0.02)
    for task in list(server.connections):
        task.cancel()


def main() -> int:
    """Run as the environment says; returns the exit status."""
    env = os.environ
    node, pod = env.get("NODE_NAME", ""), env.get("POD_NAME", "")
    writer = None
    if folder := env.get("DATA_DIR"):
        journal = Journal(folder, node, pod)
        try:
            journal.open()
        except ShareError as error:
            print(error, file=sys.stderr, flush=True)
            return 1
        print(f"epoch {journal.epoch} in {folder}", flush=True)
        writer = Writer(journal)
        writer.start()

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = Server(env.get("APP", ""), node, pod, writer)
        await serve(server, int(env.get("PORT", "8080")), stop, lambda port: print(f"listening on {port}", flush=True))

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
