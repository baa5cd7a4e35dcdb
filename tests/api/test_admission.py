"""The admission policy on a real API server: rule by rule, good and bad, created, updated and scaled."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from lab.build import artifacts
from tandem import admission, checklist, labels, recovery
from tandem.checklist import Rule
from tandem.runtime.testing.localapi import LocalApi
from tests.api.test_checklist_cel import EXPRESSED, objects
from tests.unit.checklist.test_manifests import load

pytestmark = pytest.mark.api

Object = dict[str, Any]
PROFILE: Final = recovery.profile("balanced")
REGISTRATION: Final = "/apis/admissionregistration.k8s.io/v1"
PLURALS: Final = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
TRIES: Final = 300
"""A policy or a label takes effect within a second or two; counted in tries, for a busy machine's time is long."""
SAID: Final = re.compile(r"(?:denied request|with binding '[^']+'): (?:Validation failed .*?: )?([a-z-]+): ")
AS_WELL: Final = re.compile(r"Broken as well: ([a-z, -]+)")


@dataclass(frozen=True)
class Answer:
    """What the API server said to a write: the status, its warnings, the message of a refusal."""

    status: int
    warnings: tuple[str, ...] = ()
    message: str = ""

    @property
    def refused(self) -> set[str]:
        """The rules that the refusal names."""
        more = AS_WELL.search(self.message)
        return {*SAID.findall(self.message), *(more[1].split(", ") if more else ())}

    @property
    def warned(self) -> set[str]:
        """The rules that warnings name."""
        return {rule for each in self.warnings for rule in SAID.findall(each)}


def write(api: LocalApi, method: str, path: str, body: Object, *, content: str = "application/json") -> Answer:
    """One write as administrator."""
    request = urllib.request.Request(  # noqa: S310 - an address of our own
        api.url + path, data=json.dumps(body).encode(), method=method, headers={"Content-Type": content}
    )
    try:
        with urllib.request.urlopen(request, context=api._context(), timeout=30) as answer:  # noqa: S310
            return Answer(answer.status, tuple(answer.headers.get_all("Warning") or ()))
    except urllib.error.HTTPError as error:
        told = tuple(error.headers.get_all("Warning") or ())
        return Answer(error.code, told, json.loads(error.read())["message"])


def place(kind: str, namespace: str, name: str = "") -> str:
    """The path of the objects of a kind in a namespace, or of one of them."""
    group, version, plural = admission.SERVED[kind]
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{base}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def create(api: LocalApi, obj: Object, namespace: str, *, dry: bool = True) -> Answer:
    group, version, _ = admission.SERVED[obj["kind"]]
    body = copy.deepcopy(obj) | {"apiVersion": f"{group}/{version}" if group else version}
    body["metadata"]["namespace"] = namespace
    return write(api, "POST", place(obj["kind"], namespace) + ("?dryRun=All" if dry else ""), body)


def patch(api: LocalApi, obj: Object, namespace: str, change: Object, *, dry: bool = True) -> Answer:
    path = place(obj["kind"], namespace, obj["metadata"]["name"]) + ("?dryRun=All" if dry else "")
    return write(api, "PATCH", path, change, content="application/strategic-merge-patch+json")


def make_namespace(api: LocalApi, mode: str | None = None) -> str:
    name = f"t-{uuid.uuid4().hex[:10]}"
    labelled = {labels.ADMISSION: mode} if mode else {}
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labelled}})
    return name


def take_part(api: LocalApi, namespace: str, mode: str) -> None:
    """Label a namespace and wait until its bad objects are noticed."""
    change = {"metadata": {"labels": {labels.ADMISSION: mode}}}
    write(api, "PATCH", f"/api/v1/namespaces/{namespace}", change, content="application/merge-patch+json")
    until(lambda: "replicas-need-election" in create(api, two_without_election("probe"), namespace).refused)


def until(true: Any) -> None:
    for _ in range(TRIES):
        if true():
            return
        time.sleep(0.2)
    pytest.fail(f"took no effect within {TRIES} tries")


