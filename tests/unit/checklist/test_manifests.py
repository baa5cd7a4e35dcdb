"""The checklist on manifests in the shapes of public charts and operators: what it finds was written beforehand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem import checklist, recovery

FOLDER = Path(__file__).parents[2] / "manifests"
EXPECTED: dict[str, dict[str, str]] = yaml.safe_load((FOLDER / "expected.yaml").read_text())
BALANCED = recovery.profile("balanced")


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def mark(found: checklist.Judgement) -> str:
    if found.exempted is not None:
        return "="
    if found.inferred:
        assert found.level == "warning", "a guess is never more than a warning"
        return "?"
    return "" if found.level == "error" else "~"


def test_every_manifest_has_its_expectation() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} - {"expected"} == set(EXPECTED)
    assert len(EXPECTED) >= 60


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_manifest(name: str) -> None:
    found: dict[str, Counter[str]] = {}
    for each in checklist.judge(load(name), environment="prod", profile=BALANCED):
        found.setdefault(f"{each.subject.kind}/{each.subject.name}", Counter())[each.rule + mark(each)] += 1
    expected = {subject: Counter(rules.split()) for subject, rules in EXPECTED[name].items() if rules}
    assert found == expected


def test_every_rule_that_a_file_can_break_is_broken_by_one() -> None:
    named = {rule.rstrip("?~=") for case in EXPECTED.values() for rules in case.values() for rule in rules.split()}
    live_only = {"lease-held"}
    assert {rule.id for rule in checklist.RULES} - named == live_only
