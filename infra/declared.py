"""What a stack declares, and what the checklist says of it: the stack's own verdict, before anything runs.

The objects are those that go to the provider, `patch` included. What Pulumi knows only later (an output of another
resource) is left out; no rule of the checklist asks for such a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.components._override import to_wire
from tandem import checklist
from tandem.recovery import RecoveryProfile

Object = dict[str, Any]


@dataclass(frozen=True)
class Declared:
    """Keeps every Kubernetes object that is declared below the resources with these options."""

    _seen: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def options(self) -> pulumi.ResourceOptions:
        """For the components; their children inherit it."""
        return pulumi.ResourceOptions(transformations=[self._note])

    @property
    def objects(self) -> list[Object]:
        """The objects, as Kubernetes spells their fields."""
        return [{_wire_name(key): _known(to_wire(value)) for key, value in each.items()} for each in self._seen]

    def _note(self, args: pulumi.ResourceTransformationArgs) -> None:
        if args.type_.startswith("kubernetes:"):
            self._seen.append(args.props)


def verdict(objects: Iterable[Object], stack: str, profile: RecoveryProfile) -> dict[str, Any]:
    """What the checklist finds at the levels of the stack's environment.

    Returns:
        `verdict` (`passes` or `fails`: an error without an exemption), and one line for each finding, by level.
    """
    environment = checklist.environment_of(stack)
    found = checklist.judge(list(objects), environment=environment, profile=profile)
    told: dict[str, list[str]] = {"error": [], "warning": [], "exempted": []}
    for each in found:
        level = "exempted" if each.exempted is not None else each.level
        told[level].append(f"{each.subject}: {each.rule}: {each.message}")
    return {
        "verdict": "fails" if told["error"] else "passes",
        "environment": environment,
        "errors": sorted(told["error"]),
        "warnings": sorted(told["warning"]),
        "exempted": sorted(told["exempted"]),
    }


def _wire_name(name: str) -> str:
    """`api_version` as `apiVersion`: fields of the object itself go by their Python names here."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def _known(value: Any) -> Any:
    """The value without what is an output."""
    if isinstance(value, Mapping):
        return {key: _known(each) for key, each in value.items() if not isinstance(each, pulumi.Output)}
    if isinstance(value, list):
        return [_known(each) for each in value if not isinstance(each, pulumi.Output)]
    return value
