"""The policy pack: its policies by themselves, then under the real CLI with `pulumi preview --policy-pack`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest
from pulumi_policy import EnforcementLevel, Policy, ResourceValidationPolicy, StackValidationPolicy

from infra.policy.rules import one_object_shows, policies_of
from lab.pulumi.workspace import PROJECT, Workspace
from tandem import checklist, recovery
from tandem.checklist import ENVIRONMENTS, Environment
from tests.pulumi.command import Pulumi, offline_workspace, runner
from tests.pulumi.stack_files import STACKS
from tests.unit.checklist.changes import CHANGES
from tests.unit.checklist.test_manifests import EXPECTED, load

PACK = PROJECT / "infra" / "policy"
BALANCED = recovery.profile("balanced")
MANDATORY, ADVISORY = EnforcementLevel.MANDATORY, EnforcementLevel.ADVISORY


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_rule_is_a_policy_at_the_level_of_the_environment(environment: Environment) -> None:
    levels = {"error": MANDATORY, "warning": ADVISORY}
    wanted = {
        rule.id: levels[rule.levels[environment]] for rule in checklist.RULES if rule.levels[environment] != "off"
    }
    assert {each.name: each.enforcement_level for each in policies_of(environment)} == wanted


def test_a_stack_of_another_name_is_judged_as_prod() -> None:
    levels = {each.name: each.enforcement_level for each in policies_of("prod")}
    assert {each.name: each.enforcement_level for each in policies_of("berlin")} == levels


def test_what_one_object_shows_blocks_before_it_is_made() -> None:
    by_type = {each.name: type(each) for each in policies_of("prod")}
    for rule in checklist.RULES:
        assert by_type[rule.id] is (ResourceValidationPolicy if one_object_shows(rule) else StackValidationPolicy)


def violations(objects: list[dict[str, Any]], policies: list[Policy]) -> set[tuple[str, str, str]]:
    """Kind, name and rule of what the policies report: objects in, as the engine hands them over."""
    resources = [
        SimpleNamespace(
            resource_type=f"kubernetes:{each.get('apiVersion')}:{each['kind']}",
            props=each,
            urn=f"{each['kind']}/{each['metadata']['name']}",
        )
        for each in objects
    ]
    found: set[tuple[str, str, str]] = set()
    for policy in policies:
        if isinstance(policy, ResourceValidationPolicy):
            for each in resources:
                policy.validate(cast(Any, each), partial(note, found, policy.name, each.urn))
        else:
            assert isinstance(policy, StackValidationPolicy)
            policy.validate(cast(Any, SimpleNamespace(resources=resources)), partial(note, found, policy.name, ""))
    return found


def note(found: set[tuple[str, str, str]], rule: str, own_urn: str, message: str, urn: str | None = None) -> None:
    """What a policy reports, by the object that it names or that it was given."""
    assert message
    kind, name = (urn or own_urn).split("/")
    found.add((kind, name, rule))


def cases() -> list[tuple[str, list[dict[str, Any]]]]:
    changed = [(str(change), change.apply()[0]) for change in CHANGES]
    return changed + [(name, load(name)) for name in EXPECTED]


def test_the_pack_says_what_the_checklist_says_of_every_labelled_object() -> None:
    pulumi.runtime.set_all_config({"tandem:profile": "balanced"})
    policies = policies_of("prod")
    for what, objects in cases():
        judged = checklist.counted(checklist.judge(objects, environment="prod", profile=BALANCED))
        wanted = {(x.subject.kind, x.subject.name, x.rule) for x in judged if not x.inferred}
        assert violations(objects, policies) == wanted, what


# --- under the real CLI -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of its own, without a cluster."""
    return offline_workspace(tmp_path_factory.mktemp("pulumi"))


@pytest.fixture(scope="module")
def preview(workspace: Workspace) -> Pulumi:
    """Previews a stack with the pack."""
    return runner(workspace, seconds=400)


@pytest.mark.parametrize("stack", STACKS)
def test_committed_stacks_pass(stack: str, workspace: Workspace, preview: Pulumi) -> None:
    file = workspace.write_stack_file(stack, {"cluster_check": "skip"})
    if not workspace.has_stack(stack):
        workspace.create_stack(stack)
    done = preview("preview", "--stack", stack, "--config-file", str(file), "--policy-pack", str(PACK))
    assert "tandem@v0.1.0" in done.stdout
    assert "mandatory" not in done.stdout
    assert "can't run policy" not in done.stdout


PROGRAM = """
import json, pulumi
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apps.v1 import Deployment
# An output of nothing is "given", so that KUBECONFIG is not taken.
to_files = Provider("files", kubeconfig=pulumi.Output.from_input(None), render_yaml_to_directory="rendered")
on = pulumi.ResourceOptions(provider=to_files)
for each in json.load(open("../objects.json")):
    Deployment(each["metadata"]["name"], metadata=each["metadata"], spec=each["spec"], opts=on)
"""


def test_bad_objects_are_refused_before_they_are_made(tmp_path: Path, preview: Pulumi) -> None:
    """By a resource policy (two acting copies) and by a stack policy (no budget); an exemption lets through."""
    (writer,) = [x for x in load("single-writer-hold-good") if x["kind"] == "Deployment"]
    (shop,) = [x for x in load("spread-app-good") if x["kind"] == "Deployment"]
    writer["spec"]["replicas"] = 3
    exempted = json.loads(json.dumps(writer))
    exempted["metadata"]["name"] = "exempted"
    exempted["metadata"]["annotations"]["exempt.tandem-ha.io/replicas-need-election"] = "it locks a file itself"
    (tmp_path / "Pulumi.yaml").write_text("name: tandem\nruntime: python\nmain: program/\n")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "objects.json").write_text(json.dumps([writer, exempted, shop]))
    preview("stack", "init", "berlin", "--no-select", cwd=tmp_path)
    arguments = ("preview", "--stack", "berlin", "--policy-pack", str(PACK))
    done = preview(*arguments, "--config", "profile=balanced", cwd=tmp_path, code=255)
    said = done.stdout + done.stderr
    assert "shop/Deployment/ledger: 3 replicas and no sign of an election" in said
    assert "Why on two workers: two copies do everything twice" in said
    assert "Way out: replicas: 1, or elect a leader" in said
    assert "Deployment/exempted: 3 replicas" not in said

    (tmp_path / "objects.json").write_text(json.dumps([exempted, shop]))
    done = preview(*arguments, "--config", "profile=balanced", cwd=tmp_path, code=255)
    assert "no budget protects its 2 replicas" in done.stdout + done.stderr

    (tmp_path / "objects.json").write_text(json.dumps([exempted]))
    preview(*arguments, "--config", "profile=balanced", cwd=tmp_path)
