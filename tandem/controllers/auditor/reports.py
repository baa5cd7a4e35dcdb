"""HighAvailabilityReport: one object a namespace, named `availability`, whose status is the auditor's word on it."""

from __future__ import annotations

from typing import Any, Final

from tandem.labels import LABEL_PREFIX
from tandem.runtime.resources import Resource

REPORTS: Final = Resource(LABEL_PREFIX, "v1alpha1", "highavailabilityreports", "HighAvailabilityReport")
REPORT_NAME: Final = "availability"
EPOCH_FIELD: Final = "observedEpoch"


def custom_resource_definition() -> dict[str, Any]:
    """The CustomResourceDefinition of the report, as it is applied to a cluster."""
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    finding = _object(
        required=("level", "rule", "kind", "name", "message", "fix"),
        level={"type": "string", "enum": ["error", "warning"]},
        rule=text,
        kind=text,
        name=text,
        inferred={"type": "boolean"},
        exempted=text,
        message=text,
        fix=text,
    )
    condition = _object(
        required=("type", "status", "reason", "lastTransitionTime"),
        type=text,
        status={"type": "string", "enum": ["True", "False", "Unknown"]},
        reason=text,
        message=text,
        lastTransitionTime={"type": "string", "format": "date-time"},
    )
    status = _object(
        observedEpoch={"type": "integer", "description": "The epoch of the leader that wrote this status."},
        environment=text,
        profile=text,
        summary=_object(errors=count, warnings=count, inferred=count, exempted=count),
        findings={"type": "array", "items": finding},
        unlisted={**count, "description": "Findings beyond those that are listed."},
        conditions={"type": "array", "items": condition},
    )
    version = {
        "name": REPORTS.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _object(status=status)},
        "additionalPrinterColumns": [
            _column("Passed", ".status.conditions[?(@.type=='ChecklistPassed')].status"),
            _column("Survives", ".status.conditions[?(@.type=='SurvivesWorkerLoss')].status"),
            _column("Errors", ".status.summary.errors", "integer"),
            _column("Warnings", ".status.summary.warnings", "integer"),
            _column("Exempted", ".status.summary.exempted", "integer"),
            _column("Reason", ".status.conditions[?(@.type=='SurvivesWorkerLoss')].reason", priority=1),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    }
    names = {
        "plural": REPORTS.plural,
        "singular": "highavailabilityreport",
        "kind": REPORTS.kind,
        "listKind": f"{REPORTS.kind}List",
        "shortNames": ["har"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{REPORTS.plural}.{REPORTS.group}"},
        "spec": {"group": REPORTS.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def empty_report(namespace: str) -> dict[str, Any]:
    """A report before its first status."""
    return {
        "apiVersion": REPORTS.api_version,
        "kind": REPORTS.kind,
        "metadata": {"name": REPORT_NAME, "namespace": namespace},
    }


def _object(*, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
