"""Label selectors: what they match, and whether two of them can match the same object.

The grammar is the API's own (`a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, `a`, `!a`, joined by commas).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_SET = re.compile(rf"^(?P<key>{_NAME})\s+(?P<not>not)?in\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(rf"^(?P<key>{_NAME})\s*(?P<operator>==?|!=)\s*(?P<value>[-A-Za-z0-9_.]*)$")
_EXISTS = re.compile(rf"^(?P<absent>!\s*)?(?P<key>{_NAME})$")


@dataclass(frozen=True)
class Requirement:
    """What one label must be.

    Attributes:
        values: the values that are allowed, or refused if `negated`; None is any value at all.
        negated: the label must be absent or hold none of `values`.
    """

    key: str
    values: frozenset[str] | None
    negated: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it."""
        found = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return found != self.negated


Selector = tuple[Requirement, ...]
"""All of them must be met; the empty selector matches everything."""


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        ValueError: it is none; the message quotes the part that could not be read.
    """
    parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)]
    return tuple(_requirement(part, text) for part in parts if part or len(parts) > 1)


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether an object with these labels is selected."""
    return all(requirement.matches(labels) for requirement in selector)


def disjoint(one: Selector, other: Selector) -> bool:
    """Whether no object can ever be selected by both, provable label by label.

    It is so when some label would have to be two things at once: hold a value of two sets that share none, hold a value
    that the other refuses, or be there and be absent.
    """
    keys = {requirement.key for requirement in one} & {requirement.key for requirement in other}
    return any(_impossible([r for r in (*one, *other) if r.key == key]) for key in keys)


def _impossible(requirements: list[Requirement]) -> bool:
    """Whether requirements on one label contradict each other."""
    wanted = [r.values for r in requirements if not r.negated]
    if not wanted:
        return False  # an absent label satisfies every refusal
    refused = [r.values for r in requirements if r.negated]
    if None in refused:
        return True  # there and absent
    sets = [values for values in wanted if values is not None]
    if not sets:
        return False  # "any value" less finitely many is never empty
    allowed = frozenset.intersection(*sets).difference(*(values for values in refused if values is not None))
    return not allowed


def _requirement(part: str, text: str) -> Requirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], values, negated=found["not"] is not None)
    if found := _EQUAL.match(part):
        return Requirement(found["key"], frozenset({found["value"]}), negated=found["operator"] == "!=")
    if found := _EXISTS.match(part):
        return Requirement(found["key"], None, negated=found["absent"] is not None)
    raise ValueError(
        f"label selector {text!r}: {part!r} is no requirement (a=b, a!=b, a in (b, c), a notin (b), a, !a)"
    )
