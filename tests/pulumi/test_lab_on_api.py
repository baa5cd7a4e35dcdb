"""The lab stack on a real API server: its sharded auditor runs with the rights that the stack gave each shard."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab.pulumi.workspace import PROJECT
from tandem.controllers.auditor.reports import REPORT_NAME
from tandem.runtime.testing.localapi import LocalApi
from tests.api.test_auditor import eventually
from tests.pulumi.on_api import Stack, local_api, unawaited, workspace_on
from tests.unit.checklist.test_manifests import load

pytestmark = [pytest.mark.api, pytest.mark.long, pytest.mark.timeout(1800)]

NAMESPACE = "tandem-demo"
PATIENCE_SECONDS = 300
REPORTS = "/apis/tandem-ha.io/v1alpha1/namespaces/{}/highavailabilityreports"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with local_api() as api:
        workspace = workspace_on(api, tmp_path_factory.mktemp("pulumi"))
        changes = {"cluster_check": "skip", "apps": unawaited("lab")}
        made = Stack(workspace, api, "lab", changes)
        made.run("up", "--yes", "--skip-preview")
        yield made


def account(shard: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{shard}"


@contextlib.contextmanager
def candidate(api: LocalApi, shard: str) -> Iterator[None]:
    """The shard's program as its Deployment starts it, but for what only a pod has, and as its own account."""
    deployment = api.request("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{shard}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    # Copied: a colon in the account's name would part the path into two.
    kubeconfig = api.folder / f"kubeconfig-{shard}.json"
    kubeconfig.write_text(api.kubeconfig(account(shard), ("system:serviceaccounts",)).read_text())
    environment |= {
        "PATH": os.environ["PATH"],
        "POD_NAMESPACE": NAMESPACE,
        "TANDEM_KUBECONFIG": str(kubeconfig),
        "TANDEM_HEALTH_HOST": "127.0.0.1",
        "TANDEM_HEALTH_PORT": "0",
    }
    command = [sys.executable, *container["command"][1:]]
    command.remove("-P")  # here the package is in the current folder
    log = api.folder / f"{shard}.log"
    with log.open("ab") as said:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=said, stderr=said)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        print(log.read_text()[-2000:])


def refused(api: LocalApi) -> set[str]:
    return {
        f"{event['user']['username']} {event['verb']} {event['objectRef'].get('resource')}"
        for event in api.audit()
        if event["user"]["username"].startswith("system:serviceaccount:") and event["responseStatus"]["code"] == 403
    }


def reporters(api: LocalApi, namespace: str) -> set[str]:
    """Who wrote reports of the namespace."""
    return {
        event["user"]["username"].rpartition(":")[2]
        for event in api.audit()
        if event["verb"] in {"create", "patch"}
        and event["objectRef"]["resource"] == "highavailabilityreports"
        and event["objectRef"]["namespace"] == namespace
        and event["responseStatus"]["code"] < 300
    }


def test_a_second_run_changes_nothing(stack: Stack) -> None:
    stack.run("preview", "--expect-no-changes")


def test_each_shard_leads_and_reports_on_its_own_namespaces_with_no_more_rights_than_given(stack: Stack) -> None:
    api = stack.api

    def break_something(namespace: str) -> None:
        for obj in load("spread-app-one-replica"):
            if obj["kind"] == "Deployment":
                moved: dict[str, Any] = {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}
                api.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", moved)

    def reported(namespace: str) -> bool:
        path = f"{REPORTS.format(namespace)}/{REPORT_NAME}"
        return bool(api.request("GET", path).get("status", {}).get("findings"))

    for namespace in ("team-a", "team-b", "team-c"):
        break_something(namespace)
    with candidate(api, "auditor-a"):
        eventually("a report of team-a", lambda: reported("team-a"), PATIENCE_SECONDS)
        assert not stack.get(REPORTS.format("team-b"))["items"], "it belongs to the other shard, which does not run"
        with candidate(api, "auditor-b"):
            both = "reports of team-b and team-c"
            eventually(both, lambda: reported("team-b") and reported("team-c"), PATIENCE_SECONDS)
    assert refused(api) == set()
    assert [reporters(api, f"team-{each}") for each in "abc"] == [{"auditor-a"}, {"auditor-b"}, {"auditor-b"}]
    assert not stack.get(REPORTS.format(NAMESPACE))["items"], "no shard has it"
    leases = stack.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases")["items"]
    held = {each["metadata"]["name"]: each["spec"]["holderIdentity"] for each in leases}
    assert set(held) == {"auditor-a", "auditor-b"}
    assert all(held.values())


def test_an_up_takes_no_lead_away(stack: Stack) -> None:
    """The holder belongs to the candidates; Pulumi declares a Lease without one."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/auditor-a"
    before = stack.get(path)["spec"]["holderIdentity"]
    stack.run("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert stack.get(path)["spec"]["holderIdentity"] == before
