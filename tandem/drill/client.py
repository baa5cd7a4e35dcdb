"""A drill's HTTP clients at one vantage point: one file, standard library, Python 3.8 or later, run where they belong.

    python3 client.py CONFIG

CONFIG is JSON: `targets` (each `app`, `vantage`, `host`, `port`, `write`), `rate` and `kept_rate` (requests a second of
each client), `timeout` (seconds), `kinds` (of `new`, `kept`, `kept-wait`), `seconds` (run time at most), `stdin`
(whether standard input steers it).

- `new`: a new connection for each request, given up after `timeout`; sent on time even while earlier ones still wait.
- `kept`: one connection, its request given up after `timeout`, then a new connection.
- `kept-wait`: one connection without any time-out, as a naive program does: it waits for the kernel to tell.

Output, one JSON object a line: `{"hello": wall clock}`, then `{"a": app, "v": vantage, "k": kind, "n": number, "t":
wall clock at the start, "s": seconds taken, "e": error or absent, "pod", "epoch", "seq"}` a request, at last `{"end":
wall clock}`. Wall clock is this machine's clock at the start plus the monotonic time since: a step moves nothing.
With `stdin`, each line received is answered by `{"clock": wall clock}`, and its end ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from typing import Any

FLUSH_SECONDS = 0.5
WALL, MONOTONIC = time.time(), time.monotonic()


def now() -> float:
    """This machine's wall clock, immune to steps since the start."""
    return WALL + time.monotonic() - MONOTONIC


class Output:
    """Lines on their way out, several in one write: a system call a request would cost more than the request."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, data: dict[str, Any]) -> None:
        """Add a line."""
        self.lines.append(json.dumps(data, separators=(",", ":")))

    def flush(self) -> None:
        """Write what waits."""
        if self.lines:
            sys.stdout.write("\n".join(self.lines) + "\n")
            sys.stdout.flush()
            self.lines.clear()


class Connection:
    """One HTTP/1.1 connection to a target, opened on first use."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> dict[str, Any]:
        """Send one request and read its answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, out = self.streams
        out.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        length = next((line.split(":")[1] for line in head if line.lower().startswith("content-length:")), "0")
        answer = json.loads(await reader.readexactly(int(length)) or b"{}")
        status = head[0].split(" ")[1]
        if status != "200" or not isinstance(answer, dict):
            raise RefusedError("http " + status)
        return answer

    def close(self) -> None:
        """Forget the connection; nothing waits for the other end."""
        if self.streams is not None:
            self.streams[1].transport.abort()
            self.streams = None


class RefusedError(Exception):
    """An answer that is no success."""


class Client:
    """One client of one app: sends at its rate, reports each request.

    Args:
        target: the target's entry of the configuration.
        kind: `new`, `kept` or `kept-wait`.
        rate: requests a second.
        timeout: seconds until a request is given up, but for `kept-wait`.
        output: where results go.
    """

    def __init__(self, target: dict[str, Any], kind: str, rate: float, timeout: float, output: Output) -> None:
        self.target, self.kind, self.output = target, kind, output
        self.rate, self.timeout = rate, timeout
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, offset: float) -> None:
        """Send until cancelled, the first request after `offset` seconds."""
        kept = None if self.kind == "new" else Connection(self.target["host"], self.target["port"])
        due, number = time.monotonic() + offset, 0
        try:
            while True:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(
                    due + 1 / self.rate, time.monotonic() - 1
                )  # after a stall of this machine do not catch up for long
                number += 1
                if kept is not None:
                    await self.one(number, kept)
                    due = max(due, time.monotonic())
                else:
                    task = asyncio.ensure_future(self.one(number, None))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)
        finally:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def one(self, number: int, kept: Connection | None) -> None:
        """One request and its report."""
        connection = kept or Connection(self.target["host"], self.target["port"])
        result: dict[str, Any] = {"a": self.target["app"], "v": self.target["vantage"], "k": self.kind, "n": number}
        begun = time.monotonic()
        result["t"] = round(WALL + begun - MONOTONIC, 4)
        try:
            limit = None if self.kind == "kept-wait" else self.timeout
            answer = await asyncio.wait_for(connection.ask(self.request(number, keep=kept is not None)), limit)
            result.update({key: answer[key] for key in ("pod", "epoch", "seq") if answer.get(key) is not None})
        except asyncio.CancelledError:
            result["e"] = "unanswered"
            connection.close()
            raise
        except asyncio.TimeoutError:  # noqa: UP041  another class before Python 3.11
            result["e"] = "timeout"
        except RefusedError as error:
            result["e"] = str(error)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            result["e"] = type(error).__name__
        finally:
            if "e" in result or kept is None:
                connection.close()
            result["s"] = round(time.monotonic() - begun, 4)
            self.output.add(result)

    def request(self, number: int, *, keep: bool) -> bytes:
        """The bytes of one request."""
        body = b""
        if self.target["write"]:
            body = json.dumps({"client": self.target["vantage"] + "/" + self.kind, "n": number}).encode()
        head = "{} HTTP/1.1\r\nHost: {}\r\nConnection: {}\r\nContent-Length: {}\r\n\r\n".format(
            "POST /append" if self.target["write"] else "GET /",
            self.target["host"],
            "keep-alive" if keep else "close",
            len(body),
        )
        return head.encode("latin-1") + body


async def steer(output: Output, stop: asyncio.Event) -> None:
    """Answer each line of standard input with the clock; its end ends the run."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        output.flush()
        output.add({"clock": now()})
        output.flush()
    stop.set()


async def flush(output: Output, stop: asyncio.Event) -> None:
    """Write results twice a second; a closed output ends the run."""
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        try:
            output.flush()
        except OSError:
            stop.set()
            return


async def main(config: dict[str, Any]) -> None:
    """Run all clients of the configuration."""
    output, stop = Output(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    output.add({"hello": now()})
    output.flush()
    clients = [
        Client(target, kind, config["rate" if kind == "new" else "kept_rate"], config["timeout"], output)
        for target in config["targets"]
        for kind in config["kinds"]
    ]
    spacing = 1 / config["rate"] / max(1, len(clients))
    tasks = [asyncio.ensure_future(client.run(spacing * index)) for index, client in enumerate(clients)]
    tasks.append(asyncio.ensure_future(flush(output, stop)))
    if config.get("stdin"):
        tasks.append(asyncio.ensure_future(steer(output, stop)))
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), config["seconds"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    output.add({"end": now()})
    with contextlib.suppress(OSError):
        output.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
