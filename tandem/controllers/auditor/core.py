"""What the auditor decides: from a namespace's objects to its report, and from two reports to the Events between them.

Pure. The report is a status, the same for the same objects but for the moments of its conditions' transitions; so a
repeated reconcile, or a new leader, finds nothing to write and says nothing again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tandem import checklist
from tandem.checklist import Environment, Judgement
from tandem.drill.observe import condition
from tandem.recovery import RecoveryProfile
from tandem.survey import Cluster, one_basket

Object = Mapping[str, Any]

LISTED: Final = 200
"""Findings in one report at most; the counts go on. An object of the API must stay far below its limit of 1.5 MB."""

CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True)
class Observed:
    """A namespace as the auditor sees it.

    Args:
        objects: of the namespace, each with its kind: workloads, budgets, claims, Leases, Services, autoscalers, pods.
        nodes: all nodes.
        environment: whose levels apply.
        profile: the recovery profile recorded in the cluster; None when there is none.
        now: seconds since the epoch; only judgements of Leases depend on it.
        stamp: the same moment as the API writes it, for conditions that change.
    """

    objects: Sequence[Object]
    nodes: Sequence[Object]
    environment: Environment
    profile: RecoveryProfile | None
    now: float
    stamp: str


@dataclass(frozen=True)
class Notice:
    """An Event to be recorded on an object."""

    kind: str
    name: str
    type: Literal["Normal", "Warning"]
    reason: str
    note: str


def judge(observed: Observed) -> tuple[Judgement, ...]:
    """The checklist's findings on the namespace, gravest first, then by object and rule."""
    found = checklist.judge(
        observed.objects, environment=observed.environment, profile=observed.profile, now=observed.now
    )
    return tuple(sorted(found, key=_order))


def status(observed: Observed, found: Sequence[Judgement], previous: Object | None) -> dict[str, Any]:
    """The report's status.

    Args:
        observed: the namespace.
        found: what `judge` gave.
        previous: the status that the report has now, for the moments at which conditions last changed.
    """
    counted = checklist.counted(found)
    errors = sum(each.level == "error" for each in counted)
    warnings = len(counted) - errors
    inferred = sum(each.inferred for each in counted)
    return {
        "environment": observed.environment,
        "profile": observed.profile.name if observed.profile else "",
        "summary": {
            "errors": errors,
            "warnings": warnings,
            "inferred": inferred,
            "exempted": len(found) - len(counted),
        },
        "findings": [_entry(each) for each in found[:LISTED]],
        "unlisted": max(0, len(found) - LISTED),
        "conditions": [
            _condition(observed, previous, "ChecklistPassed", *_passed(errors, warnings)),
            _condition(observed, previous, "SurvivesWorkerLoss", *_survives(observed)),
        ],
    }


def notices(previous: Object | None, current: Object) -> list[Notice]:
    """What is new in a report and what is gone, as Events; the same report twice gives none."""
    before, after = _entries(previous), _entries(current)
    new = [
        Notice(
            each["kind"], each["name"], "Warning", _reason(each["rule"]), f"{each['message']}. Way out: {each['fix']}"
        )
        for key, each in after.items()
        if key not in before
    ]
    gone = [
        Notice(each["kind"], each["name"], "Normal", "Resolved", f"{each['rule']}: {each['message']}: holds no more")
        for key, each in before.items()
        if key not in after
    ]
    return [*new, *gone]


def counts(found: Iterable[Judgement]) -> dict[tuple[str, str], int]:
    """How many findings count, by rule and level: the auditor's metric."""
    result: dict[tuple[str, str], int] = {}
    for each in checklist.counted(found):
        result[each.rule, each.level] = result.get((each.rule, each.level), 0) + 1
    return result


def _order(found: Judgement) -> tuple[bool, bool, str, str, str, str]:
    subject = found.subject
    return (
        found.exempted is not None,
        found.level != "error",
        subject.kind,
        subject.name,
        found.rule,
        found.message,
    )


def _entry(found: Judgement) -> dict[str, Any]:
    entry = checklist.as_dict(found)
    # A report stands in the namespace, and was not read from a file.
    return {k: v for k, v in entry.items() if k not in {"namespace", "source"} and v is not None}


def _entries(report: Object | None) -> dict[tuple[str, ...], Any]:
    """The findings that count, by what makes two of them the same. Ages in messages must not make news."""
    listed = (report or {}).get("findings") or []
    return {
        (each["kind"], each["name"], each["rule"], "" if each["rule"] == "lease-held" else each["message"]): each
        for each in listed
        if "exempted" not in each
    }


def _passed(errors: int, warnings: int) -> tuple[str, str, str]:
    if errors:
        return "False", "Errors", f"{errors} errors and {warnings} warnings"
    return "True", "Warnings" if warnings else "NoFindings", f"{warnings} warnings" if warnings else "nothing was found"


def _survives(observed: Observed) -> tuple[str, str, str]:
    workers = [n for n in observed.nodes if CONTROL_PLANE not in (n["metadata"].get("labels") or {})]
    if not workers:
        return "Unknown", "NoWorkers", "no worker is known"
    ready = sorted(n["metadata"]["name"] for n in workers if condition(n, "Ready") == "True")
    if len(ready) < 2:
        return "False", "OneWorker", f"{len(ready)} of {len(workers)} workers are Ready"
    cluster = Cluster(observed.objects)
    crowded = [finding.message for node in ready for finding in one_basket(cluster, node)]
    if crowded:
        return "False", "OneBasket", "; ".join(sorted(crowded))
    return "True", "Spread", f"no app has all of its replicas on one of {len(ready)} workers"


def _condition(
    observed: Observed, previous: Object | None, kind: str, state: str, reason: str, message: str
) -> dict[str, Any]:
    old = next((c for c in (previous or {}).get("conditions") or [] if c.get("type") == kind), None)
    since = old["lastTransitionTime"] if old and old.get("status") == state else observed.stamp
    return {"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": since}


def _reason(rule: str) -> str:
    return "".join(part.capitalize() for part in rule.split("-"))
