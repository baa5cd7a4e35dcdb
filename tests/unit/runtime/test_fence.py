"""The fence, its epoch, and what is stamped with it."""

from __future__ import annotations

import math

import pytest

from tandem.runtime import Fence, NotLeading, OpenFence, StaleEpoch, check_epoch, stamp_epoch


class Closed(OpenFence):
    epoch = 7

    def check(self) -> float:
        raise NotLeading("over")


def test_without_election_the_fence_is_open() -> None:
    assert isinstance(OpenFence(), Fence)
    assert OpenFence().check() == math.inf
    assert OpenFence().epoch == 0


def test_a_status_is_stamped_without_touching_the_original() -> None:
    status = {"ready": 2}
    assert stamp_epoch(status, 5) == {"ready": 2, "leaderEpoch": 5}
    assert status == {"ready": 2}


@pytest.mark.parametrize("stamped", [None, "", "not a number", 7, "7", 6, 0])
def test_what_an_earlier_or_no_leader_wrote_may_be_replaced(stamped: object) -> None:
    check_epoch(Closed(), stamped)


@pytest.mark.parametrize("stamped", [8, "8", 2**31 - 1])
def test_what_a_later_leader_wrote_may_not(stamped: object) -> None:
    with pytest.raises(StaleEpoch, match="epoch"):
        check_epoch(Closed(), stamped)
