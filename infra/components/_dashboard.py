"""The Grafana dashboard, as the JSON that Grafana imports, built from a table of panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

WIDTH: Final = 24
"""Columns of Grafana's grid."""

HEIGHT: Final = 8
ROW_HEIGHT: Final = 1
SCHEMA_VERSION: Final = 39
"""Grafana 10.4's; later ones migrate it when it is loaded."""

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Shape = Literal["stat", "timeseries"]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: PromQL to legend.
        unit: Grafana's name of the unit, e.g. `s`, `percentunit`; `short` is a plain number.
        shape: the last value large, or a curve.
        says: what a reader should make of it.
        good: for a stat, 1 is green and 0 red.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    shape: Shape = "timeseries"
    says: str = ""
    good: bool = False


def rows(share_path: str) -> dict[str, list[Panel]]:
    """Row title to its panels, in the order in which somebody asks: does it survive, who leads, does it keep up.

    Args:
        share_path: where the workers mount the share.
    """
    on_share = f'mountpoint="{share_path}"'
    left, size = f"node_filesystem_avail_bytes{{{on_share}}}", f"node_filesystem_size_bytes{{{on_share}}}"
    return {
        "Can a worker be lost?": [
            Panel(
                "Survives the loss of a worker",
                [("min by (namespace) (tandem_audit_survives_worker_loss)", "{{namespace}}")],
                shape="stat",
                good=True,
                says="0: an app has all of its replicas on one worker, or fewer than two workers are Ready.",
            ),
            Panel(
                "Findings of the checklist",
                [("sum by (namespace, level) (tandem_audit_findings)", "{{namespace}} {{level}}")],
                says="kubectl get highavailabilityreports -A names them, each with its way out.",
            ),
            Panel(
                "The share is full to",
                [(f"1 - {left} / {size}", "{{instance}}")],
                unit="percentunit",
                says="A worker without a curve has no share mounted: pods with data do not start there.",
            ),
        ],
        "Who leads?": [
            Panel(
                "Leaders of each Lease",
                [("sum by (namespace, name) (leader_election_master_status)", "{{namespace}}/{{name}}")],
                says="0 for longer than a lease: nobody works. 2 for one scrape: it met both sides of a handover.",
            ),
            Panel(
                "Changes of the leader in an hour",
                [("changes((max by (namespace, name) (tandem_leader_epoch))[1h:30s])", "{{namespace}}/{{name}}")],
                says="One is a failover, two a rolling update.",
            ),
            Panel(
                "Time of a request about a Lease, 99th percentile",
                [
                    (_percentile(0.99, "tandem_lease_request_seconds", "name"), "{{name}}"),
                ],
                unit="s",
                says="Near the renew deadline (10 s by default) a leader gives up.",
            ),
        ],
        "Do the controllers keep up?": [
            Panel(
                "Reconciles",
                [
                    (
                        "sum by (controller, result) (rate(controller_runtime_reconcile_total[5m]))",
                        "{{controller}} {{result}}",
                    )
                ],
                unit="ops",
            ),
            Panel(
                "Time of a reconcile, 95th percentile",
                [
                    (_percentile(0.95, "controller_runtime_reconcile_time_seconds", "controller"), "{{controller}}"),
                ],
                unit="s",
            ),
            Panel(
                "Keys that wait",
                [("sum by (name) (workqueue_depth)", "{{name}}")],
                says="A queue that only grows: the workers are too few or stuck.",
            ),
            Panel(
                "Writes",
                [("sum by (controller, outcome) (rate(tandem_writes_total[5m]))", "{{controller}} {{outcome}}")],
                unit="ops",
                says="Conflicts are the fence at work; many of them are two writers of one object.",
            ),
            Panel(
                "Requests to the API server",
                [("sum by (code) (rate(rest_client_requests_total[5m]))", "{{code}}")],
                unit="reqps",
                says="<error>: no answer at all.",
            ),
            Panel(
                "Watches that broke or expired",
                [
                    (
                        'sum by (controller, outcome) (rate(tandem_reflector_watches_total{outcome!="ended"}[5m]))',
                        "{{controller}} {{outcome}}",
                    )
                ],
                unit="ops",
            ),
        ],
    }


def _percentile(share: float, histogram: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({histogram}_bucket[5m])))"


def dashboard(share_path: str) -> dict[str, Any]:
    """The dashboard. Its source of data is chosen in Grafana, so it names none."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, members in rows(share_path).items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": ROW_HEIGHT},
            }
        )
        top += ROW_HEIGHT
        for start in range(0, len(members), 3):
            line = members[start : start + 3]
            width = WIDTH // len(line)
            for column, panel in enumerate(line):
                place = {"x": column * width, "y": top, "w": width, "h": HEIGHT}
                panels.append(_panel(len(panels) + 1, panel, place))
            top += HEIGHT
    return {
        "uid": "tandem",
        "title": "Tandem: two workers",
        "tags": ["tandem"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.good:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    made: dict[str, Any] = {
        "id": number,
        "type": panel.shape,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend, "datasource": SOURCE}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
    if panel.shape == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "textMode": "auto"}
    return made
