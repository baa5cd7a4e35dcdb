"""What a rule is, what it is given to judge, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from tandem._checklist.facts import Facts
from tandem._checklist.objects import Object
from tandem._checklist.world import World
from tandem.findings import Finding
from tandem.recovery import RecoveryProfile

Environment = Literal["dev", "staging", "prod", "lab"]
Level = Literal["error", "warning", "off"]

ENVIRONMENTS: Final[tuple[Environment, ...]] = ("dev", "staging", "prod", "lab")


def environment_of(stack: str) -> Environment:
    """The environment whose levels a stack takes: that of its own name, or prod."""
    return next((each for each in ENVIRONMENTS if each == stack), "prod")


@dataclass(frozen=True)
class Subject:
    """The object that a finding is about. `source` says where it was read: `FILE:LINE`, empty for a live cluster."""

    kind: str
    namespace: str
    name: str
    source: str = ""

    def __str__(self) -> str:
        """Kind and name as kubectl takes them, with the namespace in front."""
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{where}{self.kind}/{self.name}"


@dataclass(frozen=True)
class Judgement(Finding):
    """A finding of the checklist.

    Args:
        subject: the object.
        inferred: the object carries no workload label; what it is was guessed, so the level is `warning` at most.
        exempted: the stated reason for which the object is let through; None for a finding that counts.
    """

    subject: Subject = field(kw_only=True)
    inferred: bool = field(default=False, kw_only=True)
    exempted: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Case:
    """What a judge sees.

    Args:
        obj: the object.
        facts: what kind of workload it is, and what it says about itself.
        world: all objects of the same run; a world of one when nothing else is known.
        profile: the recovery profile of the cluster; None when unknown.
        now: seconds since the epoch for what is about time; None for files.
    """

    obj: Object
    facts: Facts
    world: World
    profile: RecoveryProfile | None = None
    now: float | None = None


Judge = Callable[[Case], Iterable[str]]


@dataclass(frozen=True)
class Rule:
    """One row of the checklist.

    Args:
        id: its name, for exemptions and reports.
        title: what must hold.
        why: why it hurts on two workers when it does not.
        fix: the line that mends it.
        levels: how grave a violation is, per environment.
        kinds: of the objects that it judges.
        judge: yields one message per violation.
        cel: an expression that is true for a good object, for a ValidatingAdmissionPolicy whose variables are those of
            `tandem.checklist.cel_variables`; `$NOT_READY_SECONDS` and `$UNREACHABLE_SECONDS` stand for the profile's
            tolerations. None where one object alone does not show it.
        measure: an expression of the same variables for how much a bad object breaks the rule, as a whole number; an
            update may leave it or lower it. None: a bad object cannot become worse.
        labelled: it judges what carries the workload label, and guesses for the rest. False: the label has no meaning
            for its kinds, and its findings are never guesses.
    """

    id: str
    title: str
    why: str
    fix: str
    levels: Mapping[Environment, Level]
    kinds: tuple[str, ...]
    judge: Judge
    cel: str | None = None
    labelled: bool = True
    measure: str | None = None


def levels(dev: Level, staging: Level, prod: Level, lab: Level) -> Mapping[Environment, Level]:
    """Levels by environment, in the order of `ENVIRONMENTS`."""
    return MappingProxyType(dict(zip(ENVIRONMENTS, (dev, staging, prod, lab), strict=True)))


ALWAYS: Final = levels("error", "error", "error", "error")
"""Two copies at work, or nobody at work: wrong in every environment."""

BLOCK: Final = levels("warning", "error", "error", "error")
"""Availability that an environment for developing may do without."""

SPARE: Final = levels("off", "error", "error", "error")
"""A second replica and what belongs to it: dev runs with one."""

ADVICE: Final = levels("off", "warning", "warning", "warning")
"""Survives, but later or with more luck than it needs."""

CAREFUL: Final = levels("off", "warning", "warning", "off")
"""What only an environment with users needs to be told."""


def rule(
    id_: str,
    *,
    title: str,
    why: str,
    fix: str,
    levels: Mapping[Environment, Level],
    kinds: tuple[str, ...],
    cel: str | None = None,
    labelled: bool = True,
    measure: str | None = None,
) -> Callable[[Judge], Rule]:
    """Make a rule of the judge below it."""

    def make(judge: Judge) -> Rule:
        return Rule(id_, title, why, fix, levels, kinds, judge, cel, labelled, measure)

    return make


def as_dict(judgement: Judgement) -> dict[str, Any]:
    """A judgement as JSON-ready data."""
    subject = judgement.subject
    return {
        "level": judgement.level,
        "rule": judgement.rule,
        "kind": subject.kind,
        "namespace": subject.namespace,
        "name": subject.name,
        "source": subject.source or None,
        "inferred": judgement.inferred,
        "exempted": judgement.exempted,
        "message": judgement.message,
        "fix": judgement.fix,
    }
