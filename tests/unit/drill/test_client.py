"""The clients' program as it runs on a machine: its own process, steered through its input, against real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest

from tandem.drill.clients import ClientError, Remote, command
from tandem.drill.demo import server
from tandem.drill.samples import Sample


async def ask(host: str, port: int, seconds: float, *, write: bool = False) -> list[Sample]:
    targets = [{"app": "db", "vantage": "here", "host": host, "port": port, "write": write}]
    argv = command(targets, rate=20, kept_rate=20, timeout=0.3, seconds=60, stdin=True)
    samples: list[Sample] = []
    remote = Remote("here", [sys.executable, *argv[1:]], samples.append)
    await remote.start()
    assert abs(remote.offset) < 0.5, "it runs on this machine"
    await asyncio.sleep(seconds)
    await remote.stop()
    return samples


async def test_each_kind_sends_at_its_rate_and_every_write_is_acknowledged(tmp_path: Path) -> None:
    journal = server.Journal(str(tmp_path), "w1", "p")
    journal.open()
    writer = server.Writer(journal)
    writer.start()
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.serve(server.Server("db", "w1", "p", writer), 0, stop, port.set_result))
    samples = await ask("127.0.0.1", await port, 2, write=True)
    stop.set()
    await serving
    counted = Counter(s.client for s in samples)
    assert set(counted) == {"here/new", "here/kept", "here/kept-wait"}
    assert all(5 <= count <= 70 for count in counted.values()), counted
    good = [s for s in samples if s.error is None]
    assert len(good) > len(samples) / 2, "a slow moment of this machine may cost some"
    assert len({(s.epoch, s.seq) for s in good}) == len(good)
    assert journal.seq >= len(good)


async def test_a_silent_server_times_out_and_holds_the_patient_client_for_ever() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1000)
        samples = await ask("127.0.0.1", silent.getsockname()[1], 2)
    errors = {kind: [s.error for s in samples if s.client == f"here/{kind}"] for kind in ("new", "kept", "kept-wait")}
    assert Counter(errors["new"])["timeout"] >= 10, "new requests go out on time even while earlier ones wait"
    assert 1 <= Counter(errors["kept"])["timeout"] <= 8, "one request at a time on the kept connection"
    assert errors["kept-wait"] == ["unanswered"], "told at the end"
    assert all(0.25 < s.seconds < 3 for s in samples if s.error == "timeout")


async def test_a_refused_connection_is_a_failure_with_its_reason() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    samples = await ask("127.0.0.1", port, 1)
    assert {s.error for s in samples} == {"ConnectionRefusedError"}


async def test_a_program_that_does_not_start_says_why() -> None:
    remote = Remote("w9", [sys.executable, "-c", "raise SystemExit('no route to w9')"], lambda _: None)
    with pytest.raises(ClientError, match="clients on w9 did not start: no route to w9"):
        await remote.start()
