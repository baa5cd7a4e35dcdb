"""Rules on what stands around the pods: budgets, autoscalers, Services, claims, webhooks, the API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tandem import labels as names
from tandem._checklist.facts import facts_of
from tandem._checklist.model import ADVICE, BLOCK, SPARE, Case, Rule, rule
from tandem._checklist.objects import (
    Object,
    amount,
    annotations_of,
    budget_share,
    claims,
    kind,
    labels,
    listed,
    name,
    namespace,
    spec,
)
from tandem._checklist.world import same_namespace

GUARDED_CLASSES: Final = ("tandem-shared", "tandem-shared-delete")
"""StorageClasses on the shared file system; a site's own carry the label `tandem-ha.io/shared-storage`."""

NODE_LOCAL_CLASSES: Final = (
    "local-path",
    "local-storage",
    "hostpath",
    "microk8s-hostpath",
    "openebs-hostpath",
    "openebs-lvmpv",
    "topolvm-provisioner",
)
"""Names under which public distributions ship volumes that lie on one node."""

NODE_LOCAL_PROVISIONERS: Final = (
    "rancher.io/local-path",
    "kubernetes.io/no-provisioner",
    "docker.io/hostpath",
    "microk8s.io/hostpath",
    "k8s.io/minikube-hostpath",
    "openebs.io/local",
    "local.csi.openebs.io",
    "topolvm.io",
)


@rule(
    "pdb-present",
    title="Replicas have a PodDisruptionBudget",
    why="`kubectl drain` else stops all replicas of a worker at once, also while those of the other one are away",
    fix="a PodDisruptionBudget with maxUnavailable: 1 and unhealthyPodEvictionPolicy: AlwaysAllow",
    levels=SPARE,
    kinds=("Deployment", "StatefulSet"),
)
def _budget_present(case: Case) -> Iterator[str]:
    if case.facts.spare and not case.world.budgets(case.obj):
        yield f"no budget protects its {case.facts.replicas} replicas during a drain"


@rule(
    "pdb-allows-one",
    title="A budget lets one pod go",
    why="a drain waits for ever for what no budget allows",
    fix="maxUnavailable: 1 instead of minAvailable",
    levels=BLOCK,
    kinds=("PodDisruptionBudget",),
    cel=(
        "!(string(object.spec.?maxUnavailable.orValue('')) in ['0', '0%']) && "
        "string(object.spec.?minAvailable.orValue('')) != '100%'"
    ),
)
def _allows_one(case: Case) -> Iterator[str]:
    if _never_allows(case.obj):
        yield "allows no disruption at all: a drain never ends"


@rule(
    "pdb-fits-replicas",
    title="A budget fits the replicas that it protects",
    why="one that asks for all of them blocks every drain; one that allows all of them protects nothing",
    fix="maxUnavailable: 1 for two or more replicas, no budget on a single one",
    levels=BLOCK,
    kinds=("PodDisruptionBudget",),
)
def _fits(case: Case) -> Iterator[str]:
    if _never_allows(case.obj):
        return
    for workload in case.world.selected(case.obj):
        count = facts_of(workload, case.world).replicas
        if kind(workload) == "DaemonSet" or count == 0:
            continue
        most = spec(case.obj).get("maxUnavailable")
        least = spec(case.obj).get("minAvailable")
        allowed = budget_share(most, count) if most is not None else count - budget_share(least or 1, count)
        what = f"{kind(workload)} {name(workload)}"
        if allowed <= 0:
            yield f"allows none of the {count} replicas of {what} to go: a drain never ends"
        elif allowed >= count:
            yield f"allows all of the {count} replicas of {what} to go: it protects nothing"


@rule(
    "pdb-unhealthy-evictable",
    title="A pod that is not ready does not block a drain",
    why="with a worker lost the other's drain waits for pods that cannot become ready until that drain has ended",
    fix="unhealthyPodEvictionPolicy: AlwaysAllow",
    levels=ADVICE,
    kinds=("PodDisruptionBudget",),
    cel="object.spec.?unhealthyPodEvictionPolicy.orValue('') == 'AlwaysAllow'",
)
def _unhealthy(case: Case) -> Iterator[str]:
    if spec(case.obj).get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "pods that are not ready count as protected, so a drain waits for them"


@rule(
    "autoscaler-floor",
    title="An autoscaler keeps two replicas",
    why="it scales to one in a quiet hour, and that one is on the worker that is lost",
    fix="spec.minReplicas: 2",
    levels=SPARE,
    kinds=("HorizontalPodAutoscaler",),
    cel="variables.workload != 'spread' || int(object.spec.?minReplicas.orValue(1)) >= 2",
    measure="-int(object.spec.?minReplicas.orValue(1))",
)
def _floor(case: Case) -> Iterator[str]:
    value = spec(case.obj).get("minReplicas")
    least = 1 if value is None else int(value)
    if least >= 2:
        return
    if case.facts.inferred:
        target = spec(case.obj).get("scaleTargetRef") or {}
        found = case.world.named(case.obj, str(target.get("kind")), str(target.get("name")))
        if found is not None and facts_of(found, case.world).workload != names.SPREAD:
            return
    elif case.facts.workload != names.SPREAD:
        return
    yield f"lets the app shrink to {least}"


