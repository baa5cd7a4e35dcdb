"""Were there ever two leaders? Judged from versions of the Lease and of what the leaders wrote.

The lab's API server keeps no audit log, so the order of writes is taken from resourceVersions: Lease and reports lie in
one etcd, which numbers its changes one after the other whatever their kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, order=True)
class Claim:
    """One version of the Lease: who held it, and as which epoch."""

    version: int
    holder: str
    epoch: int


@dataclass(frozen=True, order=True)
class Write:
    """One write of a leader, with the epoch that it stamped on it."""

    version: int
    epoch: int


@dataclass(frozen=True)
class Handover:
    """One holder after another; `released`: the first gave it up, so nobody had to wait for the lease to run out."""

    before: str
    after: str
    released: bool


def claim(lease: Mapping[str, Any]) -> Claim:
    """A Lease as the API server shows it."""
    spec = lease.get("spec") or {}
    version = int(lease["metadata"]["resourceVersion"])
    return Claim(version, spec.get("holderIdentity") or "", spec.get("leaseTransitions") or 0)


def write(report: Mapping[str, Any]) -> Write | None:
    """A report as the API server shows it; None before its first status."""
    epoch = (report.get("status") or {}).get("observedEpoch")
    return None if epoch is None else Write(int(report["metadata"]["resourceVersion"]), epoch)


def problems(claims: Iterable[Claim], writes: Iterable[Write]) -> list[str]:
    """Each write that was stored while its epoch was not the one that held the Lease, and each epoch of two holders."""
    known = sorted(set(claims))
    holders: dict[int, str] = {}
    found = [
        f"epoch {each.epoch} is of {holders[each.epoch]} and of {each.holder}"
        for each in known
        if each.holder and holders.setdefault(each.epoch, each.holder) != each.holder
    ]
    found += [
        f"the epoch went from {before.epoch} to {after.epoch}"
        for before, after in pairwise(known)
        if after.epoch < before.epoch
    ]
    for each in sorted(set(writes)):
        before = [other for other in known if other.version < each.version]
        if not before:
            continue  # from before the Lease was watched
        if not before[-1].holder:
            found.append(f"version {each.version} was written by epoch {each.epoch} when nobody held the Lease")
        elif before[-1].epoch != each.epoch:
            found.append(f"version {each.version} was written by epoch {each.epoch} in epoch {before[-1].epoch}")
    return found


def handovers(claims: Iterable[Claim]) -> list[Handover]:
    """All changes of the holder, in order."""
    found: list[Handover] = []
    last, free = "", False
    for each in sorted(set(claims)):
        if not each.holder:
            free = True
            continue
        if last and each.holder != last:
            found.append(Handover(last, each.holder, free))
        last, free = each.holder, False
    return found


def epochs(writes: Sequence[Write]) -> set[int]:
    """Those that wrote."""
    return {each.epoch for each in writes}
