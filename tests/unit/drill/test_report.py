"""Verdicts, pages and pictures from constructed recordings."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tandem import recovery
from tandem.drill import output, plot, report
from tandem.drill.apps import App
from tandem.drill.observe import Kind, Observation
from tandem.drill.oracle import Writers
from tandem.drill.recording import Recording, Scenario, from_dict
from tandem.drill.samples import Sample
from tandem.drill.timeline import Scene
from tandem.recovery import Behaviour

T0 = 1_000_000.0
UNTIL = 45.0
APPS: tuple[tuple[str, Behaviour], ...] = (
    ("ledger-hold", "hold"),
    ("ledger-replace", "replace"),
    ("web", "spread-wait"),
)


def app(name: str, behaviour: Behaviour) -> App:
    writer = name.startswith("ledger")
    return App(name, "demo", "Deployment", behaviour, 1, {"app": name}, name, "10.96.0.9", 80, 30080, writer)


def observations(name: str, behaviour: Behaviour) -> list[Observation]:
    def pod(at: float, which: str, node: str | None, *, ready: bool, deleting: bool = False) -> Observation:
        facts = {"labels": {"app": name}, "node": node, "ready": ready, "deleting": deleting, "phase": "Running"}
        return Observation(T0 + at, "pod", f"{name}-{which}", f"{name}-{which}", False, facts)

    def endpoints(at: float, *, ready: bool) -> Observation:
        facts = {"service": name, "endpoints": [{"pod": f"{name}-old", "node": "w1", "ready": ready}]}
        return Observation(T0 + at, "slice", f"{name}-1", f"{name}-1", False, facts)

    seen = [pod(-5, "old", "w1", ready=True), endpoints(-5, ready=True), endpoints(21.5, ready=False)]
    seen += [pod(26.8, "old", "w1", ready=False, deleting=True), pod(26.9, "new", None, ready=False)]
    if behaviour == "replace":
        seen += [pod(27.1, "new", "w2", ready=False), pod(31.0, "new", "w2", ready=True)]
    return seen


def samples(name: str, behaviour: Behaviour) -> list[Sample]:
    draw = random.Random(name)
    made = []
    for client in ("cp1/new", "cp1/kept", "pod/new", "outside-w1/new", "outside-w2/new"):
        for number in range(int((UNTIL + 5) * 5)):
            at = number / 5 - 4
            down = 0 <= at < {"hold": 99, "replace": 32.5, "spread-wait": 22}[behaviour]
            if behaviour == "spread-wait":
                down = down and draw.random() < 0.5
            if client == "outside-w1/new":
                down = at >= 0
            pod = f"{name}-{'old' if at < 0 else 'new'}"
            made.append(Sample(name, client, number, T0 + at, 0.5 if down else 0.02, "timeout" if down else None, pod))
    return made


def recorded(scenario: Scenario = "power-loss", **changes: Any) -> Recording:
    def node(at: float, ready: str, *taints: str) -> Observation:
        kind: Kind = "node"
        return Observation(T0 + at, kind, "w1", "w1", False, {"ready": ready, "taints": list(taints)})

    seen = [node(-5, "True"), node(20.8, "Unknown"), node(21.3, "Unknown", "node.kubernetes.io/unreachable:NoExecute")]
    apps = [app(*entry) for entry in APPS]
    for entry in APPS:
        seen += observations(*entry)
    writers = {"ledger-hold": Writers(100, 0, 0, 90, (1,)), "ledger-replace": Writers(200, 0, 0, 190, (1, 2))}
    made = Recording(
        scenario=scenario,
        profile=recovery.to_dict(recovery.ARTICLE),
        scene=Scene("w1", T0, T0 + UNTIL, ("cp1", "pod")),
        apps=apps,
        observations=sorted(seen, key=lambda o: o.at),
        samples=[s for entry in APPS for s in samples(*entry)],
        writers=writers,
        begun=T0 - 10,
        fault_call_seconds=0.02,
        returned_seconds=12.5,
    )
    return dataclasses.replace(made, **changes)


def levels(made: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(f["level"], f["app"]) for f in made["findings"]]


def test_the_json_has_the_promised_shape() -> None:
    made = json.loads(json.dumps(report.build(recorded())))
    assert (made["scenario"], made["profile"], made["node"], made["verdict"]) == (
        "power-loss",
        "article",
        "w1",
        "passed",
    )
    entry = made["apps"]["ledger-replace"]
    assert list(entry["stages"]) == list(recovery.STAGES)
    assert entry["stages"]["serving"] == pytest.approx(32.6, abs=0.2)
    assert entry["prediction"]["ready_unknown"] == [9.6, 30.8]
    assert set(entry["requests"]["cp1/new"]) == {"sent", "failed", "slow", "longest_gap_seconds"}
    assert (entry["writers"]["records"], entry["writers"]["lost"], entry["writers"]["doubled"]) == (200, 0, 0)
    assert made["apps"]["ledger-hold"]["stages"]["scheduled"] is None
    assert made["apps"]["web"]["writers"] is None


def test_a_lost_record_fails_the_drill() -> None:
    made = report.build(recorded(writers={"ledger-hold": Writers(100, 3, 0, 90, (1,))}))
    assert made["verdict"] == "failed"
    assert ("failure", "ledger-hold") in levels(made)


@pytest.mark.parametrize(
    ("scenario", "name", "level", "verdict"),
    [
        ("partition", "ledger-replace", "danger", "passed"),
        ("partition", "ledger-hold", "failure", "failed"),
        ("power-loss", "ledger-replace", "failure", "failed"),
    ],
)
def test_a_doubled_record_is_the_known_danger_of_replace_in_a_partition_and_a_failure_else(
    scenario: Scenario, name: str, level: str, verdict: str
) -> None:
    made = report.build(recorded(scenario, writers={name: Writers(100, 0, 7, 90, (1, 2))}))
    assert (level, name) in levels(made)
    assert made["verdict"] == verdict


def test_a_held_app_with_a_second_pod_fails() -> None:
    seen = recorded()
    facts = {"labels": {"app": "ledger-hold"}, "node": "w2", "ready": True, "deleting": False, "phase": "Running"}
    second = Observation(T0 + 30, "pod", "ledger-hold-new", "ledger-hold-new", False, facts)
    made = report.build(
        dataclasses.replace(seen, observations=sorted([*seen.observations, second], key=lambda o: o.at))
    )
    assert ("failure", "ledger-hold") in levels(made)


def test_a_stage_never_seen_fails_unless_the_end_was_asked_for() -> None:
    cut: dict[str, Any] = {"scene": Scene("w1", T0, T0 + 25, ("cp1", "pod")), "gave_up": True}
    assert report.build(recorded(**cut))["verdict"] == "failed"
    capped = report.build(recorded(**cut, capped=True))
    assert capped["verdict"] == "passed"
    assert ("note", "ledger-replace") in levels(capped)


def test_the_target_is_judged() -> None:
    assert report.build(recorded(), target_seconds=40)["verdict"] == "passed"
    assert report.build(recorded(), target_seconds=30)["verdict"] == "failed"


def test_a_node_that_did_not_return_fails_unless_left_down() -> None:
    assert report.build(recorded(returned_seconds=None))["verdict"] == "failed"
    assert report.build(recorded(returned_seconds=None, left_down=True))["verdict"] == "passed"


def test_a_measurement_outside_its_window_is_a_warning() -> None:
    slow = {**recovery.to_dict(recovery.ARTICLE), "node_monitor_grace_period_seconds": 60}
    made = report.build(recorded(profile=slow))
    assert made["verdict"] == "passed"
    assert ("warning", "web") in levels(made)


def test_failures_before_the_fault_are_told() -> None:
    seen = recorded()
    noise = [Sample("web", "cp1/new", -n, T0 - 3, 0.5, "timeout") for n in range(40)]
    made = report.build(dataclasses.replace(seen, samples=[*noise, *seen.samples]))
    assert any("failed before the fault" in f["message"] for f in made["findings"])
    assert not any("failed before the fault" in f["message"] for f in report.build(seen)["findings"])


def test_a_recording_survives_its_file() -> None:
    seen = recorded()
    assert report.build(from_dict(json.loads(json.dumps(seen.to_dict())))) == report.build(seen)


class Urls(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "iframe", "link", "img"}
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    runs = [(seen, report.build(seen)) for seen in (recorded(), recorded("partition"))]
    folder = output.save(tmp_path, runs)
    text = (folder / "report.html").read_text()
    parser = Urls()
    parser.feed(text)
    assert all(url.startswith("#") for url in parser.found), parser.found
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    assert "ledger-replace" in text
    assert "Side by side" in text
    assert len(json.loads((folder / "report.json").read_text())["runs"]) == 2


def test_latest_is_the_newest_and_older_runs_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "save_png", lambda figure, path: path.write_bytes(b""))
    seen = recorded()
    first = output.save(tmp_path, [(seen, report.build(seen))])
    other = dataclasses.replace(seen, scene=dataclasses.replace(seen.scene, node="w2"))
    second = output.save(tmp_path, [(other, report.build(other))])
    assert first != second
    assert first.is_dir()
    assert (tmp_path / "latest").resolve() == second.resolve()
    assert json.loads((tmp_path / "latest" / "report.json").read_text())["node"] == "w2"
