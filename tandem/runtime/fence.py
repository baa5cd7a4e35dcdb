"""What every write passes: a question asked immediately before it is sent.

A check before a write does not bind the write: a process may be stopped between the two, and its request may lie in a
queue of the network. So a write also carries the resourceVersion that it was decided on, and where status is written,
the epoch of its leader. docs/election.md states what that guarantees and what it does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

from tandem.labels import LABEL_PREFIX

EPOCH_ANNOTATION: Final = f"{LABEL_PREFIX}/epoch"
"""Annotation that carries the epoch of the leader that wrote an object, where its status has no field for it."""


class NotLeading(Exception):  # noqa: N818 - a state, named as the field names it
    """A write was asked for without a valid lead; it was not sent."""


class StaleEpoch(NotLeading):
    """The object was written by a later leader: ours is over, whatever our clock says."""


@runtime_checkable
class Fence(Protocol):
    """Says whether a write may be sent now. A `Leadership` is one."""

    @property
    def epoch(self) -> int:
        """Counts the leaders of one Lease; a later leader has a higher one. 0 without an election."""
        ...

    def check(self) -> float:
        """Return for how many seconds a write that is sent now may take.

        Raises:
            NotLeading: It may not.
        """
        ...


class OpenFence:
    """The fence of a controller that runs without election: always open, epoch 0."""

    epoch: int = 0

    def check(self) -> float:
        """No limit."""
        return math.inf


def stamp_epoch(status: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """The status with `leaderEpoch`, so that a reader and a later leader can tell whose it is."""
    return {**status, "leaderEpoch": epoch}


def check_epoch(fence: Fence, stamped: object) -> None:
    """Refuse to write over what a later leader wrote.

    Args:
        fence: Ours.
        stamped: The epoch found in the object that is to be replaced: a number, its text, or None when there is none.

    Raises:
        StaleEpoch: The object carries a higher epoch than ours.
    """
    try:
        found = int(str(stamped))
    except ValueError:
        return
    if found > fence.epoch:
        raise StaleEpoch(f"the object was written in epoch {found}, ours is {fence.epoch}: a later leader is at work")
