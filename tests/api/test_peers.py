"""Ours, client-go's and kubert's contend for the same Lease under kills and releases, and never do two lead.

Judged twice: by the API server's record of what it accepted, and by what the candidates say of themselves.
"""

from __future__ import annotations

import datetime
import itertools
import shutil
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from lab.benches.election import Candidate, create_free_lease
from lab.benches.peers import Kind, candidates
from tandem.runtime.clock import boottime
from tandem.runtime.testing.localapi import LocalApi
from tests.api.processes import wait_for

CONTENDERS: Final = ("tandem", "client-go", "kubert")
SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
"""What leaders are sent, over and over, until each kind has led twice."""
LEADS: Final = 18
"""After so many leads a kind that has not led is one that cannot."""


@dataclass(frozen=True)
class Write:
    """A write of the Lease that the server accepted.

    Attributes:
        at: when it was received. Each candidate writes by resourceVersion, so a write that was accepted was sent
            after its writer had seen the one before, and received after that one: this order is the order of versions.
        holder: who holds the Lease by it; empty when nobody does.
        until: until when, by what was written.
    """

    at: datetime.datetime
    holder: str
    until: datetime.datetime


@dataclass
class Lead:
    """A candidate's lead: from when it said so until it was told to end, said that it had ended, or died."""

    who: str
    since: float
    until: float = float("inf")


@dataclass
class Verdict:
    """How often the holder changed without a release, and what was wrong."""

    changes: int = 0
    wrong: list[str] = field(default_factory=list)


def history(events: Iterable[dict[str, Any]], lease: str) -> Iterator[Write]:
    """The writes of a Lease, from audit events; a patch (kubert's) says only what it changes."""
    ours = [
        event
        for event in events
        if event.get("objectRef", {}).get("resource") == "leases"
        and event["objectRef"].get("name") == lease
        and event["verb"] in ("update", "patch")
        and event["responseStatus"]["code"] == 200
    ]
    spec: dict[str, Any] = {}
    for event in sorted(ours, key=lambda event: _time(event["requestReceivedTimestamp"])):
        spec = {**spec, **event["requestObject"]["spec"]}
        at = _time(event["requestReceivedTimestamp"])
        renewed = _time(spec["renewTime"]) if spec.get("renewTime") else at
        until = renewed + datetime.timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
        yield Write(at, spec.get("holderIdentity") or "", until)


def judge(found: Iterable[Write]) -> Verdict:
    """Whether each holder that did not release had run out, by its own last word, when another took the Lease."""
    verdict = Verdict()
    for before, after in itertools.pairwise(found):
        if before.holder and after.holder not in (before.holder, ""):
            verdict.changes += 1
            if after.at < before.until:
                early = (before.until - after.at).total_seconds()
                verdict.wrong.append(f"{after.holder} took the Lease of {before.holder} {early:.3f} s too early")
    return verdict


def overlaps(leads: Iterable[Lead]) -> list[str]:
    """Which leads began before another had ended."""
    in_order = sorted(leads, key=lambda lead: lead.since)
    return [
        f"{second.who} led {first.until - second.since:.3f} s beside {first.who}"
        for first, second in itertools.combinations(in_order, 2)
        if second.since < first.until
    ]


