"""Rules on programs that act on the cluster: two copies of one must never act at once, and one must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from tandem import labels as names
from tandem._checklist.cel import quoted
from tandem._checklist.facts import LEASE_SECONDS_FORM, lease_verbs
from tandem._checklist.model import ADVICE, ALWAYS, BLOCK, CAREFUL, Case, Rule, rule
from tandem._checklist.objects import (
    Object,
    annotations_of,
    containers,
    listed,
    name,
    namespace,
    spec,
    strategy,
)

RETRY_FACTOR: Final = 1.2
"""client-go refuses a renew deadline that is not above this times the retry period: its jitter."""

LEADER_WORDS: Final = r"(?i)leader|lease"

_ALONE: Final = "(variables.workload == 'single-writer' || variables.workload == 'controller') && !variables.elected"
_TIMES: Final = f"variables.annotations[{quoted(names.LEASE_SECONDS)}].split('/')"
_SHOWN: Final = f"variables.annotations[?{quoted(names.CONFORMANCE)}].orValue('').split(' ')"


@rule(
    "replicas-need-election",
    title="Two replicas only with an election",
    why="two copies do everything twice: double reconciles, fights over fields, and two writers in one file",
    fix="replicas: 1, or elect a leader and annotate tandem-ha.io/lease: <its Lease>",
    levels=ALWAYS,
    kinds=("Deployment",),
    cel=f"!({_ALONE}) || variables.replicas <= 1",
    measure="variables.replicas",
)
def _needs_election(case: Case) -> Iterator[str]:
    if _alone(case) and case.facts.replicas > 1:
        yield f"{case.facts.replicas} replicas and no sign of an election: every one of them acts"


@rule(
    "recreate-without-election",
    title="Without an election the old copy stops before the new one starts",
    why="a rolling update runs two copies side by side",
    fix="strategy: {type: Recreate}",
    levels=ALWAYS,
    kinds=("Deployment",),
    cel=f"!({_ALONE}) || variables.recreate",
)
def _recreate(case: Case) -> Iterator[str]:
    if _alone(case) and strategy(case.obj) != "Recreate":
        yield "an update runs the old and the new copy side by side"


@rule(
    "election-needs-rolling",
    title="With an election an update is rolling",
    why="Recreate stops the standby too: nobody leads until a new pod has started",
    fix="strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}",
    levels=BLOCK,
    kinds=("Deployment",),
    cel="!variables.elected || variables.replicas < 2 || !variables.recreate",
)
def _rolling(case: Case) -> Iterator[str]:
    if case.facts.elected and case.facts.replicas >= 2 and strategy(case.obj) == "Recreate":
        yield "an update stops leader and standby together"


@rule(
    "readiness-not-leader",
    title="Ready never means leader",
    why="a standby that is not Ready makes every update wait for ever, and counts as a lost replica for its budget",
    fix="a readiness probe that answers when caches are synced, e.g. /readyz",
    levels=ALWAYS,
    kinds=("Deployment", "StatefulSet"),
    cel=(
        f"variables.containers.all(c, !c.?readinessProbe.?httpGet.?path.orValue('').matches({quoted(LEADER_WORDS)}) && "
        f"!c.?readinessProbe.?exec.?command.orValue([]).exists(a, a.matches({quoted(LEADER_WORDS)})))"
    ),
)
def _not_leader(case: Case) -> Iterator[str]:
    for container in containers(case.obj):
        probe = container.get("readinessProbe") or {}
        asked = [str((probe.get("httpGet") or {}).get("path") or ""), *((probe.get("exec") or {}).get("command") or [])]
        if found := next((text for text in asked if re.search(LEADER_WORDS, str(text))), None):
            yield f"readiness asks for leadership: {found}"


@rule(
    "lease-rbac",
    title="An elected controller may hold its Lease",
    why="a candidate that is refused never leads: two replicas run and nobody works",
    fix="a Role: get, update and watch on leases with resourceNames: [<its Lease>]; deploy the Lease, or allow create",
    levels=BLOCK,
    kinds=("Deployment",),
)
def _lease_rbac(case: Case) -> Iterator[str]:
    if not case.facts.elected or not case.world.knows_rbac():
        return
    verbs = lease_verbs(case.world.rules_of(case.obj, anywhere=case.facts.inferred))
    wanted = ["get", "update"]
    made = [case.world.named(case.obj, "Lease", each) for each in _leases(case.obj)]
    if not made or None in made:
        wanted.append("create")
    missing = [verb for verb in wanted if verb not in verbs]
    if missing and not (case.facts.inferred and {"patch", "create"} <= verbs):
        yield f"its ServiceAccount may not {listed(missing)} Leases"


@rule(
    "lease-rbac-exact",
    title="An elected controller may change its own Lease only",
    why="one that can change others' Leases can stop any controller in its namespace, by a fault or on purpose",
    fix="resourceNames: [<its Lease>] in the rule with get, update and watch; create stands in a rule of its own",
    levels=ADVICE,
    kinds=("Deployment",),
)
def _lease_exact(case: Case) -> Iterator[str]:
    mine = set(_leases(case.obj))
    if not mine or case.facts.inferred:
        return
    for each in case.world.rules_of(case.obj):
        changing = lease_verbs([each]) & {"update", "patch", "delete"}
        if changing and not set(each.get("resourceNames") or []):
            yield f"its ServiceAccount may {listed(sorted(changing))} every Lease of the namespace"
        elif changing and (others := sorted(set(each["resourceNames"]) - mine)):
            yield f"its ServiceAccount may {listed(sorted(changing))} Lease {listed(others)}, which is not its own"


@rule(
    "lease-times",
    title="Lease duration > renew deadline > 1.2 x retry period",
    why="a leader that gives up after its lease has ended overlaps with the next one",
    fix="15/10/2 seconds",
    levels=ALWAYS,
    kinds=("Deployment",),
    cel=(
        f"!({quoted(names.LEASE_SECONDS)} in variables.annotations) || "
        f"(variables.annotations[{quoted(names.LEASE_SECONDS)}].matches({quoted(LEASE_SECONDS_FORM)}) && "
        f"double({_TIMES}[0]) > double({_TIMES}[1]) && "
        f"double({_TIMES}[1]) > {RETRY_FACTOR} * double({_TIMES}[2]) && double({_TIMES}[2]) > 0.0)"
    ),
)
def _times(case: Case) -> Iterator[str]:
    stated = annotations_of(case.obj).get(names.LEASE_SECONDS)
    times = case.facts.lease_seconds
    if times is None:
        if stated is not None:
            yield f"lease times {stated!r} are not three numbers as 15/10/2"
        return
    duration, deadline, retry = times
    if not (duration > deadline > RETRY_FACTOR * retry > 0):
        yield f"lease {duration:g} s, renew deadline {deadline:g} s, retry {retry:g} s"


@rule(
    "lease-held",
    title="An elected controller's Lease is held and renewed",
    why="its pods run and are Ready, and nobody works",
    fix="see the controller's log; kubectl get lease <name> -o yaml",
    levels=ADVICE,
    kinds=("Deployment",),
)
def _held(case: Case) -> Iterator[str]:
    if case.now is None or case.facts.replicas == 0 or not case.world.of("Lease"):
        return
    for lease_name in _leases(case.obj):
        lease = case.world.named(case.obj, "Lease", lease_name)
        holder = spec(lease).get("holderIdentity") if lease else None
        if lease is None or not holder:
            yield f"nobody holds Lease {lease_name}"
            continue
        age = case.now - _seconds(str(spec(lease).get("renewTime") or ""))
        if age > float(spec(lease).get("leaseDurationSeconds") or 0):
            yield f"Lease {lease_name} of {holder} was last renewed {age:.0f} s ago"


@rule(
    "shards-disjoint",
    title="Shards of a controller share nothing",
    why="two shards that watch one object both act on it, and each has a leader of its own",
    fix="annotate tandem-ha.io/scope: namespaces=<its own>, and a Lease for each shard",
    levels=ALWAYS,
    kinds=("Deployment",),
)
def _shards(case: Case) -> Iterator[str]:
    whole = annotations_of(case.obj).get(names.SHARD_OF)
    if not whole:
        return
    mine = annotations_of(case.obj).get(names.SCOPE, "")
    if not mine:
        yield f"a shard of {whole} without a scope watches everything"
        return
    for other in _controllers(case):
        if other is case.obj or annotations_of(other).get(names.SHARD_OF) != whole:
            continue
        if shared := sorted(set(_leases(case.obj)) & set(_leases(other))):
            yield f"shares Lease {listed(shared)} with shard {name(other)}"
        if both := _overlap(mine, annotations_of(other).get(names.SCOPE, "")):
            yield f"its scope and that of shard {name(other)} {both}"


@rule(
    "one-field-manager",
    title="One field manager a controller, and one controller a field manager",
    why="two managers of one controller leave fields with two owners; one manager of two undoes the other's work",
    fix="annotate tandem-ha.io/field-manager: <the controller's name>, the same for all of its shards",
    levels=ALWAYS,
    kinds=("Deployment",),
)
def _field_manager(case: Case) -> Iterator[str]:
    mine = annotations_of(case.obj).get(names.FIELD_MANAGER)
    if mine is None:
        return
    for other in _controllers(case):
        theirs = annotations_of(other).get(names.FIELD_MANAGER)
        if other is case.obj or theirs is None:
            continue
        same = _whole(case.obj) == _whole(other)
        if same and theirs != mine:
            yield f"writes as {mine}, and shard {name(other)} of the same controller as {theirs}"
        elif not same and theirs == mine:
            yield f"writes as {mine}, and so does {name(other)}"


def _attested(what: str, title: str, why: str, fix: str) -> Rule:
    @rule(
        f"attested-{what}",
        title=title,
        why=why,
        fix=fix,
        levels=CAREFUL,
        kinds=("Deployment",),
        cel=(
            f"variables.workload != 'controller' || ({_SHOWN}[0] == variables.containers[0].image && "
            f"'{what}' in {_SHOWN})"
        ),
    )
    def judge(case: Case) -> Iterator[str]:
        if case.facts.inferred or case.facts.workload != names.CONTROLLER:
            return
        image, *shown = annotations_of(case.obj).get(names.CONFORMANCE, "").split(" ")
        running = str(containers(case.obj)[0].get("image")) if containers(case.obj) else ""
        if image != running:
            about = f"of {image}" if image else "at all"
            yield f"nothing attested {about} speaks for {running}"
        elif what not in shown:
            yield f"a run of {image} has not shown it"

    return judge


_CONFORM: Final = "tandem conform <image>, and annotate tandem-ha.io/conformance with what it prints"
_idempotent = _attested(
    "idempotent",
    "A repeated reconcile writes nothing",
    "after every takeover the new leader reconciles everything again",
    _CONFORM,
)
_shutdown = _attested(
    "shutdown",
    "SIGTERM drains, a second signal ends at once",
    "a controller that does not hear SIGTERM is killed in the middle of its work, and its Lease runs out unreleased",
    _CONFORM,
)
_lost_lead = _attested(
    "lost-lead",
    "A lost Lease stops the work before it ends",
    "what goes on after the lease has ended is done twice",
    _CONFORM,
)


def _alone(case: Case) -> bool:
    return case.facts.workload in {names.SINGLE_WRITER, names.CONTROLLER} and not case.facts.elected


def _leases(obj: Object) -> list[str]:
    return [each.strip() for each in annotations_of(obj).get(names.LEASE, "").split(",") if each.strip()]


def _controllers(case: Case) -> list[Object]:
    return case.world.of("Deployment")


def _whole(obj: Object) -> str:
    return annotations_of(obj).get(names.SHARD_OF) or f"{namespace(obj)}/{name(obj)}"


def _overlap(one: str, other: str) -> str:
    """How two scopes overlap, as a phrase; empty when they are disjoint."""
    sort, _, values = one.partition("=")
    other_sort, _, other_values = other.partition("=")
    if sort != other_sort or sort not in {"namespaces", "labels"}:
        return f"cannot be told apart: {one} and {other or 'none'}"
    if sort == "namespaces":
        both = sorted(set(values.split(",")) & set(other_values.split(",")))
        return f"both have {listed(both)}" if both else ""
    key, _, value = values.partition("=")
    other_key, _, other_value = other_values.partition("=")
    if key != other_key:
        return f"cannot be told apart: an object may carry both {values} and {other_values}"
    return f"both have {values}" if value == other_value else ""


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


RULES: Final[tuple[Rule, ...]] = (
    _needs_election,
    _recreate,
    _rolling,
    _not_leader,
    _lease_rbac,
    _lease_exact,
    _times,
    _held,
    _shards,
    _field_manager,
    _idempotent,
    _shutdown,
    _lost_lead,
)
