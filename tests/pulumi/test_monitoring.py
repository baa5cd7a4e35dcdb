"""Monitors, alerts and scrape annotations, and the setting of a Longhorn."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra import __main__ as program
from infra.components import LonghornSettings, LonghornSettingsArgs, MonitoringArgs
from infra.components._dashboard import dashboard
from infra.components.monitoring import alert_rules
from infra.errors import SettingsError
from infra.settings import parse_settings
from lab.build import artifacts
from tandem.controllers.auditor.controller import Auditor
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


OTHERS = {
    # node-exporter, collectors filesystem and uname
    "node_filesystem_avail_bytes": {"mountpoint", "fstype"},
    "node_filesystem_size_bytes": {"mountpoint", "fstype"},
    "node_uname_info": {"nodename"},
    # kubelet, pkg/kubelet/certificate
    "kubelet_certificate_manager_client_ttl_seconds": set(),
    # the API server, its authentication of clients by certificate
    "apiserver_client_certificate_expiration_seconds_bucket": {"le"},
    "apiserver_client_certificate_expiration_seconds_count": set(),
}
"""Metrics of other programs, each with its labels."""

SCRAPED = {"namespace", "pod", "container", "instance", "job"}
"""Labels that Prometheus adds to what it scrapes."""


def ours() -> dict[str, set[str]]:
    """Every series that a controller and the auditor export, as Prometheus stores it, with its labels."""
    metrics = Metrics()
    Auditor("prod", metrics.registry)
    collectors = metrics.registry._names_to_collectors
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        labels = set(collectors[family.name]._labelnames)  # type: ignore[attr-defined]
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        for ending in endings:
            found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
MATCHERS = re.compile(r"\{([^}]*)\}")
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def asked(expr: str) -> tuple[set[str], set[str]]:
    """The metrics that an expression names, and the labels that it matches or groups by."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    labels = {name.strip() for _, names in GROUPING.findall(plain) for name in names.split(",") if name.strip()}
    labels |= {name for inner in MATCHERS.findall(plain) for name in re.findall(r"(\w+)\s*[=!]", inner)}
    bare = re.sub(r"\[[^\]]*\]", "", MATCHERS.sub("", GROUPING.sub("", plain)))
    return set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)) - WORDS, labels


def expressions() -> dict[str, str]:
    """Every alert and every query of the dashboard, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in alert_rules(MonitoringArgs())}
    for panel in dashboard("/srv/tandem")["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.parametrize("where", sorted(expressions()))
def test_every_metric_and_label_exists(where: str) -> None:
    """A name that nobody exports makes an alert that never fires and a panel that stays empty."""
    known = ours() | OTHERS
    metrics, labels = asked(expressions()[where])
    assert metrics
    assert metrics <= set(known)
    assert labels <= SCRAPED.union(*(known[each] for each in metrics))


def test_the_reader_of_expressions_sees_names_that_do_not_exist() -> None:
    expr = 'sum by (team) (rate(made_up_total{kind="a{b}"}[5m])) > 1e3 unless on (instance) up{job!="x"} * 2'
    assert asked(expr) == ({"made_up_total", "up"}, {"team", "kind", "instance", "job"})


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    made = dashboard("/mnt/share")
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
    assert made["templating"]["list"][0]["name"] == "datasource"
    assert 'mountpoint="/mnt/share"' in json.dumps(made).replace('\\"', '"')


def test_the_dashboard_comes_as_a_config_map_that_the_sidecar_finds() -> None:
    registered = run({"share_path": "/mnt/share"})
    held = registered.one("ConfigMap", "tandem-dashboard").inputs
    assert held["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(held["data"]["tandem.json"]) == dashboard("/mnt/share")
    assert run({"dashboard_labels": {"team": "sre"}}).one("ConfigMap").inputs["metadata"]["labels"]["team"] == "sre"
    assert not run({"dashboard_labels": {}}).of("ConfigMap")


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


def judged(folder: Path, rules: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """What Prometheus' own parser says, the one that `promtool check rules` asks."""
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "tandem", "rules": rules}]}))
    return subprocess.run(
        [artifacts.tools() / "check-rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )


def test_prometheus_takes_the_alerts(tmp_path: Path) -> None:
    rules = alert_rules(MonitoringArgs())
    taken = judged(tmp_path, rules)
    assert taken.returncode == 0, taken.stderr
    assert f"{len(rules)} rules" in taken.stdout
    refused = judged(tmp_path, [{**rules[0], "expr": "rate(up[5m"}])
    assert refused.returncode == 1
    assert "unclosed left parenthesis" in refused.stderr, "it does judge expressions"


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