class Contest:
    """Candidates of all kinds, one of each following at any time, over one Lease."""

    def __init__(self, kinds: dict[str, Kind], api: LocalApi, lease: str) -> None:
        self._kinds = kinds
        self._api = api
        self._lease = lease
        self._count = 0
        self._leads: dict[str, Lead] = {}
        self.running: dict[str, Candidate] = {}
        for kind in kinds:
            self.start(kind)

    @property
    def leads(self) -> list[Lead]:
        """All leads so far."""
        for who, candidate in list(self.running.items()):
            dead = candidate.process.poll() is not None
            self._note(who, candidate)
            if dead:  # it lost the lead and said so, or its guard was faster; a new one takes its place
                if who in self._leads:
                    self._leads[who].until = min(self._leads[who].until, boottime())
                del self.running[who]
                self.start(who.partition("/")[0])
        return list(self._leads.values())

    def start(self, kind: str) -> None:
        """Start a candidate."""
        self._count += 1
        who = f"{kind}/{self._count}"
        options = ["-kubeconfig", str(self._api.kubeconfig()), "-lease", self._lease, "-identity", who]
        self.running[who] = Candidate([*self._kinds[kind].program, *options])

    def leader(self) -> str:
        """Wait until a candidate says that it leads, and the Lease that it does."""
        wait_for(
            lambda: self._holder() in {lead.who for lead in self.leads}, 90, lambda: f"nobody leads: {self.said()}"
        )
        return self._holder()

    def end(self, who: str, signum: signal.Signals) -> None:
        """Send the leader a signal; another of its kind takes its place among the candidates."""
        self._leads[who].until = boottime()
        self.running[who].process.send_signal(signum)
        self.running.pop(who).process.wait(30)
        self.start(who.partition("/")[0])

    def said(self) -> dict[str, list[dict[str, Any]]]:
        """What everybody says."""
        return {who: candidate.said for who, candidate in self.running.items()}

    def _note(self, who: str, candidate: Candidate) -> None:
        for line in list(candidate.said):
            if line["event"] == "leading" and who not in self._leads:
                self._leads[who] = Lead(who, line["at"])
            elif who in self._leads and line["at"] > self._leads[who].since:  # stopped, lost, following
                self._leads[who].until = min(self._leads[who].until, line["at"])

    def _holder(self) -> str:
        found = self._api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{self._lease}")
        holder = found["spec"].get("holderIdentity") or ""
        return holder if holder in self.running else ""


@pytest.mark.api
@pytest.mark.long
@pytest.mark.skipif(shutil.which("cargo") is None, reason="kubert's candidate is built by cargo")
@pytest.mark.timeout(1800)
def test_never_do_two_lead(own_api: LocalApi, name: str) -> None:
    create_free_lease(own_api, name)
    found = candidates()
    contest = Contest({kind: found[kind] for kind in CONTENDERS}, own_api, name)
    led = dict.fromkeys(CONTENDERS, 0)
    signals = itertools.cycle(SIGNALS)
    try:
        while min(led.values()) < 2:
            leader = contest.leader()
            led[leader.partition("/")[0]] += 1
            assert sum(led.values()) <= LEADS, f"a kind does not come to lead: {led}"
            contest.end(leader, next(signals))
        contest.leader()
        leads = contest.leads
    finally:
        for candidate in contest.running.values():
            candidate.end()
    verdict = judge(history(own_api.audit(), name))
    assert verdict.wrong == []
    assert verdict.changes >= 4
    assert overlaps(leads) == []


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _event(second: float, verb: str = "update", **spec: Any) -> dict[str, Any]:
    moment = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC) + datetime.timedelta(seconds=second)
    spec = {name: moment.isoformat() if value == "now" else value for name, value in spec.items()}
    return {
        "objectRef": {"resource": "leases", "name": "it"},
        "verb": verb,
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": moment.isoformat(),
        "requestObject": {"spec": spec},
    }


def test_the_judge_finds_what_came_too_early() -> None:
    events = [
        _event(0, holderIdentity="a", renewTime="now", leaseDurationSeconds=15),
        _event(16, holderIdentity="b", renewTime="now", leaseDurationSeconds=15),  # too early, for a has renewed
        _event(2, "patch", renewTime="now", leaseDurationSeconds=15),
        _event(17, "patch", holderIdentity=None, renewTime=None, leaseDurationSeconds=None),  # a release
        _event(17.1, holderIdentity="c", renewTime="now", leaseDurationSeconds=15),
        _event(33, holderIdentity="d", renewTime="now", leaseDurationSeconds=15),
    ]
    verdict = judge(history(events, "it"))
    assert verdict == Verdict(2, ["b took the Lease of a 1.000 s too early"])


def test_leads_that_overlap_are_found() -> None:
    assert overlaps([Lead("b", 3, 5), Lead("a", 0, 3), Lead("c", 4.5)]) == ["c led 0.500 s beside b"]
