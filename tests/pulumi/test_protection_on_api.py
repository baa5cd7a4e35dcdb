"""The stack prod against a real API server: whatever is asked of Pulumi, no claim and no volume is deleted.

Nobody binds claims there, so the volume is made by hand, as the provisioner would have made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.components.data_guard import CLAIMS, CONFIG_MAP, GUARD
from tests.pulumi.on_api import Stack, collecting, local_api, unawaited, workspace_on

pytestmark = [pytest.mark.api, pytest.mark.long, pytest.mark.timeout(2400)]

NAMESPACE = "tandem-prod"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
CLAIMS_PATH = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
GUARD_PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{CONFIG_MAP}"
VOLUME = "pvc-of-ledger"
APPS = unawaited("prod")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with local_api() as api, collecting(api):
        workspace = workspace_on(api, tmp_path_factory.mktemp("pulumi"))
        made = Stack(workspace, api, "prod", {"cluster_check": "skip", "apps": APPS})
        made.run("up", "--yes", "--skip-preview")
        api.request("POST", "/api/v1/persistentvolumes", volume(made.get(f"{CLAIMS_PATH}/ledger")))
        yield made


def volume(claim: dict[str, Any]) -> dict[str, Any]:
    metadata = claim["metadata"]
    reference = {"namespace": NAMESPACE, "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/srv/tandem/ledger"},
            "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **reference},
        },
    }


def data(stack: Stack) -> dict[str, str]:
    """What holds data and is not on its way out: kind and name to uid. An object that is deleted waits to be unused."""
    paths = {"claim": CLAIMS_PATH, "volume": "/api/v1/persistentvolumes", "namespace": "/api/v1/namespaces"}
    return {
        f"{kind} {each['metadata']['name']}": each["metadata"]["uid"]
        for kind, path in paths.items()
        for each in stack.get(path)["items"]
        if "deletionTimestamp" not in each["metadata"]
    }


def everything(stack: Stack) -> set[str]:
    """The stack's objects that serve and that hold data."""
    kinds = {
        "deployment": DEPLOYMENTS,
        "daemonset": f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets",
        "service": f"/api/v1/namespaces/{NAMESPACE}/services",
        "budget": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
        "guard": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    }
    found = {f"{kind} {name}" for kind, path in kinds.items() for name in stack.names(path)}
    return found - {"guard kube-root-ca.crt"} | set(data(stack))


def renamed(old: str, new: str) -> dict[str, Any]:
    return {(new if name == old else name): app for name, app in APPS.items()}


def test_what_there_is(stack: Stack) -> None:
    assert {f"namespace {NAMESPACE}", "claim ledger", f"volume {VOLUME}"} <= set(data(stack))
    assert stack.get(GUARD_PATH)["metadata"]["annotations"][CLAIMS] == "ledger"


@pytest.mark.parametrize("options", [(), ("--skip-preview",)])
def test_a_destroy_is_refused_with_the_reason_and_deletes_nothing(stack: Stack, options: tuple[str, ...]) -> None:
    before = everything(stack)
    said = stack.destroy(*options, code=255)
    assert GUARD in said
    assert "cannot be deleted" in said
    assert "pulumi state unprotect" in said, "the way out"
    assert everything(stack) == before, "not even an app goes, with or without a preview"


def test_another_namespace_is_refused_for_the_claims_of_the_old_one(stack: Stack) -> None:
    """By the preview, without which new objects would have been made before the claim was met."""
    before = everything(stack)
    said = stack.run("up", "--yes", code=255, namespace="tandem-live")
    assert "protect" in said
    assert everything(stack) == before


@pytest.mark.parametrize("options", [(), ("--skip-preview",)])
def test_a_renamed_app_keeps_the_claim_of_the_old_name(stack: Stack, options: tuple[str, ...]) -> None:
    before = data(stack)
    said = stack.run("up", "--yes", *options, code=255, apps=renamed("ledger", "book"))
    assert "PersistentVolumeClaim::ledger" in said
    assert "cannot be deleted" in said
    kept = data(stack)
    assert {name: kept[name] for name in before} == before


def test_the_next_run_of_the_right_settings_finds_all_as_it_was(stack: Stack) -> None:
    """The new claim that the refused run had made already is protected as well: it is let go by hand."""
    before = {name: uid for name, uid in data(stack).items() if name in {"claim ledger", f"namespace {NAMESPACE}"}}
    for urn in stack.urns():
        if urn.endswith("PersistentVolumeClaim::book"):
            stack.unprotect(urn)
    stack.run("up", "--yes", "--skip-preview")
    assert stack.names(DEPLOYMENTS) == {"web", "ledger"}
    after = data(stack)
    assert {name: after[name] for name in before} == before
    assert stack.get(GUARD_PATH)["metadata"]["annotations"][CLAIMS] == "ledger"


def test_one_claim_more_does_not_replace_the_guard(stack: Stack) -> None:
    uid = stack.get(GUARD_PATH)["metadata"]["uid"]
    stack.run("up", "--yes", "--skip-preview", apps={**APPS, "journal": APPS["ledger"]})
    guard = stack.get(GUARD_PATH)["metadata"]
    assert (guard["uid"], guard["annotations"][CLAIMS]) == (uid, "journal,ledger")


def test_when_it_is_meant_the_apps_go_and_claims_volumes_and_namespace_stay(stack: Stack) -> None:
    before = data(stack)
    stack.unprotect("--all")
    stack.destroy("--skip-preview")
    assert stack.names(DEPLOYMENTS) == set()
    assert data(stack) == before
