"""The checklist as policies of Pulumi: what one object shows is judged before it is made, the rest over the stack.

A resource policy blocks before anything is changed, in `preview` and in `up`. A stack policy sees all objects, which
fails `preview`, but `up` only after the changes were made: so every rule that one object alone shows is a resource
policy, and what needs several (a budget for its replicas, disjoint shards) is a stack policy.

Judged is what carries the workload label: of other objects the checklist would have to guess. Objects that an exemption
lets through pass; `tandem audit` lists them with their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from tandem import checklist, labels, recovery
from tandem.checklist import Environment, Judgement, Rule

_LEVELS = {"error": EnforcementLevel.MANDATORY, "warning": EnforcementLevel.ADVISORY}
_KUBERNETES = "kubernetes:"


def policies_of(stack: str) -> list[Policy]:
    """The policies of a stack, each at the level that the rule has in the environment of the stack's name.

    Args:
        stack: its name; one that is no environment of the checklist is judged as prod.
    """
    environment = checklist.environment_of(stack)
    wanted = [rule for rule in checklist.RULES if rule.levels[environment] != "off"]
    return [(_of_resource if one_object_shows(rule) else _of_stack)(rule, environment) for rule in wanted]


def one_object_shows(rule: Rule) -> bool:
    """Whether the rule needs no other object than the judged one: what has an expression, and the exemptions' own."""
    return rule.cel is not None or rule.id == "exemption-reason"


def _of_resource(rule: Rule, environment: Environment) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type.startswith(_KUBERNETES) and _labelled(args.props):
            _report(rule, _found(rule, [args.props], environment), report)

    return ResourceValidationPolicy(
        name=rule.id, description=rule.title, validate=validate, enforcement_level=_LEVELS[rule.levels[environment]]
    )


def _of_stack(rule: Rule, environment: Environment) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        objects = [each for each in args.resources if each.resource_type.startswith(_KUBERNETES)]
        urns = {_key(each.props): each.urn for each in objects}
        judged = [each.props for each in objects if not rule.labelled or _labelled(each.props)]
        found = _found(rule, judged, environment, world=[each.props for each in objects])
        _report(
            rule, found, report, urn=lambda each: urns[each.subject.kind, each.subject.namespace, each.subject.name]
        )

    return StackValidationPolicy(
        name=rule.id, description=rule.title, validate=validate, enforcement_level=_LEVELS[rule.levels[environment]]
    )


def _found(
    rule: Rule, objects: Iterable[Any], environment: Environment, world: Iterable[Any] | None = None
) -> list[Judgement]:
    known = checklist.World(world) if world is not None else None
    found = checklist.judge(objects, environment=environment, profile=_profile(), world=known, only=rule)
    return checklist.counted(found)


def _profile() -> recovery.RecoveryProfile | None:
    """The stack's recovery profile; None when its settings name none that there is, which the program will refuse."""
    named = pulumi.Config("tandem").get("profile")
    return recovery.PROFILES.get(named or "")


def _report(
    rule: Rule,
    found: Iterable[Judgement],
    report: ReportViolation,
    urn: Callable[[Judgement], str | None] = lambda _: None,
) -> None:
    for each in found:
        said = f"{each.subject}: {each.message}. Why on two workers: {rule.why}. Way out: {rule.fix}"
        report(said, urn(each))


def _labelled(props: Any) -> bool:
    return labels.WORKLOAD in ((props.get("metadata") or {}).get("labels") or {})


def _key(props: Any) -> tuple[str, str, str]:
    meta = props.get("metadata") or {}
    return str(props.get("kind") or ""), str(meta.get("namespace") or ""), str(meta.get("name") or "")
