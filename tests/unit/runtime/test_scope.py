"""Shards must be disjoint, provably; selectors mean what the API says."""

from __future__ import annotations

import random

import pytest

from tandem.runtime import selectors
from tandem.runtime.scope import Scope, Shard, check_shards, overlaps
from tandem.runtime.selectors import disjoint, matches, parse


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=1", {"a": "1"}, True),
        ("a==1", {"a": "2"}, False),
        ("a=1", {}, False),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a in (1, 2)", {"a": "2"}, True),
        ("a in (1,2)", {}, False),
        ("a notin (1,2)", {"a": "3"}, True),
        ("a notin (1,2)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {}, True),
        ("! a", {"a": "x"}, False),
        ("a=", {"a": ""}, True),
        ("example.com/team=red,b in (x,y),!c", {"example.com/team": "red", "b": "y"}, True),
        ("example.com/team=red,b in (x,y),!c", {"example.com/team": "red", "b": "y", "c": ""}, False),
    ],
)
def test_what_a_selector_matches(text: str, labels: dict[str, str], expected: bool) -> None:
    assert matches(parse(text), labels) is expected


@pytest.mark.parametrize("text", ["a=1,", "a in 1", "=1", "a > 1", "a in (1", "a b"])
def test_what_is_no_selector_is_refused_with_its_part(text: str) -> None:
    with pytest.raises(ValueError, match="is no requirement"):
        parse(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("s=a", "s=b", True),
        ("s=a", "s=a", False),
        ("s=a", "t=b", False),
        ("s=a", "s!=a", True),
        ("s in (a,b)", "s notin (a,b)", True),
        ("s in (a,b)", "s notin (a)", False),
        ("s in (a,b)", "s in (b,c)", False),
        ("s in (a,b),s!=b", "s in (b,c)", True),
        ("s", "!s", True),
        ("s=a", "!s", True),
        ("s!=a", "!s", False),
        ("s!=a", "s!=b", False),
        ("s", "s=a", False),
        ("", "s=a", False),
        ("s=a,t=x", "s=a,t=y", True),
    ],
)
def test_which_selectors_are_disjoint(one: str, other: str, expected: bool) -> None:
    assert disjoint(parse(one), parse(other)) is expected
    assert disjoint(parse(other), parse(one)) is expected


def test_disjoint_never_says_so_of_selectors_that_one_object_satisfies() -> None:
    rng = random.Random(5)

    def requirement() -> selectors.Requirement:
        values = rng.choice([None, frozenset(rng.sample("xyz", rng.randint(1, 3)))])
        return selectors.Requirement(rng.choice("ab"), values, negated=rng.random() < 0.5)

    everyone = [
        {k: v for k, v in (("a", a), ("b", b)) if v is not None} for a in (None, *"xyzw") for b in (None, *"xyzw")
    ]
    proved = 0
    for _ in range(4000):
        one, other = (tuple(requirement() for _ in range(rng.randint(0, 3))) for _ in range(2))
        both = any(matches(one, labels) and matches(other, labels) for labels in everyone)
        if disjoint(one, other):
            proved += 1
            assert not both, (one, other)
    assert proved > 500  # the proof is of use


def test_shards_of_distinct_namespaces_or_contradicting_selectors_pass() -> None:
    check_shards([Shard("a", Scope(("x", "y"))), Shard("b", Scope(("z",)))])
    check_shards(
        [Shard("a", Scope((), "s=a")), Shard("b", Scope((), "s=b")), Shard("rest", Scope((), "s notin (a,b)"))]
    )
    check_shards([Shard("a", Scope(("x",), "s=a")), Shard("b", Scope(("x",), "s=b"))])


def test_shards_that_may_meet_are_refused_by_name() -> None:
    shards = [Shard("a", Scope(("x", "y"))), Shard("b", Scope(("y", "z"))), Shard("c", Scope((), "s=c"))]
    assert len(overlaps(shards)) == 3
    with pytest.raises(ValueError, match=r"'a'.*'b'.*may act on the same object"):
        check_shards(shards)
    with pytest.raises(ValueError, match="two shards are called 'a'"):
        check_shards([Shard("a", Scope(("x",))), Shard("a", Scope(("y",)))])


def test_a_scope_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Scope(("x", "x"))
    with pytest.raises(ValueError, match="no requirement"):
        Scope((), "a >< b")
