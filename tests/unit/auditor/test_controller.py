"""The auditor at work on a cluster in memory: reports, Events, metrics, and that it writes nothing without news."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from tandem.controllers.auditor.controller import Auditor
from tandem.controllers.auditor.reports import REPORT_NAME, REPORTS, custom_resource_definition
from tandem.controllers.auditor.rights import AUTOSCALERS
from tandem.recovery import ARTICLE, BALANCED, RecoveryProfile, to_dict
from tandem.runtime import Engine, OpenFence, Scope
from tandem.runtime.resources import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Object,
)
from tandem.runtime.testing.cluster import FakeCluster
from tandem.runtime.testing.idempotence import assert_idempotent
from tandem.runtime.testing.loop import virtual
from tests.unit.audit.test_survey import node, pod
from tests.unit.checklist.test_manifests import load

KINDS = {r.kind: r for r in (DEPLOYMENTS, DAEMON_SETS, POD_DISRUPTION_BUDGETS, SERVICES, AUTOSCALERS, PODS, NODES)}


class Lab:
    def __init__(self, profile: RecoveryProfile = BALANCED) -> None:
        self.cluster = FakeCluster()
        self.registry = CollectorRegistry()
        for worker in (node("cp1", **{"node-role.kubernetes.io/control-plane": ""}), node("w1"), node("w2")):
            self.put(worker)
        self.record(profile)

    def put(self, *objects: Object) -> None:
        for obj in objects:
            self.cluster.put(KINDS[obj["kind"]], copy.deepcopy(obj))

    def record(self, profile: RecoveryProfile) -> None:
        data = {"profile": profile.name, "recovery.json": json.dumps(to_dict(profile))}
        meta = {"name": "recovery-profile", "namespace": "tandem-system"}
        self.cluster.put(CONFIG_MAPS, {"metadata": meta, "data": data})

    @asynccontextmanager
    async def audited(self, scope: Scope | None = None, epoch: int = 1) -> AsyncIterator[None]:
        fence = OpenFence()
        fence.epoch = epoch
        controller = Auditor("prod", self.registry).controller()
        engine = Engine(controller, self.cluster.client(), scope=scope or Scope())
        tasks = [asyncio.create_task(engine.follow()), asyncio.create_task(engine.work(fence))]
        await asyncio.sleep(5)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def status(self, namespace: str = "shop") -> dict[str, Any]:
        found = self.cluster.find(REPORTS, REPORT_NAME, namespace)
        assert found is not None, f"no report in {namespace}"
        status: dict[str, Any] = found["status"]
        return status

    def rules(self, namespace: str = "shop") -> list[str]:
        return [each["rule"] for each in self.status(namespace)["findings"]]

    def events(self) -> list[tuple[str, str, str]]:
        return [(e["regarding"]["name"], e["type"], e["reason"]) for e in self.cluster.objects(EVENTS)]

    def metric(self, rule: str, level: str = "error", namespace: str = "shop") -> float | None:
        labels = {"namespace": namespace, "rule": rule, "level": level}
        return self.registry.get_sample_value("tandem_audit_findings", labels)


@virtual
async def test_a_report_events_and_metrics_and_their_end() -> None:
    lab = Lab()
    lab.put(*load("spread-app-one-replica"))
    async with lab.audited():
        assert lab.rules() == ["replicas", "pdb-fits-replicas"]
        assert lab.status()["observedEpoch"] == 1
        assert sorted(lab.events()) == [("shop", "Warning", "PdbFitsReplicas"), ("shop", "Warning", "Replicas")]
        assert lab.metric("replicas") == 1
        lab.put(load("spread-app-good")[0])
        await asyncio.sleep(5)
        assert lab.rules() == []
        assert lab.metric("replicas") is None, "a resolved finding leaves the metrics too"
        assert ("shop", "Normal", "Resolved") in lab.events()


@virtual
async def test_a_second_leader_writes_and_says_nothing_that_was_said() -> None:
    lab = Lab()
    lab.put(*load("spread-app-one-replica"))
    async with lab.audited():
        pass
    before, said = lab.cluster.version, len(lab.events())
    lab.registry = CollectorRegistry()
    async with lab.audited(epoch=2):
        await asyncio.sleep(600)
        assert lab.cluster.version == before, "nothing was written"
        assert len(lab.events()) == said
        assert lab.status()["observedEpoch"] == 1
        assert lab.metric("replicas") == 1, "its metrics are complete all the same"


@virtual
async def test_heartbeats_renewals_and_pod_noise_cause_no_writes() -> None:
    lab = Lab()
    lab.put(*load("spread-app-good"), pod("shop-1", "shop", "w1"))
    async with lab.audited():
        before = lab.cluster.version
        changed = [node("w1"), pod("shop-1", "shop", "w1")]
        changed[0]["status"]["conditions"][0]["lastHeartbeatTime"] = "now"
        changed[1]["status"]["podIP"] = "10.0.0.9"
        lab.put(*changed)
        await asyncio.sleep(60)
        assert int(lab.cluster.version) == int(before) + 2


@virtual
async def test_a_lost_worker_is_seen_in_every_namespace() -> None:
    lab = Lab()
    lab.put(*load("spread-app-good"))
    other = load("node-agent-good")[0]
    other["metadata"]["namespace"] = "agents"
    lab.put(other)
    async with lab.audited():
        lost = node("w2")
        lost["status"]["conditions"][0]["status"] = "Unknown"
        lab.put(lost)
        await asyncio.sleep(5)
        for namespace in ("shop", "agents"):
            states = {c["type"]: c["status"] for c in lab.status(namespace)["conditions"]}
            assert states == {"ChecklistPassed": "True", "SurvivesWorkerLoss": "False"}
        assert lab.registry.get_sample_value("tandem_audit_survives_worker_loss", {"namespace": "shop"}) == 0


@virtual
async def test_another_profile_is_taken_up() -> None:
    lab = Lab()
    lab.put(*load("spread-app-good"))
    async with lab.audited():
        assert lab.rules() == []
        lab.record(ARTICLE)
        await asyncio.sleep(5)
        assert lab.rules() == ["tolerations"]
        assert lab.status()["profile"] == "article"


@virtual
async def test_a_report_that_was_deleted_or_edited_is_put_right() -> None:
    lab = Lab()
    lab.put(*load("spread-app-one-replica"))
    async with lab.audited():
        lab.cluster.delete(REPORTS, REPORT_NAME, "shop")
        await asyncio.sleep(5)
        assert lab.rules() == ["replicas", "pdb-fits-replicas"]
        found = copy.deepcopy(lab.cluster.find(REPORTS, REPORT_NAME, "shop"))
        assert found is not None
        found["status"]["findings"] = []
        lab.cluster.put(REPORTS, found)
        await asyncio.sleep(5)
        assert lab.rules() == ["replicas", "pdb-fits-replicas"]


@virtual
async def test_system_namespaces_and_empty_ones_get_no_report() -> None:
    lab = Lab()
    system = load("coredns")
    lab.put(*system, pod("lonely", "lonely", "w1", namespace="scratch"))
    async with lab.audited():
        assert lab.cluster.objects(REPORTS) == []


@virtual
async def test_a_shard_reports_on_its_namespaces_only() -> None:
    lab = Lab()
    for namespace in ("team-a", "team-b"):
        for obj in load("spread-app-one-replica"):
            obj["metadata"]["namespace"] = namespace
            lab.put(obj)
    async with lab.audited(Scope(("team-a",))):
        assert [each["metadata"]["namespace"] for each in lab.cluster.objects(REPORTS)] == ["team-a"]


@virtual
async def test_a_repeated_reconcile_writes_nothing() -> None:
    lab = Lab()
    lab.put(*load("spread-app-neglected"), *load("spread-app-exempted")[1:], pod("shop-1", "shop", "w1"))
    await assert_idempotent(Auditor("prod", lab.registry).controller(), lab.cluster)


def test_the_definition_has_a_place_for_everything_that_is_reported() -> None:
    crd = custom_resource_definition()
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert version["subresources"] == {"status": {}}
    assert set(schema) == {"observedEpoch", "environment", "profile", "summary", "findings", "unlisted", "conditions"}
    assert [column["name"] for column in version["additionalPrinterColumns"]][:2] == ["Passed", "Survives"]
