"""Small changes to good manifests, each with exactly the rules that it breaks: judge and CEL are held to them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.unit.checklist.test_manifests import load

Object = dict[str, Any]
REMOVE: Final = object()
HOST: Final = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Change:
    """One field of one object of a manifest set to another value; `breaks` are the rules broken by it."""

    manifest: str
    subject: str
    path: str
    value: Any
    breaks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.manifest}: {self.path}={'removed' if self.value is REMOVE else self.value}"

    def apply(self) -> tuple[list[Object], Object]:
        """The manifest's objects with the change, and the one that was changed."""
        objects = copy.deepcopy(load(self.manifest))
        kind, _, name = self.subject.partition("/")
        (changed,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        place: Any = changed
        *steps, last = self.path.split("|")
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if self.value is REMOVE:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = self.value
        else:
            place[last] = self.value
        return objects, changed


POD, APP = "spec|template|spec", "spec|template|spec|containers|0"
SPREAD = f"{POD}|topologySpreadConstraints"
SELECTOR: Final[Mapping[str, Any]] = {"matchLabels": {"app.kubernetes.io/name": "shop"}}
TAINT = "node.kubernetes.io/"


def shop(path: str, value: Any, *breaks: str) -> Change:
    return Change("spread-app-good", "Deployment/shop", path, value, breaks)


def budget(path: str, value: Any, *breaks: str) -> Change:
    return Change("spread-app-good", "PodDisruptionBudget/shop", path, value, breaks)


def ledger(path: str, value: Any, *breaks: str) -> Change:
    return Change("single-writer-hold-good", "Deployment/ledger", path, value, breaks)


def auditor(path: str, value: Any, *breaks: str) -> Change:
    return Change("elected-controller-good", "Deployment/auditor", path, value, breaks)


def note(key: str) -> str:
    return f"metadata|annotations|tandem-ha.io/{key}"


def tolerations(not_ready: Any, unreachable: Any) -> list[Object]:
    given = ((f"{TAINT}not-ready", not_ready), (f"{TAINT}unreachable", unreachable))
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute"} | ({} if s is None else {"tolerationSeconds": s})
        for key, s in given
    ]


