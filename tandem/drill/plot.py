"""The picture of a drill: predicted windows and measured stages, and every client's failed and slow requests."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tandem.drill.recording import Recording
from tandem.drill.samples import SLOW_SECONDS, Sample
from tandem.drill.timeline import lost_pods
from tandem.recovery import STAGES, Stage

COLOURS: Final[Mapping[Stage, str]] = {
    "ready_unknown": "#7b3294",
    "endpoints_out": "#0571b0",
    "taint": "#c2a5cf",
    "deleted": "#ca0020",
    "created": "#f4a582",
    "scheduled": "#b8860b",
    "ready": "#80b1d3",
    "serving": "#1a9641",
}
LABELS: Final[Mapping[Stage, str]] = {
    "ready_unknown": "node Ready=Unknown",
    "endpoints_out": "endpoints out",
    "taint": "NoExecute taint",
    "deleted": "pod deleted",
    "created": "successor created",
    "scheduled": "scheduled",
    "ready": "Ready",
    "serving": "serving again",
}
GOOD, BY_LOST, SLOW, FAILED = "#b7e1ae", "#9ecae1", "#fdae61", "#d7191c"
BEFORE_SECONDS: Final = 4.0


def draw(recording: Recording, report: Mapping[str, Any]) -> Figure:
    """The figure of a drill: one block per app, one row per client in it."""
    names = list(report["apps"])
    until = report["observed_seconds"]
    rows = {name: sorted(report["apps"][name]["requests"], key=_client_order) for name in names}
    heights = [0.85 + 0.16 * len(rows[name]) for name in names]
    figure = Figure(figsize=(12.5, sum(heights) + 1.7), layout="constrained")
    axes: list[Axes] = list(figure.subplots(len(names), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    by_app: dict[str, list[Sample]] = {name: [] for name in names}
    for sample in recording.samples:
        if sample.app in by_app:
            by_app[sample.app].append(sample)
    apps = {app.name: app for app in recording.apps}
    for axis, name in zip(axes, names, strict=True):
        lost = set(lost_pods(apps[name], recording.observations, recording.scene).values())
        _block(axis, name, report["apps"][name], rows[name], by_app[name], lost, recording.scene.fault, until)
    axes[-1].set_xlim(-BEFORE_SECONDS, until)
    axes[-1].set_xlabel("seconds after the fault")
    what = "Power loss of" if report["scenario"] == "power-loss" else "Partition (control plane only) of"
    figure.suptitle(
        f"{what} {report['node']}, profile {report['profile'] or 'unknown'}: {report['verdict']}",
        fontsize=14,
        fontweight="bold",
    )
    stage_marks = [
        Line2D([], [], color=COLOURS[s], marker="v", linestyle="-", linewidth=1.5, label=LABELS[s]) for s in STAGES
    ]
    request_marks = [
        Patch(color="#dddddd", label="predicted window"),
        Patch(color=GOOD, label="good answer"),
        Patch(color=BY_LOST, label="...by a pod of the lost node"),
        Patch(color=SLOW, label=f"slow (over {SLOW_SECONDS:g} s)"),
        Patch(color=FAILED, label="failed"),
    ]
    figure.legend(handles=stage_marks + request_marks, loc="outside lower center", ncols=7, fontsize=8.5, frameon=False)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG."""
    figure.savefig(path, dpi=110)


def svg(figure: Figure) -> str:
    """The figure as an SVG element for an HTML page, its text as text."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tandem"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _client_order(client: str) -> tuple[bool, str]:
    return client.startswith("outside"), client


def _block(
    axis: Axes,
    name: str,
    app: Mapping[str, Any],
    rows: Sequence[str],
    samples: Sequence[Sample],
    lost: Collection[str],
    fault: float,
    until: float,
) -> None:
    stage_rows = 3.4
    total = len(rows) + stage_rows
    axis.set_ylim(total, -0.2)
    axis.axvline(0, color="black", linewidth=1.6)
    axis.axhline(stage_rows - 0.5, color="#999999", linewidth=0.5)
    windows = [(stage, window) for stage, window in app["prediction"].items() if window[0] <= until]
    for index, (stage, (low, high)) in enumerate(windows):
        y = 0.15 + (stage_rows - 0.9) * index / max(1, len(windows))
        height = (stage_rows - 0.9) / max(1, len(windows)) * 0.8
        axis.fill_betweenx([y, y + height], low, high, color=COLOURS[stage], alpha=0.22, linewidth=0)
        measured = app["stages"][stage]
        if measured is not None:
            axis.plot([measured], [y + height / 2], marker="v", color=COLOURS[stage], markersize=5, zorder=4)
    for stage, seconds in app["stages"].items():
        if seconds is not None:
            axis.axvline(seconds, color=COLOURS[stage], linewidth=1.1, alpha=0.9, zorder=3)
            if stage not in app["prediction"]:
                axis.plot([seconds], [stage_rows / 2], marker="v", color=COLOURS[stage], markersize=5, zorder=4)
    for index, client in enumerate(rows):
        mine = [s for s in samples if s.client == client and s.end >= fault - BEFORE_SECONDS]
        _strip(axis, mine, lost, stage_rows + index, fault, until)
    axis.set_yticks([stage_rows / 2 - 0.4, *(stage_rows + i for i in range(len(rows)))])
    axis.set_yticklabels(["stages", *rows], fontsize=6.5)
    axis.tick_params(axis="y", length=0)
    writers = app["writers"]
    verdict = f"; {writers['records']} records, {writers['lost']} lost, {writers['doubled']} doubled" if writers else ""
    serving = app["stages"]["serving"]
    if not app["on_node"]:
        back = "; no pod on the lost node"
    elif serving is not None:
        back = f"; serving again after {serving:.1f} s"
    else:
        back = "; not served again before the repair" if rows else ""
    axis.set_title(
        f"{name} ({app['kind']}, {app['behaviour']}){back}{verdict}", loc="left", fontsize=9.5, fontweight="bold"
    )
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _strip(axis: Axes, samples: Sequence[Sample], lost: Collection[str], y: float, fault: float, until: float) -> None:
    """One client's requests as a strip: from sent to answered or failed."""
    for colour, width, chosen in (
        (GOOD, 3.0, [s for s in samples if s.error is None and s.seconds <= SLOW_SECONDS and s.pod not in lost]),
        (BY_LOST, 3.0, [s for s in samples if s.error is None and s.seconds <= SLOW_SECONDS and s.pod in lost]),
        (SLOW, 4.5, [s for s in samples if s.error is None and s.seconds > SLOW_SECONDS]),
        (FAILED, 4.5, [s for s in samples if s.error is not None]),
    ):
        lines = [
            [(s.at - fault, y), (min(max(s.end, s.at + 0.1) - fault, until), y)] for s in chosen if s.at - fault < until
        ]
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="butt"))
