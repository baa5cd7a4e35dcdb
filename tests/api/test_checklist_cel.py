"""Each rule's CEL on a real API server says what its Python judge says, on every labelled object that we have."""

from __future__ import annotations

import copy
import json
import re
import time
import urllib.error
import urllib.request
from typing import Any, Final

import pytest

from tandem import checklist, recovery
from tandem.admission import SERVED
from tandem.checklist import Rule, cel_validation, cel_variables
from tandem.labels import WORKLOAD
from tandem.runtime.testing.localapi import LocalApi
from tests.unit.checklist.changes import CHANGES
from tests.unit.checklist.test_manifests import EXPECTED, load

pytestmark = pytest.mark.api

Object = dict[str, Any]
PROFILE: Final = recovery.profile("balanced")
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
POLICY: Final = re.compile(r"ValidatingAdmissionPolicy '([a-z-]+)'")
EXPRESSED: Final = [rule for rule in checklist.RULES if rule.cel]


def policy(rule: Rule) -> Object:
    """A ValidatingAdmissionPolicy of one rule."""
    expression = cel_validation(rule, PROFILE)
    served = [SERVED[kind] for kind in rule.kinds]
    rules = [
        {"apiGroups": [group], "apiVersions": [version], "resources": [plural], "operations": ["CREATE", "UPDATE"]}
        for group, version, plural in served
    ]
    return {
        "metadata": {"name": rule.id},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": rules},
            "matchConditions": [
                {"name": "labelled", "expression": f"object.metadata.?labels[?'{WORKLOAD}'].hasValue()"}
            ],
            "variables": [{"name": n, "expression": e} for n, e in cel_variables(expression).items()],
            "validations": [{"expression": expression, "message": rule.title}],
        },
    }


def objects() -> list[tuple[str, Object]]:
    """Every labelled object of the manifests and of the changes to them, with where it comes from."""
    found = [(str(change), change.apply()[1]) for change in CHANGES]
    found += [(name, obj) for name in EXPECTED for obj in load(name)]
    return [(w, o) for w, o in found if o["kind"] in SERVED and WORKLOAD in (o["metadata"].get("labels") or {})]


def dry_run(api: LocalApi, obj: Object) -> set[str]:
    """The rules that the API server warns of when the object is created.

    Warnings, because a refusal names one policy only, and so does the audit log.
    """
    group, version, plural = SERVED[obj["kind"]]
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    body = copy.deepcopy(obj) | {"apiVersion": f"{group}/{version}" if group else version}
    body["metadata"]["namespace"] = "default"
    request = urllib.request.Request(  # noqa: S310 - an address of our own
        f"{api.url}{base}/namespaces/default/{plural}?dryRun=All",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=api._context(), timeout=30) as answer:  # noqa: S310
        warnings = answer.headers.get_all("Warning") or []
    assert not [each for each in warnings if "expression" in each], warnings
    return {found[1] for each in warnings if (found := POLICY.search(each))}


def test_expressions_and_judges_agree(own_api: LocalApi) -> None:
    for rule in EXPRESSED:
        own_api.request("POST", f"{ADMISSION}/validatingadmissionpolicies", policy(rule))
        spec = {"policyName": rule.id, "validationActions": ["Warn"]}
        binding = {"metadata": {"name": rule.id}, "spec": spec}
        own_api.request("POST", f"{ADMISSION}/validatingadmissionpolicybindings", binding)
    cases = objects()
    wait_until_judged(own_api, cases)
    broken: set[str] = set()
    differences = []
    for what, obj in cases:
        try:
            by_server = dry_run(own_api, obj)
        except urllib.error.HTTPError as error:
            pytest.fail(f"{what}: {error.read().decode()}")
        judged = checklist.counted(checklist.judge([obj], environment="prod", profile=PROFILE))
        by_judge = {each.rule for each in judged if checklist.rule(each.rule).cel}
        broken |= by_judge
        if by_server != by_judge:
            differences.append(f"{what}: server {sorted(by_server)}, judge {sorted(by_judge)}")
    assert not differences, "\n".join(differences)
    assert broken == {rule.id for rule in EXPRESSED}, "a rule that no object breaks proves nothing"
    assert len(cases) > 100
    assert_typed(own_api)


def wait_until_judged(api: LocalApi, cases: list[tuple[str, Object]]) -> None:
    """Policies take effect a moment after they were made: until all that one bad object breaks are reported."""
    probe = next(obj for what, obj in cases if what == "spread-app-neglected" and obj["kind"] == "Deployment")
    wanted = {each.rule for each in checklist.judge([probe], profile=PROFILE) if checklist.rule(each.rule).cel}
    for _ in range(60):
        if dry_run(api, probe) == wanted:
            time.sleep(1)  # the last policies of the other kinds
            return
        time.sleep(0.5)
    pytest.fail("the policies took no effect within 30 s")


def assert_typed(api: LocalApi) -> None:
    """The API server's own type check has nothing against the expressions."""
    for rule in EXPRESSED:
        status = api.request("GET", f"{ADMISSION}/validatingadmissionpolicies/{rule.id}").get("status", {})
        warnings = status.get("typeChecking", {}).get("expressionWarnings", [])
        assert not warnings, f"{rule.id}: {warnings}"