@rule(
    "service-same-node",
    title="Callers prefer the replica on their own node",
    why="until the lost worker's endpoint goes out, every second request of the survivor's pods is sent to a dead one",
    fix="spec.trafficDistribution: PreferSameNode",
    levels=ADVICE,
    kinds=("Service",),
    cel=(
        "variables.workload != 'spread' || object.spec.?clusterIP.orValue('') == 'None' || "
        "object.spec.?type.orValue('') == 'ExternalName' || "
        "object.spec.?trafficDistribution.orValue('') == 'PreferSameNode'"
    ),
)
def _same_node(case: Case) -> Iterator[str]:
    service = spec(case.obj)
    headless = service.get("clusterIP") == "None" or service.get("type") == "ExternalName"
    if headless or service.get("trafficDistribution") == "PreferSameNode":
        return
    if case.facts.inferred:
        served = [facts_of(workload, case.world) for workload in case.world.behind(case.obj)]
        if not any(facts.workload == names.SPREAD and facts.replicas >= 2 for facts in served):
            return
    elif case.facts.workload != names.SPREAD:
        return
    yield "callers on the survivor are also sent to the lost worker until its endpoint is out"


@rule(
    "claim-on-shared-storage",
    title="Volumes lie on storage that both workers reach",
    why="a volume on a worker's own disk is lost with it: the replacement waits for a node that does not come back",
    fix="storageClassName: tandem-shared",
    levels=BLOCK,
    kinds=("PersistentVolumeClaim", "StatefulSet"),
)
def _shared(case: Case) -> Iterator[str]:
    asked = [case.obj] if kind(case.obj) == "PersistentVolumeClaim" else spec(case.obj).get("volumeClaimTemplates")
    for claim in asked or []:
        class_name = str(spec(claim).get("storageClassName") or "")
        if class_name and _node_local(case, class_name):
            yield f"class {class_name} keeps the volume of {name(claim)} on one node"


@rule(
    "single-writer-claim",
    title="A single writer's claim admits one pod",
    why="with any other mode the successor starts while a worker that is only cut off still writes",
    fix="accessModes: [ReadWriteOncePod]; or say so: annotate tandem-ha.io/when-unreachable: replace",
    levels=BLOCK,
    kinds=("Deployment",),
)
def _one_pod(case: Case) -> Iterator[str]:
    stated = annotations_of(case.obj).get(names.WHEN_UNREACHABLE) == "replace"
    if case.facts.workload != names.SINGLE_WRITER or stated:
        return
    for claim_name in claims(case.obj):
        claim = case.world.named(case.obj, "PersistentVolumeClaim", claim_name)
        modes = [str(mode) for mode in spec(claim).get("accessModes") or []] if claim else []
        if claim and modes != ["ReadWriteOncePod"]:
            yield f"its claim {claim_name} is {listed(modes)}, which two pods can mount"


@rule(
    "webhook-survives",
    title="An admission webhook that must answer has two replicas",
    why="while its only pod is lost the API server refuses what it should judge, also the pods that are to replace it",
    fix="two replicas behind the webhook, or failurePolicy: Ignore",
    levels=ADVICE,
    kinds=("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
    labelled=False,
)
def _webhook(case: Case) -> Iterator[str]:
    for hook in case.obj.get("webhooks") or []:
        reference = (hook.get("clientConfig") or {}).get("service") or {}
        if not reference or (hook.get("failurePolicy") or "Fail") != "Fail":
            continue
        services = [
            each
            for each in case.world.of("Service")
            if name(each) == reference.get("name")
            and same_namespace(namespace(each), str(reference.get("namespace") or ""))
        ]
        counts = [facts_of(w, case.world).replicas for each in services for w in case.world.behind(each)]
        if counts and sum(counts) < 2:
            yield f"webhook {hook.get('name')} must answer, and Service {reference.get('name')} has one pod"


@rule(
    "default-tolerations-admission",
    title="The admission plugin DefaultTolerationSeconds is on",
    why="without it pods of no toleration stay on a lost worker for ever",
    fix="remove DefaultTolerationSeconds from --disable-admission-plugins",
    levels=BLOCK,
    kinds=("Pod",),
    labelled=False,
)
def _admission(case: Case) -> Iterator[str]:
    if labels(case.obj).get("component") != "kube-apiserver":
        return
    for container in spec(case.obj).get("containers") or []:
        for argument in [*(container.get("command") or []), *(container.get("args") or [])]:
            flag, _, value = str(argument).partition("=")
            if flag == "--disable-admission-plugins" and "DefaultTolerationSeconds" in value.split(","):
                yield "this API server has DefaultTolerationSeconds disabled"


def _never_allows(budget: Object) -> bool:
    return amount(spec(budget).get("maxUnavailable")) in {"0", "0%"} or str(spec(budget).get("minAvailable")) == "100%"


def _node_local(case: Case, class_name: str) -> bool:
    found = case.world.storage_class(class_name)
    if class_name in GUARDED_CLASSES or (found is not None and names.SHARED_STORAGE in labels(found)):
        return False
    if found is not None:
        return found.get("provisioner") in NODE_LOCAL_PROVISIONERS
    return class_name in NODE_LOCAL_CLASSES


RULES: Final[tuple[Rule, ...]] = (
    _budget_present,
    _allows_one,
    _fits,
    _unhealthy,
    _floor,
    _same_node,
    _shared,
    _one_pod,
    _webhook,
    _admission,
)
