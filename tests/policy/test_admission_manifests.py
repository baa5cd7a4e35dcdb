"""The admission policies as they are made from the table, and as the component registers them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pulumi
import pytest
import yaml
from typer.testing import CliRunner

from infra import __main__ as program
from infra.components import AdmissionPolicy, AdmissionPolicyArgs
from infra.errors import ArgsError, SettingsError
from infra.settings import parse_settings
from tandem import admission, checklist, cli, labels, recovery
from tandem.checklist import ENVIRONMENTS, Environment
from tests.pulumi.registered import Registered, register
from tests.pulumi.stack_files import raw_config

PROFILE = recovery.profile("balanced")


def made(environment: Environment, kind: str) -> list[dict[str, Any]]:
    return [each for each in admission.manifests(environment, PROFILE) if each["kind"] == kind]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_rule_with_an_expression_stands_at_its_level(environment: Environment) -> None:
    found: dict[tuple[str, str], str] = {}
    for policy in made(environment, "ValidatingAdmissionPolicy"):
        what, level = policy["metadata"]["name"].removesuffix(".tandem-ha.io").rsplit("-", 1)
        for validation in policy["spec"]["validations"]:
            found[what, validation["message"].partition(":")[0]] = level.removesuffix("s")
    wanted = {
        (kind.lower(), rule.id): rule.levels[environment]
        for rule, kind in itertools.product(checklist.RULES, admission.SERVED)
        if rule.cel and kind in rule.kinds and rule.levels[environment] != "off"
    }
    assert {key: level for key, level in found.items() if key[0] != "deployment-scale"} == wanted


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_errors_refuse_and_only_where_the_namespace_says_deny(environment: Environment) -> None:
    for binding in made(environment, "ValidatingAdmissionPolicyBinding"):
        spec = binding["spec"]
        modes, system = spec["matchResources"]["namespaceSelector"]["matchExpressions"]
        if "Deny" in spec["validationActions"]:
            assert modes["values"] == ["deny"]
            assert "-errors." in spec["policyName"]
        assert (system["operator"], "kube-system" in system["values"]) == ("NotIn", True)


def test_a_policy_without_a_binding_would_judge_nothing() -> None:
    policies = {each["metadata"]["name"] for each in made("prod", "ValidatingAdmissionPolicy")}
    for modes in ("warn", "deny"):
        bound = {
            each["spec"]["policyName"]
            for each in made("prod", "ValidatingAdmissionPolicyBinding")
            if modes in each["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"]
        }
        assert bound == policies


def test_dev_warns_of_what_prod_refuses_and_may_scale_to_one() -> None:
    names = {each["metadata"]["name"].partition(".")[0] for each in made("dev", "ValidatingAdmissionPolicy")}
    assert {"deployment-errors", "deployment-warnings", "deployment-scale-errors"} <= names
    (scale,) = [each for each in made("dev", "ValidatingAdmissionPolicy") if "scale" in each["metadata"]["name"]]
    assert len(scale["spec"]["validations"]) == 1


def test_variables_are_defined_before_they_are_used() -> None:
    for policy in made("prod", "ValidatingAdmissionPolicy"):
        known: set[str] = set()
        for variable in policy["spec"]["variables"]:
            assert set(re.findall(r"variables\.(\w+)", variable["expression"])) <= known
            known.add(variable["name"])


def test_the_old_object_is_judged_by_the_same_words() -> None:
    policies = {each["metadata"]["name"]: each for each in made("prod", "ValidatingAdmissionPolicy")}
    for variable in policies["deployment-errors.tandem-ha.io"]["spec"]["variables"]:
        if variable["name"].startswith("old_"):
            assert not re.search(r"\bobject\b", variable["expression"])
            assert not re.search(r"variables\.(?!old_)", variable["expression"])


def test_messages_fit_into_what_the_api_server_takes() -> None:
    """5 KiB for a message; of an expression it takes 4 KiB of result, and falls back to the message."""
    for rule in checklist.RULES:
        assert len(admission.message(rule)) < 3 * 1024


def test_the_component_registers_the_same_objects_and_the_protected_names() -> None:
    bounds: dict[str, dict[str, admission.Bound]] = {"shop": {"ledger": "alone", "web": "spare"}}
    args = AdmissionPolicyArgs(profile=PROFILE, environment="prod", protected=bounds)
    registered = register(lambda: AdmissionPolicy("admission", args))
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        specs = {each.name: each.spec for each in registered.of(kind)}
        assert specs == {each["metadata"]["name"]: each["spec"] for each in made("prod", kind)}
    listed = registered.one("ConfigMap")
    assert listed.inputs["metadata"]["namespace"] == "shop"
    assert listed.inputs["data"] == bounds["shop"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"environment": "production"}, "environment"),
        ({"protected": {"Shop": {}}}, "protected"),
        ({"protected": {"shop": {"web": "two"}}}, "protected.shop.web"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ArgsError) as caught:
        AdmissionPolicyArgs(profile=PROFILE, **arguments)
    assert caught.value.field == field


def test_the_command_writes_the_same_objects_as_yaml() -> None:
    done = CliRunner().invoke(cli.app, ["policy", "--profile", "balanced", "-e", "staging"])
    assert done.exit_code == 0, done.output
    assert list(yaml.safe_load_all(done.stdout)) == list(admission.manifests("staging", PROFILE))


def test_the_command_needs_a_profile_that_there_is() -> None:
    done = CliRunner().invoke(cli.app, ["policy", "--profile", "quick"])
    assert done.exit_code == 2
    assert "balanced" in done.output


def registered_with(admission_setting: str | None) -> Registered:
    settings = raw_config("prod") | {"tandem:cluster_check": "skip"}
    pulumi.runtime.set_all_config(settings | ({"tandem:admission": admission_setting} if admission_setting else {}))
    return register(program.main, "prod")


def protected_lists(registered: Registered) -> list[Any]:
    """What the policies are given to know, without other ConfigMaps of the stack."""
    found = [each.inputs for each in registered.of("ConfigMap")]
    return [each for each in found if each["metadata"]["name"] == labels.PROTECTED_CONFIG_MAP]


@pytest.mark.parametrize("mode", ["warn", "deny"])
def test_a_stack_takes_part_when_it_says_so(mode: str) -> None:
    registered = registered_with(mode)
    assert registered.one("Namespace").inputs["metadata"]["labels"][labels.ADMISSION] == mode
    assert len(registered.of("ValidatingAdmissionPolicy")) == len(made("prod", "ValidatingAdmissionPolicy"))
    (listed,) = protected_lists(registered)
    assert listed["data"] == {"web": "spare", "ledger": "alone"}


@pytest.mark.parametrize("mode", [None, "off"])
def test_a_stack_takes_no_part_by_default(mode: str | None) -> None:
    registered = registered_with(mode)
    assert labels.ADMISSION not in registered.one("Namespace").inputs["metadata"]["labels"]
    assert registered.of("ValidatingAdmissionPolicy") == protected_lists(registered) == []


def test_another_mode_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match='tandem:admission = "refuse"'):
        parse_settings(raw_config("prod") | {"tandem:admission": "refuse"}, "prod")
