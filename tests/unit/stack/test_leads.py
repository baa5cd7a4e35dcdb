"""The judge of leaders sees what it must not pass over."""

from __future__ import annotations

import pytest

from tests.stack.leads import Claim, Handover, Write, claim, handovers, problems, write

HANDED_OVER = [Claim(10, "a", 1), Claim(14, "a", 1), Claim(20, "", 1), Claim(21, "b", 2)]


def test_a_release_between_the_last_write_of_one_and_the_first_of_the_next_is_right() -> None:
    writes = [Write(11, 1), Write(19, 1), Write(22, 2)]
    assert problems(HANDED_OVER, writes) == []
    assert handovers(HANDED_OVER) == [Handover("a", "b", released=True)]


@pytest.mark.parametrize(
    ("late", "said"),
    [
        (Write(23, 1), "version 23 was written by epoch 1 in epoch 2"),
        (Write(15, 2), "version 15 was written by epoch 2 in epoch 1"),
    ],
)
def test_a_write_of_another_epoch_than_the_lease_s_is_seen(late: Write, said: str) -> None:
    assert problems(HANDED_OVER, [Write(11, 1), late]) == [said]


def test_a_write_after_the_release_is_seen() -> None:
    freed = [Claim(10, "a", 1), Claim(20, "", 1), Claim(30, "b", 2)]
    assert problems(freed, [Write(25, 1)]) == ["version 25 was written by epoch 1 when nobody held the Lease"]


def test_two_holders_of_one_epoch_and_an_epoch_that_goes_back_are_seen() -> None:
    assert problems([Claim(1, "a", 1), Claim(2, "b", 1)], []) == ["epoch 1 is of a and of b"]
    assert problems([Claim(1, "a", 2), Claim(2, "b", 1)], []) == ["the epoch went from 2 to 1"]


def test_a_takeover_without_a_release_is_told_apart() -> None:
    assert handovers([Claim(1, "a", 1), Claim(2, "b", 2)]) == [Handover("a", "b", released=False)]
    assert handovers([Claim(1, "a", 1), Claim(2, "", 1), Claim(3, "a", 2)]) == []


def test_writes_before_the_first_known_claim_are_not_judged() -> None:
    assert problems(HANDED_OVER, [Write(5, 7)]) == []


def test_objects_as_the_api_server_shows_them() -> None:
    spec = {"holderIdentity": "a", "leaseTransitions": 3}
    assert claim({"metadata": {"resourceVersion": "7"}, "spec": spec}) == Claim(7, "a", 3)
    assert claim({"metadata": {"resourceVersion": "7"}}) == Claim(7, "", 0)
    assert write({"metadata": {"resourceVersion": "8"}, "status": {"observedEpoch": 3}}) == Write(8, 3)
    assert write({"metadata": {"resourceVersion": "8"}}) is None
