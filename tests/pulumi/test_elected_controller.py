"""The elected controller and the auditor: what is registered, what is refused, and that both pass the checklist."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.components import Auditor, AuditorArgs, ElectedController, ElectedControllerArgs, RightsArgs
from infra.errors import ArgsError, SettingsError
from infra.settings import parse_settings
from tandem import checklist
from tandem.controllers.auditor.rights import cluster_rules
from tests.pulumi.registered import PROFILE, Registered, register

IMAGE = "registry.example/shop/controllers:1.2.3"
COMMON: dict[str, Any] = {"namespace": "shop", "profile": PROFILE, "image": IMAGE}
CONFORM = f"{IMAGE} idempotent shutdown lost-lead"
RIGHTS = [RightsArgs(api_groups=["apps"], resources=["deployments"], verbs=["get", "list", "watch"])]


def elected(**more: Any) -> Registered:
    args = ElectedControllerArgs(**{**COMMON, "cluster_rights": RIGHTS, "conformance": CONFORM, **more})
    return register(lambda: ElectedController("sweeper", args))


def test_two_candidates_one_lease_and_a_rolling_update_that_fits_two_workers() -> None:
    deployment = elected().one("Deployment")
    assert deployment.spec["replicas"] == 2
    assert deployment.spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }
    assert deployment.pod["terminationGracePeriodSeconds"] == 60
    (constraint,) = deployment.pod["topologySpreadConstraints"]
    assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    annotations = deployment.inputs["metadata"]["annotations"]
    assert annotations["tandem-ha.io/lease"] == "sweeper"
    assert annotations["tandem-ha.io/lease-seconds"] == "15/10/2"
    environment = {each["name"]: each.get("value") for each in deployment.container["env"]}
    assert environment["TANDEM_LEASE_NAME"] == "sweeper"
    assert environment["TANDEM_LEASE_DURATION"] == "15"


def test_the_lease_is_made_without_a_holder_that_a_later_up_would_write_back() -> None:
    lease = elected().one("Lease")
    assert "spec" not in lease.inputs


def test_exactly_its_lease_and_no_more_than_it_names() -> None:
    registered = elected()
    (rule,) = registered.one("Role").inputs["rules"]
    assert rule["resourceNames"] == ["sweeper"]
    assert "create" not in rule["verbs"]
    (rule,) = registered.one("ClusterRole").inputs["rules"]
    assert rule == {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]}
    assert registered.one("ClusterRoleBinding").inputs["subjects"] == [
        {"kind": "ServiceAccount", "name": "sweeper", "namespace": "shop"}
    ]
    assert elected(cluster_rights=()).of("ClusterRole") == []


def test_its_pods_mount_the_token_of_their_own_account_and_are_ready_when_synced() -> None:
    registered = elected()
    deployment = registered.one("Deployment")
    assert deployment.pod["serviceAccountName"] == "sweeper"
    assert deployment.pod["automountServiceAccountToken"] is True
    assert registered.one("ServiceAccount").inputs["automountServiceAccountToken"] is False
    assert deployment.container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert deployment.container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert registered.of("Service") == []


def test_the_budget_lets_one_go() -> None:
    budget = elected().one("PodDisruptionBudget")
    assert budget.spec["maxUnavailable"] == 1
    assert budget.spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"replicas": 1}, "replicas"),
        ({"drain_seconds": 30, "termination_grace_seconds": 45}, "termination_grace_seconds"),
        ({"drain_seconds": 50}, "termination_grace_seconds"),
        ({"lease_duration_seconds": 10}, "lease_duration_seconds"),
        ({"renew_deadline_seconds": 2.4}, "lease_duration_seconds"),
        ({"ready_path": "/leader"}, "ready_path"),
        ({"ready_path": "readyz"}, "ready_path"),
        ({"node_port": 30090}, "node_port"),
        ({"image": "x:latest"}, "image"),
    ],
)
def test_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ArgsError) as caught:
        ElectedControllerArgs(**{**COMMON, **given})
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["api_groups", "resources", "verbs"])
@pytest.mark.parametrize("value", [["*"], []])
def test_rights_are_named(name: str, value: list[str]) -> None:
    rights: dict[str, Any] = {"api_groups": ["apps"], "resources": ["deployments"], "verbs": ["get"], name: value}
    with pytest.raises(ArgsError, match="names what it touches"):
        RightsArgs(**rights)


def auditor(**more: Any) -> Registered:
    return register(lambda: Auditor("auditor", AuditorArgs(**{**COMMON, "conformance": CONFORM, **more})))


def test_the_auditor_with_its_kind_and_its_own_rights() -> None:
    registered = auditor(environment="lab")
    definition = registered.one("CustomResourceDefinition")
    assert definition.inputs["metadata"]["name"] == "highavailabilityreports.tandem-ha.io"
    assert definition.spec["versions"][0]["subresources"] == {"status": {}}
    assert registered.one("ClusterRole").inputs["rules"] == cluster_rules()
    container = registered.one("Deployment").container
    assert container["command"][-1] == "tandem.controllers.auditor"
    assert {"name": "TANDEM_ENVIRONMENT", "value": "lab"} in container["env"]
    with pytest.raises(ArgsError, match="has no levels"):
        AuditorArgs(**{**COMMON, "environment": "nowhere"})


@pytest.mark.parametrize("made", [elected, auditor])
def test_both_pass_the_checklist(made: Any) -> None:
    objects = [each.inputs for each in made().resources if each.type.startswith("kubernetes:")]
    assert {each["kind"] for each in objects} >= {"Deployment", "Lease", "Role"}
    found = checklist.judge(objects, environment="prod", profile=PROFILE)
    assert [each.rule for each in found] == ["priority-class"]


def test_both_come_from_a_stack_s_settings() -> None:
    apps: dict[str, dict[str, Any]] = {
        "auditor": {"kind": "auditor", "image": IMAGE, "environment": "staging"},
        "sweeper": {
            "kind": "elected-controller",
            "image": IMAGE,
            "command": ["/sweeper"],
            "cluster_rights": [{"api_groups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}],
        },
    }
    raw = {"tandem:namespace": "shop", "tandem:profile": "balanced", "tandem:apps": json.dumps(apps)}
    parsed = parse_settings(raw, "staging").apps
    sweeper, made = parsed["sweeper"], parsed["auditor"]
    assert isinstance(sweeper, ElectedControllerArgs)
    assert sweeper.cluster_rights[0] == RightsArgs(api_groups=["apps"], resources=["deployments"], verbs=["list"])
    assert isinstance(made, AuditorArgs)
    assert made.cluster_rights
    apps["sweeper"]["cluster_rights"] = [{"api_groups": ["apps"], "resources": ["*"], "verbs": ["list"]}]
    with pytest.raises(SettingsError, match="names what it touches"):
        parse_settings(raw | {"tandem:apps": json.dumps(apps)}, "staging")
