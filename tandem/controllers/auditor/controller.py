"""The auditor as a controller: what it watches, and one reconcile per namespace that keeps its report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge

from tandem import labels
from tandem.checklist import Environment, Judgement
from tandem.controllers.auditor import core
from tandem.controllers.auditor.reports import EPOCH_FIELD, REPORT_NAME, REPORTS, empty_report
from tandem.controllers.auditor.rights import JUDGED
from tandem.drill.observe import condition
from tandem.recovery import RecoveryProfile, from_dict
from tandem.runtime import Context, Controller, ControllerSettings, Done, Key, RequeueAfter, Result, Watch
from tandem.runtime.errors import AlreadyExists, NotFound
from tandem.runtime.resources import CONFIG_MAPS, LEASES, NODES, PODS, Object

NAME: Final = "auditor"
READ_SECONDS: Final = 10.0
LEASE_ROUND_SECONDS: Final = 30.0
"""How often a namespace with elected controllers is looked at without news: a Lease that is not renewed makes none."""


class Auditor:
    """One auditor; `controller()` is what `tandem.runtime.run` takes.

    Args:
        environment: whose levels apply.
        registry: where its gauges are registered.
    """

    def __init__(self, environment: Environment, registry: CollectorRegistry) -> None:
        self.environment = environment
        self._namespaces: set[str] = set()
        self._findings = Gauge(
            "tandem_audit_findings",
            "Findings of the availability checklist that no exemption lets through.",
            ["namespace", "rule", "level"],
            registry=registry,
        )
        self._survives = Gauge(
            "tandem_audit_survives_worker_loss",
            "1 when no app of the namespace has all of its replicas on one worker and two workers are Ready.",
            ["namespace"],
            registry=registry,
        )
        self._shown: dict[str, set[tuple[str, str]]] = {}

    def controller(self) -> Controller:
        """The controller: keys are reports, one a namespace."""
        own = [Watch(REPORTS, matters=_status_matters)]
        judged = [
            Watch(resource, maps=self._here, matters=_MATTERS[resource.kind], indexers={_PLACE: _place})
            for resource in JUDGED
        ]
        nodes = Watch(NODES, maps=self._everywhere, matters=_node_matters, scoped=False)
        profile = Watch(
            CONFIG_MAPS,
            maps=self._everywhere,
            field_selector=f"metadata.name={labels.PROFILE_CONFIG_MAP}",
            scoped=False,
        )
        settings = ControllerSettings(reconcile_absent=True, reconcile_seconds=60.0, epoch_field=EPOCH_FIELD)
        return Controller(NAME, self.reconcile, [*own, *judged, nodes, profile], settings)

    async def reconcile(self, key: Key, ctx: Context) -> Result:
        """Bring the report of one namespace up to date, tell what is new and what is gone, and count."""
        objects = [obj for resource in JUDGED for obj in ctx.caches[resource.plural].by_index(_PLACE, key.namespace)]
        report = ctx.cache.get(key)
        if report is None and not any(obj["kind"] not in {"Service", "Pod"} for obj in objects):
            return Done()
        now = datetime.now(UTC)
        observed = core.Observed(
            objects,
            list(ctx.caches[NODES.plural]),
            self.environment,
            recorded_profile(ctx.caches[CONFIG_MAPS.plural].get(_RECORD)),
            now.timestamp(),
            now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        found = core.judge(observed)
        if report is None:
            report = await self._made(key, ctx)
        before = report.get("status")
        after = core.status(observed, found, before)
        await ctx.writer.patch_status(REPORTS, report, after)
        self._tell(ctx, objects, before, after)
        self._count(key.namespace, found, after)
        elected = any(labels.LEASE in (obj["metadata"].get("annotations") or {}) for obj in objects)
        return RequeueAfter(LEASE_ROUND_SECONDS) if elected else Done()

    async def _made(self, key: Key, ctx: Context) -> Object:
        try:
            return await ctx.writer.create(REPORTS, empty_report(key.namespace))
        except AlreadyExists:
            # The cache has not seen it yet.
            return await ctx.client.get(REPORTS, REPORT_NAME, namespace=key.namespace, seconds=READ_SECONDS)
        except NotFound as error:
            raise LookupError(f"the namespace {key.namespace} or the kind {REPORTS.kind} is not there") from error

    def _tell(
        self, ctx: Context, objects: Iterable[Object], before: Mapping[str, Any] | None, after: Mapping[str, Any]
    ) -> None:
        by_name = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
        for notice in core.notices(before, after):
            regarding = by_name.get((notice.kind, notice.name))
            if regarding is not None:
                ctx.events.record(regarding, notice.type, notice.reason, notice.note, action="Audit")

    def _count(self, namespace: str, found: Iterable[Judgement], status: Mapping[str, Any]) -> None:
        counts = core.counts(found)
        for rule, level in self._shown.get(namespace, set()) - counts.keys():
            self._findings.remove(namespace, rule, level)
        for (rule, level), number in counts.items():
            self._findings.labels(namespace, rule, level).set(number)
        self._shown[namespace] = set(counts)
        survives = next(c["status"] for c in status["conditions"] if c["type"] == "SurvivesWorkerLoss")
        self._survives.labels(namespace).set(survives == "True")

    def _here(self, obj: Object) -> Iterable[Key]:
        namespace = obj["metadata"]["namespace"]
        if namespace in labels.CLUSTER_NAMESPACES:
            return ()
        self._namespaces.add(namespace)
        return (Key(namespace, REPORT_NAME),)

    def _everywhere(self, _: Object) -> Iterable[Key]:
        """What all namespaces look at has changed: every namespace that was met so far."""
        return [Key(namespace, REPORT_NAME) for namespace in sorted(self._namespaces)]


_PLACE: Final = "namespace"
_RECORD: Final = Key(labels.SYSTEM_NAMESPACE, labels.PROFILE_CONFIG_MAP)


def recorded_profile(record: Object | None) -> RecoveryProfile | None:
    """The profile in the ConfigMap that the tuning wrote; None without one, or when it cannot be understood."""
    try:
        return from_dict(json.loads((record or {})["data"]["recovery.json"]))
    except (KeyError, TypeError, ValueError):
        return None


def _place(obj: Object) -> Iterable[str]:
    return (obj["metadata"]["namespace"],)


def _status_matters(old: Object, new: Object) -> bool:
    """Somebody else's edit of a report is put right; our own finds nothing to write."""
    return old.get("status") != new.get("status")


def _pod_matters(old: Object, new: Object) -> bool:
    return _pod_facts(old) != _pod_facts(new)


def _pod_facts(pod: Object) -> tuple[Any, ...]:
    meta = pod["metadata"]
    return pod["spec"].get("nodeName"), condition(pod, "Ready"), meta.get("labels"), "deletionTimestamp" in meta


def _node_matters(old: Object, new: Object) -> bool:
    """Not its heartbeats."""
    same_labels = old["metadata"].get("labels") == new["metadata"].get("labels")
    return not same_labels or condition(old, "Ready") != condition(new, "Ready")


def _lease_matters(old: Object, new: Object) -> bool:
    """Not its renewals: every two seconds, from every elected controller of the cluster."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    return any(before.get(key) != after.get(key) for key in ("holderIdentity", "leaseDurationSeconds"))


def _spec_matters(old: Object, new: Object) -> bool:
    before, after = old["metadata"], new["metadata"]
    same = all(before.get(key) == after.get(key) for key in ("labels", "annotations", "deletionTimestamp"))
    return not same or old.get("spec") != new.get("spec")


_MATTERS: Final = {resource.kind: _spec_matters for resource in JUDGED} | {
    PODS.kind: _pod_matters,
    LEASES.kind: _lease_matters,
}
