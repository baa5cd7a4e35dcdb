"""Rules on the pods of a workload: how many, where, and whether they can start again elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tandem import labels as names
from tandem._checklist.cel import PINNED, quoted
from tandem._checklist.model import ADVICE, BLOCK, CAREFUL, SPARE, Case, Rule, rule
from tandem._checklist.objects import (
    CONTROL_PLANE,
    HOSTNAME,
    THREE_WORDS,
    WORKLOADS,
    all_containers,
    annotations_of,
    containers,
    grace_seconds,
    is_pinned,
    is_reason,
    listed,
    max_unavailable,
    pod,
    pod_labels,
    pull_policy,
    replicas,
    selects,
    strategy,
)
from tandem.recovery import pod_tolerations

MOVING: Final = ("Deployment", "StatefulSet")
"""Kinds whose pods start again elsewhere, or should."""

GRACE_MARGIN_SECONDS: Final = 15
"""What must be left of the grace period after drain and preStop: the kernel's SIGKILL must never cut a drain short."""

CONTROLLER_GRACE_SECONDS: Final = 60
"""Drain 45 s, release of the Lease 5 s, margin 10 s."""

_REQUESTED: Final = (
    "['cpu', 'memory'].all(r, r in c.?resources.?requests.orValue({}) || r in c.?resources.?limits.orValue({}))"
)
_PINNED: Final = PINNED.format(image="c.image")
_PRE_STOP: Final = "int(c.?lifecycle.?preStop.?sleep.?seconds.orValue(0))"


@rule(
    "replicas",
    title="An app that is to survive a worker has two replicas or more",
    why="one replica is away for the whole failover when its worker is lost",
    fix="spec.replicas: 2",
    levels=SPARE,
    kinds=("Deployment",),
    cel="variables.workload != 'spread' || variables.replicas == 0 || variables.replicas >= 2",
)
def _replicas(case: Case) -> Iterator[str]:
    if case.facts.workload == names.SPREAD and case.facts.replicas == 1:
        yield "one replica, so nothing serves while its worker is lost"


@rule(
    "spread-on-hostname",
    title="Replicas are spread over the workers, strictly",
    why="nothing else keeps the scheduler from placing all replicas on the worker that is lost",
    fix=(
        "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, "
        "whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: <the pods' own>}}]"
    ),
    levels=SPARE,
    kinds=MOVING,
    cel="!variables.spare || variables.hard.size() > 0 || variables.apart.size() > 0",
)
def _spread(case: Case) -> Iterator[str]:
    if not case.facts.spare or hard_constraints(case) or _apart(case):
        return
    constraints = [c for c in _constraints(case) if c.get("topologyKey") == HOSTNAME]
    mine = [c for c in constraints if selects(c.get("labelSelector"), pod_labels(case.obj))]
    if constraints and not mine:
        yield "its spread constraint selects other pods than its own, so it spreads nothing"
    elif mine and all(c.get("whenUnsatisfiable") != "DoNotSchedule" for c in mine):
        yield "its spread is a wish (ScheduleAnyway): all replicas may share a worker"
    elif mine:
        yield "its spread allows a skew above 1: all replicas may share a worker"
    elif _preferred_apart(case):
        yield "its anti-affinity is a wish (preferred): all replicas may share a worker"
    else:
        yield f"nothing keeps its {case.facts.replicas} replicas on different workers"


@rule(
    "spread-by-revision",
    title="Each revision is spread by itself",
    why="old pods else decide where new ones may go: after an update two replicas share a worker, or one has no place",
    fix="matchLabelKeys: [pod-template-hash] in the spread constraint",
    levels=ADVICE,
    kinds=("Deployment",),
    cel=(
        "!variables.spare || variables.hard.all(c, c.?matchLabelKeys.orValue([]).exists(k, k == 'pod-template-hash'))"
    ),
)
def _by_revision(case: Case) -> Iterator[str]:
    if case.facts.spare and any(
        "pod-template-hash" not in (c.get("matchLabelKeys") or []) for c in hard_constraints(case)
    ):
        yield "its spread counts the pods of the old revision during an update"


