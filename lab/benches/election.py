"""How long nobody leads: after the leader was killed, and after it gave up its Lease; ours beside client-go's elector.

Both run as processes against one real API server on loopback, with 15/10/2 s, several pairs at once on Leases of their
own. A run is: two candidates, one leads; after a random part of two renewals it is killed (or asked to end); the sample
is the time until the other says that it leads, by CLOCK_BOOTTIME, which both read. For a release the time counts from
the signal. The survivor is the next run's leader, and a new candidate its follower.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.benches.peers import build_go_peer
from lab.build import artifacts
from lab.story import ROOT
from tandem.runtime.clock import boottime
from tandem.runtime.testing.localapi import LocalApi, Programs

RUNS = int(os.environ.get("TANDEM_BENCH_RUNS", "50"))
PAIRS = 5
"""Pairs of each kind at once; more would measure the machine."""
SETTLE_SECONDS = 4.0
"""Renewals that a follower has seen before the leader is killed."""
GIVE_UP_SECONDS = 90.0
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
        self.process = subprocess.Popen(
            self.argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - asked for above
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def until(self, event: str) -> float:
        """Wait for it to say this; returns when it did.

        Raises:
            TimeoutError: It never did.
        """
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            for line in list(self.said):
                if line["event"] == event:
                    return float(line["at"])
            time.sleep(0.005)
        raise TimeoutError(f"{self.argv[-1]} never said {event}: {self.said}")

    def end(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()


class Pair:
    """A leader and a follower of one kind over one Lease, run after run."""

    def __init__(self, program: Sequence[str], api: LocalApi, lease: str) -> None:
        self._program = program
        self._api = api
        self._lease = lease
        self._count = 0
        self._leader: Candidate | None = None
        self._follower: Candidate | None = None

    def run(self, signum: signal.Signals, rng: random.Random) -> float:
        """One run; seconds from the signal until the other leads."""
        if self._leader is None:
            self._leader = self._start()
            self._leader.until("leading")
        self._follower = self._start()
        self._follower.until("following")
        time.sleep(SETTLE_SECONDS + 4 * rng.random())
        at = boottime()
        self._leader.process.send_signal(signum)
        took = self._follower.until("leading") - at
        self._leader.end()
        self._leader, self._follower = self._follower, None
        return took

    def _start(self) -> Candidate:
        self._count += 1
        identity = f"{self._lease}-{self._count}"
        kubeconfig = str(self._api.kubeconfig())
        return Candidate([*self._program, "-kubeconfig", kubeconfig, "-lease", self._lease, "-identity", identity])

    def end(self) -> None:
        """End both."""
        for candidate in (self._leader, self._follower):
            if candidate is not None:
                candidate.end()


def handover_kill(runs: int = RUNS) -> Samples:
    """Seconds without a leader after kill -9, for ours and each peer."""
    return measure(signal.SIGKILL, runs)


def handover_release(runs: int = RUNS) -> Samples:
    """Seconds from SIGTERM to the next leader, for ours and each peer; the work ends at once."""
    return measure(signal.SIGTERM, runs)


def measure(signum: signal.Signals, runs: int) -> Samples:
    """All kinds at the same time, so that they have the same machine."""
    kinds = programs()
    tools = artifacts.tools()
    samples: Samples = {kind: [] for kind in kinds}
    failures: list[TimeoutError] = []
    with LocalApi(Programs(tools / "etcd", tools / "kube-apiserver")) as api:

        def repeat(kind: str, number: int) -> None:
            rng = random.Random(f"{kind}-{number}")  # noqa: S311 - a phase, no secret
            lease = f"{kind}-{number}"
            create_free_lease(api, lease)
            pair = Pair(kinds[kind], api, lease)
            try:
                while len(samples[kind]) < runs and len(failures) <= FAILURES:
                    try:
                        samples[kind].append(pair.run(signum, rng))
                    except TimeoutError as error:
                        # The machine stood still for a while, and a candidate with it: start this pair afresh.
                        failures.append(error)
                        sys.stderr.write(f"a run was thrown away: {error}\n")
                        pair.end()
                        pair = Pair(kinds[kind], api, f"{lease}-{len(failures)}")
                        create_free_lease(api, f"{lease}-{len(failures)}")
            finally:
                pair.end()

        threads = [threading.Thread(target=repeat, args=(kind, number)) for number in range(PAIRS) for kind in kinds]
        for thread in threads:
            thread.start()
            time.sleep(0.5)  # not all programs start at once
        for thread in threads:
            thread.join()
    if len(failures) > FAILURES:
        raise failures[0]
    return {kind: values[:runs] for kind, values in samples.items()}


def requests_per_minute(seconds: float = 120.0) -> Samples:
    """Requests a minute of a leader and of a follower, by the API server's audit log; a watch counts as one."""
    samples: Samples = {}
    tools = artifacts.tools()
    with LocalApi(Programs(tools / "etcd", tools / "kube-apiserver")) as api:
        pairs: list[Candidate] = []
        try:
            for kind, program in programs().items():
                create_free_lease(api, kind)
                for role in ("leading", "following"):
                    user = f"{kind} {role}"
                    options = ["-kubeconfig", str(api.kubeconfig(user)), "-lease", kind, "-identity", user]
                    pairs.append(Candidate([*program, *options]))
                    pairs[-1].until(role)
            time.sleep(10)  # past the first requests of a start
            before = counted(api)
            time.sleep(seconds)
            after = counted(api)
        finally:
            for candidate in pairs:
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


def programs() -> dict[str, Sequence[str]]:
    """The command of each kind of candidate."""
    return {
        "tandem": (sys.executable, "-m", "bench.peers.tandem.candidate"),
        "client-go": (str(build_go_peer("client-go")),),
    }


def create_free_lease(api: LocalApi, name: str) -> None:
    """As a deployment creates it, so that the first leader need not wait."""
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}}
    api.request("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", body)
