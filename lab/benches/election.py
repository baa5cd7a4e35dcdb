"""How long nobody leads: after the leader was killed, and after it gave up its Lease; ours beside four others.

All run as processes against one real API server on loopback, with 15/10/2 s or what comes nearest, several pairs at
once on Leases of their own. A run is: two candidates, one leads; at a random time between two renewals it is killed
(or asked to end); the sample is the time until the other says that it leads, by CLOCK_BOOTTIME, which both read. For a
release the time counts from the signal. The survivor is the next run's leader, and a new candidate its follower,
started at a random time after it: two that are started together ask in step for as long as they live.

A kill leaves a lease that is up to a renewal old, so the same program waits for 13 to 15 s by chance alone, and the
less the more seldom it renews. So a second figure is taken: how long after the end of the lease, as its last record has
it, the other led.
"""

from __future__ import annotations

import datetime
import json
import math
import queue
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from lab.benches.peers import Kind, candidates
from lab.benches.scale import RUNS, SECONDS, progress
from lab.build import artifacts
from lab.story import ROOT
from tandem.runtime.clock import boottime
from tandem.runtime.testing.localapi import LocalApi, Programs

PLAN_SECONDS = 180.0
"""So many pairs of a kind run at once that it is done in about this time; more would measure the machine."""
SETTLE_SECONDS = 4.0
"""Two renewals that a follower has seen before the leader is killed."""
START_SECONDS = 2.0
"""About how long a candidate takes from its start until it follows; only for planning."""
GIVE_UP_SECONDS = 90.0
IN_FLIGHT_SECONDS = 1.0
"""A renewal that was sent before the kill has arrived after this, and no lease of any kind has run out."""
BEYOND = "beyond the lease"
FAILURES = 5
"""Runs that may be thrown away because nothing was heard for GIVE_UP_SECONDS; each is reported."""
Samples = dict[str, list[float]]


