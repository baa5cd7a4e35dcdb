"""What the survivor must hold is summed app by app, and a stack that does not fit on one worker is warned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from infra.capacity import load_of, shortage, warn_of_shortage
from infra.cluster import ClusterError
from infra.errors import SettingsError
from infra.settings import Settings, parse_settings

HELPER = {"name": "proxy", "image": "proxy:1", "cpu_request": "100m", "memory_request": "100Mi"}
SHARDS = [{"name": name, "namespaces": [f"team-{name}"]} for name in ("a", "b", "c")]


def settings(apps: dict[str, Any], **more: str) -> Settings:
    given = {
        name: {"image": "app:1", "cpu_request": "500m", "memory_request": "256Mi", **app} for name, app in apps.items()
    }
    for app in given.values():
        app.setdefault("memory_limit", "1Gi")
    raw = {"tandem:namespace": "shop", "tandem:profile": "balanced", "tandem:apps": json.dumps(given)}
    return parse_settings(raw | {f"tandem:{key}": value for key, value in more.items()}, "staging")


@pytest.mark.parametrize(
    ("app", "pods"),
    [
        ({"kind": "spread"}, 1),
        ({"kind": "spread", "replicas": 4}, 2),
        ({"kind": "spread", "replicas": 5}, 3),
        ({"kind": "spread", "replicas": 5, "on_node_loss": "crowd"}, 5),
        ({"kind": "spread", "autoscaling": {"max_replicas": 6}}, 3),
        ({"kind": "single-writer"}, 1),
        ({"kind": "node-agent"}, 1),
        ({"kind": "elected-controller"}, 1),
        ({"kind": "elected-controller", "replicas": 3}, 2),
        ({"kind": "sharded", "shards": SHARDS}, 3),
    ],
)
def test_pods_on_the_survivor(app: dict[str, Any], pods: int) -> None:
    load = load_of(settings({"app": app}).apps["app"])
    assert (load.pods, load.cpu, load.memory) == (pods, 0.5 * pods, 256 * 2**20 * pods)


def test_helpers_count_as_the_scheduler_counts_them() -> None:
    first = {**HELPER, "name": "first", "memory_request": "300Mi"}
    load = load_of(settings({"app": {"kind": "spread", "sidecars": [HELPER], "init_containers": [first]}}).apps["app"])
    # The sidecar runs beside both: 500m + 100m with the app, 300 Mi + 100 Mi before it.
    assert load.cpu == pytest.approx(0.6)
    assert load.memory == 400 * 2**20


def test_shortage_names_what_is_short_and_who_asks_for_most() -> None:
    apps = settings({"small": {"kind": "spread"}, "large": {"kind": "spread", "memory_request": "900Mi"}}).apps
    assert shortage(apps, {"cpu": "1", "memory": "1156Mi", "pods": "2"}) is None
    said = shortage(apps, {"cpu": "2", "memory": "1Gi", "pods": "110"})
    assert said is not None
    assert "1156Mi of memory asked, 1Gi there" in said
    assert "most is asked by large 900Mi, small 256Mi" in said
    assert "of cpu" not in said
    assert "2 of pods asked, 1 there" in str(shortage(apps, {"pods": "1"}))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"warn": [], "info": []}
    for level, texts in found.items():
        monkeypatch.setattr(pulumi.log, level, texts.append)
    return found


def unreadable(context: str | None) -> Mapping[str, str]:
    raise ClusterError("the cluster has no worker")


APPS = {"web": {"kind": "spread"}}


def test_the_cluster_s_smallest_worker_counts(said: dict[str, list[str]]) -> None:
    warn_of_shortage(settings(APPS), lambda context: {"cpu": "4", "memory": "200Mi"})
    assert "256Mi of memory asked, 200Mi there" in said["warn"][0]
    assert "way out: lower requests" in said["warn"][0]


def test_the_stack_s_own_word_on_its_workers_comes_first(said: dict[str, list[str]]) -> None:
    small = settings(APPS, worker='{"cpu": "100m"}', cluster_check="skip")
    warn_of_shortage(small, unreadable)
    assert "0.5 of cpu asked, 100m there" in said["warn"][0]
    warn_of_shortage(settings(APPS, worker='{"cpu": "8", "memory": "16Gi"}'), unreadable)
    assert len(said["warn"]) == 1


def test_no_room_known_is_no_failure(said: dict[str, list[str]]) -> None:
    warn_of_shortage(settings(APPS), unreadable)
    warn_of_shortage(settings(APPS, cluster_check="skip"), unreadable)
    assert said["warn"] == []
    assert len(said["info"]) == 1, "without the cluster's leave nobody asks it"


@pytest.mark.parametrize("worker", [{"cpu": "four"}, {"disk": "1Gi"}])
def test_a_worker_that_cannot_be(worker: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"tandem:worker"):
        settings(APPS, worker=json.dumps(worker))
