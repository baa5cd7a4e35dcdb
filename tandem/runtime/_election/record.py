"""The Lease as the election reads and writes it: lenient in reading, exact in writing.

Times in the record are written for people and for other electors. None is ever read for a decision: they come from
another machine's wall clock.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

_MAX_TRANSITIONS = 2**31 - 1  # leaseTransitions is an int32


class Record(NamedTuple):
    """What a Lease says.

    Attributes:
        holder: Identity of the holder; empty when the Lease is free.
        duration: `leaseDurationSeconds`, or None when it is absent or makes no sense.
        transitions: `leaseTransitions`, 0 when absent: the epoch of the holder.
        renewed: `renewTime` as written; changes with each renewal, and is compared for that only.
        acquired: `acquireTime` as written.
        version: The object's resourceVersion as a number (comparable since Kubernetes 1.35, and with etcd always).
        uid: The object's uid; another one means that the Lease was deleted and made anew.
        raw: The whole object, so that a renewal keeps labels, annotations and fields that we do not know.
    """

    holder: str
    duration: float | None
    transitions: int
    renewed: str
    acquired: str
    version: int
    uid: str
    raw: Mapping[str, Any]

    def same_claim(self, other: Record) -> bool:
        """Whether nothing of the claim changed; a label or an annotation is no renewal."""
        return self[:5] == other[:5] and self.uid == other.uid


def parse(lease: Mapping[str, Any]) -> Record:
    """Read a Lease, whoever wrote it.

    Raises:
        ValueError: It is no Lease with metadata at all (an error page of a proxy, for instance).
    """
    if not isinstance(lease, Mapping):
        raise ValueError(f"not a Lease but {type(lease).__name__}")  # noqa: TRY004 - what came over the wire is wrong
    metadata = lease.get("metadata")
    if not isinstance(metadata, Mapping) or not metadata.get("resourceVersion"):
        raise ValueError("not a Lease: no metadata.resourceVersion")
    spec = lease.get("spec")
    if not isinstance(spec, Mapping):
        spec = {}
    duration = _number(spec.get("leaseDurationSeconds"))
    return Record(
        holder=str(spec.get("holderIdentity") or "").strip(),
        duration=duration if duration is not None and duration > 0 else None,
        transitions=max(0, int(_number(spec.get("leaseTransitions")) or 0)),
        renewed=str(spec.get("renewTime") or ""),
        acquired=str(spec.get("acquireTime") or ""),
        version=version_of(metadata),
        uid=str(metadata.get("uid") or ""),
        raw=lease,
    )


def version_of(metadata: Mapping[str, Any]) -> int:
    """The resourceVersion as a number, or ValueError: an API whose versions have no order cannot be served."""
    return int(metadata["resourceVersion"])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def next_epoch(transitions: int) -> int:
    """The epoch after this one."""
    return min(transitions + 1, _MAX_TRANSITIONS)


def timestamp(now: datetime.datetime) -> str:
    """A MicroTime as the API writes it."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def body(
    base: Record | None,
    *,
    name: str,
    namespace: str,
    holder: str,
    duration: int,
    transitions: int,
    acquiring: bool,
    now: datetime.datetime,
) -> dict[str, Any]:
    """The Lease to send: `base` with our claim, everything else kept, its resourceVersion included.

    `base` is the record to replace, None to create; `acquiring` begins a claim, and sets acquireTime; `now` is the wall
    clock, for readers only.
    """
    lease: dict[str, Any] = (
        copy.deepcopy(dict(base.raw))
        if base is not None
        else {"metadata": {"name": name, "namespace": namespace}, "spec": {}}
    )
    lease["apiVersion"], lease["kind"] = "coordination.k8s.io/v1", "Lease"
    lease["metadata"].pop("managedFields", None)
    spec = lease["spec"] = dict(lease.get("spec") or {})
    stamp = timestamp(now)
    spec.update(
        holderIdentity=holder, leaseDurationSeconds=int(duration), leaseTransitions=transitions, renewTime=stamp
    )
    if acquiring or not spec.get("acquireTime"):
        spec["acquireTime"] = stamp
    return lease
