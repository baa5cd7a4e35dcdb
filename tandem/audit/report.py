"""What an audit found, as data: judged once, shown in three ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tandem import __version__, checklist
from tandem.checklist import Environment, Judgement
from tandem.findings import Finding, Severity
from tandem.survey import verdict

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True)
class Report:
    """An audit's result.

    Args:
        environment: whose levels applied.
        profile: the recovery profile that was judged by; None when unknown.
        judged: how many objects were looked at.
        judgements: of the checklist, exempted ones among them.
        cluster: what concerns the live cluster as a whole; empty for files.
        workers: what speaks against losing each worker now; None for files.
        notes: what could not be judged.
    """

    environment: Environment
    profile: str | None
    judged: int
    judgements: tuple[Judgement, ...]
    cluster: tuple[Finding, ...] = ()
    workers: Mapping[str, tuple[Finding, ...]] | None = None
    notes: tuple[str, ...] = field(default=())

    def counted(self) -> list[Finding]:
        """Every finding that no exemption lets through."""
        live = [finding for found in (self.workers or {}).values() for finding in found]
        return [*checklist.counted(self.judgements), *self.cluster, *live]

    def fails(self, at: Severity) -> bool:
        """Whether there is a finding of this level or a graver one."""
        levels = {finding.level for finding in self.counted()}
        return "error" in levels or (at == "warning" and "warning" in levels)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        counted = self.counted()
        workers = {
            node: {"can_be_lost": verdict(found), "findings": [asdict(each) for each in found]}
            for node, found in (self.workers or {}).items()
        }
        return {
            "environment": self.environment,
            "profile": self.profile,
            "judged": self.judged,
            "errors": sum(each.level == "error" for each in counted),
            "warnings": sum(each.level == "warning" for each in counted),
            "exempted": sum(each.exempted is not None for each in self.judgements),
            "findings": [checklist.as_dict(each) for each in self.judgements],
            "cluster": [asdict(each) for each in self.cluster],
            "workers": None if self.workers is None else workers,
            "notes": list(self.notes),
        }

    def to_sarif(self) -> dict[str, Any]:
        """The report as SARIF 2.1.0, for code review and for dashboards."""
        live = [("cluster", each) for each in self.cluster]
        live += [(f"node/{node}", each) for node, found in (self.workers or {}).items() for each in found]
        results = [_result(each) for each in self.judgements]
        results += [_live_result(where, each) for where, each in live]
        driver = {
            "name": "tandem audit",
            "version": __version__,
            "rules": _rules({each.rule for each in self.judgements}, [each for _, each in live]),
        }
        return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _rules(used: set[str], live: Iterable[Finding]) -> list[dict[str, Any]]:
    described = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": f"{rule.why[0].upper()}{rule.why[1:]}."},
            "help": {"text": rule.fix},
        }
        for rule in checklist.RULES
        if rule.id in used
    ]
    others = {each.rule: each for each in live if each.rule not in used}
    return described + [{"id": name, "help": {"text": each.fix}} for name, each in sorted(others.items())]


def _result(found: Judgement) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": str(found.subject)}]}
    if found.subject.source:
        uri, _, line = found.subject.source.rpartition(":")
        location["physicalLocation"] = {"artifactLocation": {"uri": uri}, "region": {"startLine": int(line)}}
    guessed = " (inferred: the object carries no workload label)" if found.inferred else ""
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "level": found.level,
        "message": {"text": f"{found.subject}: {found.message}{guessed}. Way out: {found.fix}"},
        "locations": [location],
        # Neither line nor message: a finding stays the same one when the file around it changes.
        "partialFingerprints": {"subject/v1": _digest(found.rule, str(found.subject))},
    }
    if found.exempted is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": found.exempted}]
    return result


def _live_result(where: str, found: Finding) -> dict[str, Any]:
    return {
        "ruleId": found.rule,
        "level": found.level,
        "message": {"text": f"{where}: {found.message}. Way out: {found.fix}"},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": where}]}],
        "partialFingerprints": {"subject/v1": _digest(found.rule, where, found.message)},
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
