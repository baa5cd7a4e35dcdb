"""The sweep: take the API server away for some seconds, again and again, and count what live nodes lose by it.

How it is taken away, and comes back whatever happens, stands in `lab.benches.api_server`; what counts as lost, in
`lab.benches.damage`. kubelet of the control plane is restarted before an outage when it has had to start a container
since its last restart: its restart back-off (10 s, doubling, forgotten after ten quiet minutes) would otherwise grow
from run to run and be measured in place of the outage.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from lab.benches import damage
from lab.benches.api_server import WAYS, Hands, Machine, SweepError, Way
from lab.benches.damage import Beat, Damage, State
from lab.runtime import Lab
from tandem import recovery
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError, connect
from tandem.drill.cluster import Watcher, applied_profile
from tandem.recovery import RecoveryProfile

PHASE_SECONDS: Final = 10.0
"""The outage begins this long after a quiet moment at most: the longest heartbeat interval of any profile."""

SETTLE_SECONDS: Final = 8.0
"""Nothing may have been amiss for this long before an outage."""

WHOLE_LIMIT_SECONDS: Final = 300.0
"""A cluster that is not whole by then, before or after an outage, ends the sweep: what follows would measure that."""

MARGIN_SECONDS: Final = 3.0
"""Added to the time for which a false loss can still come: writes, and watches that bring them."""

STUCK_SECONDS: Final = 60.0
"""An API server that does not answer this long after its outage is helped by a restart of kubelet."""

POLL_SECONDS: Final = 0.25
LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep does.

    Args:
        seconds: lengths of the outages.
        ways: how the API server is taken away.
        runs: how often each length is done in each way.
        seed: of the outages' random phases.
        minutes: no further outage begins after this long.
    """

    seconds: tuple[float, ...] = (5, 8, 9.5, 12, 20)
    ways: tuple[Way, ...] = WAYS
    runs: int = 3
    seed: int = 1
    minutes: float = 60

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Plan:
        """The plan that OUTAGE_SECONDS, _WAYS (lists with commas), _RUNS, _SEED and _MINUTES ask for.

        Raises:
            SweepError: a value cannot be understood; the message names it.
        """
        kinds: dict[str, Callable[[str], Any]] = {
            "seconds": lambda text: tuple(sorted(float(word) for word in text.split(","))),
            "ways": lambda text: tuple(_way(word.strip()) for word in text.split(",")),
            "runs": int,
            "seed": int,
            "minutes": float,
        }
        found = {}
        for name, kind in kinds.items():
            text = environment.get(f"OUTAGE_{name.upper()}", "").strip()
            try:
                found.update({name: kind(text)} if text else {})
            except ValueError as error:
                raise SweepError(f"OUTAGE_{name.upper()}={text}: {error}") from None
        plan = cls(**found)
        if plan.runs < 1 or not all(0 < length <= 60 for length in plan.seconds):
            raise SweepError("OUTAGE_RUNS must be 1 or more, and each of OUTAGE_SECONDS above 0 and 60 at most")
        return plan

    def cases(self) -> list[tuple[int, float, Way, float]]:
        """Run, length, way and phase of each outage; whole rounds first, so that a sweep cut short has some of each."""
        return [
            (run, seconds, way, random.Random(f"{self.seed}/{run}/{seconds}/{way}").uniform(0, PHASE_SECONDS))  # noqa: S311 - a phase
            for run in range(1, self.runs + 1)
            for seconds in self.seconds
            for way in self.ways
        ]


@dataclass(frozen=True, kw_only=True)
class Outage:
    """One outage and what it did; times in seconds.

    Args:
        way: how the API server was taken away.
        asked_seconds: how long it was to be away.
        run: which of the runs.
        phase_seconds: how long after a quiet moment it began.
        held_seconds: how long it was stopped or refused, by the machine's own clock.
        away_seconds: how long clients had no answer; the start of a killed server may make it longer.
        manager_exited: kube-controller-manager lost its Lease over it and was replaced by a new instance.
        whole_seconds: from the end of the hold until the API answers, kube-controller-manager leads and all nodes and
            endpoints are as before.
        damage: what live nodes lost.
        watch_breaks: interruptions of the watches.
    """

    way: Way
    asked_seconds: float
    run: int
    phase_seconds: float
    held_seconds: float
    away_seconds: float
    manager_exited: bool
    whole_seconds: float
    damage: Damage
    watch_breaks: int


@dataclass(frozen=True)
class Sweep:
    """All outages under one profile, and why there are no more."""

    profile: RecoveryProfile
    outages: Sequence[Outage]
    ended: str = ""


