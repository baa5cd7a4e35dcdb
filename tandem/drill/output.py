"""Where reports go: a folder per run and `latest`, HTML that opens without a network, tables for a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader
from rich.table import Table

from tandem.drill import plot
from tandem.drill.recording import Recording
from tandem.recovery import STAGES

ROOT: Final = Path("build/drill")


def save(root: Path, runs: Sequence[tuple[Recording, Mapping[str, Any]]]) -> Path:
    """Save one run, or several to be compared; returns their folder.

    The folder is named by time, scenario and node; `latest` is turned to it once it is complete, so that a reader never
    meets half a report. It holds `report.json`, `report.html`, `report.png` and `recording.json` (what was seen, from
    which the rest can be made again); of several runs the first's picture is `report.png`, and each has its own beside.
    """
    first = runs[0][1]
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = root / f"{stamp}-{first['scenario']}-{first['node']}"
    folder.mkdir(parents=True)
    pages = []
    for index, (recording, report) in enumerate(runs):
        figure = plot.draw(recording, report)
        suffix = "" if index == 0 else f"-{report['profile']}"
        plot.save_png(figure, folder / f"report{suffix}.png")
        pages.append({"report": report, "svg": plot.svg(figure)})
        (folder / f"recording{suffix}.json").write_text(json.dumps(recording.to_dict()), encoding="utf-8")
    data = dict(first) if len(runs) == 1 else {"runs": [report for _, report in runs]}
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(html(pages), encoding="utf-8")
    turning = root / f".latest-{stamp}"
    turning.symlink_to(folder.name)
    os.replace(turning, root / "latest")  # noqa: PTH105  the atomic exchange is the point
    return folder


def html(pages: Sequence[Mapping[str, Any]]) -> str:
    """The page of one or several runs, each a mapping of `report` and `svg`."""
    environment = Environment(loader=PackageLoader("tandem.drill", "templates"), autoescape=True, trim_blocks=True)
    title = "Drill" if len(pages) == 1 else "Drills compared"
    return environment.get_template("report.html.j2").render(runs=pages, stages=STAGES, title=title)


def stage_table(report: Mapping[str, Any]) -> Table:
    """Stages of every app, measured and predicted."""
    table = Table(title=f"{report['scenario']} of {report['node']}, profile {report['profile'] or 'unknown'}")
    table.add_column("seconds after the fault")
    for name, app in report["apps"].items():
        table.add_column(f"{name}\n[dim]{app['behaviour']}[/dim]", justify="right")
    for stage in STAGES:
        table.add_row(stage, *(_cell(app, stage) for app in report["apps"].values()))
    return table


def _cell(app: Mapping[str, Any], stage: str) -> str:
    value, window = app["stages"][stage], app["prediction"].get(stage)
    text = "-" if value is None else f"{value:.1f}"
    if window is None:
        return text
    if value is not None and not window[0] <= value <= window[1]:
        text = f"[yellow]{text}[/yellow]"
    return f"{text} [dim]({window[0]:.0f}..{window[1]:.0f})[/dim]"


def request_table(report: Mapping[str, Any]) -> Table:
    """Failed requests of every client, with the longest gap."""
    table = Table(title="failed of sent, slow, longest gap in seconds; between fault and repair")
    table.add_column("client")
    apps = report["apps"]
    for name in apps:
        table.add_column(name, justify="right")
    clients = sorted({client for app in apps.values() for client in app["requests"]})
    for client in clients:
        cells = []
        for app in apps.values():
            r = app["requests"].get(client)
            cells.append("" if r is None else f"{r['failed']}/{r['sent']} {r['slow']} {r['longest_gap_seconds']:.1f}")
        table.add_row(client, *cells)
    return table


def writer_table(report: Mapping[str, Any]) -> Table:
    """The oracle's verdict."""
    table = Table(title="writers")
    for column in ("app", "records", "acknowledged", "lost", "doubled"):
        table.add_column(column, justify="left" if column == "app" else "right")
    for name, app in report["apps"].items():
        if w := app["writers"]:
            bad = "red" if w["lost"] else "green"
            doubled = "red" if w["doubled"] else "green"
            table.add_row(
                f"{name} [dim]{app['behaviour']}[/dim]",
                str(w["records"]),
                str(w["acknowledged"]),
                f"[{bad}]{w['lost']}[/{bad}]",
                f"[{doubled}]{w['doubled']}[/{doubled}]",
            )
    return table


def comparison_table(reports: Sequence[Mapping[str, Any]]) -> Table:
    """Several runs side by side: when each app served again, measured and predicted."""
    table = Table(title="serving again, seconds after the fault (predicted)")
    table.add_column("app")
    for report in reports:
        table.add_column(str(report["profile"]), justify="right")
    for name in reports[0]["apps"]:
        table.add_row(name, *(_cell(r["apps"][name], "serving") if name in r["apps"] else "" for r in reports))
    return table
