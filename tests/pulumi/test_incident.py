"""With a worker away: what the program says before anything is registered, and what `degraded` changes."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra import __main__ as program
from infra import cluster, incident
from infra.cluster import Away, ClusterError
from infra.settings import Settings, parse_settings
from tests.pulumi.registered import Registered, Resource, register
from tests.pulumi.stack_files import raw_config

SKIP = "pulumi.com/skipAwait"
AWAY = Away({"w1": "not Ready since 2026-11-22T14:02:11Z"}, {"ledger-replace": ["ledger-replace-1"]})


def run(**changes: str) -> Registered:
    changed = {f"tandem:{key}": value for key, value in changes.items()}
    pulumi.runtime.set_all_config(raw_config("lab") | {"tandem:cluster_check": "skip"} | changed)
    return register(program.main, "lab")


@pytest.fixture(scope="module")
def usual() -> Registered:
    return run()


@pytest.fixture(scope="module")
def degraded() -> Registered:
    return run(degraded="true")


def awaited(found: Registered) -> set[str]:
    """Kind and name of each object that runs pods and is waited for."""
    running = [each for kind in ("Deployment", "DaemonSet", "StatefulSet") for each in found.of(kind)]
    assert len(running) > 6
    return {f"{each.type.rpartition(':')[2]} {each.name}" for each in running if SKIP not in said_by(each)}


def said_by(resource: Resource) -> dict[str, str]:
    return resource.inputs["metadata"].get("annotations") or {}


def test_nothing_that_runs_pods_is_awaited(usual: Registered, degraded: Registered) -> None:
    assert "DaemonSet ledger-hold-prepull" in awaited(usual)
    assert awaited(degraded) == set()


def test_no_pod_is_rolled_by_the_switch(usual: Registered, degraded: Registered) -> None:
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        templates = {each.name: each.spec["template"] for each in usual.of(kind)}
        assert {each.name: each.spec["template"] for each in degraded.of(kind)} == templates


def test_an_update_reaches_the_worker_that_is_left(usual: Registered, degraded: Registered) -> None:
    """One new pod has its place on the survivor; the old one there must not wait for a second, nor for a dead agent."""
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    assert usual.one("Deployment", "web").spec["strategy"]["rollingUpdate"] == rolling
    assert degraded.one("Deployment", "web").spec["strategy"]["rollingUpdate"] == {**rolling, "maxUnavailable": 1}
    for name in ("agent", "ledger-hold-prepull"):
        assert degraded.one("DaemonSet", name).spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 2}
    assert degraded.one("Deployment", "ledger-hold").spec["strategy"] == {"type": "Recreate"}


def settings(stack: str = "lab", **changes: str) -> Settings:
    return parse_settings(raw_config(stack) | {f"tandem:{key}": value for key, value in changes.items()}, stack)


def said(monkeypatch: pytest.MonkeyPatch, wanted: Settings, away: Away) -> list[str]:
    warned: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warned.append)
    incident.tell_of_incident(wanted, lambda context, namespace: away)
    return warned


def test_nothing_is_said_on_a_good_day(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, settings(), Away()) == []


def test_without_the_switch_the_cause_and_the_longest_wait_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    apps = json.loads(raw_config("lab")["tandem:apps"])
    apps["web"]["deploy_timeout_seconds"] = 420
    cause, stuck = said(monkeypatch, settings(apps=json.dumps(apps)), AWAY)
    assert "w1 (not Ready since 2026-11-22T14:02:11Z)" in cause
    assert "420 s at most" in cause
    assert "pulumi config set tandem:degraded true" in cause
    assert stuck.startswith("ledger-replace: ledger-replace-1 cannot end")
    assert "playbooks/release-node.yml" in stuck


def test_with_the_switch_what_was_not_awaited_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first, stuck = said(monkeypatch, settings(degraded="true"), AWAY)
    assert "not waited for: agent, auditor, control, ledger-hold, ledger-replace, web" in first
    assert "w1 (not Ready" in first
    assert "pulumi config rm tandem:degraded" in first
    assert stuck.startswith("ledger-replace:")


def test_a_switch_that_was_left_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (only,) = said(monkeypatch, settings(degraded="true"), Away())
    assert "every worker seems to be there" in only


def test_a_pod_of_an_app_that_does_not_stop_first_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Away({"w1": "cordoned"}, {"web": ["web-1"], "": ["stranger"], "auditor-a": ["auditor-a-1"]})
    assert len(said(monkeypatch, settings(), stuck)) == 1


def test_a_cluster_that_does_not_answer_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(context: str | None, namespace: str) -> Away:
        raise ClusterError("rule: the list of nodes must be readable")

    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", told.append)
    monkeypatch.setattr(pulumi.log, "warn", told.append)
    incident.tell_of_incident(settings(), refuse)
    assert len(told) == 1
    assert "was not seen" in told[0]
    incident.tell_of_incident(settings(cluster_check="skip"), refuse)
    assert len(told) == 1, "without the cluster's leave nobody asks it"


def node(name: str, ready: str = "True", **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-22T14:02:11Z"}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}, "spec": spec}


def pod(app: str, name: str, where: str | None, *, ending: bool) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": app}}
    return {
        "metadata": metadata | ({"deletionTimestamp": "2026-11-22T14:03:00Z"} if ending else {}),
        "spec": {"nodeName": where} if where else {},
    }


def test_who_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {
        "the list of nodes": [node("w1", "Unknown"), node("w2", unschedulable=True), node("w3")],
        "the list of pods": [
            pod("ledger", "ledger-old", "w1", ending=True),
            pod("ledger", "ledger-new", None, ending=False),
            pod("web", "web-1", "w1", ending=False),
            pod("web", "web-2", "w2", ending=True),
            pod("web", "web-3", None, ending=True),
        ],
    }

    async def ask(context: str | None, what: str, request: object, missing: str = "") -> Any:
        return {"items": lists[what]}

    monkeypatch.setattr(cluster, "_ask", ask)
    away = cluster.read_away(None, "shop")
    assert away.workers == {"w1": "not Ready since 2026-11-22T14:02:11Z", "w2": "cordoned"}
    assert away.stuck == {"ledger": ["ledger-old"]}
