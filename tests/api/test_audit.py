"""`tandem audit` against a real API server: what it finds, and what a reader of few rights is told."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tandem.audit import credentials
from tandem.audit.live import LISTED
from tandem.runtime.testing.localapi import LocalApi
from tests.unit.checklist.test_manifests import load

pytestmark = pytest.mark.api

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PLURALS = {"Deployment": "apis/apps/v1", "PodDisruptionBudget": "apis/policy/v1", "Service": "api/v1"}


def audit(kubeconfig: Path, *arguments: str) -> tuple[int, Any, str]:
    command = [sys.executable, "-m", "tandem", "audit", "--json", "--kubeconfig", str(kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


@pytest.fixture
def namespace(api: LocalApi, name: str) -> str:
    """A namespace with an app of one replica."""
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for obj in copy.deepcopy(load("spread-app-one-replica")):
        obj["metadata"]["namespace"] = name
        base = PLURALS[obj["kind"]]
        api.request("POST", f"/{base}/namespaces/{name}/{obj['kind'].lower()}s", obj)
    return name


def test_findings_of_live_objects_with_the_api_servers_defaults(api: LocalApi, namespace: str) -> None:
    status, report, errors = audit(api.kubeconfig(), "-n", namespace, "--profile", "balanced")
    assert status == 1, errors
    assert sorted(each["rule"] for each in report["findings"]) == ["pdb-fits-replicas", "replicas"]
    assert report["notes"] == [credentials.ELSEWHERE]
    # The test's own certificates last for a day: the server's and the reader's are both seen.
    assert [each["rule"] for each in report["cluster"]] == ["no-profile", "certificate-end", "certificate-end"]
    assert [each["message"].partition(" (")[0].partition(" ends")[0] for each in report["cluster"][1:]] == [
        "the API server's certificate",
        "this kubeconfig's client certificate",
    ]


def test_every_listed_kind_is_served(api: LocalApi) -> None:
    for kind, path in LISTED.items():
        assert api.request("GET", f"{path}?limit=1")["kind"] == f"{kind}List"


def test_a_reader_of_one_namespace_is_told_what_was_not_judged(api: LocalApi, namespace: str) -> None:
    rules = [{"apiGroups": ["apps", "policy", ""], "resources": ["*"], "verbs": ["list"]}]
    user = f"reader-of-{namespace}"
    meta = {"metadata": {"name": "reader"}}
    api.request("POST", f"{RBAC}/namespaces/{namespace}/roles", meta | {"rules": rules})
    binding = {
        "roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    }
    api.request("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", meta | binding)
    status, report, errors = audit(api.kubeconfig(user, ()), "-n", namespace, "--profile", "balanced")
    assert status == 1, errors
    assert sorted(each["rule"] for each in report["findings"]) == ["pdb-fits-replicas", "replicas"]
    assert any(note.startswith("Node was not judged") for note in report["notes"])


def test_who_may_list_nothing_gets_no_clean_bill(api: LocalApi, namespace: str) -> None:
    status, report, errors = audit(api.kubeconfig("nobody", ()), "-n", namespace)
    assert status == 4
    assert report is None
    assert "nothing may be listed" in errors