CHANGES: Final[tuple[Change, ...]] = (
    shop("spec|replicas", 0),
    shop("spec|replicas", 1, "replicas", "pdb-fits-replicas"),
    shop("spec|replicas", REMOVE, "replicas", "pdb-fits-replicas"),
    shop(SPREAD, [], "spread-on-hostname"),
    shop(f"{SPREAD}|0", {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "ScheduleAnyway",
                         "labelSelector": SELECTOR}, "spread-on-hostname"),
    shop(f"{SPREAD}|0|topologyKey", "topology.kubernetes.io/zone", "spread-on-hostname"),
    shop(f"{SPREAD}|0|maxSkew", 2, "spread-on-hostname"),
    shop(f"{SPREAD}|0|labelSelector", {"matchLabels": {"app": "shop"}}, "spread-on-hostname"),
    shop(f"{SPREAD}|0", {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule"},
         "spread-on-hostname"),
    shop(f"{SPREAD}|0|labelSelector", {}),
    shop(
        f"{SPREAD}|0|labelSelector",
        {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": ["shop"]}]},
    ),
    shop(
        f"{SPREAD}|0|labelSelector",
        {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["shop"]}]},
        "spread-on-hostname",
    ),
    shop(f"{SPREAD}|0|labelSelector", {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
    shop(
        f"{SPREAD}|0|labelSelector",
        {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        "spread-on-hostname",
    ),
    shop(f"{SPREAD}|0|matchLabelKeys", REMOVE, "spread-by-revision"),
    shop(f"{POD}|affinity", REMOVE, "spread-avoids-control-plane"),
    shop(f"{SPREAD}|0", {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule",
                         "nodeTaintsPolicy": "Honor", "matchLabelKeys": ["pod-template-hash"],
                         "labelSelector": SELECTOR}, "rebalancer"),
    Change("spread-app-anti-affinity", "Deployment/shop", "spec|strategy|rollingUpdate|maxUnavailable", 1, ()),
    Change("spread-app-anti-affinity", "Deployment/shop", "spec|strategy", {"type": "RollingUpdate"},
           ("surge-placeable",)),
    Change("spread-app-anti-affinity", "Deployment/shop", "spec|strategy", REMOVE, ("surge-placeable",)),
    Change("spread-app-anti-affinity", "Deployment/shop", "spec|strategy|rollingUpdate",
           {"maxSurge": 1, "maxUnavailable": "49%"}, ("surge-placeable",)),
    Change("spread-app-anti-affinity", "Deployment/shop", "spec|strategy|rollingUpdate",
           {"maxSurge": 1, "maxUnavailable": "50%"}, ()),
    shop(f"{APP}|ports", [{"containerPort": 8080, "hostPort": 80}], "surge-placeable"),
    shop(f"{APP}|readinessProbe", REMOVE, "readiness-probe"),
    shop(f"{APP}|livenessProbe", REMOVE, "liveness-probe"),
    shop(f"{APP}|readinessProbe", {"httpGet": {"path": "/is-Leader", "port": 80}}, "readiness-not-leader"),
    shop(f"{APP}|readinessProbe", {"exec": {"command": ["check", "--lease"]}}, "readiness-not-leader"),
    shop(f"{APP}|resources", {"requests": {"cpu": "1m"}}, "requests-set"),
    shop(f"{APP}|resources", {"limits": {"cpu": "1", "memory": "1Gi"}}),
    shop(f"{APP}|image", "registry.example:5000/shop", "image-pinned", "image-present"),
    shop(f"{APP}|image", "shop:latest", "image-pinned", "image-present"),
    shop(f"{APP}|image", f"shop@sha256:{'0' * 64}"),
    shop(f"{POD}|initContainers", [{"name": "init", "image": "busybox"}], "image-pinned"),
    shop(f"{APP}|imagePullPolicy", "Always", "image-present"),
    shop(f"{POD}|priorityClassName", REMOVE, "priority-class"),
    shop(f"{POD}|tolerations", [], "tolerations"),
    shop(f"{POD}|tolerations", tolerations(30, 300), "tolerations"),
    shop(f"{POD}|tolerations", tolerations(5, 5), "tolerations"),
    shop(f"{POD}|tolerations", tolerations(30, None), "tolerations"),
    shop(f"{POD}|tolerations", [*tolerations(30, 5), {"operator": "Exists"}], "tolerations"),
    shop(f"{POD}|tolerations", [*tolerations(30, 5), {"operator": "Exists", "effect": "NoSchedule"}]),
    shop(f"{POD}|terminationGracePeriodSeconds", 59, "grace-covers-drain"),
    shop(f"{APP}|lifecycle|preStop|sleep|seconds", 6, "grace-covers-drain"),
    shop(note("drain-seconds"), "41", "grace-covers-drain"),
    shop(note("drain-seconds"), "soon"),
    shop(f"{POD}|nodeName", "w1", "node-pinned"),
    shop(f"{POD}|nodeSelector", {HOST: "w1"}, "node-pinned"),
    shop(f"{POD}|nodeSelector", {"kubernetes.io/os": "linux"}),
    shop(f"{POD}|affinity|nodeAffinity|requiredDuringSchedulingIgnoredDuringExecution|nodeSelectorTerms|0|"
         "matchExpressions|0", {"key": HOST, "operator": "In", "values": ["w1"]},
         "node-pinned", "spread-avoids-control-plane"),
    shop(f"{POD}|volumes", [{"name": "x", "hostPath": {"path": "/srv"}}], "host-path"),
    shop(note("autoscaled"), "1-3", "replicas", "pdb-fits-replicas"),
    shop("metadata|annotations|exempt.tandem-ha.io/replicas", "two words", "exemption-reason"),
    budget("spec|maxUnavailable", 0, "pdb-allows-one"),
    budget("spec|maxUnavailable", "0%", "pdb-allows-one"),
    budget("spec|maxUnavailable", "50%"),
    budget("spec|maxUnavailable", "51%", "pdb-fits-replicas"),
    budget("spec|maxUnavailable", 2, "pdb-fits-replicas"),
    budget("spec|unhealthyPodEvictionPolicy", REMOVE, "pdb-unhealthy-evictable"),
    budget("spec|selector|matchLabels", {"app": "other"}, "pdb-present"),
    Change("spread-app-good", "Service/shop", "spec|trafficDistribution", "PreferClose", ("service-same-node",)),
    Change("spread-app-good", "Service/shop", "spec|trafficDistribution", REMOVE, ("service-same-node",)),
    Change("spread-app-autoscaled", "HorizontalPodAutoscaler/shop", "spec|minReplicas", 1, ("autoscaler-floor",)),
    Change("spread-app-autoscaled", "HorizontalPodAutoscaler/shop", "spec|minReplicas", REMOVE, ("autoscaler-floor",)),
    ledger("spec|replicas", 2, "replicas-need-election"),
    ledger("spec|strategy", REMOVE, "recreate-without-election"),
    ledger("spec|strategy", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}, "recreate-without-election"),
    ledger(note("when-unreachable"), "replace", "two-writers"),
    ledger(note("when-unreachable"), REMOVE),
    Change("single-writer-hold-good", "PersistentVolumeClaim/ledger", "spec|accessModes", ["ReadWriteOnce"],
           ("single-writer-claim",)),
    Change("single-writer-hold-good", "PersistentVolumeClaim/ledger", "spec|storageClassName", "local-path",
           ("claim-on-shared-storage",)),
    auditor(note("lease"), REMOVE, "replicas-need-election", "recreate-without-election"),
    auditor("spec|strategy", {"type": "Recreate"}, "election-needs-rolling"),
    auditor(note("lease-seconds"), "15/15/2", "lease-times"),
    auditor(note("lease-seconds"), "15/2.4/2", "lease-times"),
    auditor(note("lease-seconds"), "15/2.5/2"),
    auditor(note("lease-seconds"), "15/10/0", "lease-times"),
    auditor(note("lease-seconds"), "15s", "lease-times"),
    auditor(note("lease-seconds"), REMOVE),
    auditor(f"{POD}|terminationGracePeriodSeconds", 59, "grace-covers-drain"),
    auditor(note("drain-seconds"), "46", "grace-covers-drain"),
    auditor(note("conformance"), REMOVE, "attested-idempotent", "attested-shutdown", "attested-lost-lead"),
    auditor(note("conformance"), "ghcr.io/example/controllers:0.3.0 shutdown", "attested-idempotent",
            "attested-lost-lead"),
    auditor(f"{APP}|image", "ghcr.io/example/controllers:0.3.1", "attested-idempotent", "attested-shutdown",
            "attested-lost-lead"),
    Change("elected-controller-good", "Role/auditor", "rules|0|verbs", ["list"], ("lease-rbac",)),
    Change("elected-controller-good", "Role/auditor", "rules|1|resourceNames", ["other"], ("lease-rbac-exact",)),
    Change("node-agent-good", "DaemonSet/agent", f"{APP}|readinessProbe", REMOVE, ("readiness-probe",)),
    Change("vault-with-reason", "StatefulSet/vault", "metadata|labels", {"tandem-ha.io/workload": "spread"},
           ("liveness-probe", "requests-set", "tolerations", "priority-class")),
    Change("redis-bitnami", "StatefulSet/redis-master", "metadata|labels", {"tandem-ha.io/workload": "single-writer"},
           ("stateful-set-reason", "tolerations", "priority-class", "spread-on-hostname", "pdb-present")),
    Change("sharded-good", "Deployment/tenant-b", note("field-manager"), "other", ("one-field-manager",)),
    Change("sharded-good", "Deployment/tenant-b", note("scope"), "labels=team=b", ("shards-disjoint",)),
    Change("sharded-good", "Deployment/tenant-b", note("scope"), REMOVE, ("shards-disjoint",)),
)  # fmt: skip