def object_of(manifest: str, kind: str) -> Object:
    return copy.deepcopy(next(each for each in load(manifest) if each["kind"] == kind))


def without_election(name: str, count: int = 1) -> Object:
    """A controller that elects nobody."""
    obj = object_of("solo-controller-good", "Deployment")
    obj["metadata"]["name"] = name
    del obj["metadata"]["annotations"][labels.LEASE]
    obj["spec"]["replicas"] = count
    return obj


def two_without_election(name: str) -> Object:
    return without_election(name, 2)


@pytest.fixture(scope="module")
def judging(api: LocalApi) -> Iterator[LocalApi]:
    """The API server with the policies of prod in effect."""
    made = admission.manifests("prod", PROFILE)
    for each in made:
        api.request("POST", f"{REGISTRATION}/{PLURALS[each['kind']]}", each)
    denied, warned = make_namespace(api, "deny"), make_namespace(api, "warn")
    # One bad object of each kind and level, for each policy takes effect by itself.
    bad = [(obj, *expected(obj)) for _, obj in objects()]
    probes = {(obj["kind"], bool(errors), bool(told)): (obj, errors, told) for obj, errors, told in bad}
    for obj, errors, told in probes.values():
        until(lambda o=obj, e=errors, t=told: judged_as(create(api, o, denied), e, t))
        until(lambda o=obj, e=errors, t=told: create(api, o, warned).warned == e | t)
    yield api
    for each in reversed(made):
        api.request("DELETE", f"{REGISTRATION}/{PLURALS[each['kind']]}/{each['metadata']['name']}")


def expected(obj: Object) -> tuple[set[str], set[str]]:
    """The rules that an object breaks by the Python judge: those of level error, and the others."""
    found = checklist.counted(checklist.judge([obj], environment="prod", profile=PROFILE))
    found = [each for each in found if checklist.rule(each.rule).cel]
    errors = {each.rule for each in found if each.level == "error"}
    return errors, {each.rule for each in found} - errors


def judged_as(answer: Answer, errors: set[str], told: set[str]) -> bool:
    return (answer.status == (403 if errors else 201)) and answer.refused == errors and answer.warned == told


def test_every_object_is_judged_as_by_the_checklist(judging: LocalApi) -> None:
    """In `deny` a bad object is refused with all that is wrong, in `warn` it is told of, elsewhere it just passes."""
    denied, warned, outside = (make_namespace(judging, mode) for mode in ("deny", "warn", None))
    until(lambda: create(judging, two_without_election("probe"), denied).status == 403)
    until(lambda: create(judging, two_without_election("probe"), warned).warned)
    broken: set[str] = set()
    passed: set[str] = set()
    differences = []
    for what, obj in objects():
        errors, told = expected(obj)
        answer = create(judging, obj, denied)
        if not judged_as(answer, errors, told):
            differences.append(f"{what} in deny: {answer}, expected {sorted(errors)}, told of {sorted(told)}")
        answer = create(judging, obj, warned)
        if answer.status != 201 or answer.warned != errors | told:
            differences.append(f"{what} in warn: {answer}, expected {sorted(errors | told)}")
        broken |= errors | told
        passed |= {rule.id for rule in EXPRESSED if obj["kind"] in rule.kinds} - errors - told
    assert not differences, "\n".join(differences)
    assert broken == {rule.id for rule in EXPRESSED}, "a rule that no object breaks proves nothing"
    assert passed == {rule.id for rule in EXPRESSED}, "nor does one that every object breaks"
    assert create(judging, two_without_election("bad"), outside) == Answer(201)


@pytest.mark.parametrize("rule", [rule for rule in EXPRESSED if "Deployment" in rule.kinds], ids=lambda rule: rule.id)
def test_messages_say_what_why_and_the_way_out(rule: Rule) -> None:
    said = admission.message(rule)
    assert said.startswith(f"{rule.id}: {rule.title}")
    assert rule.why in said
    assert said.endswith(rule.fix)
    assert "\n" not in said


def container(**fields: Any) -> Object:
    """A change of the first container's fields."""
    return pod(containers=[{"name": "app", **fields}])


