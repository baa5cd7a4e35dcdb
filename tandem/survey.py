"""Can each worker be lost *now*? What a checklist of manifests cannot see: where pods run, what is full, what is held.

Pure: the live objects in, findings by worker out. The single checks are those of `tandem.survivability`, by which a
drill refuses to start; here they are asked of every worker and every workload, not of the watched apps alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tandem import labels
from tandem._checklist.objects import kind, listed, name, namespace, selects, spec
from tandem.drill.apps import App, behaviour, discover
from tandem.drill.observe import condition
from tandem.findings import Finding
from tandem.recovery import RecoveryProfile
from tandem.survivability import (
    Object,
    Snapshot,
    missing_capacity,
    missing_images,
    unfit_tolerations,
    usable,
    workers,
)

MAX_LISTED_IMAGES: Final = 50
"""kubelet reports at most this many images of a node (nodeStatusMaxImages), so a longer list proves no absence."""

_ELSEWHERE: Final = frozenset({"replace", "hold", "spread-crowd"})


class Cluster:
    """The live objects, by kind.

    Args:
        objects: each with its `kind`; pods, nodes, workloads, claims, volumes, budgets, Services, EndpointSlices,
            webhook configurations and APIServices are asked for.
    """

    def __init__(self, objects: Iterable[Object]) -> None:
        self._kinds: dict[str, list[Object]] = defaultdict(list)
        for obj in objects:
            self._kinds[kind(obj)].append(obj)
        workloads = self.of("Deployment", "StatefulSet", "DaemonSet")
        self._selectors = [(namespace(w), spec(w).get("selector"), w) for w in workloads]
        self._claims = {(namespace(c), name(c)): c for c in self.of("PersistentVolumeClaim")}
        self._volumes = {name(v): v for v in self.of("PersistentVolume")}

    def of(self, *kinds: str) -> list[Object]:
        """All objects of these kinds."""
        return [obj for each in kinds for obj in self._kinds.get(each, ())]

    def snapshot(self) -> Snapshot:
        """Nodes, pods and labelled apps as the drill's checks take them."""
        apps: list[App] = []
        workloads = self.of("Deployment", "StatefulSet", "DaemonSet")
        for place in sorted({namespace(w) for w in workloads}):
            claims = [c for c in self.of("PersistentVolumeClaim") if namespace(c) == place]
            here = [w for w in workloads if namespace(w) == place]
            apps += discover(here, [], claims, self.of("PersistentVolume"))
        return Snapshot(self.of("Node"), self.of("Pod"), tuple(apps))

    def workload_of(self, pod: Object) -> Object | None:
        """The workload whose selector a pod matches."""
        mine = pod["metadata"].get("labels") or {}
        found = (w for place, selector, w in self._selectors if place == namespace(pod) and selects(selector, mine))
        return next(found, None)

    def claims_of(self, pod: Object) -> list[Object]:
        """The claims that a pod mounts."""
        volumes = spec(pod).get("volumes") or []
        names = [v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim")]
        found = (self._claims.get((namespace(pod), each)) for each in names)
        return [claim for claim in found if claim is not None]

    def volume_of(self, claim: Object) -> Object | None:
        """The volume that a claim is bound to."""
        return self._volumes.get(str(spec(claim).get("volumeName") or ""))

    def ready_nodes(self, service_namespace: str, service: str) -> list[str]:
        """The nodes of a Service's ready endpoints, one entry for each endpoint."""
        return [
            str(endpoint.get("nodeName") or "")
            for each in self.of("EndpointSlice")
            if namespace(each) == service_namespace
            and (each["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service
            for endpoint in each.get("endpoints") or []
            if (endpoint.get("conditions") or {}).get("ready", True) is not False
        ]


def survey(cluster: Cluster) -> dict[str, tuple[Finding, ...]]:
    """What speaks against losing each worker now, by worker; an empty tuple where nothing does."""
    snapshot = cluster.snapshot()
    mine = workers(snapshot)
    return {node: tuple(_judge(cluster, node, mine)) for node in sorted(mine)}


def cluster_findings(
    cluster: Cluster, recorded: RecoveryProfile | None, wanted: RecoveryProfile | None
) -> list[Finding]:
    """What concerns all workers: the recorded profile, the API server's default tolerations, those of running pods.

    Args:
        cluster: the live objects.
        recorded: the profile that the tuning recorded in the cluster.
        wanted: the one to judge by; None takes the recorded one.
    """
    profile = wanted or recorded
    if profile is None:
        message = "the cluster records no recovery profile, so its tolerations cannot be judged"
        return [Finding("warning", "no-profile", message, "apply one with playbooks/tune.yml, or name it: --profile")]
    found = []
    if recorded is None:
        message = f"the cluster records no recovery profile; judged by {profile.name}"
        found.append(Finding("warning", "no-profile", message, "apply it with playbooks/tune.yml"))
    elif recorded != profile:
        how = f"with {recorded.name}" if recorded.name != profile.name else "with other numbers of that name"
        fix = f"ansible-playbook playbooks/tune.yml -e tandem_profile={profile.name}"
        message = f"the cluster was tuned {how}, not with {profile.name}"
        found.append(Finding("error", "profile-differs", message, fix))
    return [*found, *_api_defaults(cluster, profile), *unfit_tolerations(cluster.snapshot(), profile)]


def _api_defaults(cluster: Cluster, profile: RecoveryProfile) -> Iterable[Finding]:
    wanted = {
        "default-not-ready-toleration-seconds": profile.not_ready_toleration_seconds,
        "default-unreachable-toleration-seconds": profile.unreachable_toleration_seconds,
    }
    for pod in cluster.of("Pod"):
        if (pod["metadata"].get("labels") or {}).get("component") != "kube-apiserver":
            continue
        containers = spec(pod).get("containers") or []
        given = [str(a) for c in containers for a in [*(c.get("command") or []), *(c.get("args") or [])]]
        flags = dict(a.removeprefix("--").split("=", 1) for a in given if a.startswith("--") and "=" in a)
        for flag, seconds in wanted.items():
            if flags.get(flag, "300") != str(seconds):
                message = (
                    f"{name(pod)} runs with {flag}={flags.get(flag, '300')}; profile {profile.name} says {seconds}"
                )
                fix = f"ansible-playbook playbooks/tune.yml -e tandem_profile={profile.name}"
                yield Finding("error", "api-server-tolerations", message, fix)


def _judge(cluster: Cluster, node: str, mine: Mapping[str, Object]) -> Iterable[Finding]:
    if condition(mine[node], "Ready") != "True":
        fix = f"see `kubectl describe node {node}`"
        yield Finding("error", "node-not-ready", f"{node} is not Ready: the cluster lives without it now", fix)
        return
    survivors = {other: worker for other, worker in mine.items() if other != node and usable(worker)}
    if not survivors:
        message = f"no other worker could take the pods of {node}"
        yield Finding("error", "no-survivor", message, "make another worker Ready and schedulable first")
        return
    here = [pod for pod in cluster.of("Pod") if spec(pod).get("nodeName") == node and _runs(pod)]
    moving = [pod for pod in here if _moves(cluster, pod)]
    yield from missing_capacity(moving, survivors, cluster.of("Pod"))
    told = {n: w for n, w in survivors.items() if len(w["status"].get("images") or []) < MAX_LISTED_IMAGES}
    for each in missing_images(moving, told):
        fix = "pull it there beforehand: the replacement else waits for the registry"
        yield Finding("warning", each.rule, each.message, fix)
    yield from one_basket(cluster, node)
    yield from _volumes(cluster, node, here, moving, survivors)
    yield from _bare(cluster, node, here)
    yield from _budgets(cluster, node, here)
    yield from _dns(cluster, node)
    yield from _webhooks(cluster, node)


def _runs(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}


def _owners(pod: Object) -> set[str]:
    return {str(owner.get("kind")) for owner in pod["metadata"].get("ownerReferences") or []}


def _moves(cluster: Cluster, pod: Object) -> bool:
    if _owners(pod) & {"DaemonSet", "Node"} or "kubernetes.io/config.mirror" in (
        pod["metadata"].get("annotations") or {}
    ):
        return False
    workload = cluster.workload_of(pod)
    return workload is not None and behaviour(workload, cluster.claims_of(pod)) in _ELSEWHERE


def one_basket(cluster: Cluster, node: str) -> Iterable[Finding]:
    """An error for each workload whose ready pods, two or more, are all on this node."""
    places: dict[int, list[str]] = defaultdict(list)
    for pod in cluster.of("Pod"):
        workload = cluster.workload_of(pod)
        if workload is not None and condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
            places[id(workload)].append(str(spec(pod).get("nodeName")))
    for workload in cluster.of("Deployment", "StatefulSet"):
        nodes = places[id(workload)]
        if len(nodes) >= 2 and set(nodes) == {node}:
            message = f"all {len(nodes)} ready pods of {_path(workload)} are on {node}"
            fix = f"kubectl -n {namespace(workload)} rollout restart {kind(workload).lower()} {name(workload)}"
            yield Finding("error", "one-basket", message, f"{fix}, and a strict spread on hostname to keep it so")


def _volumes(
    cluster: Cluster, node: str, here: Iterable[Object], moving: Iterable[Object], survivors: Mapping[str, Object]
) -> Iterable[Finding]:
    for pod in here:
        if "DaemonSet" in _owners(pod):
            continue
        for claim in cluster.claims_of(pod):
            volume = cluster.volume_of(claim)
            if volume is not None and _hosts(volume) == {node}:
                message = f"volume {name(volume)} of pod {_path(pod)} can be mounted on {node} only"
                yield Finding("error", "volume-on-node", message, "move its data to a claim of class tandem-shared")
    needing = [_path(pod) for pod in moving if _needs_share(pod)]
    unmounted = [
        n
        for n, worker in survivors.items()
        if (worker["metadata"].get("labels") or {}).get(labels.SHARED_STORAGE) != "mounted"
    ]
    if needing and len(unmounted) == len(survivors):
        message = f"{listed(needing)} need the share, which is not mounted on {listed(unmounted)}"
        yield Finding("error", "share-unmounted", message, "see `systemctl status` of the mount unit there")


def _hosts(volume: Object) -> set[str]:
    """The hosts that a volume's affinity allows; empty for any."""
    terms = ((spec(volume).get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or []
    return {
        str(value)
        for term in terms
        for expression in term.get("matchExpressions") or []
        if expression.get("key") == "kubernetes.io/hostname" and expression.get("operator") == "In"
        for value in expression.get("values") or []
    }


def _needs_share(pod: Object) -> bool:
    node = (spec(pod).get("affinity") or {}).get("nodeAffinity") or {}
    terms = (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    expressions = [e for term in terms for e in term.get("matchExpressions") or []]
    return any(e.get("key") == labels.SHARED_STORAGE for e in expressions)


def _bare(cluster: Cluster, node: str, here: Iterable[Object]) -> Iterable[Finding]:
    mirror = "kubernetes.io/config.mirror"
    bare = [p for p in here if not _owners(p) and mirror not in (p["metadata"].get("annotations") or {})]
    if strangers := [_path(pod) for pod in bare if labels.PROBE not in (pod["metadata"].get("labels") or {})]:
        message = f"nobody would make {listed(strangers)} again"
        yield Finding("warning", "bare-pod", message, "run it by a Deployment")


def _budgets(cluster: Cluster, node: str, here: Iterable[Object]) -> Iterable[Finding]:
    pods = list(here)
    for budget in cluster.of("PodDisruptionBudget"):
        status = budget.get("status") or {}
        if status.get("disruptionsAllowed") != 0 or not status.get("expectedPods"):
            continue
        chosen = spec(budget).get("selector")
        held = [
            name(pod)
            for pod in pods
            if namespace(pod) == namespace(budget) and selects(chosen, pod["metadata"].get("labels") or {})
        ]
        if held:
            healthy = f"{status.get('currentHealthy')} of {status.get('desiredHealthy')} needed are healthy"
            message = f"budget {_path(budget)} lets none of {listed(held)} go now ({healthy}): a drain of {node} waits"
            fix = "wait until its pods are Ready again, or give the app a replica more"
            yield Finding("warning", "drain-blocked", message, fix)


def _dns(cluster: Cluster, node: str) -> Iterable[Finding]:
    nodes = [
        str(spec(pod).get("nodeName"))
        for pod in cluster.of("Pod")
        if (pod["metadata"].get("labels") or {}).get("k8s-app") == "kube-dns" and condition(pod, "Ready") == "True"
    ]
    if nodes and set(nodes) == {node}:
        message = f"every ready CoreDNS pod ({len(nodes)}) is on {node}: no name resolves until one has moved"
        fix = "kubectl -n kube-system scale deployment coredns --replicas=2, then rollout restart it"
        yield Finding("error", "dns-lost", message, fix)


def _webhooks(cluster: Cluster, node: str) -> Iterable[Finding]:
    services: dict[tuple[str, str], tuple[str, str]] = {}
    for each in cluster.of("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        for hook in each.get("webhooks") or []:
            target = (hook.get("clientConfig") or {}).get("service")
            if target and (hook.get("failurePolicy") or "Fail") == "Fail":
                services[target["namespace"], target["name"]] = ("webhook-lost", f"webhook {hook.get('name')}")
    for each in cluster.of("APIService"):
        target = spec(each).get("service")
        if target:
            services.setdefault((target["namespace"], target["name"]), ("api-lost", f"API {name(each)}"))
    for (place, service), (rule, what) in services.items():
        nodes = cluster.ready_nodes(place, service)
        if nodes and set(nodes) == {node}:
            message = f"{what} is answered by {service} in {place} from {node} alone"
            fix = "two replicas, spread on hostname" + ("; or failurePolicy: Ignore" if rule == "webhook-lost" else "")
            yield Finding("error" if rule == "webhook-lost" else "warning", rule, message, fix)


def _path(obj: Object) -> str:
    return f"{namespace(obj)}/{name(obj)}"


def verdict(findings: Sequence[Finding]) -> str:
    """One word on a worker: `yes`, `with losses` when there are warnings only, `no`."""
    if any(each.level == "error" for each in findings):
        return "no"
    return "with losses" if findings else "yes"
