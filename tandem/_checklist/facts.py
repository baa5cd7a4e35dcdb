"""What an object says about itself by label and annotations, or what must be guessed when it says nothing.

A guess is marked as one everywhere. It reads what charts and operators in fact write: flags of leader election, names,
the rights on Leases that their ServiceAccount was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tandem import labels as names
from tandem._checklist.objects import (
    WORKLOADS,
    Object,
    annotations_of,
    claims,
    containers,
    kind,
    labels,
    name,
    pod,
    replicas,
    spec,
)
from tandem._checklist.world import World

LEASE_SECONDS_FORM: Final = r"^[0-9]+(\.[0-9]+)?(/[0-9]+(\.[0-9]+)?){2}$"
"""The form of the annotation with lease times: three numbers of seconds, as `15/10/2`."""

_ELECTION_FLAG: Final = re.compile(
    r"--?(enable-)?(leader-elect|leader-election|leaderelect|election-id)[a-z-]*(=(?P<value>.*))?$", re.IGNORECASE
)
_ELECTION_ENV: Final = re.compile(r"LEADER_?ELECT|LEASE_NAME|ELECTION_ID", re.IGNORECASE)
_CONTROLLER_NAME: Final = re.compile(r"(^|-)(controller|operator|manager|provisioner|autoscaler)$")
_DURATION: Final = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?$")
_LEASE_FLAGS: Final = tuple(
    re.compile(rf"--?(leader-elect|leader-election)-{what}=(.+)$")
    for what in ("lease-duration", "renew-deadline", "retry-period")
)


@dataclass(frozen=True)
class Facts:
    """What is known of an object.

    Args:
        workload: `spread`, `single-writer`, `node-agent`, `controller`, or `stateful` for a StatefulSet of no label;
            empty for objects that are no workload and carry no label.
        inferred: the workload was guessed.
        elected: it acts only while it holds a Lease.
        replicas: how many run at least, autoscaling reckoned with.
        drain_seconds: what it says that it needs to stop.
        lease_seconds: lease duration, renew deadline, retry period; None when it does not say.
    """

    workload: str = ""
    inferred: bool = True
    elected: bool = False
    replicas: int = 1
    drain_seconds: int = 0
    lease_seconds: tuple[float, float, float] | None = None

    @property
    def spare(self) -> bool:
        """Whether a second replica is there so that the loss of a worker costs nothing."""
        return self.replicas >= 2 and self.workload in {names.SPREAD, names.CONTROLLER, "stateful"}


def facts_of(obj: Object, world: World) -> Facts:
    """What an object says, guessed where it has no workload label."""
    stated = labels(obj).get(names.WORKLOAD)
    if kind(obj) not in WORKLOADS:
        return Facts(workload=stated or "", inferred=stated is None)
    minimum = _minimum(obj, world)
    lease = lease_seconds(annotations_of(obj).get(names.LEASE_SECONDS, ""))
    drain = annotations_of(obj).get(names.DRAIN_SECONDS, "")
    drain_seconds = int(drain) if drain.isdigit() else 0
    if stated is not None:
        return Facts(stated, False, names.LEASE in annotations_of(obj), minimum, drain_seconds, lease)
    elected = names.LEASE in annotations_of(obj) or _seems_elected(obj, world)
    workload = _guess(obj, elected=elected)
    return Facts(workload, True, elected, minimum, drain_seconds, lease or _flags_of_lease(obj))


def lease_seconds(text: str) -> tuple[float, float, float] | None:
    """The three times of `15/10/2`; None for anything else."""
    if not re.search(LEASE_SECONDS_FORM, text):
        return None
    duration, deadline, retry = (float(part) for part in text.split("/"))
    return duration, deadline, retry


def duration_seconds(text: str) -> float | None:
    """A duration as Go writes it (`1m30s`, `15s`) in seconds; None for anything else."""
    found = _DURATION.match(text)
    if not text or found is None:
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _minimum(obj: Object, world: World) -> int:
    bounds = annotations_of(obj).get(names.AUTOSCALED, "").partition("-")[0]
    if bounds.isdigit():
        return int(bounds)
    scaler = world.autoscaler(obj)
    if scaler is not None and spec(obj).get("replicas") is None:
        return int(spec(scaler).get("minReplicas") or 1)
    return replicas(obj)


def _guess(obj: Object, *, elected: bool) -> str:
    if kind(obj) == "DaemonSet":
        return names.NODE_AGENT
    if kind(obj) == "StatefulSet":
        return "stateful"
    component = labels(obj).get("app.kubernetes.io/component", "")
    named = any(_CONTROLLER_NAME.search(text) for text in (name(obj), component))
    if elected or named or "control-plane" in labels(obj):
        return names.CONTROLLER
    if claims(obj) and replicas(obj) == 1:
        return names.SINGLE_WRITER
    return names.SPREAD


def _arguments(obj: Object) -> Iterable[str]:
    for container in containers(obj):
        for part in [*(container.get("command") or []), *(container.get("args") or [])]:
            yield str(part)


def _seems_elected(obj: Object, world: World) -> bool:
    for argument in _arguments(obj):
        found = _ELECTION_FLAG.match(argument)
        if found:
            return (found["value"] or "true").lower() != "false"
    environment: list[Any] = [env for container in containers(obj) for env in container.get("env") or []]
    for env in environment:
        if _ELECTION_ENV.search(str(env.get("name"))):
            return str(env.get("value", "true")).lower() not in {"false", "0", "off"}
    return pod(obj).get("serviceAccountName") is not None and may_hold_lease(world.rules_of(obj, anywhere=True))


def may_hold_lease(rules: Iterable[Object]) -> bool:
    """Whether RBAC rules allow to create and to update a Lease."""
    return {"create", "update"} <= lease_verbs(rules)


def lease_verbs(rules: Iterable[Object]) -> set[str]:
    """The verbs that RBAC rules allow on Leases; `*` and `patch` count for what they can do."""
    verbs: set[str] = set()
    for each in rules:
        groups, resources = each.get("apiGroups") or [], each.get("resources") or []
        if {"coordination.k8s.io", "*"} & set(groups) and {"leases", "*"} & set(resources):
            verbs |= set(each.get("verbs") or [])
    if "*" in verbs:
        verbs |= {"get", "list", "watch", "create", "update", "patch", "delete"}
    return verbs


def _flags_of_lease(obj: Object) -> tuple[float, float, float] | None:
    found: list[float | None] = [None, None, None]
    for argument in _arguments(obj):
        for index, flag in enumerate(_LEASE_FLAGS):
            if match := flag.match(argument):
                found[index] = duration_seconds(match[2])
    if all(value is None for value in found):
        return None
    # The defaults of client-go and controller-runtime.
    first, second, third = (d if v is None else v for v, d in zip(found, (15.0, 10.0, 2.0), strict=True))
    return first, second, third
