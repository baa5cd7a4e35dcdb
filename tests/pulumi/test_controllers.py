"""Controllers of one replica and in shards: what is registered, what is refused, and that both pass the checklist."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.components import (
    RightsArgs,
    ShardArgs,
    ShardedAuditor,
    ShardedAuditorArgs,
    ShardedController,
    ShardedControllerArgs,
    SoloController,
    SoloControllerArgs,
)
from infra.errors import ArgsError, SettingsError
from infra.settings import parse_settings
from tandem import checklist
from tandem.controllers.auditor.rights import cluster_rules
from tandem.runtime.settings import RunSettings
from tests.pulumi.registered import PROFILE, Registered, Resource, register

IMAGE = "registry.example/shop/controllers:1.2.3"
CONFORM = f"{IMAGE} idempotent shutdown lost-lead"
COMMON: dict[str, Any] = {"namespace": "shop", "profile": PROFILE, "image": IMAGE, "conformance": CONFORM}
RIGHTS = [RightsArgs(api_groups=["apps"], resources=["deployments"], verbs=["get", "list", "watch"])]
TEAMS: list[dict[str, Any]] = [
    {"name": "a", "namespaces": ["team-a"]},
    {"name": "b", "namespaces": ["team-b", "team-c"]},
]
COLOURS: list[dict[str, Any]] = [{"name": each, "label": f"shop.example/colour={each}"} for each in ("red", "blue")]


def solo(**more: Any) -> Registered:
    args = SoloControllerArgs(**{**COMMON, "namespace_rights": RIGHTS, **more})
    return register(lambda: SoloController("janitor", args))


def sharded_args(shards: list[dict[str, Any]], **more: Any) -> ShardedControllerArgs:
    return ShardedControllerArgs(**{**COMMON, "shards": [ShardArgs(**each) for each in shards], **more})


def sharded(shards: list[dict[str, Any]], **more: Any) -> Registered:
    args = sharded_args(shards, **more)
    return register(lambda: ShardedController("sweeper", args))


def environment(deployment: Resource) -> dict[str, str]:
    return {each["name"]: each["value"] for each in deployment.container["env"] if "value" in each}


def said_by(deployment: Resource) -> dict[str, str]:
    return {
        key.removeprefix("tandem-ha.io/"): value for key, value in deployment.inputs["metadata"]["annotations"].items()
    }


def test_solo_is_one_copy_that_stops_before_the_next_and_takes_a_lease_all_the_same() -> None:
    registered = solo()
    deployment = registered.one("Deployment")
    assert deployment.spec["replicas"] == 1
    assert deployment.spec["strategy"] == {"type": "Recreate"}
    assert deployment.pod["terminationGracePeriodSeconds"] == 60
    assert said_by(deployment)["drain-seconds"] == "30"
    assert said_by(deployment)["lease"] == registered.one("Lease").name == "janitor"
    assert registered.one("Role").inputs["rules"][0]["resourceNames"] == ["janitor"]
    assert not registered.of("PodDisruptionBudget"), "it would make a drain wait for ever"
    assert "topologySpreadConstraints" not in deployment.pod


def test_solo_without_an_election_has_no_lease_and_no_right_to_one() -> None:
    registered = solo(elected=False)
    assert not registered.of("Lease")
    (rule,) = registered.one("Role").inputs["rules"]
    assert rule["resources"] == ["deployments"]
    assert not {"lease", "lease-seconds"} & set(said_by(registered.one("Deployment")))
    assert RunSettings.from_environ(environment(registered.one("Deployment"))).elected is False
    assert not solo(elected=False, namespace_rights=()).of("Role"), "a Role without rules says nothing"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"drain_seconds": 46}, "termination_grace_seconds"),
        ({"termination_grace_seconds": 45}, "termination_grace_seconds"),
        ({"node_port": 30090}, "node_port"),
        ({"ready_path": "/leader"}, "ready_path"),
    ],
)
def test_solo_refuses(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ArgsError) as caught:
        SoloControllerArgs(**{**COMMON, **given})
    assert caught.value.field == field


def test_every_shard_has_a_deployment_a_lease_and_a_scope_of_its_own() -> None:
    registered = sharded(TEAMS, covers=["team-a", "team-b", "team-c"])
    assert {each.name for each in registered.of("Deployment")} == {"sweeper-a", "sweeper-b"}
    assert {each.name for each in registered.of("Lease")} == {"sweeper-a", "sweeper-b"}
    assert {each.name for each in registered.of("PodDisruptionBudget")} == {"sweeper-a", "sweeper-b"}
    deployment = registered.one("Deployment", "sweeper-b")
    assert deployment.spec["replicas"] == 2
    said = said_by(deployment)
    assert (said["shard-of"], said["scope"]) == ("sweeper", "namespaces=team-b,team-c")
    assert (said["lease"], said["field-manager"]) == ("sweeper-b", "sweeper")
    settings = RunSettings.from_environ(environment(deployment))
    assert settings.lease_name == "sweeper-b"
    assert settings.scope.namespaces == ("team-b", "team-c")
    (role,) = [each for each in registered.of("Role") if each.name == "sweeper-b"]
    assert role.inputs["rules"][0]["resourceNames"] == ["sweeper-b"]


def test_shards_by_label() -> None:
    registered = sharded(COLOURS, covers=["blue", "red"])
    deployment = registered.one("Deployment", "sweeper-red")
    assert said_by(deployment)["scope"] == "labels=shop.example/colour=red"
    assert RunSettings.from_environ(environment(deployment)).scope.label_selector == "shop.example/colour=red"


def test_a_shard_s_rights_end_with_its_namespaces() -> None:
    registered = sharded(TEAMS, scope_rights=RIGHTS)
    where = {
        (each.inputs["metadata"]["namespace"], each.inputs["subjects"][0]["name"])
        for each in registered.of("RoleBinding")
        if each.inputs["roleRef"]["name"].startswith("shop:")
    }
    assert where == {("team-a", "sweeper-a"), ("team-b", "sweeper-b"), ("team-c", "sweeper-b")}
    assert not registered.of("ClusterRole")


@pytest.mark.parametrize(
    ("shards", "more", "field", "rule"),
    [
        (TEAMS[:1], {}, "shards", "two shards or more"),
        ([TEAMS[0], {**TEAMS[1], "name": "a"}], {}, "shards", "own name"),
        ([TEAMS[0], {"name": "b", "namespaces": ["team-b", "team-a"]}], {}, "shards", "two leaders"),
        ([COLOURS[0], {**COLOURS[0], "name": "other"}], {}, "shards", "two leaders"),
        ([COLOURS[0], {"name": "big", "label": "size=big"}], {}, "shards", "one label"),
        ([COLOURS[0], TEAMS[0]], {}, "shards", "all in the same way"),
        (TEAMS, {"covers": ["team-a", "team-b", "team-c", "team-d"]}, "covers", "nobody acts"),
        (TEAMS, {"covers": ["team-a", "team-b"]}, "covers", "the whole does not"),
        (COLOURS, {"covers": ["red", "green", "blue"]}, "covers", "nobody acts"),
        (COLOURS, {"scope_rights": RIGHTS}, "scope_rights", "any namespace"),
        (TEAMS, {"replicas": 1}, "replicas", "somebody who waits"),
    ],
)
def test_sharded_refuses(shards: list[dict[str, Any]], more: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(ArgsError) as caught:
        sharded_args(shards, **more)
    assert caught.value.field == field
    assert rule in caught.value.rule


def sharded_auditor(**more: Any) -> Registered:
    args = ShardedAuditorArgs(**{**COMMON, "shards": [ShardArgs(**each) for each in TEAMS], **more})
    return register(lambda: ShardedAuditor("auditor", args))


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str, str, tuple[str, ...]]]:
    """Each rule taken apart: group, resource, verb, names."""
    return {
        (group, resource, verb, tuple(each.get("resourceNames") or ()))
        for each in rules
        for group in each["apiGroups"]
        for resource in each["resources"]
        for verb in each["verbs"]
    }


def test_the_auditor_in_shards_has_its_rights_where_its_shard_is() -> None:
    registered = sharded_auditor(environment="lab")
    assert registered.one("CustomResourceDefinition").inputs["metadata"]["name"].startswith("highavailabilityreports.")
    for name, namespaces in (("a", ("team-a",)), ("b", ("team-b", "team-c"))):
        deployment = registered.one("Deployment", f"auditor-{name}")
        assert deployment.container["command"][-1] == "tandem.controllers.auditor"
        assert environment(deployment)["TANDEM_ENVIRONMENT"] == "lab"
        assert RunSettings.from_environ(environment(deployment)).scope.namespaces == namespaces
        everywhere = granted(registered.one("ClusterRole", f"auditor-{name}").inputs["rules"])
        assert {(resource, names) for _, resource, _, names in everywhere} == {
            ("nodes", ()),
            ("configmaps", ("recovery-profile",)),
        }
        at_home = granted(registered.one("Role", f"auditor-{name}").inputs["rules"])
        assert {(resource, names) for _, resource, _, names in at_home} == {
            ("leases", (f"auditor-{name}",)),
            ("events", ()),
        }
        for namespace in namespaces:
            here = granted(registered.one("Role", f"auditor-{name}-in-{namespace}").inputs["rules"])
            assert here | everywhere == granted(cluster_rules()), "what the whole auditor may do, and no more"
            assert not here & everywhere


def test_the_auditor_s_shards_are_of_namespaces() -> None:
    with pytest.raises(ArgsError, match="both write"):
        ShardedAuditorArgs(**{**COMMON, "shards": [ShardArgs(**each) for each in COLOURS]})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "a"}, "shards.namespaces"),
        ({"name": "a", "namespaces": ["x"], "label": "k=v"}, "shards.namespaces"),
        ({"name": "a", "namespaces": ["x", "x"]}, "shards.namespaces"),
        ({"name": "a", "namespaces": ["x,y"]}, "shards.namespaces"),
        ({"name": "A", "namespaces": ["x"]}, "shards.name"),
        ({"name": "a", "label": "colour"}, "shards.label"),
        ({"name": "a", "label": "colour!=red"}, "shards.label"),
        ({"name": "a", "label": "colour=red,size=big"}, "shards.label"),
    ],
)
def test_shard_refuses(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ArgsError) as caught:
        ShardArgs(**given)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "made", [solo, lambda: sharded(TEAMS, scope_rights=RIGHTS), lambda: sharded(COLOURS), sharded_auditor]
)
def test_all_pass_the_checklist(made: Any) -> None:
    objects = [each.inputs for each in made().resources if each.type.startswith("kubernetes:")]
    assert {each["kind"] for each in objects} >= {"Deployment", "Lease", "Role"}
    found = checklist.judge(objects, environment="prod", profile=PROFILE)
    assert {each.rule for each in found} == {"priority-class"}


def settings(apps: dict[str, Any], **more: str) -> Any:
    raw = {"tandem:namespace": "shop", "tandem:profile": "balanced", "tandem:apps": json.dumps(apps)}
    return parse_settings(raw | {f"tandem:{key}": value for key, value in more.items()}, "staging")


def test_both_come_from_a_stack_s_settings_with_the_namespaces_of_the_shards() -> None:
    apps: dict[str, Any] = {
        "janitor": {"kind": "solo", "image": IMAGE},
        "sweeper": {"kind": "sharded", "image": IMAGE, "shards": TEAMS, "covers": ["team-a", "team-b", "team-c"]},
    }
    parsed = settings(apps, namespaces='["team-a", "team-b", "team-c"]', pod_security="restricted")
    assert isinstance(parsed.apps["janitor"], SoloControllerArgs)
    assert parsed.apps["sweeper"].shards[1] == ShardArgs(name="b", namespaces=["team-b", "team-c"])
    assert [parsed.workspace(each).pod_security for each in parsed.namespaces] == ["restricted"] * 3
    apps["sweeper"]["covers"] = ["team-a"]
    with pytest.raises(SettingsError, match="the whole does not"):
        settings(apps)


@pytest.mark.parametrize("names", [["shop"], ["a", "a"], ["kube-system"], ["A"]])
def test_namespaces_that_a_stack_cannot_make(names: list[str]) -> None:
    with pytest.raises(SettingsError, match="namespace"):
        settings({}, namespaces=json.dumps(names))
