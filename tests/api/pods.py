"""Controllers as processes of their own, as kubelet would start them, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tandem.runtime.testing.localapi import LocalApi

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "controllers"
HERE = Path(__file__).parent


class Pod:
    """One controller process, known to the API server by a name of its own."""

    def __init__(self, api: LocalApi, name: str, script: Path, folder: Path, **settings: str) -> None:
        self.name = name
        self.api = api
        self.log = folder / f"{name}.log"
        environment = {
            **os.environ,
            "KUBECONFIG": str(api.kubeconfig(name)),
            "POD_NAME": name,
            "TANDEM_LEASE_NAMESPACE": "default",
            "TANDEM_HEALTH_PORT": "none",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(script.parent)]),
            **settings,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; returns when (wall clock, as in the audit log)."""
        self.process.send_signal(number)
        return time.time()

    def wait(self, seconds: float = 60) -> int:
        """Its exit status, negative for a signal."""
        return self.process.wait(seconds)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it logged."""
        for line in self.log.read_text().splitlines():
            with suppress(ValueError):
                yield json.loads(line)

    def said(self, event: str) -> bool:
        """Whether it logged this."""
        return any(line.get("event", "").startswith(event) for line in self.lines())

    def writes(self, plural: str = "configmaps") -> list[dict[str, Any]]:
        """Its accepted writes, by the API server's audit log."""
        return [
            event
            for event in self.api.audit()
            if event["user"]["username"] == self.name
            and event["objectRef"]["resource"] == plural
            and event["verb"] in ("create", "update", "patch")
            and event["responseStatus"]["code"] < 300
        ]

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
        self.process.wait()


def eventually(condition: Callable[[], object], what: str, seconds: float = 60) -> float:
    """Wait until it holds; returns how long that took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


def holder(api: LocalApi, lease: str) -> str:
    """Who holds a Lease; empty when nobody."""
    try:
        found = api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{lease}")
    except OSError:
        return ""
    name: str = found["spec"].get("holderIdentity", "")
    return name


def free_lease(api: LocalApi, name: str) -> None:
    """A Lease that nobody holds, so that the first candidate need not wait whether somebody does."""
    body = {"metadata": {"name": name}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}
    api.request("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", body)


def free_leases(api: LocalApi, names: Sequence[str]) -> None:
    """Several of them."""
    for name in names:
        free_lease(api, name)


class Wire:
    """A TCP relay to the API server that can be cut (both ends are told) or go silent (nobody is)."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rsplit(":", 1)[1])
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.url = ""

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.speak()
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    def fall_silent(self) -> None:
        """Nothing gets through, and nobody is told."""
        self._open.clear()

    def speak(self) -> None:
        """All goes through again, also what was sent meanwhile."""
        self._open.set()

    def kubeconfig(self, original: Path, folder: Path) -> str:
        """The same kubeconfig by way of this wire."""
        config = json.loads(original.read_text())
        config["clusters"][0]["cluster"]["server"] = self.url
        path = folder / f"wire-{original.name}"
        path.write_text(json.dumps(config))
        return str(path)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, there_writer}
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(65536):
                await self._open.wait()
                sink.write(chunk)
                await sink.drain()
        sink.close()
