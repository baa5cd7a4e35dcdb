"""What a recording means: stages beside prediction, requests, writers, findings and a verdict, as JSON-ready data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from tandem import recovery
from tandem.drill.apps import App
from tandem.drill.oracle import Writers
from tandem.drill.recording import NOISE_SHARE, Recording
from tandem.drill.samples import Requests, summarize
from tandem.drill.timeline import MUST_NOT_REACH, SUCCESSOR, expected, lost_pods, stages
from tandem.recovery import Stage, Window

FORMAT: Final = 1
"""Version of the report's JSON."""


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the report should know.

    `failure`: a promise was broken. `danger`: what the chosen settings are known to risk was seen to happen.
    `warning`: a figure outside its prediction, or a reason to doubt one. `note`: anything else.
    """

    level: Literal["failure", "danger", "warning", "note"]
    app: str | None
    message: str


@dataclass(frozen=True)
class AppResult:
    """One app's part of the report."""

    app: App
    on_node: int
    stages: Mapping[Stage, float | None]
    prediction: Mapping[Stage, Window]
    requests: Mapping[str, Requests]
    writers: Writers | None


def build(recording: Recording, *, target_seconds: float | None = None) -> dict[str, Any]:
    """The report of a recording.

    Args:
        recording: what was seen.
        target_seconds: the site's `recovery_target_seconds`: an app back later fails the drill. None: no target.
    """
    results = [_result(recording, app) for app in recording.apps]
    findings = [*_findings(recording, results, target_seconds)]
    failed = any(finding.level == "failure" for finding in findings)
    return {
        "format": FORMAT,
        "scenario": recording.scenario,
        "profile": recording.profile["name"] if recording.profile else None,
        "node": recording.scene.node,
        "begun": datetime.fromtimestamp(recording.begun, UTC).isoformat(timespec="seconds"),
        "observed_seconds": round(recording.scene.until - recording.scene.fault, 1),
        "fault_call_seconds": recording.fault_call_seconds,
        "clock_uncertainty_seconds": recording.clock_uncertainty_seconds,
        "returned_seconds": recording.returned_seconds,
        "target_seconds": target_seconds,
        "gave_up": recording.gave_up,
        "apps": {result.app.name: _app_json(result) for result in results},
        "findings": [asdict(finding) for finding in findings],
        "verdict": "failed" if failed else "passed",
    }


def _result(recording: Recording, app: App) -> AppResult:
    scene = recording.scene
    mine = [sample for sample in recording.samples if sample.app == app.name]
    on_node = len(lost_pods(app, recording.observations, scene))
    prediction: dict[Stage, Window] = {}
    if recording.profile is not None and on_node:
        windows = recovery.predict(recovery.from_dict(recording.profile), app.behaviour)
        prediction = {stage: window for stage, window in windows.items() if stage in expected(app)}
    return AppResult(
        app=app,
        on_node=on_node,
        stages=stages(app, recording.observations, mine, scene),
        prediction=prediction,
        requests=summarize(mine, scene.fault, scene.until),
        writers=recording.writers.get(app.name),
    )


def _app_json(result: AppResult) -> dict[str, Any]:
    return {
        "kind": result.app.kind,
        "behaviour": result.app.behaviour,
        "replicas": result.app.replicas,
        "on_node": result.on_node,
        "stages": dict(result.stages),
        "prediction": {stage: [round(w.low, 1), round(w.high, 1)] for stage, w in result.prediction.items()},
        "requests": {client: asdict(requests) for client, requests in result.requests.items()},
        "writers": asdict(result.writers) if result.writers else None,
    }


def _findings(recording: Recording, results: Sequence[AppResult], target_seconds: float | None) -> Iterable[Finding]:
    if not any(result.on_node for result in results):
        yield Finding("warning", None, f"no app had a pod on {recording.scene.node}: this drill shows little")
    for result in results:
        if result.on_node:
            yield from _stage_findings(recording, result)
            yield from _target_findings(result, target_seconds)
        if result.writers is not None:
            yield from _writer_findings(recording, result.app, result.writers)
    if recording.returned_seconds is None and not recording.left_down:
        yield Finding(
            "failure", None, f"{recording.scene.node} and its apps were not all back in time after the repair"
        )
    before = [s for s in recording.samples if s.end < recording.scene.fault]
    noisy = sum(s.error is not None for s in before)
    if noisy > NOISE_SHARE * len(before):
        text = f"{noisy} of {len(before)} requests failed before the fault: the machines are overloaded, and not every "
        yield Finding("warning", None, text + "failure and delay below is the fault's")
    if recording.watch_breaks:
        text = f"a watch was interrupted {recording.watch_breaks} times; stages then may be seen late"
        yield Finding("note", None, text)
    for warning in recording.warnings:
        yield Finding("warning", None, warning)


def _stage_findings(recording: Recording, result: AppResult) -> Iterable[Finding]:
    app, name = result.app, result.app.name
    missing = [stage for stage in expected(app) if result.stages[stage] is None]
    if missing and recording.capped:
        text = f"not seen before the asked-for end of the observation: {', '.join(missing)}"
        yield Finding("note", name, text)
    elif missing:
        yield Finding("failure", name, f"never reached {', '.join(missing)}")
    if forbidden := [s for s in MUST_NOT_REACH.get(app.behaviour, ()) if result.stages[s] is not None]:
        reason = "a successor while the old pod may still run" if app.behaviour in SUCCESSOR else "a full spread"
        yield Finding("failure", name, f"reached {', '.join(forbidden)}: {reason} was not to be")
    for stage, window in result.prediction.items():
        measured = result.stages[stage]
        if measured is not None and measured not in window:
            text = f"{stage} after {measured:.1f} s, predicted {window.low:.1f} to {window.high:.1f} s"
            yield Finding("warning", name, text)
    if app.behaviour == "stateful" and result.stages["created"] is None:
        text = "stayed down, as a StatefulSet does while its old pod object exists; a Deployment with a claim does not"
        yield Finding("note", name, text)


def _target_findings(result: AppResult, target_seconds: float | None) -> Iterable[Finding]:
    if target_seconds is None or "serving" not in expected(result.app):
        return
    serving = result.stages["serving"]
    if serving is None or serving > target_seconds:
        when = "not in time" if serving is None else f"after {serving:.1f} s"
        yield Finding("failure", result.app.name, f"served again {when}, the target is {target_seconds:g} s")


def _writer_findings(recording: Recording, app: App, writers: Writers) -> Iterable[Finding]:
    if writers.lost:
        text = f"{writers.lost} of {writers.acknowledged} acknowledged records are not on the share"
        yield Finding("failure", app.name, text)
    if writers.doubled and recording.scenario == "partition" and app.behaviour == "replace":
        text = (
            f"{writers.doubled} records by a writer that had been replaced: the old pod went on writing, because its "
            "node was only cut off. `hold` cannot do this"
        )
        yield Finding("danger", app.name, text)
    elif writers.doubled:
        text = f"{writers.doubled} records by a writer that had been replaced"
        yield Finding("failure", app.name, text)
    for doubt in writers.doubtful:
        yield Finding("warning", app.name, f"writers: {doubt}")