@dataclass
class Pulse:
    """Asks for kube-controller-manager's Lease four times a second: does the API answer, and does somebody lead?"""

    api: Api
    beats: list[Beat] = field(default_factory=list)

    async def run(self) -> None:
        """Ask until cancelled; what is not answered in two seconds is not answered."""
        while True:
            sent = time.time()
            with suppress(*NETWORK_ERRORS, ApiError, ValueError, KeyError):
                spec = (await self.api.request("GET", LEASE, seconds=2))["spec"]
                renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
                self.beats.append(Beat(sent, time.time(), spec["holderIdentity"], renewed))
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def observing(api: Api) -> AsyncIterator[tuple[Watcher, Pulse]]:
    """Watches over the whole cluster, and the pulse; listed and running when it begins.

    Raises:
        SweepError: the API did not answer in half a minute.
    """
    watcher, pulse, started = Watcher(api, None), Pulse(api), asyncio.Event()
    tasks = {asyncio.create_task(watcher.run(started)), asyncio.create_task(pulse.run())}
    try:
        try:
            await asyncio.wait_for(started.wait(), 30)
        except TimeoutError:
            raise SweepError("the API server did not answer in 30 s; is the lab up?") from None
        yield watcher, pulse
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def settled(watcher: Watcher, reference: State | None) -> State:
    """Wait until everything has been as in the reference for some seconds, and return it as it is now.

    Args:
        watcher: what looks.
        reference: how it has to be; None: all nodes Ready and untainted, the rest as it is.

    Raises:
        SweepError: it is not so in time.
    """
    begun = time.time()
    while time.time() - begun < WHOLE_LIMIT_SECONDS:
        await asyncio.sleep(POLL_SECONDS)
        now = damage.state_of(watcher.observations)
        if reference is None and not damage.healthy(now):
            continue
        since = damage.whole_since(reference or now, watcher.observations, begun)
        if since is not None and time.time() - since > SETTLE_SECONDS:
            return now
    raise SweepError(
        f"the cluster was not whole for {SETTLE_SECONDS:g} s within {WHOLE_LIMIT_SECONDS:g} s; "
        "`kubectl get nodes` and `kubectl get pods -A` say what is missing"
    )


async def one_outage(
    api: Api, hands: Hands, profile: RecoveryProfile, case: tuple[int, float, Way, float], reference: State | None
) -> tuple[Outage, State]:
    """One outage from a quiet moment until the cluster is whole again and nothing more can come of it.

    Args:
        api: the cluster.
        hands: what takes its API server away.
        profile: the profile in force, which says how long a false loss can still come.
        case: run, length, way and phase.
        reference: the cluster as it has to be before; None: as it is.

    Returns:
        What happened, and the reference for the next one.

    Raises:
        SweepError: the cluster was not whole before or did not become whole after.
    """
    run, seconds, way, phase = case
    async with observing(api) as (watcher, pulse):
        reference = reference or await settled(watcher, None)
        await settled(watcher, reference)
        await asyncio.sleep(phase)
        before, seen, holders = damage.state_of(watcher.observations), len(watcher.observations), pulse.beats[-1:]
        struck = 0.0

        def begun() -> None:
            nonlocal struck
            struck = time.time()

        held = await hands.hold(way, seconds, begun)
        lifted = time.time()
        helped = False
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = time.time()
            if now - lifted > WHOLE_LIMIT_SECONDS:
                raise SweepError(f"{way} of {seconds:g} s: the cluster is not whole {now - lifted:.0f} s later")
            answered, led = damage.answered_again(pulse.beats, struck), damage.led_again(pulse.beats, held.ended)
            if answered is None and not helped and now - lifted > STUCK_SECONDS:
                helped = True
                await hands.restart_kubelet()
            if answered is None or led is None:
                continue
            exited = [led.holder] != [beat.holder for beat in holders]
            quiet = damage.quiet_seconds(profile, answered - struck, manager_exited=exited) + MARGIN_SECONDS
            back = damage.whole_since(reference, watcher.observations, struck)
            if back is not None and now > (led.answered if exited else answered) + quiet:
                break
        return (
            Outage(
                way=way,
                asked_seconds=seconds,
                run=run,
                phase_seconds=round(phase, 2),
                held_seconds=held.seconds,
                away_seconds=round(answered - struck, 2),
                manager_exited=exited,
                whole_seconds=round(max(0.0, max(answered, led.answered, back) - lifted), 2),
                damage=damage.damage(before, watcher.observations[seen:]),
                watch_breaks=watcher.breaks,
            ),
            reference,
        )


