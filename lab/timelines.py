"""The recorded drills beside the windows that the model predicts: the measured half of `docs/profiles.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lab.story import ROOT
from tandem import recovery

RECORDED: Final = ROOT / "tests" / "unit" / "recovery" / "timelines.json"
COMPARED: Final = ("article", "balanced")
"""The profile of the reference article, and ours that has to be no slower."""
SHOWN: Final[Mapping[recovery.Behaviour, Sequence[recovery.Stage]]] = {
    "replace": ("endpoints_out", "deleted", "scheduled", "serving"),
    "hold": ("endpoints_out",),
    "spread-wait": ("endpoints_out", "serving"),
    "stateful": ("endpoints_out",),
}

Measured = dict[tuple[str, str, str], list[float]]


def measured(runs: Iterable[Mapping[str, Any]]) -> Measured:
    """Seconds after a power loss, by profile, behaviour and stage."""
    found: Measured = {}
    for run in runs:
        for app in run["apps"].values() if run["scenario"] == "power-loss" else ():
            for stage, seconds in app["stages"].items():
                found.setdefault((run["profile"], app["behaviour"], stage), []).append(float(seconds))
    return found


def rows(found: Measured) -> list[list[str]]:
    """One row for each behaviour and stage: what was measured of each profile, and the end of its window."""
    names = sorted({profile for profile, _, _ in found}, key=list(recovery.PROFILES).index)
    table = [["app", "stage", *(f"`{name}`" for name in names)]]
    for behaviour, stages in SHOWN.items():
        for stage in stages:
            cells = [_cell(name, behaviour, stage, found.get((name, behaviour, stage), [])) for name in names]
            table.append([f"`{behaviour}`", f"`{stage}`", *cells])
    return table


def _cell(profile: str, behaviour: recovery.Behaviour, stage: recovery.Stage, values: Sequence[float]) -> str:
    if not values:
        return "-"
    window = recovery.predict(recovery.profile(profile), behaviour)[stage]
    return f"{min(values):.1f} to {max(values):.1f} ({len(values)}); at most {window.high:.1f}"


def verdict(found: Measured) -> list[str]:
    """For each behaviour and stage: whether the longest of ours lies below the longest of the article's."""
    theirs, ours = COMPARED
    told = []
    for behaviour, stages in SHOWN.items():
        for stage in stages:
            longest = [max(found.get((name, behaviour, stage), []), default=None) for name in (theirs, ours)]
            if longest[0] is None or longest[1] is None:
                continue
            how = "below" if longest[1] < longest[0] else "**not below**"
            seconds = f"{longest[1]:.1f} s under `{ours}`, {how} {longest[0]:.1f} s under `{theirs}`"
            told.append(f"- `{behaviour}`, `{stage}`: {seconds}.")
    return told


def page(path: Path = RECORDED) -> str:
    """The section, as Markdown."""
    runs = json.loads(path.read_text(encoding="utf-8"))
    found = measured(runs)
    losses = {
        name: sum(r["profile"] == name and r["scenario"] == "power-loss" for r in runs) for name in recovery.PROFILES
    }
    header, *body = rows(found)
    drills = ", ".join(f"{count} of `{name}`" for name, count in losses.items() if count)
    told = (
        "Seconds after a power loss on the lab, shortest to longest, with the number of pods seen and the end of the "
        f"predicted window; from {drills}. Every stage of every drill lies in its window, when that has the start of "
        "a container that this drill had (`tests/unit/recovery/test_timelines.py`): `ready` and `serving` hold the "
        "time that a slow lab machine takes to start one, which no profile changes; `scheduled` does not."
    )
    table = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in body)]
    return "\n".join(["## Measured", "", told, "", *table, "", "The longest of each:", "", *verdict(found), ""])
