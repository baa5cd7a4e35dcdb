"""Live progress of a drill: a table that grows on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tandem.recovery import STAGES, Stage


class LiveProgress:
    """Implements `tandem.drill.run.Progress` on a console; use as a context manager.

    Args:
        console: where to show it.
        interactive: redraw in place; else one line per event.
    """

    def __init__(self, console: Console, *, interactive: bool) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if interactive else None
        self._begun = time.monotonic()
        self._phase = ""
        self._stages: dict[str, dict[Stage, float]] = {}
        self._elapsed: float | None = None
        self._sent = self._failed = 0

    def __enter__(self) -> LiveProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def phase(self, text: str) -> None:
        """A new phase has begun."""
        self._phase = text
        self._console.print(f"[dim]{time.monotonic() - self._begun:6.1f} s[/dim]  {text}", highlight=False)
        self._show()

    def stage(self, app: str, stage: Stage, seconds: float) -> None:
        """An app reached a stage."""
        self._stages.setdefault(app, {})[stage] = seconds
        if self._live is None:
            self._console.print(f"           {app}: {stage} {seconds:.1f} s after the fault", highlight=False)
        self._show()

    def tick(self, elapsed: float | None, sent: int, failed: int) -> None:
        """Some time has passed."""
        self._elapsed, self._sent, self._failed = elapsed, sent, failed
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._render())

    def _render(self) -> RenderableType:
        since = "" if self._elapsed is None else f"{self._elapsed:5.1f} s after the fault, "
        status = Text(f"{self._phase}: {since}{self._sent} requests, {self._failed} failed")
        if not self._stages:
            return status
        table = Table()
        table.add_column("app")
        for stage in STAGES:
            table.add_column(stage, justify="right")
        for app, found in self._stages.items():
            table.add_row(app, *(f"{found[stage]:.1f}" if stage in found else "" for stage in STAGES))
        return Group(table, status)
