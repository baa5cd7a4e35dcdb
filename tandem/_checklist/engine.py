"""The table, and the loop that holds every object to every rule that concerns its kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tandem import labels as names
from tandem._checklist import around, controllers, workloads
from tandem._checklist.facts import facts_of
from tandem._checklist.model import ALWAYS, Case, Environment, Judgement, Rule, Subject
from tandem._checklist.model import rule as make_rule
from tandem._checklist.objects import Object, annotations_of, is_reason, kind, name, namespace
from tandem._checklist.world import World
from tandem.recovery import RecoveryProfile

_JUDGED: Final = (*workloads.RULES, *controllers.RULES, *around.RULES)
_IDS: Final = frozenset(each.id for each in _JUDGED)


@make_rule(
    "exemption-reason",
    title="An exemption names a rule and a reason",
    why="nobody knows later whether it still holds",
    fix="exempt.tandem-ha.io/<rule>: <why, in three words or more>",
    levels=ALWAYS,
    kinds=tuple(sorted({each for rule in _JUDGED for each in rule.kinds})),
    labelled=False,
)
def _exemption(case: Case) -> Iterator[str]:
    for key, reason in annotations_of(case.obj).items():
        if not key.startswith(names.EXEMPT_PREFIX):
            continue
        wanted = key.removeprefix(names.EXEMPT_PREFIX)
        if wanted not in _IDS:
            yield f"there is no rule {wanted} to be exempted from"
        elif not is_reason(str(reason)):
            yield f"the exemption from {wanted} states no reason, so it does not hold"


RULES: Final[tuple[Rule, ...]] = (*_JUDGED, _exemption)
"""The checklist."""

_BY_KIND: Final[dict[str, list[Rule]]] = defaultdict(list)
for _rule in RULES:
    for _kind in _rule.kinds:
        _BY_KIND[_kind].append(_rule)


def rule(id_: str) -> Rule:
    """The rule of this name.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    found = next((each for each in RULES if each.id == id_), None)
    if found is None:
        raise KeyError(f"no rule {id_!r}; known: {', '.join(each.id for each in RULES)}")
    return found


def judge(
    objects: Iterable[Object],
    *,
    environment: Environment = "prod",
    profile: RecoveryProfile | None = None,
    now: float | None = None,
    source: Callable[[Object], str] = lambda _: "",
    world: World | None = None,
    only: Rule | None = None,
) -> tuple[Judgement, ...]:
    """What the checklist finds.

    Args:
        objects: as the API server shows them or as a file holds them; kinds that no rule knows are passed over.
        environment: whose levels apply.
        profile: the recovery profile that the cluster was tuned with; None: that tolerations are limited is all that
            is judged of them.
        now: seconds since the epoch, for live objects; None for files.
        source: says where an object was read.
        world: the objects to look up what belongs together, when they are more than those to be judged.
        only: the one rule to judge by; all of them when None.

    Returns:
        Findings in the order of the objects, and of the rules for each.
    """
    judged = list(objects)
    world = world or World(judged)
    return tuple(
        found
        for obj in judged
        if kind(obj) in _BY_KIND
        for found in _judge_one(Case(obj, facts_of(obj, world), world, profile, now), environment, source, only)
    )


def counted(findings: Iterable[Judgement]) -> list[Judgement]:
    """Those that no exemption lets through."""
    return [each for each in findings if each.exempted is None]


def _judge_one(
    case: Case, environment: Environment, source: Callable[[Object], str], only: Rule | None
) -> Iterator[Judgement]:
    subject: Subject | None = None
    for each in _BY_KIND[kind(case.obj)]:
        level = each.levels[environment]
        if level == "off" or (only is not None and each is not only):
            continue
        inferred = each.labelled and case.facts.inferred
        for message in each.judge(case):
            if subject is None:
                subject = Subject(kind(case.obj), namespace(case.obj), name(case.obj), source(case.obj))
            reason = annotations_of(case.obj).get(names.EXEMPT_PREFIX + each.id)
            yield Judgement(
                "warning" if inferred else level,
                each.id,
                message,
                each.fix,
                subject=subject,
                inferred=inferred,
                exempted=str(reason) if reason is not None and is_reason(str(reason)) else None,
            )