async def sweep(
    api: Api, hands: Hands, plan: Plan, tell: Callable[[str], None], keep: Callable[[Sequence[Outage]], None]
) -> Sweep:
    """All outages of a plan, one after the other; what was measured is returned even when it cannot go on.

    Args:
        api: the cluster.
        hands: what takes its API server away.
        plan: what to do.
        tell: told of progress, a line each.
        keep: given all outages so far after each.

    Raises:
        SweepError: it cannot begin.
    """
    profile = await applied_profile(api)
    if profile is None:
        raise SweepError("the cluster has no record of its recovery profile; playbooks/tune.yml writes it")
    cases, outages, began = plan.cases(), list[Outage](), time.monotonic()
    tell(f"{len(cases)} outages under the profile {profile.name}, for {plan.minutes:g} minutes at most")
    reference: State | None = None
    fresh = False
    for number, case in enumerate(cases, 1):
        if time.monotonic() - began > 60 * plan.minutes:
            return Sweep(profile, outages, f"{plan.minutes:g} minutes are over")
        try:
            if not fresh:
                await hands.restart_kubelet()
                await asyncio.sleep(SETTLE_SECONDS)  # its Ready=False, if there is one, comes within this time
            outage, reference = await one_outage(api, hands, profile, case, reference)
        except (SweepError, ApiError, *NETWORK_ERRORS) as error:
            tell(f"ended: {error}")
            return Sweep(profile, outages, str(error))
        fresh = outage.way == "stop" and not outage.manager_exited
        outages.append(outage)
        keep(outages)
        tell(f"{number}/{len(cases)} {line(outage)}")
    return Sweep(profile, outages)


def line(outage: Outage) -> str:
    """One outage in a line."""
    lost = outage.damage
    return (
        f"{outage.way} {outage.asked_seconds:g} s (away {outage.away_seconds:.1f} s): {lost.lost} nodes falsely lost, "
        f"{lost.tainted} tainted, {lost.endpoints_lost} endpoints out, {lost.pods_evicted} pods evicted, whole again "
        f"after {outage.whole_seconds:.1f} s" + (", controller-manager exited" if outage.manager_exited else "")
    )


def rows(found: Sweep) -> list[dict[str, str | float | int]]:
    """One row for each length and way: sums over its runs, and the longest times."""
    kinds = dict.fromkeys((outage.asked_seconds, outage.way) for outage in found.outages)
    table = []
    for seconds, way in sorted(kinds):
        mine = [o for o in found.outages if (o.asked_seconds, o.way) == (seconds, way)]
        table.append(
            {
                "way": way,
                "seconds": seconds,
                "runs": len(mine),
                "away, longest": max(o.away_seconds for o in mine),
                "false losses predicted": damage.predicted(found.profile, max(o.away_seconds for o in mine)),
                "nodes falsely lost": sum(o.damage.lost for o in mine),
                "unreachable taints": sum(o.damage.tainted for o in mine),
                "endpoints lost": sum(o.damage.endpoints_lost for o in mine),
                "pods evicted": sum(o.damage.pods_evicted for o in mine),
                "kubelet said not ready": sum(o.damage.said_not_ready for o in mine),
                "controller-manager exited": sum(o.manager_exited for o in mine),
                "whole again, longest": max(o.whole_seconds for o in mine),
            }
        )
    return table


def note(found: Sweep) -> str:
    """What the model says of the profile, to be read beside the rows."""
    profile = found.profile
    tolerated = recovery.tolerated_stall_seconds(profile)
    which = "any stall" if tolerated == float("inf") else f"stalls up to {tolerated:g} s"
    windows = recovery.predict(profile)
    text = (
        f"Profile {profile.name}: predicted to survive {which} that kube-controller-manager outlives "
        f"({recovery.kcm_survives_seconds(profile):g} s), and those that it does not; after a power loss, endpoints "
        f"out {windows['endpoints_out'].high:.1f} s and serving {windows['serving'].high:.1f} s at the latest."
    )
    return text + (f" Ended early: {found.ended}." if found.ended else "")


def sweep_lab(kubeconfig: Path, plan: Plan, tell: Callable[[str], None], keep: Path) -> Sweep:
    """The sweep on the running lab; KEEP takes every outage as JSON as soon as it is over.

    Raises:
        SweepError: the lab does not run, or its cluster cannot be reached or has no recorded profile.
    """
    machine = Machine(Lab())

    async def run() -> Sweep:
        try:
            async with connect(kubeconfig) as api:
                return await sweep(api, machine, plan, tell, save)
        except (ApiError, *NETWORK_ERRORS) as error:
            raise SweepError(f"the cluster cannot be reached: {error}") from error
        finally:
            await machine.undo()

    def save(outages: Sequence[Outage]) -> None:
        keep.write_text(json.dumps([asdict(outage) for outage in outages], indent=1) + "\n", encoding="utf-8")

    return asyncio.run(run())


def _way(word: str) -> Way:
    for way in WAYS:
        if word == way:
            return way
    raise ValueError(f"no way is called {word!r}; there are {', '.join(WAYS)}")
