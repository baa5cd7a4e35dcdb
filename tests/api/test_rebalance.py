"""Crowded pods come apart on a real API server: real evictions, real budgets, and the rights that the CronJob has.

Nobody runs pods or Deployments there: a thread makes the replacement, on the other node, as the scheduler would.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from infra.components import RebalanceArgs, Rebalancer
from lab.story import ROOT
from tandem import recovery
from tandem.runtime.testing.localapi import LocalApi
from tests.pulumi.registered import register

pytestmark = pytest.mark.api

PLACE = "shop"
LABELS = {"app": "web"}
MERGE = "application/merge-patch+json"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PODS = f"/api/v1/namespaces/{PLACE}/pods"
STRICT = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}
SPEC = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "example.org/app:1"}]}


class Site:
    """Two workers, and an app with both replicas on the second."""

    def __init__(self, api: LocalApi) -> None:
        self.api = api
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": PLACE}})
        for node in ("w1", "w2"):
            api.request("POST", "/api/v1/nodes", {"metadata": {"name": node}})
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            # The admission plugin taints a new node; the controller-manager, which is not here, would take it off.
            self.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": None}})
            self.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": [ready]}})
        spread = [STRICT | {"labelSelector": {"matchLabels": LABELS}}]
        template = {"metadata": {"labels": LABELS}, "spec": SPEC | {"topologySpreadConstraints": spread}}
        spec = {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": template}
        deployments = f"/apis/apps/v1/namespaces/{PLACE}/deployments"
        api.request("POST", deployments, {"metadata": {"name": "web"}, "spec": spec})
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
        self.patch(f"{deployments}/web/status", {"status": {"observedGeneration": 1, **counts}})
        for name in ("web-1", "web-2"):
            self.add(name, "w2")

    def patch(self, path: str, body: dict[str, Any]) -> None:
        self.api.request("PATCH", path, body, content=MERGE)

    def add(self, name: str, node: str) -> None:
        self.api.request(
            "POST", PODS, {"metadata": {"name": name, "labels": LABELS}, "spec": SPEC | {"nodeName": node}}
        )
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.patch(f"{PODS}/{name}/status", {"status": status})

    def where(self) -> dict[str, str]:
        return {each["metadata"]["name"]: each["spec"]["nodeName"] for each in self.api.request("GET", PODS)["items"]}

    def replaced(self, over: threading.Event) -> None:
        """Make up for a pod that went."""
        while not over.wait(0.2):
            if len(self.where()) < 2:
                self.add("web-3", "w1")
                return

    def run(self, kubeconfig: str) -> subprocess.CompletedProcess[str]:
        """What the CronJob's container runs."""
        argv = [sys.executable, "-m", "tandem.rebalance", "--namespace", PLACE, "--settled", "0", "--budget", "4"]
        env = os.environ | {"KUBECONFIG": kubeconfig}
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture
def site(own_api: LocalApi) -> Site:
    return Site(own_api)


@pytest.fixture
def account(site: Site) -> str:
    """A kubeconfig of the CronJob's account, which has what the component gives it."""
    args = RebalanceArgs(image="example.org/controllers:1")
    made = register(lambda: Rebalancer(args, namespace=PLACE, profile=recovery.profile("balanced")))
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        inside = "" if kind.startswith("Cluster") else f"/namespaces/{PLACE}"
        site.api.request("POST", f"{RBAC}{inside}/{kind.lower()}s", made.one(kind).inputs)
    job = whole_numbers(made.one("CronJob").inputs)
    site.api.request("POST", f"/apis/batch/v1/namespaces/{PLACE}/cronjobs", job)
    path = site.api.kubeconfig(f"system:serviceaccount:{PLACE}:rebalance", ("system:serviceaccounts",))
    # Copied: a colon in the account's name would part the path into two.
    own = site.api.folder / "kubeconfig-of-the-job.json"
    own.write_text(path.read_text())
    return str(own)


def whole_numbers(value: Any) -> Any:
    """Over the mock's wire every number is a floating one, which the API server does not take for a whole one."""
    if isinstance(value, dict):
        return {key: whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_within_budgets_and_with_its_own_rights(site: Site, account: str) -> None:
    budget = {"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}}}
    budgets = f"/apis/policy/v1/namespaces/{PLACE}/poddisruptionbudgets"
    site.api.request("POST", budgets, budget)
    healthy = {"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}
    site.patch(f"{budgets}/web/status", {"status": healthy | {"disruptionsAllowed": 0}})
    done = site.run(account)
    assert done.returncode == 1, done.stderr
    assert "left: shop/web: a budget keeps web-" in done.stdout
    assert sorted(site.where()) == ["web-1", "web-2"]

    site.patch(f"{budgets}/web/status", {"status": healthy | {"disruptionsAllowed": 1}})
    over = threading.Event()
    thread = threading.Thread(target=site.replaced, args=(over,))
    thread.start()
    try:
        done = site.run(account)
    finally:
        over.set()
        thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("1 moved\n")
    assert sorted(site.where().values()) == ["w1", "w2"]
    again = site.run(account)
    assert (again.returncode, again.stdout) == (0, "0 moved\n"), again.stderr

    seen = [event for event in site.api.audit() if event["user"]["username"].endswith(":rebalance")]
    assert {event["objectRef"].get("subresource", "") for event in seen} == {"", "eviction"}
    assert {event["verb"] for event in seen} == {"get", "list", "create"}
    assert all(event["responseStatus"]["code"] != 403 for event in seen)
