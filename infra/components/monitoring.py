"""What to watch on two workers: who is scraped by Prometheus, when somebody is woken, and what Grafana shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import ConfigMap
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components._app import App
from infra.components._dashboard import dashboard
from infra.components._names import MANAGED_BY, NAME
from infra.components._parts import Part, check_path, check_range

API_VERSION = "monitoring.coreos.com/v1"
DASHBOARD = "tandem-dashboard"


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs(Part):
    """The arguments of `Monitoring`.

    Args:
        scrape: `operator`: the cluster runs the Prometheus operator, and gets a ServiceMonitor or PodMonitor for each
            app with a `metrics_path`, and a PrometheusRule. `annotations`: it does not; pods carry
            `prometheus.io/scrape`, port and path, and the rules go to Prometheus by hand.
        labels: of monitors and rules, as far as the operator selects them by labels, e.g. `release: prometheus`.
        interval_seconds: between two scrapes.
        share_path: where the workers mount the share.
        share_full_percent: used space that wakes somebody.
        certificate_days: left on a certificate that wakes somebody. kubeadm's are of a year; kubelet renews its own
            in time, so that one this near its end was not renewed.
        dashboard_labels: by which Grafana's sidecar knows a ConfigMap with a dashboard; no dashboard when empty. The
            sidecar must look into the stack's namespace (`searchNamespace: ALL` in the kube-prometheus-stack chart).
        changes_of_leader: within a quarter of an hour that wake somebody; one is a failover, two a rolling update.
    """

    scrape: Literal["operator", "annotations"] = "operator"
    labels: Mapping[str, str] = field(default_factory=dict)
    interval_seconds: int = 15
    share_path: str = "/srv/tandem"
    share_full_percent: int = 85
    certificate_days: int = 21
    changes_of_leader: int = 3
    dashboard_labels: Mapping[str, str] = field(default_factory=lambda: {"grafana_dashboard": "1"})

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_path("monitoring.share_path", self.share_path)
        check_range("monitoring.interval_seconds", self.interval_seconds, 1, 300, "above, alerts come late")
        check_range("monitoring.share_full_percent", self.share_full_percent, 1, 99, "a share of the space")
        check_range("monitoring.certificate_days", self.certificate_days, 1, 300, "days before the end")
        check_range("monitoring.changes_of_leader", self.changes_of_leader, 2, 100, "an update changes it twice")


def alert_rules(args: MonitoringArgs) -> list[dict[str, Any]]:
    """The alerts. Their metrics come from node-exporter, kubelet, the API server, the auditor and our controllers."""
    on_share = f'mountpoint="{args.share_path}"'
    size = f'node_filesystem_size_bytes{{{on_share},fstype=~"nfs.*"}}'
    seconds = args.certificate_days * 86400
    return [
        _alert(
            "TandemShareUnmounted",
            # Those that had it within a day and still answer. The control plane never has it.
            f"present_over_time({size}[1d]) unless {size} and on (instance) node_uname_info",
            "2m",
            "critical",
            "{{ $labels.instance }} does not have the share mounted",
            "Pods with data do not start there, so the loss of the other worker takes them.",
        ),
        _alert(
            "TandemShareFull",
            f"100 * (1 - node_filesystem_avail_bytes{{{on_share}}} / node_filesystem_size_bytes{{{on_share}}}) "
            f"> {args.share_full_percent}",
            "5m",
            "critical",
            "the share is {{ $value | humanize }} % full",
            "All writers stop together when it is full.",
        ),
        _alert(
            "TandemCannotLoseAWorker",
            "tandem_audit_survives_worker_loss == 0",
            "10m",
            "warning",
            "replicas in {{ $labels.namespace }} would not survive the loss of a worker",
            "kubectl get highavailabilityreports -A says which, and what mends it.",
        ),
        _alert(
            "TandemAuditSilent",
            "absent(tandem_audit_survives_worker_loss)",
            "15m",
            "warning",
            "nobody says whether the replicas survive the loss of a worker",
            "The auditor does not run, does not lead, or is not scraped.",
        ),
        _alert(
            "TandemLeaderFlapping",
            f"changes((max by (namespace, name) (tandem_leader_epoch))[15m:30s]) >= {args.changes_of_leader}",
            "0m",
            "warning",
            "Lease {{ $labels.name }} changed its leader {{ $value }} times in 15 minutes",
            "Its leaders cannot renew in time: look at the API server's latency and at the controller's memory limit.",
        ),
        _alert(
            "TandemNobodyLeads",
            "max by (namespace, name) (leader_election_master_status) == 0",
            "2m",
            "critical",
            "nobody holds Lease {{ $labels.name }}",
            "Its pods run and nobody works: see their logs and the Lease.",
        ),
        _alert(
            "TandemKubeletCertificateEnds",
            f"kubelet_certificate_manager_client_ttl_seconds < {seconds}",
            "1h",
            "critical",
            "kubelet's client certificate on {{ $labels.instance }} ends in {{ $value | humanizeDuration }}",
            "The node is then lost with all of its pods. kubelet renews it by itself unless its signer refuses.",
        ),
        _alert(
            "TandemClientCertificateEnds",
            "histogram_quantile(0.01, sum by (le) (rate(apiserver_client_certificate_expiration_seconds_bucket[5m]))) "
            f"< {seconds} and on () sum(rate(apiserver_client_certificate_expiration_seconds_count[5m])) > 0",
            "1h",
            "critical",
            "a client of the API server uses a certificate that ends in {{ $value | humanizeDuration }}",
            "kubeadm certs check-expiration names the control plane's; kubeadm certs renew all renews them.",
        ),
    ]


def _alert(name: str, expr: str, wait: str, severity: str, summary: str, description: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }


class Monitoring(pulumi.ComponentResource):
    """Monitors of the stack's apps and the alerts, for the Prometheus operator; and a dashboard for Grafana."""

    def __init__(
        self,
        name: str,
        args: MonitoringArgs,
        namespace: str,
        apps: Mapping[str, App],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("tandem:components:Monitoring", name, None, opts)
        self._args, self._namespace = args, namespace
        if args.scrape == "operator":
            for app in apps.values():
                if path := app.args.metrics_path:
                    for target in app.scraped:
                        self._monitor(app, target, path)
            self._make("PrometheusRule", "tandem", {"groups": [{"name": "tandem", "rules": alert_rules(args)}]})
        if args.dashboard_labels:
            ConfigMap(
                DASHBOARD,
                metadata=ObjectMetaArgs(
                    name=DASHBOARD, namespace=namespace, labels={MANAGED_BY: "pulumi", **args.dashboard_labels}
                ),
                data={"tandem.json": json.dumps(dashboard(args.share_path), indent=1)},
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})

    def _monitor(self, app: App, target: str, path: str) -> None:
        # The auditor's metrics have a label `namespace` of their own, which the pod's must not replace.
        endpoint = {"port": "http", "path": path, "interval": f"{self._args.interval_seconds}s", "honorLabels": True}
        of_service = app.service is not None
        self._make(
            "ServiceMonitor" if of_service else "PodMonitor",
            target,
            {
                "selector": {"matchLabels": {NAME: target}},
                "endpoints" if of_service else "podMetricsEndpoints": [endpoint],
            },
        )

    def _make(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        CustomResource(
            name,
            api_version=API_VERSION,
            kind=kind,
            metadata=ObjectMetaArgs(
                name=name, namespace=self._namespace, labels={MANAGED_BY: "pulumi", **self._args.labels}
            ),
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self),
        )
