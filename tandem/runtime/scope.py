"""Which part of a cluster a controller, or one shard of it, looks at; and proof that two parts share nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from tandem.runtime import selectors
from tandem.runtime.resources import Resource


@dataclass(frozen=True)
class Scope:
    """Some namespaces, or what a label selector picks, or both at once.

    Attributes:
        namespaces: empty is all of them.
        label_selector: empty is everything in them.

    Raises:
        ValueError: a selector that cannot be read, or a namespace twice.
    """

    namespaces: tuple[str, ...] = ()
    label_selector: str = ""

    def __post_init__(self) -> None:
        selectors.parse(self.label_selector)
        if len(set(self.namespaces)) < len(self.namespaces):
            raise ValueError(f"scope {self}: a namespace stands twice in it")
        if not all(self.namespaces):
            raise ValueError(f"scope {self}: an empty namespace")

    def __str__(self) -> str:
        where = ", ".join(self.namespaces) or "all namespaces"
        return f"{where} with {self.label_selector}" if self.label_selector else where

    def namespaces_of(self, resource: Resource) -> Sequence[str | None]:
        """The namespaces to list and watch, one by one; None stands for the whole cluster."""
        if not self.namespaces or not resource.namespaced:
            return (None,)
        return self.namespaces


EVERYTHING: Final = Scope()


@dataclass(frozen=True)
class Shard:
    """One part of a sharded controller, with a Lease of its own.

    Attributes:
        name: the Lease is `<controller>-<name>`.
        scope: what it looks at and acts on.
    """

    name: str
    scope: Scope

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a shard needs a name")


def overlaps(shards: Sequence[Shard]) -> list[str]:
    """Each pair of shards that could act on the same object, in words; empty when all are disjoint.

    Two scopes are disjoint when they share no namespace, or when their selectors contradict each other on some label.
    What cannot be shown to be disjoint counts as overlapping: two leaders for one object is what shards must not be.
    """
    return [
        f"shards {one.name!r} ({one.scope}) and {other.name!r} ({other.scope}) may act on the same object"
        for one, other in combinations(shards, 2)
        if not _disjoint(one.scope, other.scope)
    ]


def check_shards(shards: Sequence[Shard]) -> None:
    """Refuse shards that overlap or share a name.

    Raises:
        ValueError: they do; the message names each pair.
    """
    names = [shard.name for shard in shards]
    problems = [f"two shards are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems := problems + overlaps(shards):
        raise ValueError("; ".join(problems))


def _disjoint(one: Scope, other: Scope) -> bool:
    if one.namespaces and other.namespaces and not set(one.namespaces) & set(other.namespaces):
        return True
    return selectors.disjoint(selectors.parse(one.label_selector), selectors.parse(other.label_selector))
