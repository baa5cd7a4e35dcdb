"""Whether the other nodes have room for pods that a drain moves. Pure functions of API objects.

What is told cannot be scheduled, whatever the scheduler does; the reverse is not promised, for it judges by more than
requests. A refusal for want of room must never be a guess: with one node left, as of two workers, there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from .tandem_release import ready  # relative: machines and the control node import this under two names

Object = Mapping[str, Any]
Amounts = dict[str, Decimal]
"""Resource to amount, in cores, bytes and pieces."""

QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([KMGTPE]i|[numkMGTPE]?))")
FACTORS: Final = {
    **{suffix: Decimal(10) ** power for suffix, power in zip(("n", "u", "m", "", "k"), range(-9, 4, 3), strict=True)},
    **{suffix: Decimal(10) ** power for suffix, power in zip("MGTPE", range(6, 19, 3), strict=True)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
MIB: Final = 1024 * 1024


def quantity(text: Any) -> Decimal:
    """A Kubernetes quantity, exactly: `250m` is 0.25, `64Mi` is 67108864.

    Raises:
        ValueError: it is none.
    """
    found = QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = found.groups()
    return Decimal(number + (exponent or "")) * FACTORS[suffix or ""]


def added(each: Iterable[Mapping[str, Decimal]]) -> Amounts:
    """Amounts, added up."""
    total: Amounts = {}
    for amounts in each:
        for key, value in amounts.items():
            total[key] = total.get(key, Decimal(0)) + value
    return total


def _amounts(holder: Mapping[str, Any]) -> Amounts:
    given = (holder.get("resources") or {}).get("requests") or {}
    return {key: quantity(value) for key, value in given.items()}


def requests(pod: Object) -> Amounts:
    """What the scheduler counts of a pod.

    Sidecars run beside all containers, and beside every init container that comes after them; what is said of the pod
    as a whole goes before the sum (KEP-753, KEP-2837).
    """
    spec = pod["spec"]
    sidecars: list[Amounts] = []
    peaks: list[Amounts] = []
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            sidecars.append(_amounts(container))
        else:
            peaks.append(added([*sidecars, _amounts(container)]))
    total = added([*map(_amounts, spec.get("containers") or []), *sidecars])
    for peak in peaks:
        total |= {key: max(value, total.get(key, Decimal(0))) for key, value in peak.items()}
    overhead = {key: quantity(value) for key, value in (spec.get("overhead") or {}).items()}
    return {**added([{**total, **_amounts(spec)}, overhead]), "pods": Decimal(1)}


def priority(pod: Object) -> int:
    """A pod's priority; one of a lower priority makes room for it."""
    return int(pod["spec"].get("priority") or 0)


def _tolerated(pod: Object, taint: Mapping[str, Any]) -> bool:
    for each in pod["spec"].get("tolerations") or []:
        key, operator = each.get("key", ""), each.get("operator", "Equal")
        same = operator == "Exists" or each.get("value", "") == taint.get("value", "")
        if key in ("", taint["key"]) and same and each.get("effect", "") in ("", taint["effect"]):
            return True
    return False


def _matches(labels: Mapping[str, str], term: Mapping[str, Any]) -> bool:
    """Whether labels match a node selector term, as far as it names labels: others are taken for matching."""
    for each in term.get("matchExpressions") or []:
        value, values = labels.get(each["key"]), each.get("values") or []
        answer = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not answer.get(each["operator"], True):
            return False
    return True


def takes(node: Object, pod: Object) -> bool:
    """Whether a node may be given a pod, room aside. Taints that the cluster puts on nodes by itself come and go."""
    if node["spec"].get("unschedulable") or ready(node) != "True":
        return False
    for taint in node["spec"].get("taints") or []:
        passing = taint["effect"] == "PreferNoSchedule" or taint["key"].startswith("node.kubernetes.io/")
        if not passing and not _tolerated(pod, taint):
            return False
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return not terms or any(_matches(labels, term) for term in terms)


