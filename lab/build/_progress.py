"""Showing how a build goes: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lab.build._session import Progress


def clock(seconds: float) -> str:
    """Minutes and seconds, as in 8:41."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class LineProgress:
    """One line per event on standard error."""

    def started(self, name: str, summary: str, last_seconds: float | None) -> None:
        """Say what is being built and how long it took last time."""
        last = f", {clock(last_seconds)} last time" if last_seconds is not None else ""
        self._say(f"building {name} ({summary}{last})")

    def waiting(self, name: str) -> None:
        """Say that somebody else builds it."""
        self._say(f"waiting for another build of {name}")

    def finished(self, name: str, seconds: float, *, cached: bool) -> None:
        """Say that it is there."""
        if not cached:
            self._say(f"built {name} in {clock(seconds)}")

    @staticmethod
    def _say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class LiveProgress:
    """The running step on one line that is kept up to date, finished steps above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._line = ""
        self._begin = 0.0
        self._last: float | None = None

    def started(self, name: str, summary: str, last_seconds: float | None) -> None:
        """Show a line with a running clock."""
        self._line, self._begin, self._last = f"{name}: {summary}", time.monotonic(), last_seconds
        self._show()

    def waiting(self, name: str) -> None:
        """Show that somebody else builds it."""
        self._line, self._begin, self._last = f"{name}: waiting for another build", time.monotonic(), None
        self._show()

    def finished(self, name: str, seconds: float, *, cached: bool) -> None:
        """Leave a line for what was built; what was there needs none."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None
        if not cached:
            self._console.print(f"[green]built[/green] {name} in {clock(seconds)}", highlight=False)

    def _show(self) -> None:
        with self._lock:
            if self._live is None:
                self._live = Live(
                    get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True
                )
                self._live.start()

    def _render(self) -> Text:
        last = f" (last time {clock(self._last)})" if self._last is not None else ""
        return Text(f"building {self._line}  {clock(time.monotonic() - self._begin)}{last}")


def default_progress() -> Progress:
    """What fits standard error."""
    console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal else LineProgress()
