"""Add drills to the recorded timelines: `python tests/unit/recovery/make_timelines.py build/drill/2*`.

Takes the folders that `tandem drill` writes. What is there already stays once. A drill that cannot be judged by a named
profile is left out, with the reason: it failed, gave up, or ran under other numbers than the profile has today.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tandem import recovery

TIMELINES = Path(__file__).with_name("timelines.json")


class UnfitError(ValueError):
    """A drill that cannot be a timeline; the text says why."""


def timeline(report: Mapping[str, Any], recording: Mapping[str, Any]) -> dict[str, Any]:
    """What the tests need of a drill: the stages of the apps that had a pod on the lost node.

    Args:
        report: `report.json`.
        recording: `recording.json` of the same drill, for the numbers of the profile that was in force.

    Raises:
        UnfitError: it shows nothing of a profile as it is today.
    """
    name = report["profile"]
    if name not in recovery.PROFILES:
        raise UnfitError(f"its profile is {name}")
    if report["verdict"] != "passed":
        raise UnfitError("a promise was broken; such a drill needs an explanation, not a place among the fixtures")
    if report["gave_up"] and not recording["capped"]:
        raise UnfitError("it gave up before the last stage")  # an end that was asked for leaves true stages before it
    today, then = recovery.to_dict(recovery.profile(name)), recording["profile"]
    changed = sorted(field for field in then if then[field] != today.get(field))
    if changed:
        raise UnfitError(f"{name} had other numbers then: {', '.join(changed)}")
    return {
        "profile": name,
        "scenario": report["scenario"],
        "node": report["node"],
        "begun": report["begun"],
        "apps": {
            app: {
                "behaviour": data["behaviour"],
                "stages": {stage: at for stage, at in data["stages"].items() if at is not None},
            }
            for app, data in report["apps"].items()
            if data["on_node"]
        },
    }


def merged(known: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them, each once, by profile and time."""
    by_key = {(run["profile"], run["begun"], run["node"]): run for run in [*known, *new]}
    return [by_key[key] for key in sorted(by_key)]


def text(runs: Sequence[dict[str, Any]]) -> str:
    """The file's content."""
    return json.dumps(runs, indent=1) + "\n"


def main(folders: Sequence[Path]) -> None:
    """Read the folders and write the file."""
    found = []
    for folder in folders:
        try:
            parts = [
                json.loads((folder / f"{part}.json").read_text(encoding="utf-8")) for part in ("report", "recording")
            ]
            found.append(timeline(*parts))
        except (UnfitError, OSError, ValueError, KeyError) as error:
            print(f"left out {folder.name}: {error}")
    before = json.loads(TIMELINES.read_text(encoding="utf-8"))
    after = merged(before, found)
    TIMELINES.write_text(text(after), encoding="utf-8")
    counts = {name: sum(run["profile"] == name for run in after) for name in recovery.PROFILES}
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{len(after) - len(before)} added; now {shown}")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