def may_stay_away(pod: Object, takers: Sequence[Object]) -> bool:
    """Whether a pod's successor is perhaps kept off the other nodes, and waits for its node to be back.

    So it is with a hard spread that counts the node all the same (the default), or wants more domains than there are,
    and with pods that must not meet.

    Args:
        pod: one of several of its workload.
        takers: the other nodes that take it, room aside.
    """
    anti = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    if anti.get("requiredDuringSchedulingIgnoredDuringExecution"):
        return True
    return any(
        each.get("whenUnsatisfiable") == "DoNotSchedule"
        and (each.get("nodeTaintsPolicy") != "Honor" or (each.get("minDomains") or 1) > len(takers))
        for each in pod["spec"].get("topologySpreadConstraints") or []
    )


def _left(nodes: Iterable[Object], pods: Iterable[Object], level: int) -> Amounts | None:
    """What nodes have left beside pods of a priority and above; None when one does not tell what it has."""
    free: list[Mapping[str, Decimal]] = []
    names = set()
    for node in nodes:
        names.add(node["metadata"]["name"])
        told = node["status"].get("allocatable") or {}
        if not told:
            return None
        free.append({key: quantity(value) for key, value in told.items()})
    used = added(
        requests(pod)
        for pod in pods
        if pod["spec"].get("nodeName") in names
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
        and "deletionTimestamp" not in pod["metadata"]
        and priority(pod) >= level
    )
    return added([*free, {key: -value for key, value in used.items()}])


def _told(key: str, amount: Decimal) -> str:
    amount = max(amount, Decimal(0))
    if key == "memory" or key.startswith(("ephemeral-storage", "hugepages-")):
        return f"{key} {amount / MIB:.0f} Mi"
    return f"{key} {amount:.2f}" if key == "cpu" else f"{key} {amount:.0f}"


def _short(wanted: Amounts, free: Amounts | None) -> list[str]:
    """Resources of which there is too little."""
    if free is None:
        return []
    return [key for key, value in wanted.items() if value > 0 and value > free.get(key, Decimal(0))]


def _sentence(who: Iterable[str], wanted: Amounts, where: Iterable[str], free: Amounts, keys: Iterable[str]) -> str:
    keys = list(keys)
    need = ", ".join(_told(key, wanted[key]) for key in keys)
    left = ", ".join(_told(key, free.get(key, Decimal(0))) for key in keys)
    return f"{', '.join(who)} would need {need}; {' and '.join(where)} would have {left} left"


def without_room(moving: Sequence[Object], others: Sequence[Object], pods: Sequence[Object]) -> list[str]:
    """Which of the pods fit on none of the other nodes, alone or together, as clauses.

    Args:
        moving: pods that have to run elsewhere.
        others: the other nodes.
        pods: all pods.
    """
    found: list[str] = []
    groups: dict[tuple[str, ...], list[Object]] = {}
    by_name = {node["metadata"]["name"]: node for node in others}
    for pod in moving:
        takers = tuple(name for name, node in by_name.items() if takes(node, pod))
        if not takers:
            found.append(f"{_name(pod)} may run on none of them (taints, node selector or affinity)")
            continue
        single = [(name, _left([by_name[name]], pods, priority(pod))) for name in takers]
        wanted = requests(pod)
        if all(_short(wanted, free) for _, free in single):
            found += [
                _sentence([_name(pod)], wanted, [name], free, _short(wanted, free))
                for name, free in single
                if free is not None
            ]
        else:
            groups.setdefault(takers, []).append(pod)
    for takers in groups:
        mine = [pod for names, each in groups.items() if set(names) <= set(takers) for pod in each]
        for level in sorted({priority(pod) for pod in mine}, reverse=True):
            those = [pod for pod in mine if priority(pod) >= level]
            wanted, free = added(map(requests, those)), _left([by_name[name] for name in takers], pods, level)
            if free is not None and (keys := _short(wanted, free)):
                found.append(_sentence(map(_name, those), wanted, takers, free, keys))
                break
    return found


def _name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
