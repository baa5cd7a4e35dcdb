"""The components under the real CLI against a real API server: what it stores, and what a second run changes.

No kubelet and no controller is there, so nothing is awaited; what is shown is that every object is valid and that a run
finds what it left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from tandem.runtime.testing.localapi import LocalApi
from tests.pulumi.on_api import CONTROLLER, NEVER_AWAITED, Stack, local_api, workspace_on

pytestmark = [pytest.mark.api, pytest.mark.long]

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
    "ledger": {"kind": "single-writer"},
    "moved": {"kind": "single-writer", "existing_claim": "data-db-0", "existing_claim_exclusive": True},
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
    "network_policies": {"enforced_by": "nobody here", "from_namespaces": ["team-a"], "from_cidrs": ["10.1.0.0/16"]},
    "longhorn": {"node_down_pod_deletion_policy": "delete-deployment-pod"},
}
KINDS = (("monitoring.coreos.com", "v1", ("ServiceMonitor", "PodMonitor", "PrometheusRule")),)


def given(apps: dict[str, Any]) -> dict[str, Any]:
    """The apps with their image, and so that nothing is awaited."""
    return {
        name: {"image": IMAGE, "patch": NEVER_AWAITED.get(app["kind"], CONTROLLER), **app} for name, app in apps.items()
    }


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
    with local_api() as api:
        anything = {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for group, version, kinds in KINDS:
            for kind in kinds:
                api.request("POST", crds, minimal_crd(group, version, kind, anything))
        setting = minimal_crd("longhorn.io", "v1beta2", "Setting", {"value": {"type": "string"}})
        api.request("POST", crds, setting)
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "longhorn-system"}})
        wait_for_settings(api)
        workspace = workspace_on(api, tmp_path_factory.mktemp("pulumi"))
        yield Stack(workspace, api, "prod", CHANGES | {"apps": given(APPS)})


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
    assert stack.names("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies") == {"tandem"}
    held = stack.get("/api/v1/namespaces/shop/configmaps/tandem-dashboard")
    assert json.loads(held["data"]["tandem.json"])["uid"] == "tandem"
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
    stack.run("up", "--yes", "--skip-preview", apps=given(changed))
    after = stack.get("/apis/apps/v1/namespaces/shop/deployments/web")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["template"] != before["spec"]["template"]
    (config,) = stack.names("/api/v1/namespaces/shop/configmaps") - {
        "kube-root-ca.crt",
        "tandem-claims",
        "tandem-dashboard",
    }
    volumes = {each["name"]: each for each in after["spec"]["template"]["spec"]["volumes"]}
    assert volumes["files"]["configMap"]["name"] == config
