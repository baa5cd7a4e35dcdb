"""The auditor as a process, with exactly its own rights, against a real API server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tandem.controllers.auditor.reports import REPORT_NAME, custom_resource_definition
from tandem.controllers.auditor.rights import cluster_rules, lease_rules
from tandem.runtime.testing.localapi import LocalApi
from tests.unit.audit.test_survey import node
from tests.unit.checklist.test_manifests import load

pytestmark = pytest.mark.api

Object = dict[str, Any]
REPORTS = "/apis/tandem-ha.io/v1alpha1/namespaces/shop/highavailabilityreports"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/shop/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/shop/poddisruptionbudgets",
    "Service": "/api/v1/namespaces/shop/services",
}


def eventually(what: str, check: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true answer; a busy machine may take its time."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError, LookupError):
            if answer := check():
                return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def cluster(own_api: LocalApi) -> LocalApi:
    """A cluster with the report's kind, two workers, the auditor's roles and its Lease."""
    api = own_api
    api.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", custom_resource_definition())
    for name in ("shop", "tandem-system"):
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for name in ("w1", "w2"):
        made = node(name)
        status = made.pop("status")
        api.request("POST", "/api/v1/nodes", made)
        path = f"/api/v1/nodes/{name}/status"
        api.request("PATCH", path, {"status": {"conditions": status["conditions"]}},
                    content="application/merge-patch+json")  # fmt: skip
    group = [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "auditors"}]
    role = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "auditor"}
    meta = {"metadata": {"name": "auditor"}}
    api.request("POST", f"{RBAC}/clusterroles", meta | {"rules": cluster_rules()})
    api.request("POST", f"{RBAC}/clusterrolebindings", meta | {"roleRef": role, "subjects": group})
    here = f"{RBAC}/namespaces/tandem-system"
    api.request("POST", f"{here}/roles", meta | {"rules": lease_rules(["auditor"])})
    api.request("POST", f"{here}/rolebindings", meta | {"roleRef": role | {"kind": "Role"}, "subjects": group})
    # As the component deploys it: without a spec, so that a later `pulumi up` never takes the lead away.
    api.request("POST", "/apis/coordination.k8s.io/v1/namespaces/tandem-system/leases", meta)
    eventually("the kind is served", lambda: api.request("GET", REPORTS))
    return api


@contextlib.contextmanager
def auditor(api: LocalApi, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """One replica; its user name tells its writes apart in the audit log."""
    environment = {
        "PATH": os.environ["PATH"],
        "TANDEM_KUBECONFIG": str(api.kubeconfig(name, ("auditors",))),
        "TANDEM_LEASE_NAMESPACE": "tandem-system",
        "TANDEM_IDENTITY": name,
        "TANDEM_HEALTH_HOST": "127.0.0.1",
        "TANDEM_HEALTH_PORT": "0",
    }
    with (api.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tandem.controllers.auditor"], env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        print((api.folder / f"{name}.log").read_text()[-4000:])


def report(api: LocalApi) -> Object:
    status: Object = api.request("GET", f"{REPORTS}/{REPORT_NAME}")["status"]
    return status


def rules(api: LocalApi) -> list[str]:
    return sorted(each["rule"] for each in report(api)["findings"])


def writers(api: LocalApi) -> list[tuple[str, int]]:
    """Who wrote reports, in the API server's order, with the epoch."""
    return [
        (event["user"]["username"], event["requestObject"]["status"]["observedEpoch"])
        for event in api.audit()
        if event["verb"] == "patch"
        and event["objectRef"]["resource"] == "highavailabilityreports"
        and event["responseStatus"]["code"] == 200
    ]


def refused(api: LocalApi) -> set[str]:
    return {
        f"{event['verb']} {event['objectRef'].get('resource')}"
        for event in api.audit()
        if event["user"]["username"].startswith("auditor-") and event["responseStatus"]["code"] == 403
    }


def create(api: LocalApi, *objects: Object) -> None:
    for obj in objects:
        api.request("POST", PATHS[obj["kind"]], obj)


def test_findings_are_reported_told_and_resolved_with_no_more_rights_than_named(cluster: LocalApi) -> None:
    create(cluster, *load("spread-app-one-replica"))
    with auditor(cluster, "auditor-1") as process:
        eventually("the report", lambda: rules(cluster) == ["pdb-fits-replicas", "replicas", "tolerations"][:2])
        events = "/apis/events.k8s.io/v1/namespaces/shop/events"
        eventually(
            "Events on both objects",
            lambda: {e["reason"] for e in cluster.request("GET", events)["items"]} >= {"Replicas", "PdbFitsReplicas"},
        )
        cluster.request("PATCH", f"{PATHS['Deployment']}/shop", {"spec": {"replicas": 2}},
                        content="application/merge-patch+json")  # fmt: skip
        eventually("nothing is left", lambda: report(cluster)["summary"]["errors"] == 0)
        eventually(
            "the end is told",
            lambda: "Resolved" in {e["reason"] for e in cluster.request("GET", events)["items"]},
        )
        states = {each["type"]: each["status"] for each in report(cluster)["conditions"]}
        assert states == {"ChecklistPassed": "True", "SurvivesWorkerLoss": "True"}
        table = cluster.request("GET", REPORTS)
        assert table["items"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert refused(cluster) == set()


def test_the_second_replica_takes_over_and_no_two_write(cluster: LocalApi) -> None:
    create(cluster, *load("spread-app-one-replica"))
    with auditor(cluster, "auditor-1") as first:
        eventually("the first leads", lambda: writers(cluster))
        with auditor(cluster, "auditor-2"):
            time.sleep(3)
            first.kill()
            cluster.request("PATCH", f"{PATHS['Deployment']}/shop", {"spec": {"replicas": 2}},
                            content="application/merge-patch+json")  # fmt: skip
            eventually("the second has taken over", lambda: report(cluster)["summary"]["errors"] == 0, 90)
            assert report(cluster)["observedEpoch"] > 1
    wrote = writers(cluster)
    epochs = [epoch for _, epoch in wrote]
    assert epochs == sorted(epochs), "never a write of an old lead after one of a new"
    assert [user for user, _ in wrote] == sorted(user for user, _ in wrote)
    assert {user for user, _ in wrote} == {"auditor-1", "auditor-2"}