def pod(**fields: Any) -> Object:
    return {"spec": {"template": {"spec": fields}}}


@dataclass(frozen=True)
class Worsening:
    """A rule with a measure: an object that breaks it, and the changes that break it more and less."""

    rule: str
    manifest: str
    kind: str
    bad: Object
    worse: Object
    better: Object


UNREACHABLE: Final = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
HOST_PATH: Final = {"name": "one", "hostPath": {"path": "/srv"}}
OTHER_HOST_PATH: Final = {"name": "two", "hostPath": {"path": "/opt"}}
WORSENINGS: Final = (
    Worsening(
        "replicas-need-election",
        "single-writer-hold-good",
        "Deployment",
        {"spec": {"replicas": 3}},
        {"spec": {"replicas": 4}},
        {"spec": {"replicas": 2}},
    ),
    Worsening(
        "requests-set",
        "spread-app-good",
        "Deployment",
        pod(containers=[{"name": "more", "image": "more:1"}]),
        pod(containers=[{"name": "third", "image": "third:1"}]),
        pod(containers=[{"name": "more", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]),
    ),
    Worsening(
        "image-pinned",
        "spread-app-good",
        "Deployment",
        pod(initContainers=[{"name": "one", "image": "busybox"}]),
        pod(initContainers=[{"name": "two", "image": "busybox"}]),
        pod(initContainers=[{"name": "one", "image": "busybox:1"}]),
    ),
    Worsening(
        "host-path",
        "spread-app-good",
        "Deployment",
        pod(volumes=[HOST_PATH]),
        pod(volumes=[OTHER_HOST_PATH]),
        pod(volumes=[{"$patch": "delete", "name": "one"}]),
    ),
    Worsening(
        "grace-covers-drain",
        "spread-app-good",
        "Deployment",
        pod(terminationGracePeriodSeconds=40),
        pod(terminationGracePeriodSeconds=39),
        pod(terminationGracePeriodSeconds=41),
    ),
    Worsening(
        "tolerations",
        "spread-app-good",
        "Deployment",
        pod(tolerations=[UNREACHABLE | {"tolerationSeconds": 600}]),
        pod(tolerations=[UNREACHABLE]),
        pod(tolerations=[UNREACHABLE | {"tolerationSeconds": 20}]),
    ),
    Worsening(
        "autoscaler-floor",
        "spread-app-autoscaled",
        "HorizontalPodAutoscaler",
        {"spec": {"minReplicas": 1}},
        {"spec": {"minReplicas": 0}},
        {"spec": {"minReplicas": 2}},
    ),
)


def test_every_blocking_measure_is_tried() -> None:
    measured = {rule.id for rule in EXPRESSED if rule.measure and rule.levels["prod"] == "error"}
    assert {each.rule for each in WORSENINGS} == measured


@pytest.mark.parametrize("case", WORSENINGS, ids=lambda case: case.rule)
def test_what_was_bad_before_may_stay_or_become_better_but_not_worse(case: Worsening, judging: LocalApi) -> None:
    namespace = make_namespace(judging)
    obj = object_of(case.manifest, case.kind)
    assert create(judging, obj, namespace, dry=False).status == 201
    assert patch(judging, obj, namespace, case.bad, dry=False).status == 200
    take_part(judging, namespace, "deny")

    untouched = patch(judging, obj, namespace, {"metadata": {"annotations": {"note": "nothing else"}}})
    assert (untouched.status, untouched.refused) == (200, set())
    worse = patch(judging, obj, namespace, case.worse)
    assert case.rule == "autoscaler-floor" or worse.status == 403, worse
    assert worse.status == 422 or worse.refused == {case.rule}, worse
    assert patch(judging, obj, namespace, case.better).status == 200


def huge() -> Object:
    """A good object larger than any that people write: 100 containers of 10 ports, 64 labels, 50 of each term."""
    obj = object_of("spread-app-good", "Deployment")
    spec = obj["spec"]["template"]["spec"]
    more = {f"label-{i}": "value" for i in range(64)}
    obj["spec"]["template"]["metadata"]["labels"] |= more
    first = spec["containers"][0]
    first["ports"] = first.get("ports", [])[:1]
    spec["containers"] = [first] + [
        first | {"name": f"c{i}", "ports": [{"containerPort": 1024 + 10 * i + j} for j in range(10)]}
        for i in range(100)
    ]
    constraint = spec["topologySpreadConstraints"][0]
    selector = {"matchLabels": constraint["labelSelector"]["matchLabels"] | more}
    spec["topologySpreadConstraints"] += [
        constraint | {"topologyKey": f"zone-{i}", "labelSelector": selector} for i in range(50)
    ]
    spec["tolerations"] += [{"key": f"taint-{i}", "operator": "Exists", "effect": "NoExecute"} for i in range(50)]
    return obj


def test_a_huge_object_does_not_exhaust_the_budget_of_an_expression(judging: LocalApi) -> None:
    """What cannot be evaluated is refused, so that no honest object may come near the API server's limits."""
    namespace = make_namespace(judging)
    obj = huge()
    assert create(judging, obj, namespace, dry=False) == Answer(201)
    take_part(judging, namespace, "deny")
    again = copy.deepcopy(obj)
    again["metadata"]["name"] = "again"
    answer = create(judging, again, namespace)
    assert (answer.status, answer.refused, answer.message) == (201, set(), ""), answer
    worse = patch(judging, obj, namespace, {"spec": {"replicas": 1}})
    assert worse.refused == {"replicas"}


def test_what_is_let_through_with_a_warning_is_noted_in_the_audit_log(judging: LocalApi) -> None:
    namespace = make_namespace(judging, "warn")
    until(lambda: create(judging, two_without_election("noted"), namespace).warned)
    key = "validation.policy.admission.k8s.io/validation_failure"
    here = [each for each in judging.audit() if each.get("objectRef", {}).get("namespace") == namespace]
    noted = [each["annotations"][key] for each in here if key in each.get("annotations", {})]
    assert any("replicas-need-election" in each for each in noted)


def test_a_good_object_cannot_be_made_bad_again(judging: LocalApi) -> None:
    namespace = make_namespace(judging)
    obj = two_without_election("solo")
    create(judging, obj, namespace, dry=False)
    take_part(judging, namespace, "deny")
    assert patch(judging, obj, namespace, {"spec": {"replicas": 1}}, dry=False).status == 200
    assert "replicas-need-election" in patch(judging, obj, namespace, {"spec": {"replicas": 2}}).refused


def test_a_label_is_a_claim_that_must_hold(judging: LocalApi) -> None:
    """What was bad without the label is refused when it is labelled: it was not judged before."""
    namespace = make_namespace(judging)
    obj = two_without_election("solo")
    label = obj["metadata"]["labels"].pop(labels.WORKLOAD)
    create(judging, obj, namespace, dry=False)
    take_part(judging, namespace, "deny")
    labelled = patch(judging, obj, namespace, {"metadata": {"labels": {labels.WORKLOAD: label}}})
    assert "replicas-need-election" in labelled.refused


def test_an_exemption_needs_a_reason_and_holds_as_long_as_it_stands(judging: LocalApi) -> None:
    namespace = make_namespace(judging)
    take_part(judging, namespace, "deny")
    obj = object_of("single-writer-hold-good", "Deployment")
    obj["spec"]["replicas"] = 2
    key = f"{labels.EXEMPT_PREFIX}replicas-need-election"
    notes = obj["metadata"].setdefault("annotations", {})
    notes[key] = "because"
    assert create(judging, obj, namespace).refused == {"replicas-need-election"}
    notes[key] = "it locks a file by itself"
    assert create(judging, obj, namespace, dry=False).status == 201
    gone = patch(judging, obj, namespace, {"metadata": {"annotations": {key: None}}})
    assert gone.refused == {"replicas-need-election"}


def test_the_cluster_s_own_namespaces_never_take_part(judging: LocalApi) -> None:
    probe = two_without_election("probe")
    witness = make_namespace(judging)
    change = {"metadata": {"labels": {labels.ADMISSION: "deny"}}}
    write(judging, "PATCH", "/api/v1/namespaces/kube-system", change, content="application/merge-patch+json")
    take_part(judging, witness, "deny")  # labelled later, so the label of kube-system is known by now
    try:
        assert create(judging, probe, "kube-system") == Answer(201)
    finally:
        undo = {"metadata": {"labels": {labels.ADMISSION: None}}}
        write(judging, "PATCH", "/api/v1/namespaces/kube-system", undo, content="application/merge-patch+json")


# --- with kubectl, as a person does it --------------------------------------------------------------------------------
def kubectl(api: LocalApi, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [str(artifacts.tools() / "kubectl"), "--kubeconfig", str(api.kubeconfig()), *arguments]
    return subprocess.run(argv, env=os.environ | env, capture_output=True, text=True, check=False, timeout=120)


def replicas(api: LocalApi, namespace: str, name: str) -> int:
    found: int = api.request("GET", place("Deployment", namespace, name))["spec"]["replicas"]
    return found


def test_kubectl_edit_to_three_replicas_without_election_is_refused(judging: LocalApi) -> None:
    namespace = make_namespace(judging)
    name = "sweeper"
    obj = without_election(name)
    assert create(judging, obj, namespace, dry=False).status == 201
    take_part(judging, namespace, "deny")
    arguments = ("-n", namespace, "edit", "deployment", name)
    done = kubectl(judging, *arguments, KUBE_EDITOR="sed -i 's/^  replicas: 1$/  replicas: 3/'")
    assert done.returncode != 0
    assert "replicas-need-election: Two replicas only with an election." in done.stderr
    assert "Way out: replicas: 1, or elect a leader" in done.stderr
    assert replicas(judging, namespace, name) == 1
    # The editor did change something: without the rule's namespace the same command goes through.
    free = make_namespace(judging)
    create(judging, obj, free, dry=False)
    done = kubectl(judging, "-n", free, *arguments[2:], KUBE_EDITOR="sed -i 's/^  replicas: 1$/  replicas: 3/'")
    assert (done.returncode, replicas(judging, free, name)) == (0, 3), done.stderr


def test_scaling_of_protected_names(judging: LocalApi) -> None:
    """Through the scale subresource, which kubectl and autoscalers use and which shows no labels."""
    namespace = make_namespace(judging)
    solo, shop, other = without_election("solo"), object_of("spread-app-good", "Deployment"), without_election("other")
    for each in (solo, shop, other):
        assert create(judging, each, namespace, dry=False).status == 201
    alone, spare = solo["metadata"]["name"], shop["metadata"]["name"]
    listed = admission.protected(namespace, {alone: "alone", spare: "spare"})
    judging.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", listed)
    take_part(judging, namespace, "deny")

    def scale(name: str, count: int, *more: str) -> subprocess.CompletedProcess[str]:
        return kubectl(judging, "-n", namespace, "scale", "deployment", name, f"--replicas={count}", *more)

    until(lambda: scale(alone, 3, "--dry-run=server").returncode != 0)
    refused = scale(alone, 3)
    assert "replicas-need-election: " in refused.stderr
    assert replicas(judging, namespace, alone) == 1
    assert scale(alone, 0).returncode == 0
    assert scale(alone, 1).returncode == 0
    assert "replicas: An app that is to survive a worker" in scale(spare, 1).stderr
    assert scale(spare, 3).returncode == 0
    assert scale(spare, 0).returncode == 0
    # What the ConfigMap does not name is scaled, and the audit is the one who sees it.
    assert scale("other", 3).returncode == 0
    found = checklist.judge([judging.request("GET", place("Deployment", namespace, "other")) | {"kind": "Deployment"}])
    assert "replicas-need-election" in {each.rule for each in found}


def test_scaling_where_nothing_is_protected(judging: LocalApi) -> None:
    namespace = make_namespace(judging)
    create(judging, without_election("solo"), namespace, dry=False)
    take_part(judging, namespace, "deny")
    assert kubectl(judging, "-n", namespace, "scale", "deployment", "solo", "--replicas=2").returncode == 0
