"""What the committed stacks register passes the checklist: no error, and only the warnings that are meant."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from infra import __main__ as program
from infra.settings import parse_settings
from tandem import checklist
from tests.pulumi.registered import register
from tests.pulumi.stack_files import STACKS, raw_config

MEANT = {
    ("lab", "ledger-replace", "two-writers"): "the drill shows what `replace` risks",
}
"""Findings that stand, by stack, object and rule, with the reason."""


def registered_objects(stack: str) -> list[dict[str, Any]]:
    pulumi.runtime.set_all_config(raw_config(stack) | {"tandem:cluster_check": "skip"})
    resources = register(program.main, stack).resources
    return [each.inputs for each in resources if each.type.startswith("kubernetes:")]


@pytest.mark.parametrize("stack", STACKS)
def test_stack_passes_the_checklist(stack: str) -> None:
    profile = parse_settings(raw_config(stack), stack).profile
    objects = registered_objects(stack)
    kinds = {each.get("kind") for each in objects}
    assert kinds >= {"Deployment", "DaemonSet", "Service"}
    assert ("PodDisruptionBudget" in kinds) == (stack != "dev")
    found = checklist.counted(checklist.judge(objects, environment=stack, profile=profile))  # type: ignore[arg-type]
    assert [str(each) for each in found if each.level == "error"] == []
    left = {(stack, each.subject.name, each.rule) for each in found}
    assert left == {key for key in MEANT if key[0] == stack}


def test_the_lab_s_stateful_set_states_its_reason_and_the_prepull_its_exemption() -> None:
    found = checklist.judge(registered_objects("lab"), environment="lab")
    assert {each.rule for each in found if each.exempted} == {"readiness-probe", "liveness-probe"}
    assert not [each for each in found if each.subject.name == "control"]
