"""Monitors, alerts and scrape annotations, and the setting of a Longhorn."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra import __main__ as program
from infra.components import LonghornSettings, LonghornSettingsArgs, MonitoringArgs
from infra.components.monitoring import alert_rules
from infra.errors import SettingsError
from infra.settings import parse_settings
from tandem.runtime.metrics import Metrics
from tests.pulumi.registered import Registered, register
from tests.pulumi.stack_files import raw_config

IMAGE = "app:1"
APPS: dict[str, dict[str, Any]] = {
    "web": {"kind": "spread", "image": IMAGE, "metrics_path": "/metrics"},
    "quiet": {"kind": "spread", "image": IMAGE},
    "sweeper": {"kind": "elected-controller", "image": IMAGE, "metrics_path": "/metrics"},
    "parts": {
        "kind": "sharded",
        "image": IMAGE,
        "metrics_path": "/metrics",
        "shards": [{"name": each, "namespaces": [f"team-{each}"]} for each in ("a", "b")],
    },
}


def run(monitoring: dict[str, Any] | None) -> Registered:
    raw = raw_config("dev") | {"tandem:cluster_check": "skip", "tandem:apps": json.dumps(APPS)}
    if monitoring is not None:
        raw["tandem:monitoring"] = json.dumps(monitoring)
    pulumi.runtime.set_all_config(raw)
    try:
        return register(program.main, "dev")
    finally:
        pulumi.runtime.set_all_config({})


def pod_annotations(registered: Registered, name: str) -> dict[str, str]:
    template: dict[str, Any] = registered.one("Deployment", name).spec["template"]
    return dict(template["metadata"].get("annotations", {}))


def test_the_operator_gets_a_monitor_for_each_app_with_metrics_and_the_alerts() -> None:
    registered = run({"labels": {"release": "prometheus"}, "interval_seconds": 30})
    (service,) = registered.of("ServiceMonitor")
    assert service.name == "web"
    assert service.spec["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "30s", "honorLabels": True}]
    assert service.spec["selector"] == {"matchLabels": {"app.kubernetes.io/name": "web"}}
    # What has no Service is scraped at its pods, a sharded controller at those of each shard.
    assert {each.name for each in registered.of("PodMonitor")} == {"sweeper", "parts-a", "parts-b"}
    rule = registered.one("PrometheusRule")
    assert rule.inputs["metadata"]["labels"]["release"] == "prometheus"
    assert rule.spec["groups"][0]["rules"] == alert_rules(MonitoringArgs())
    assert pod_annotations(registered, "web") == {}


def test_without_the_operator_the_pods_say_it_themselves() -> None:
    registered = run({"scrape": "annotations"})
    wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    assert pod_annotations(registered, "web") == pod_annotations(registered, "parts-a") == wanted
    assert pod_annotations(registered, "quiet") == {}
    assert not [each for each in registered.resources if "monitoring.coreos.com" in each.type]


def test_nothing_of_it_unless_asked_for() -> None:
    registered = run(None)
    assert not [each for each in registered.resources if "monitoring.coreos.com" in each.type]
    assert pod_annotations(registered, "web") == {}


def test_the_alerts_ask_for_metrics_that_our_programs_have() -> None:
    """A name that nobody exports makes an alert that never fires."""
    ours = {family.name for family in Metrics().registry.collect()} | {"tandem_audit_survives_worker_loss"}
    said = " ".join(rule["expr"] for rule in alert_rules(MonitoringArgs()))
    asked = set(re.findall(r"\b(?:tandem|leader)_\w+", said))
    assert asked <= ours
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"share_full_percent": 91}, "> 91"),
        ({"share_path": "/mnt/share"}, 'mountpoint="/mnt/share"'),
        ({"certificate_days": 10}, "< 864000"),
        ({"changes_of_leader": 5}, ">= 5"),
    ],
)
def test_every_threshold_reaches_its_alert(given: dict[str, Any], said: str) -> None:
    assert said in " ".join(rule["expr"] for rule in alert_rules(MonitoringArgs(**given)))


def test_prometheus_takes_the_alerts(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "tandem", "rules": alert_rules(MonitoringArgs())}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_longhorn_s_setting_is_patched_at_its_top() -> None:
    args = LonghornSettingsArgs(node_down_pod_deletion_policy="delete-deployment-pod")
    (setting,) = [
        each
        for each in register(lambda: LonghornSettings("longhorn", args)).resources
        if each.type.startswith("kubernetes:longhorn.io")
    ]
    assert setting.inputs["value"] == "delete-deployment-pod"
    assert setting.inputs["metadata"]["namespace"] == "longhorn-system"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("longhorn", {"node_down_pod_deletion_policy": "delete-all"}),
        ("longhorn", {}),
        ("monitoring", {"scrape": "both"}),
        ("monitoring", {"share_path": "srv"}),
        ("monitoring", {"share_full_percent": 100}),
        ("monitoring", {"interval": 3}),
    ],
)
def test_refused(key: str, value: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"tandem:{key}"):
        parse_settings(raw_config("dev") | {f"tandem:{key}": json.dumps(value)}, "dev")
