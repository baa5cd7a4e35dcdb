"""The components under the real CLI against a real API server: what it stores, and what a second run changes.

No kubelet and no controller is there, so nothing is awaited; what is shown is that every object is valid and that a run
finds what it left.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from lab.build import BuildError, artifacts
from lab.pulumi.workspace import PROJECT, Workspace, official_tools
from tandem.runtime.testing.localapi import LocalApi, Programs

pytestmark = [pytest.mark.api, pytest.mark.long]

# Nobody collects garbage either: what is deleted in the foreground would stay for ever.
ALONE = {"pulumi.com/skipAwait": "true", "pulumi.com/deletionPropagationPolicy": "background"}
SKIP = {"metadata": {"annotations": ALONE}}
UNAWAITED: dict[str, Any] = dict.fromkeys(("Deployment", "ConfigMap"), SKIP)
WITH_DATA: dict[str, Any] = {"patch": dict.fromkeys(("Deployment", "PersistentVolumeClaim", "DaemonSet"), SKIP)}
IMAGE = "example.org/app:1"
APPS: dict[str, Any] = {
    "web": {
        "kind": "spread",
        "priority_class": "core",
        "autoscaling": {"max_replicas": 4},
        "ports": [{"name": "grpc", "port": 9000}],
        "sidecars": [{"name": "proxy", "image": "example.org/proxy:1"}],
        "init_containers": [{"name": "migrate", "image": IMAGE, "share_mounts": True}],
        "files": {"/etc/app/app.yaml": "a: 1"},
        "secret_env": {"PASSWORD": "open-sesame"},
        "mounts": [{"path": "/etc/tls", "secret": "web-tls"}],
        "image_pull_secrets": ["registry"],
        "ingress": {"host": "shop.example.org", "tls_secret": "web-tls"},
        "metrics_path": "/metrics",
    },
    "ledger": {"kind": "single-writer", **WITH_DATA},
    "moved": {**WITH_DATA, "kind": "single-writer", "existing_claim": "data-db-0", "existing_claim_exclusive": True},
    "janitor": {"kind": "solo", "metrics_path": "/metrics"},
    "sweeper": {
        "kind": "sharded",
        "shards": [{"name": "a", "namespaces": ["team-a"]}, {"name": "b", "namespaces": ["team-b"]}],
        "scope_rights": [{"api_groups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}],
    },
}
CHANGES: dict[str, Any] = {
    "cluster_check": "skip",
    "namespace": "shop",
    "namespaces": ["team-a", "team-b"],
    "pod_security": "restricted",
    "storage_classes": {"archive": {}},
    "monitoring": {"labels": {"release": "prometheus"}},
    "longhorn": {"node_down_pod_deletion_policy": "delete-deployment-pod"},
}
KINDS = (("monitoring.coreos.com", "v1", ("ServiceMonitor", "PodMonitor", "PrometheusRule")),)


class Stack:
    """The stack prod, changed, on one API server."""

    def __init__(self, workspace: Workspace, api: LocalApi) -> None:
        self.workspace, self.api = workspace, api

    def run(self, verb: str, *options: str, apps: dict[str, Any] | None = None, code: int = 0) -> str:
        given = {name: {"image": IMAGE, "patch": UNAWAITED, **app} for name, app in (apps or APPS).items()}
        file = self.workspace.write_stack_file("prod", CHANGES | {"apps": given})
        if not self.workspace.has_stack("prod"):
            self.workspace.create_stack("prod")
        argv = ["pulumi", verb, "--stack", "prod", "--config-file", str(file), "--non-interactive", "--color", "never"]
        env = self.workspace.environment()
        done = subprocess.run(
            [*argv, *options], cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=500
        )
        assert done.returncode == code, f"exit code {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def get(self, path: str) -> Any:
        return self.api.request("GET", path)

    def names(self, path: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.get(path)["items"]}


def minimal_crd(group: str, version: str, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "properties": properties}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API server with the kinds of the operators, and Longhorn's Setting as Longhorn leaves it."""
    try:
        built = artifacts.tools()
    except BuildError as error:
        pytest.fail(f"{error}")
    with LocalApi(Programs(built / "etcd", built / "kube-apiserver")) as api:
        anything = {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for group, version, kinds in KINDS:
            for kind in kinds:
                api.request("POST", crds, minimal_crd(group, version, kind, anything))
        setting = minimal_crd("longhorn.io", "v1beta2", "Setting", {"value": {"type": "string"}})
        api.request("POST", crds, setting)
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "longhorn-system"}})
        wait_for_settings(api)
        workspace = Workspace(tmp_path_factory.mktemp("pulumi"), api.kubeconfig(), None if official_tools() else built)
        workspace.prepare()
        yield Stack(workspace, api)


def wait_for_settings(api: LocalApi) -> None:
    """Create Longhorn's Setting as soon as its kind is served."""
    body = {
        "apiVersion": "longhorn.io/v1beta2",
        "kind": "Setting",
        "metadata": {"name": "node-down-pod-deletion-policy"},
        "value": "do-nothing",
    }
    for _ in range(600):
        try:
            api.request("POST", f"{SETTINGS}?fieldManager=longhorn-manager", body)
        except HTTPError as error:
            if error.code != 404:
                raise
            time.sleep(0.1)
        else:
            return
    pytest.fail("Longhorn's kind was never served")


SETTINGS = "/apis/longhorn.io/v1beta2/namespaces/longhorn-system/settings"


def test_everything_is_stored_and_found_again(stack: Stack) -> None:
    stack.run("up", "--yes", "--skip-preview")
    assert {"web", "ledger", "moved", "janitor", "sweeper-a", "sweeper-b"} == stack.names(
        "/apis/apps/v1/namespaces/shop/deployments"
    )
    assert stack.names("/apis/coordination.k8s.io/v1/namespaces/shop/leases") == {"janitor", "sweeper-a", "sweeper-b"}
    assert "shop:sweeper-b" in stack.names("/apis/rbac.authorization.k8s.io/v1/namespaces/team-b/rolebindings")
    assert stack.names("/apis/monitoring.coreos.com/v1/namespaces/shop/podmonitors") == {"janitor"}
    assert stack.get(f"{SETTINGS}/node-down-pod-deletion-policy")["value"] == "delete-deployment-pod"
    assert stack.names("/api/v1/namespaces/shop/persistentvolumeclaims") == {"ledger"}
    # The CLI never prints a secret, nor does its state hold one.
    said = stack.run("preview", "--expect-no-changes", "--diff")
    assert "open-sesame" not in said
    (state,) = (stack.workspace.backend / ".pulumi" / "stacks").rglob("prod.json")
    assert "open-sesame" not in state.read_text()


def test_a_changed_file_rolls_the_pods_to_a_new_object(stack: Stack) -> None:
    before = stack.get("/apis/apps/v1/namespaces/shop/deployments/web")
    changed = {**APPS, "web": {**APPS["web"], "files": {"/etc/app/app.yaml": "a: 2"}}}
    stack.run("up", "--yes", "--skip-preview", apps=changed)
    after = stack.get("/apis/apps/v1/namespaces/shop/deployments/web")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["template"] != before["spec"]["template"]
    (config,) = stack.names("/api/v1/namespaces/shop/configmaps") - {"kube-root-ca.crt"}
    volumes = {each["name"]: each for each in after["spec"]["template"]["spec"]["volumes"]}
    assert volumes["files"]["configMap"]["name"] == config
