"""Starts candidates and reads what they say, without ever waiting on a pipe that nobody writes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tandem.runtime.testing.localapi import LocalApi

ROOT = Path(__file__).resolve().parents[2]
SCALED = (4.0, 2.8, 0.6)
"""15/10/2 made shorter, with room for the hiccups of a busy machine."""
Said = dict[str, Any]


class Candidate:
    """One process.

    Attributes:
        said: All its lines so far.
    """

    def __init__(
        self, api: LocalApi, lease: str, identity: str, *options: str, times: tuple[float, ...] = SCALED
    ) -> None:
        self.identity = identity
        self.said: list[Said] = []
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.api.candidate"),
                *("--kubeconfig", str(api.kubeconfig(identity)), "--lease", lease, "--identity", identity),
                *("--times", *map(str, times), *options),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._read_errors, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def until(self, event: str, seconds: float = 60, **details: Any) -> Said:
        """Wait until it has said this; returns the first such line."""
        found: Said = {}

        def said() -> bool:
            for line in list(self.said):
                if line["event"] == event and details.items() <= line.items():
                    found.update(line)
                    return True
            return False

        wait_for(said, seconds, lambda: f"{self.identity} never said {event} {details}: {self.said} {self.errors}")
        return found

    def has_said(self, event: str) -> bool:
        """Whether it has said this so far."""
        return any(line["event"] == event for line in list(self.said))

    def send(self, signum: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(signum)

    def ended(self, seconds: float = 60) -> int:
        """Wait for its end; returns its status, negative for a signal."""
        return self.process.wait(seconds)


def wait_for(what: Callable[[], bool], seconds: float, complaint: Callable[[], str]) -> None:
    """Wait until `what()`, or fail."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.01)
