"""Who enforces NetworkPolicies is read from a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from infra.cluster import read_daemon_sets
from infra.network import found_among
from tandem.runtime.testing.localapi import LocalApi

pytestmark = pytest.mark.api


def test_a_network_counts_when_it_runs(api: LocalApi, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig()))
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    path = f"/apis/apps/v1/namespaces/{name}/daemonsets"
    labels = {"k8s-app": "calico-node"}
    container = {"name": "calico-node", "image": "example.org/calico:1", "command": ["start"], "args": ["--felix"]}
    body: dict[str, Any] = {
        "metadata": {"name": "calico-node"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    assert found_among(read_daemon_sets(None)) is None
    api.request("POST", path, body)
    (seen,) = [each for each in read_daemon_sets(None) if each["name"] == "calico-node"]
    assert seen == {"name": "calico-node", "ready": 0, "arguments": ["start", "--felix"]}
    assert found_among([seen]) is None, "it is there and runs nowhere"
    counts = {"currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2}
    api.request("PATCH", f"{path}/calico-node/status", {"status": counts}, content="application/merge-patch+json")
    assert found_among(read_daemon_sets(None)) == "Calico"
    api.request("DELETE", f"{path}/calico-node?propagationPolicy=Background")