@dataclass
class Candidate:
    """One process and what it said."""

    argv: Sequence[str]
    process: subprocess.Popen[str] = field(init=False)
    said: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the candidate
        self.process = subprocess.Popen(self.argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - asked for above
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def until(self, event: str) -> float:
        """Wait for it to say this; returns when it did.

        Raises:
            TimeoutError: It never did, or has ended.
        """
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            ended = self.process.poll()
            if ended is not None:
                self._reader.join(5)  # what it said last may still be in the pipe
            for line in list(self.said):
                if line["event"] == event:
                    return float(line["at"])
            if ended is not None:
                break
            time.sleep(0.005)
        self._errors.seek(0)
        complaint = self._errors.read()[-2000:]
        raise TimeoutError(
            f"{self.argv[-1]} (status {self.process.poll()}) never said {event}: {self.said} {complaint}"
        )

    def end(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Handover:
    """What one run measured.

    Attributes:
        seconds: from the signal until the other said that it leads.
        beyond: from the end of the lease until then; None after a release.
    """

    seconds: float
    beyond: float | None


class Pair:
    """A leader and a follower of one kind over one Lease, run after run."""

    def __init__(self, kind: Kind, api: LocalApi, lease: str) -> None:
        self._kind = kind
        self._api = api
        self._lease = lease
        self._count = 0
        self._leader: Candidate | None = None
        self._follower: Candidate | None = None
        create_free_lease(api, lease)

    def run(self, signum: signal.Signals, rng: random.Random) -> Handover:
        """One run, with what was measured."""
        if self._leader is None:
            self._leader = self._start()
            self._leader.until("leading")
        time.sleep(self._kind.renewal_seconds * rng.random())
        self._follower = self._start()
        self._follower.until("following")
        time.sleep(SETTLE_SECONDS + self._kind.renewal_seconds * rng.random())
        at = boottime()
        self._leader.process.send_signal(signum)
        ends = None
        if signum is signal.SIGKILL:
            time.sleep(IN_FLIGHT_SECONDS)
            ends = lease_end(self._api, self._lease)
        led = self._follower.until("leading")
        self._leader.end()
        self._leader, self._follower = self._follower, None
        return Handover(led - at, None if ends is None else led - ends)

    def _start(self) -> Candidate:
        self._count += 1
        identity = f"{self._lease}-{self._count}"
        kubeconfig = str(self._api.kubeconfig())
        return Candidate([*self._kind.program, "-kubeconfig", kubeconfig, "-lease", self._lease, "-identity", identity])

    def end(self) -> None:
        """End both."""
        for candidate in (self._leader, self._follower):
            if candidate is not None:
                candidate.end()


def handover_kill(runs: int = RUNS) -> Samples:
    """Seconds without a leader after kill -9, and those of them after the lease's end; for ours and each peer."""
    return measure(signal.SIGKILL, runs)


def handover_release(runs: int = RUNS) -> Samples:
    """Seconds from SIGTERM to the next leader, for ours and each peer; the work ends at once."""
    return measure(signal.SIGTERM, runs)


def measure(signum: signal.Signals, runs: int) -> Samples:
    """All kinds at the same time, so that they have the same machine.

    Raises:
        TimeoutError: more than FAILURES runs came to nothing.
    """
    kinds = candidates()
    tools = artifacts.tools()
    samples: Samples = {kind: [] for kind in kinds}
    failures: list[TimeoutError] = []
    with LocalApi(Programs(tools / "etcd", tools / "kube-apiserver")) as api:
        api.kubeconfig()  # made before many ask for it

        def repeat(kind: str, number: int, left: queue.SimpleQueue[int]) -> None:
            rng = random.Random(f"{kind}-{number}")  # noqa: S311 - a phase, no secret
            pair = Pair(kinds[kind], api, f"{kind}-{number}")
            try:
                # Each run is begun for a ticket, so that none is left out for having taken longer than another.
                while len(failures) <= FAILURES:
                    try:
                        ticket = left.get_nowait()
                    except queue.Empty:
                        break
                    try:
                        found = pair.run(signum, rng)
                        samples[kind].append(found.seconds)
                        if found.beyond is not None:
                            samples.setdefault(f"{kind}: {BEYOND}", []).append(found.beyond)
                        if len(samples[kind]) % 5 == 0 or len(samples[kind]) == runs:
                            progress(f"{kind}: {len(samples[kind])} of {runs}, the last {samples[kind][-1]:.3f} s")
                    except TimeoutError as error:
                        # The machine stood still for a while, and a candidate with it: start this pair afresh.
                        failures.append(error)
                        left.put(ticket)
                        progress(f"a run was thrown away: {error}")
                        pair.end()
                        pair = Pair(kinds[kind], api, f"{kind}-{number}-{len(failures)}")
            finally:
                pair.end()

        threads = []
        for kind, program in kinds.items():
            tickets: queue.SimpleQueue[int] = queue.SimpleQueue()
            for ticket in range(runs):
                tickets.put(ticket)
            count = pairs(program, signum, runs)
            progress(f"{kind}: {runs} runs by {count} pairs")
            threads += [threading.Thread(target=repeat, args=(kind, number, tickets)) for number in range(count)]
        for thread in threads:
            thread.start()
            time.sleep(0.5)  # not all programs start at once
        for thread in threads:
            thread.join()
    if len(failures) > FAILURES:
        raise failures[0]
    return samples


def pairs(kind: Kind, signum: signal.Signals, runs: int) -> int:
    """How many pairs of a kind do that many runs in about PLAN_SECONDS; two at the least, but none without a run."""
    run = START_SECONDS + SETTLE_SECONDS + kind.renewal_seconds + kind.handover_seconds(signum)
    return min(runs, max(2, math.ceil(runs * run / PLAN_SECONDS)))


def requests_per_minute(seconds: float = SECONDS) -> Samples:
    """Requests a minute of a leader and of a follower, by the API server's audit log; a watch counts as one."""
    samples: Samples = {}
    tools = artifacts.tools()
    kinds = candidates()
    with LocalApi(Programs(tools / "etcd", tools / "kube-apiserver")) as api:
        running: list[Candidate] = []
        try:
            for name, kind in kinds.items():
                create_free_lease(api, name)
                for role in ("leading", "following"):
                    user = f"{name} {role}"
                    options = ["-kubeconfig", str(api.kubeconfig(user)), "-lease", name, "-identity", user]
                    running.append(Candidate([*kind.program, *options]))
                    running[-1].until(role)
                    progress(f"{user}, as it should")
            time.sleep(10)  # past the first requests of a start
            before = counted(api)
            progress(f"counting for {seconds:g} s")
            time.sleep(seconds)
            after = counted(api)
        finally:
            for candidate in running:
                candidate.end()
    for user in after:
        if user.endswith(("leading", "following")):
            samples[user] = [(after[user] - before.get(user, 0)) * 60 / seconds]
    return samples


def counted(api: LocalApi) -> dict[str, int]:
    """How many requests each user has sent so far."""
    users: dict[str, set[str]] = {}
    for event in api.audit():
        users.setdefault(event["user"]["username"], set()).add(event["auditID"])
    return {user: len(requests) for user, requests in users.items()}


def lease_end(api: LocalApi, name: str) -> float:
    """When a Lease runs out by its own record, as CLOCK_BOOTTIME has it; its writers' wall clock is this machine's."""
    spec = api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}")["spec"]
    renewed = datetime.datetime.fromisoformat(spec["renewTime"]).timestamp()
    return float(renewed + spec["leaseDurationSeconds"] - time.time() + boottime())


def create_free_lease(api: LocalApi, name: str) -> None:
    """As a deployment creates it, so that the first leader need not wait: nobody's, and long run out.

    kubert wants a Lease that is there, and kube-leader-election one in which every field is.
    """
    long_ago = "2026-01-01T00:00:00.000000Z"
    spec = {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "leaseTransitions": 0,
        "acquireTime": long_ago,
        "renewTime": long_ago,
    }
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
    api.request("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", body)
