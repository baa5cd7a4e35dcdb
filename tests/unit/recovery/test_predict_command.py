"""`tandem predict`: named profiles and a cluster's own settings, targets and exit codes, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tandem import predict
from tandem.cli import app
from tandem.drill.api import ApiError

KUBELET_CONFIG = "nodeLeaseDurationSeconds: 8\nnodeStatusUpdateFrequency: 10s\nnodeStatusReportFrequency: 5m0s\n"
KUBEADM_CONFIG = """
apiServer: {extraArgs: {default-unreachable-toleration-seconds: "5"}}
controllerManager:
  extraArgs: [{name: node-monitor-grace-period, value: 31s}]
  extraEnvs: [{name: HTTP2_PING_TIMEOUT_SECONDS, value: "2"}]
"""


def static_pod(component: str, *words: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """A mirror pod of the control plane."""
    container = {"command": [component, *words], "env": [{"name": k, "value": v} for k, v in (env or {}).items()]}
    return {
        "metadata": {"name": f"{component}-cp1", "labels": {"component": component, "tier": "control-plane"}},
        "spec": {"containers": [container]},
    }


class FakeApi:
    """The answers of one cluster, by path."""

    def __init__(self, *, may_ask_kubelets: bool = True, grace: str = "27s") -> None:
        self.may_ask_kubelets = may_ask_kubelets
        labels = {"node-role.kubernetes.io/control-plane": "", "node.kubernetes.io/exclude-disruption": ""}
        self.answers: dict[str, Any] = {
            "/version": {"gitVersion": "v1.36.3"},
            "/api/v1/nodes": [{"metadata": {"name": "cp1", "labels": labels}}, {"metadata": {"name": "w1"}}],
            "/api/v1/namespaces/kube-system/configmaps/kubelet-config": {"data": {"kubelet": KUBELET_CONFIG}},
            "/api/v1/namespaces/kube-system/configmaps/kubeadm-config": {
                "data": {"ClusterConfiguration": KUBEADM_CONFIG}
            },
            "/api/v1/namespaces/kube-system/pods": [
                static_pod(
                    "kube-controller-manager",
                    f"--node-monitor-grace-period={grace}",
                    "--node-monitor-period=1s",
                    "--leader-elect-renew-deadline=9s",
                    "--leader-elect-retry-period=1s",
                    env={"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3", "HTTP2_PING_TIMEOUT_SECONDS": "2"},
                ),
                static_pod("kube-scheduler", "--leader-elect-renew-deadline=1s"),
                static_pod(
                    "kube-apiserver",
                    "--default-unreachable-toleration-seconds=5",
                    "--default-not-ready-toleration-seconds=30",
                ),
            ],
        }

    async def get(self, path: str, **_: str) -> Any:
        if path.endswith("/proxy/configz"):
            if not self.may_ask_kubelets:
                raise ApiError("403 nodes/proxy is forbidden", 403)
            lease = 8 if "/cp1/" in path else 40
            return {"kubeletconfig": {"nodeLeaseDurationSeconds": lease, "nodeStatusUpdateFrequency": "10s"}}
        return self.answers[path]

    find = get

    async def items(self, path: str, **_: str) -> list[Any]:
        return list(self.answers[path])


def run(monkeypatch: pytest.MonkeyPatch, api: FakeApi | Exception, *arguments: str) -> Any:
    """The command against a cluster with these answers."""

    @asynccontextmanager
    async def connect(_path: Path | None, _context: str | None = None) -> AsyncIterator[FakeApi]:
        if isinstance(api, Exception):
            raise api
        yield api

    monkeypatch.setattr(predict, "connect", connect)
    return CliRunner().invoke(app, ["predict", "--from-cluster", *arguments], env={"COLUMNS": "300"})


def test_a_cluster_tuned_with_balanced_promises_what_balanced_does(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, FakeApi(may_ask_kubelets=False), "--json", "--profile", "balanced")
    assert done.exit_code == 0, done.output
    data = json.loads(done.output)
    assert data["live"]["prediction"] == data["balanced"]["prediction"]
    assert {**data["live"]["settings"], "name": "balanced"} == data["balanced"]["settings"]
    assert data["live"]["tolerated_stall_seconds"] is None
    assert data["live"]["sources"]["node_monitor_grace_period_seconds"] == "pod kube-controller-manager-cp1"
    assert any("403" in remark for remark in data["live"]["remarks"])
    assert any("kubelets are not shown" in remark for remark in data["live"]["remarks"])


def test_kubelets_that_differ_from_their_document_and_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, FakeApi())
    assert done.exit_code == 1, "the slowest heartbeat counts, and this one is too slow for the grace"
    assert "grace-heartbeats" in done.output
    assert "node_lease_duration_seconds: kubelet of cp1 says 8, kubelet of w1 40" in done.output
    assert "pod kube-controller-manager-cp1" in done.output


def test_without_static_pods_kubeadms_document_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(may_ask_kubelets=False)
    api.answers["/api/v1/namespaces/kube-system/pods"] = []
    live = json.loads(run(monkeypatch, api, "--json").output)["live"]
    assert live["settings"]["node_monitor_grace_period_seconds"] == 31
    assert live["settings"]["unreachable_toleration_seconds"] == 5
    assert live["sources"]["node_monitor_grace_period_seconds"] == "ConfigMap kubeadm-config, controllerManager"
    assert any("no static pod" in remark for remark in live["remarks"])


def test_a_document_that_the_programs_do_not_follow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, FakeApi(may_ask_kubelets=False))
    assert "kubeadm-config, controllerManager says 31, pod kube-controller-manager-cp1 27" in done.output


def test_a_cluster_that_flaps_or_misses_the_target_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    flapping = run(monkeypatch, FakeApi(grace="6s", may_ask_kubelets=False), "--json")
    assert flapping.exit_code == 1
    assert "grace-heartbeats" in flapping.output
    missed = run(monkeypatch, FakeApi(may_ask_kubelets=False), "--target", "30")
    assert missed.exit_code == 1
    assert "recovery-target" in missed.output


def test_a_cluster_that_cannot_be_read_is_told_apart_from_one_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, ApiError("no kubeconfig at nowhere; give one with --kubeconfig", 0))
    assert done.exit_code == 2
    assert "give one with --kubeconfig" in done.output


@pytest.mark.parametrize(("target", "status"), [("60", 0), ("30", 1)])
def test_the_target_decides_the_exit_status(target: str, status: int) -> None:
    done = CliRunner().invoke(app, ["predict", "--profile", "balanced", "--target", target])
    assert done.exit_code == status, done.output


def test_formulas_are_printed_with_their_sources() -> None:
    done = CliRunner().invoke(app, ["predict", "--profile", "article", "--formulas"], env={"COLUMNS": "300"})
    assert "ready_unknown = [G - R, G + 2P] + write" in done.output
    assert "node_lifecycle_controller.go" in done.output
    assert re.search(r"API stall survived\W+0\.0\b", done.output)


@pytest.mark.parametrize("arguments", [["--profile", "quick"], ["--behaviour", "hope"]])
def test_unknown_names_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["predict", *arguments]).exit_code == 2