@rule(
    "spread-avoids-control-plane",
    title="A strict spread does not count the control plane",
    why="its node is a domain that stays empty for ever, so a third replica, or the surge of an update, never starts",
    fix=(
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: [{matchExpressions: "
        "[{key: node-role.kubernetes.io/control-plane, operator: DoesNotExist}]}]"
    ),
    levels=ADVICE,
    kinds=MOVING,
    cel=(
        "!variables.spare || variables.hard.all(c, c.?nodeTaintsPolicy.orValue('Ignore') == 'Honor') || "
        "variables.pod.?nodeSelector.orValue({}).exists(k, !(k in ['kubernetes.io/os', 'kubernetes.io/arch'])) || "
        "(variables.nodeTerms.size() > 0 && "
        "variables.nodeTerms.all(t, t.?matchExpressions.orValue([]).exists(e, "
        f"e.key == '{CONTROL_PLANE}' && e.operator == 'DoesNotExist')))"
    ),
)
def _avoids_control_plane(case: Case) -> Iterator[str]:
    chosen = set(pod(case.obj).get("nodeSelector") or {}) - {"kubernetes.io/os", "kubernetes.io/arch"}
    if not case.facts.spare or chosen:
        return
    if all(c.get("nodeTaintsPolicy") == "Honor" for c in hard_constraints(case)):
        return
    terms = _node_terms(case)
    if not terms or not all(_excludes_control_plane(term) for term in terms):
        yield "its spread counts the control plane's node, where none of its pods may run"


@rule(
    "rebalancer",
    title="Replicas that crowd on the survivor are brought apart after the node's return",
    why="Kubernetes moves no running pod, so the next loss takes every replica at once",
    fix="annotate tandem-ha.io/rebalanced-by: <what does it>, or drop nodeTaintsPolicy: Honor so that replicas wait",
    levels=ADVICE,
    kinds=MOVING,
    cel=(
        "!variables.spare || !variables.hard.exists(c, c.?nodeTaintsPolicy.orValue('Ignore') == 'Honor') || "
        f"{quoted(names.REBALANCED_BY)} in variables.annotations"
    ),
)
def _rebalancer(case: Case) -> Iterator[str]:
    crowds = any(c.get("nodeTaintsPolicy") == "Honor" for c in hard_constraints(case))
    if case.facts.spare and crowds and names.REBALANCED_BY not in annotations_of(case.obj):
        yield "its replicas crowd on the survivor, and nothing is named that brings them apart again"


@rule(
    "surge-placeable",
    title="An update can be placed on two workers",
    why="a surge pod that may share no worker with another replica has no place to go, and the update hangs",
    fix="strategy.rollingUpdate: {maxSurge: 0, maxUnavailable: 1}",
    levels=BLOCK,
    kinds=("Deployment",),
    cel=(
        "variables.count < 2 || variables.recreate || variables.unavailable > 0 || "
        "!(variables.apart.size() > 0 || variables.hostPorts)"
    ),
)
def _surge(case: Case) -> Iterator[str]:
    if replicas(case.obj) < 2 or strategy(case.obj) == "Recreate" or max_unavailable(case.obj) > 0:
        return
    if _apart(case):
        yield "required anti-affinity and an update that first adds a pod: on two workers it has no place"
    elif _host_ports(case):
        yield "a host port and an update that first adds a pod: on two workers the port is taken"


@rule(
    "readiness-probe",
    title="Pods say when they can serve",
    why="an endpoint goes in before the replacement can answer, and stays in when it cannot any more",
    fix="containers[].readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}",
    levels=BLOCK,
    kinds=WORKLOADS,
    cel="variables.containers.exists(c, has(c.readinessProbe))",
)
def _readiness(case: Case) -> Iterator[str]:
    if not any(c.get("readinessProbe") for c in containers(case.obj)):
        yield "no container has a readiness probe"


@rule(
    "liveness-probe",
    title="A stuck program is restarted",
    why="a survivor that hangs is the only replica there is",
    fix="containers[].livenessProbe: {httpGet: {path: /healthz, port: http}, failureThreshold: 3}",
    levels=ADVICE,
    kinds=WORKLOADS,
    cel="variables.containers.exists(c, has(c.livenessProbe))",
)
def _liveness(case: Case) -> Iterator[str]:
    if not any(c.get("livenessProbe") for c in containers(case.obj)):
        yield "no container has a liveness probe"


@rule(
    "requests-set",
    title="CPU and memory are requested",
    why="one worker must carry both workers' pods; without requests nobody knows whether it can, and these die first",
    fix="containers[].resources.requests: {cpu: 50m, memory: 64Mi}",
    levels=BLOCK,
    kinds=WORKLOADS,
    cel=f"variables.containers.all(c, {_REQUESTED})",
    measure=f"variables.containers.filter(c, !({_REQUESTED})).size()",
)
def _requests(case: Case) -> Iterator[str]:
    for container in containers(case.obj):
        resources = container.get("resources") or {}
        given = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
        if missing := [each for each in ("cpu", "memory") if each not in given]:
            yield f"container {container.get('name')} requests no {' and no '.join(missing)}"


@rule(
    "image-pinned",
    title="Images are pinned",
    why="the replacement must run what the lost pod ran, and this name may mean another image by then",
    fix="image: <name>:<version>, or a digest",
    levels=BLOCK,
    kinds=WORKLOADS,
    cel=(f"variables.containers.all(c, {_PINNED}) && variables.pod.?initContainers.orValue([]).all(c, {_PINNED})"),
    measure=(
        f"variables.containers.filter(c, !({_PINNED})).size() + "
        f"variables.pod.?initContainers.orValue([]).filter(c, !({_PINNED})).size()"
    ),
)
def _image_pinned(case: Case) -> Iterator[str]:
    for container in all_containers(case.obj):
        image = str(container.get("image") or "")
        if not is_pinned(image):
            yield f"image {image or '(none)'} of container {container.get('name')} may be another one tomorrow"


@rule(
    "image-present",
    title="A replacement needs no registry",
    why="with pull policy Always a pod starts only while the registry answers, and it may have been on the lost worker",
    fix="imagePullPolicy: IfNotPresent",
    levels=ADVICE,
    kinds=MOVING,
    cel="variables.containers.all(c, c.?imagePullPolicy.orValue('') != 'Always')",
    measure="variables.containers.filter(c, c.?imagePullPolicy.orValue('') == 'Always').size()",
)
def _image_present(case: Case) -> Iterator[str]:
    if asking := [str(c.get("name")) for c in containers(case.obj) if pull_policy(c) == "Always"]:
        yield f"container {listed(asking)} asks the registry at every start"


@rule(
    "priority-class",
    title="What matters most comes first on the survivor",
    why="at half the capacity not everything fits, and without priorities the order is chance",
    fix="priorityClassName: <one of the site's>",
    levels=CAREFUL,
    kinds=MOVING,
    cel="variables.pod.?priorityClassName.orValue('') != ''",
)
def _priority(case: Case) -> Iterator[str]:
    if not case.facts.inferred and not pod(case.obj).get("priorityClassName"):
        yield "no priority class"


@rule(
    "tolerations",
    title="Pods leave a lost worker after the profile's time",
    why="pods keep the tolerations they were made with: the API server's default of 300 s, or for ever",
    fix=(
        "tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: N}, "
        "and the same for node.kubernetes.io/unreachable]"
    ),
    levels=BLOCK,
    kinds=MOVING,
    cel=(
        "!variables.tolerations.exists(t, t.?key.orValue('') == '' && !has(t.tolerationSeconds)) && "
        + " && ".join(
            f"variables.tolerations.exists(t, t.?key.orValue('') == '{key}') && "
            f"variables.tolerations.all(t, t.?key.orValue('') != '{key}' || "
            f"int(t.?tolerationSeconds.orValue(-1)) == {seconds})"
            for key, seconds in (
                ("node.kubernetes.io/not-ready", "$NOT_READY_SECONDS"),
                ("node.kubernetes.io/unreachable", "$UNREACHABLE_SECONDS"),
            )
        )
    ),
    # 300 s is the API server's default for a pod without one; a day stands for "for ever".
    measure="([300] + variables.tolerations.map(t, int(t.?tolerationSeconds.orValue(86400)))).max()",
)
def _tolerations(case: Case) -> Iterator[str]:
    given = [t for t in pod(case.obj).get("tolerations") or [] if (t.get("effect") or "NoExecute") == "NoExecute"]
    if any(not t.get("key") and t.get("tolerationSeconds") is None for t in given):
        yield "tolerates every taint for ever, so its pods never leave a lost worker"
        return
    wanted = {str(t["key"]): int(t["tolerationSeconds"]) for t in pod_tolerations(case.profile)} if case.profile else {}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        found = [t.get("tolerationSeconds") for t in given if t.get("key") == key]
        if not found:
            # Unlabelled pods take the API server's defaults, which the tuning has set.
            if not case.facts.inferred:
                yield f"no toleration of {key}: its pods get the API server's default of the day they are made"
        elif None in found:
            yield f"tolerates {key} for ever, so its pods never leave a lost worker"
        elif case.profile and set(found) != {wanted[key]}:
            said = " and ".join(f"{seconds:g} s" for seconds in sorted(set(found)))
            yield f"tolerates {key} for {said}; profile {case.profile.name} says {wanted[key]} s"


@rule(
    "grace-covers-drain",
    title="The grace period covers preStop and drain, with 15 s to spare; 60 s for a controller",
    why="SIGKILL in the middle of a drain leaves work half done and a Lease unreleased",
    fix="terminationGracePeriodSeconds: <drain + preStop + 15, at least 60 for a controller>",
    levels=BLOCK,
    kinds=MOVING,
    cel=(
        "variables.containers.all(c, variables.grace >= "
        f"variables.drain + {_PRE_STOP} + {GRACE_MARGIN_SECONDS}) && "
        f"(variables.workload != 'controller' || variables.grace >= {CONTROLLER_GRACE_SECONDS})"
    ),
    measure=f"variables.drain + variables.containers.map(c, {_PRE_STOP}).max() - variables.grace",
)
def _grace(case: Case) -> Iterator[str]:
    sleeps = [((c.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {} for c in containers(case.obj)]
    pre_stop = max((int(sleep.get("seconds") or 0) for sleep in sleeps), default=0)
    least = case.facts.drain_seconds + pre_stop + GRACE_MARGIN_SECONDS
    if case.facts.workload == names.CONTROLLER:
        least = max(least, CONTROLLER_GRACE_SECONDS)
    if grace_seconds(case.obj) < least:
        yield f"a grace period of {grace_seconds(case.obj)} s, {least} s are needed"


@rule(
    "node-pinned",
    title="No pod is bound to one node",
    why="when that worker is lost there is no other place for it",
    fix="remove nodeName, and kubernetes.io/hostname from nodeSelector and node affinity",
    levels=BLOCK,
    kinds=MOVING,
    cel=(
        f"variables.pod.?nodeName.orValue('') == '' && !('{HOSTNAME}' in variables.pod.?nodeSelector.orValue({{}})) && "
        "(variables.nodeTerms.size() == 0 || variables.nodeTerms.exists(t, !t.?matchExpressions.orValue([]).exists(e, "
        f"e.key == '{HOSTNAME}' && e.operator == 'In' && e.values.size() == 1)))"
    ),
)
def _node_pinned(case: Case) -> Iterator[str]:
    spec_ = pod(case.obj)
    terms = _node_terms(case)
    if spec_.get("nodeName"):
        yield f"nodeName binds it to {spec_['nodeName']}"
    elif HOSTNAME in (spec_.get("nodeSelector") or {}):
        yield f"its node selector binds it to {spec_['nodeSelector'][HOSTNAME]}"
    elif terms and all(_one_host(term) for term in terms):
        yield "its node affinity allows one host in each term"


@rule(
    "host-path",
    title="No data of a moving pod lies on its node",
    why="the replacement starts on the other worker with an empty folder, or with an old one",
    fix="a PersistentVolumeClaim of class tandem-shared instead of hostPath",
    levels=BLOCK,
    kinds=MOVING,
    cel="!variables.pod.?volumes.orValue([]).exists(v, has(v.hostPath))",
    measure="variables.pod.?volumes.orValue([]).filter(v, has(v.hostPath)).size()",
)
def _host_path(case: Case) -> Iterator[str]:
    paths = [str(v["hostPath"].get("path")) for v in pod(case.obj).get("volumes") or [] if v.get("hostPath")]
    if paths:
        yield f"reads or writes {listed(paths)} of whatever node it runs on"


@rule(
    "stateful-set-reason",
    title="A StatefulSet has a stated reason",
    why="Kubernetes never replaces a StatefulSet's pod of a lost node, so it stays away until the node is back",
    fix="a Deployment with a claim of class tandem-shared; or annotate tandem-ha.io/stateful-set-reason: <why>",
    levels=BLOCK,
    kinds=("StatefulSet",),
    cel=f"variables.annotations[?{quoted(names.STATEFUL_SET_REASON)}].orValue('').matches({quoted(THREE_WORDS)})",
)
def _stateful_set(case: Case) -> Iterator[str]:
    if not is_reason(annotations_of(case.obj).get(names.STATEFUL_SET_REASON, "")):
        yield "its pods are not replaced when their worker is lost, and no reason is stated"


@rule(
    "two-writers",
    title="A single writer is never two",
    why="a worker that is only cut off goes on writing while the replacement writes",
    fix="annotate tandem-ha.io/when-unreachable: hold, with a ReadWriteOncePod claim",
    levels=ADVICE,
    kinds=("Deployment",),
    cel=(
        "variables.workload != 'single-writer' || "
        f"variables.annotations[?{quoted(names.WHEN_UNREACHABLE)}].orValue('hold') != 'replace'"
    ),
)
def _two_writers(case: Case) -> Iterator[str]:
    replaces = annotations_of(case.obj).get(names.WHEN_UNREACHABLE) == "replace"
    if case.facts.workload == names.SINGLE_WRITER and replaces:
        yield "replaced although nobody knows that the old one has stopped: two writers when the worker is cut off"


def _constraints(case: Case) -> list[Any]:
    return list(pod(case.obj).get("topologySpreadConstraints") or [])


def hard_constraints(case: Case) -> list[Any]:
    """The constraints that strictly spread the workload's own pods over nodes, by one at most."""
    return [
        c
        for c in _constraints(case)
        if c.get("topologyKey") == HOSTNAME
        and c.get("whenUnsatisfiable") == "DoNotSchedule"
        and c.get("maxSkew") == 1
        and selects(c.get("labelSelector"), pod_labels(case.obj))
    ]


def _apart(case: Case) -> list[Any]:
    anti = (pod(case.obj).get("affinity") or {}).get("podAntiAffinity") or {}
    terms = anti.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    mine = pod_labels(case.obj)
    return [t for t in terms if t.get("topologyKey") == HOSTNAME and selects(t.get("labelSelector"), mine)]


def _preferred_apart(case: Case) -> bool:
    anti = (pod(case.obj).get("affinity") or {}).get("podAntiAffinity") or {}
    return bool(anti.get("preferredDuringSchedulingIgnoredDuringExecution"))


def _node_terms(case: Case) -> list[Any]:
    node = (pod(case.obj).get("affinity") or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return list(required.get("nodeSelectorTerms") or [])


def _excludes_control_plane(term: Any) -> bool:
    expressions = term.get("matchExpressions") or []
    return any(e.get("key") == CONTROL_PLANE and e.get("operator") == "DoesNotExist" for e in expressions)


def _one_host(term: Any) -> bool:
    expressions = term.get("matchExpressions") or []
    return any(
        e.get("key") == HOSTNAME and e.get("operator") == "In" and len(e.get("values") or []) == 1 for e in expressions
    )


def _host_ports(case: Case) -> bool:
    ports = [port for container in containers(case.obj) for port in container.get("ports") or []]
    return any(pod(case.obj).get("hostNetwork") or port.get("hostPort") for port in ports)


RULES: Final[tuple[Rule, ...]] = (
    _replicas,
    _spread,
    _by_revision,
    _avoids_control_plane,
    _rebalancer,
    _surge,
    _readiness,
    _liveness,
    _requests,
    _image_pinned,
    _image_present,
    _priority,
    _tolerations,
    _grace,
    _node_pinned,
    _host_path,
    _stateful_set,
    _two_writers,
)
