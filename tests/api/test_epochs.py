"""With the epoch policy the API server itself refuses a status of an epoch that is over, however it came so late."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from tandem.controllers.auditor.reports import EPOCH_FIELD, REPORT_NAME, REPORTS, custom_resource_definition
from tandem.runtime.epochs import epoch_policy
from tandem.runtime.testing.localapi import LocalApi
from tests.api.pods import eventually

pytestmark = pytest.mark.api
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
MERGE = "application/merge-patch+json"
OURS = "it's ours"
Refusal = Callable[..., str]


def stored(api: LocalApi, namespace: str) -> dict[str, Any]:
    path = f"{REPORTS.path(namespace)}/{REPORT_NAME}"
    found: dict[str, Any] = api.request("GET", path)
    return found


@pytest.fixture
def refusal(own_api: LocalApi) -> Refusal:
    """Writes the status of the report under an epoch and by its latest version; what the server has against it."""
    api = own_api
    api.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", custom_resource_definition())
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})

    def served() -> bool:
        try:
            return bool(api.request("GET", REPORTS.path("default")))
        except urllib.error.HTTPError:
            return False

    eventually(served, "the kind is served")
    for namespace in ("default", "elsewhere"):
        api.request("POST", REPORTS.path(namespace), {
            "apiVersion": REPORTS.api_version, "kind": REPORTS.kind, "metadata": {"name": REPORT_NAME}
        })  # fmt: skip

    def write(epoch: int, manager: str = OURS, namespace: str = "default") -> str:
        version = stored(api, namespace)["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "status": {EPOCH_FIELD: epoch}}
        query = urllib.parse.urlencode({"fieldManager": manager})
        path = f"{REPORTS.path(namespace)}/{REPORT_NAME}/status?{query}"
        try:
            api.request("PATCH", path, body, content=MERGE)
        except urllib.error.HTTPError as error:
            return f"{error.code}: {json.loads(error.read())['message']}"
        return ""

    return write


def apply(api: LocalApi, lease: str, **scope: Any) -> None:
    made = epoch_policy(
        REPORTS, field_manager=OURS, epoch_field=EPOCH_FIELD, lease_name=lease, lease_namespace="default", **scope
    )
    for plural, body in zip(("validatingadmissionpolicies", "validatingadmissionpolicybindings"), made, strict=True):
        api.request("POST", f"/apis/admissionregistration.k8s.io/v1/{plural}", body)


def lead(api: LocalApi, lease: str, epoch: int) -> None:
    api.request("PATCH", f"{LEASES}/{lease}", {"spec": {"leaseTransitions": epoch}}, content=MERGE)


def test_a_status_of_an_epoch_that_is_over_is_refused_though_nobody_has_changed_the_object(
    own_api: LocalApi, refusal: Refusal, name: str
) -> None:
    api = own_api
    api.request("POST", LEASES, {"metadata": {"name": name}, "spec": {"leaseTransitions": 6}})
    assert refusal(5) == "", "without the policy it lands"
    apply(api, name, namespaces=["default"])
    eventually(lambda: refusal(5), "the policy is in force")
    said = refusal(5)
    assert said.startswith("403: ")
    assert f"epoch 5 is over: the Lease default/{name} is at 6" in said
    assert refusal(6) == ""
    assert refusal(7) == "", "a leader that is ahead of what the policy has seen is not refused"
    assert refusal(5, "somebody else") == "", "others may touch what an earlier leader has stamped"
    assert refusal(5, namespace="elsewhere") == "", "another shard's namespaces are not this policy's"
    lead(api, name, 8)
    eventually(lambda: refusal(7), "the Lease has moved on")
    assert refusal(8) == ""
    api.request("DELETE", f"{LEASES}/{name}")
    eventually(lambda: refusal(7) == "", "without a Lease nothing is refused")
