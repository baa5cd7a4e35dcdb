"""A world for candidates: virtual time, one Lease, a network with faults, processes that stop, block, crash and end.

The candidates are the election's own core (`tandem.runtime._election.core`), driven here by a discrete-event shell
with the same few moves as the asyncio one: ask `decide`, send, report the answer, report what a watch says. So a
schedule of a minute costs a millisecond or two, and the same seed gives the same history.

What may go wrong is drawn in `tests.model.election_schedule`; what must never happen is judged here, after every event.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Any

from tandem.runtime._election import core
from tandem.runtime._election.core import Observed, Outcome, Phase, Send, Verb
from tandem.runtime._election.record import Record
from tandem.runtime._election.settings import ElectorSettings

LOOP_LAG = 0.003
"""Seconds by which an event loop may handle a timer late when nothing is wrong."""
LATENCY = (0.001, 0.015)
"""Seconds of one way to the API server when nothing is wrong."""

LEADER = -1
"""Whoever leads when it happens."""


class Violation(AssertionError):  # noqa: N818
    """Something happened that must never happen."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `end` the network between a candidate (None: all) and the server has this fault."""

    kind: str
    start: float
    end: float
    who: int | None


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that befalls a candidate or the Lease at one moment: stop, block, crash, terminate, delete, step."""

    kind: str
    at: float
    who: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that is drawn beforehand for one history."""

    seed: int
    settings: tuple[ElectorSettings, ...]
    rates: tuple[float, ...]
    """How fast each candidate's clock runs."""
    windows: tuple[Window, ...]
    happenings: tuple[Happening, ...]
    calm_at: float
    """From here on nothing goes wrong any more."""
    initial: Record | None = None
    """The Lease as it is found: none, a free one, or one that a dead or foreign holder left."""
    guard: bool = True
    """False: a wrong shell, without the kernel's timer."""
    wall_clock: bool = False
    """True: a wrong shell, whose clock is the wall clock, which can be set."""

    @property
    def work_judged(self) -> bool:
        """Whether the clocks run evenly enough for the promise about work in flight.

        It ends `cancel_margin` before the lease does, by a blocked process's guard half of that: 14.5 of 15 s allow a
        relative error of 3 %. The fence itself allows 50 %.
        """
        return max(self.rates) / min(self.rates) < 1.03

    @property
    def bound(self) -> float:
        """Seconds after `calm_at` within which somebody must lead."""
        lease = max(each.lease_duration for each in self.settings)
        retry = max(each.retry_period for each in self.settings)
        return (lease + retry) * max(1.0, 1 / min(self.rates)) + 1


@dataclass(slots=True, eq=False)
class Process:
    """One process with one candidate in it. A restart makes a new one, with a new identity."""

    index: int
    observed: Observed
    rate: float
    offset: float
    alive: bool = True
    stopped_until: float = 0.0
    blocked_until: float = 0.0
    working: bool = False
    led: bool = False
    wake: int = 0
    request: int = 0
    watch: int = 0
    ending: bool = False
    armed: float = -1.0

    def clock(self, t: float) -> float:
        """What its clock shows at true time `t`."""
        return self.offset + self.rate * t


class World:
    """Runs one schedule."""

    def __init__(self, schedule: Schedule, *, log: list[str] | None = None) -> None:
        self.schedule = schedule
        self.log = log
        self.rng = random.Random(schedule.seed ^ 0x5EED)
        self.t = 0.0
        self.queue: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self.sequence = 0
        self.lease = schedule.initial
        self.version = 1
        self.uids = 1
        self.deleted = False
        self.patience = 0.0
        self.epoch = -1 if self.lease is None else self.lease.transitions
        self.restarts = 0
        self.leads = 0
        self.events = 0
        self.processes: list[Process] = []
        for index in range(len(schedule.settings)):
            self.processes.append(self.born(index))

    # --- running ----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Run to the end: a leader after the faults stopped, or a violation."""
        schedule = self.schedule
        for index in range(len(self.processes)):
            self.at(self.rng.random() * 3, self.start, index)
        for happening in schedule.happenings:
            self.at(happening.at, self.happen, happening)
        self.at(schedule.calm_at, self.calm)
        deadline = schedule.calm_at + schedule.bound
        queue = self.queue
        pop = heapq.heappop
        while True:
            when, _, function, arguments = pop(queue)
            if when > deadline + self.patience:
                raise Violation(f"nobody led within {schedule.bound:.1f} s after the faults stopped")
            self.t = when
            self.events += 1
            if when > schedule.calm_at and self.led_since_calm():
                return
            function(*arguments)
            self.judge()

    def at(self, when: float, function: Any, *arguments: Any) -> None:
        """Let something happen at a later moment."""
        self.sequence += 1
        heapq.heappush(self.queue, (when, self.sequence, function, arguments))

    def say(self, text: str) -> None:
        """Write the history down, when somebody reads it."""
        if self.log is not None:
            self.log.append(f"{self.t:9.4f} {text}")

    def led_since_calm(self) -> bool:
        """Whether somebody leads by a renewal that began after the faults stopped."""
        for process in self.processes:
            observed = process.observed
            if (
                process.alive
                and observed.phase is Phase.LEADING
                and observed.renewed_at > process.clock(self.schedule.calm_at)
            ):
                return True
        return False

    # --- what must never happen -----------------------------------------------------------------------------------
    def judge(self) -> None:
        """At most one passes the fence; nobody works beside it."""
        passing: Process | None = None
        t = self.t
        for process in self.processes:
            if process.led and process.alive and core.passes_fence(process.observed, process.offset + process.rate * t):
                if passing is not None:
                    raise Violation(f"{process.index} and {passing.index} both pass the fence")
                passing = process
        if passing is not None and self.schedule.work_judged:
            for process in self.processes:
                if process.working and process is not passing and process.alive and process.stopped_until < t:
                    raise Violation(f"{process.index} still works while {passing.index} leads")

    def leader(self) -> Process:
        """Whoever counts as the leader; the first if nobody does."""
        return next((process for process in self.processes if process.working), self.processes[0])

    def judge_new_leader(self, process: Process) -> None:
        """Epochs grow, and nobody begins to lead while it shuts down."""
        observed = process.observed
        if observed.shutting_down:
            raise Violation(f"{process.index} began to lead while shutting down")
        if not self.deleted and observed.epoch <= self.epoch:
            raise Violation(f"{process.index} leads with epoch {observed.epoch} after {self.epoch}")
        self.epoch = observed.epoch

    # --- processes --------------------------------------------------------------------------------------------------
    def born(self, index: int) -> Process:
        """A new process in this place."""
        template = self.schedule.settings[index]
        self.restarts += 1
        observed = Observed(_renamed(template, f"c{index}-{self.restarts}"))
        return Process(index, observed, self.schedule.rates[index], self.rng.random() * 1000)

    def start(self, index: int) -> None:
        """Its shell begins: a watch, and the first decision."""
        process = self.processes[index]
        self.open_watch(process, process.watch)
        self.step(process)

    def die(self, process: Process, why: str) -> None:
        """The process is gone; another takes its place a little later."""
        if not process.alive:
            return
        self.say(f"{process.index} dies: {why}")
        process.alive = process.working = False
        self.at(self.t + 0.5 + 4 * self.rng.random(), self.replace, process.index, process)

    def replace(self, index: int, process: Process) -> None:
        """The container is started again."""
        if self.processes[index] is process:
            self.processes[index] = self.born(index)
            self.start(index)

    def frozen(self, process: Process) -> float:
        """Until when its shell handles nothing; 0 when it does."""
        until = max(process.stopped_until, process.blocked_until)
        return until if until > self.t else 0.0

    def deferred(self, process: Process, function: Any, *arguments: Any) -> bool:
        """Put off what a stopped or blocked process cannot handle now; afterwards the order is anybody's guess."""
        until = self.frozen(process)
        if until:
            self.at(until + self.rng.random() * LOOP_LAG, function, *arguments)
            return True
        return False

    # --- the shell --------------------------------------------------------------------------------------------------
    def step(self, process: Process) -> None:
        """What the runner does until it has to wait."""
        observed = process.observed
        while process.alive:
            self.settle(process)
            now = process.offset + process.rate * self.t
            action = core.decide(observed, now)
            if isinstance(action, core.Wait):
                if observed.pending is None:
                    process.wake += 1
                    lag = self.rng.random() * LOOP_LAG
                    when = (action.until - process.offset) / process.rate + lag
                    self.at(max(self.t, when), self.woken, process, process.wake)
                return
            if isinstance(action, Send):
                core.sent(observed, action, now, self.rng.random())
                self.send(process, action)
            elif isinstance(action, core.Lose):
                core.lose(observed, action.reason)
            else:
                core.end(observed)
                self.settle(process)
                if not process.working:
                    self.die(process, f"ended, {observed.phase.value}")
                return

    def woken(self, process: Process, wake: int) -> None:
        """A timer of the runner."""
        if process.alive and wake == process.wake and not self.deferred(process, self.woken, process, wake):
            self.step(process)

    def settle(self, process: Process) -> None:
        """Begin work with the lead, end it with its loss."""
        observed = process.observed
        if observed.phase is Phase.LEADING:
            if not process.led:
                process.led = process.working = True
                self.leads += 1
                self.say(f"{process.index} leads, epoch {observed.epoch}")
                self.judge_new_leader(process)
            if self.schedule.guard and process.armed != observed.renewed_at:
                process.armed = observed.renewed_at
                self.arm(process)
        elif observed.phase is Phase.LOST and process.working and not process.ending:
            process.ending = True
            self.say(f"{process.index} lost: {observed.reason}")
            when = (core.cancel_at(observed) - process.offset) / process.rate
            self.at(max(self.t, when), self.cancel, process)

    def cancel(self, process: Process) -> None:
        """The work in flight is cancelled, as soon as the event loop can do it."""
        if process.alive and not self.deferred(process, self.cancel, process):
            process.working = False
            self.die(process, "lead lost")

    def arm(self, process: Process) -> None:
        """The kernel's timer: needs no event loop, and ends a stopped process at its first instruction."""
        when = (core.guard_at(process.observed) - process.offset) / process.rate
        self.at(max(self.t, when), self.ring, process, core.guard_at(process.observed))

    def ring(self, process: Process, deadline: float) -> None:
        """The timer has run down, unless it was moved since."""
        if process.alive and process.working and core.guard_at(process.observed) == deadline:
            if process.stopped_until > self.t:
                self.at(process.stopped_until, self.ring, process, deadline)
            else:
                self.die(process, "guard")

    # --- requests ---------------------------------------------------------------------------------------------------
    def send(self, process: Process, action: Send) -> None:
        """Draw the fate of a request: when it arrives, whether it is applied, when and how its answer comes."""
        rng, t = self.rng, self.t
        process.request += 1
        number = process.request
        gives_up = t + action.seconds / process.rate
        there = LATENCY[0] + rng.random() * (LATENCY[1] - LATENCY[0])
        back = LATENCY[0] + rng.random() * (LATENCY[1] - LATENCY[0])
        applied, answer = True, None
        kind = self.fault(process, "request")
        if kind is not None:
            if kind == "slow":
                # What is on its way when the faults stop arrives then.
                there, back = min(rng.random() * 6, max(0.0, self.schedule.calm_at - t)), rng.random() * 6
            elif kind == "late":
                back = rng.random() * action.seconds
            elif kind == "hang":
                # Arrives at any time, long after it was given up, or never; nobody answers.
                there = rng.random() * 20
                applied = rng.random() < 0.6 and t + there < self.schedule.calm_at
                back = 1e9
            elif kind == "reset":
                applied, answer = rng.random() < 0.5, Outcome.UNKNOWN
            elif kind == "error":
                applied, answer = rng.random() < 0.3, Outcome.UNKNOWN
            elif kind == "busy":
                applied, answer = False, Outcome.REFUSED
            elif kind == "conflict":
                applied, answer = False, Outcome.CONFLICT if action.verb is not Verb.READ else None
        if applied or answer is None:
            self.at(t + there, self.arrive, process, number, action, applied, answer, back, gives_up)
        elif t + there + back <= gives_up:
            self.at(t + there + back, self.answer, process, number, answer, None)
            return
        self.at(gives_up, self.give_up, process, number)

    def arrive(
        self,
        process: Process,
        number: int,
        action: Send,
        applied: bool,
        answer: Outcome | None,
        back: float,
        gives_up: float,
    ) -> None:
        """The request is at the server."""
        outcome, record = self.apply(process, action) if applied else (Outcome.UNKNOWN, None)
        if answer is not None:
            outcome, record = answer, None
        if back < 1e6 and self.t + back <= gives_up + LOOP_LAG:
            self.at(self.t + back, self.answer, process, number, outcome, record)

    def apply(self, process: Process, action: Send) -> tuple[Outcome, Record | None]:
        """What etcd does."""
        lease, verb = self.lease, action.verb
        if verb is Verb.READ:
            return (Outcome.DONE, lease) if lease is not None else (Outcome.ABSENT, None)
        if action.base is None:
            if lease is not None:
                return Outcome.CONFLICT, None
            self.uids += 1
            uid = str(self.uids)
        else:
            if lease is None:
                return Outcome.ABSENT, None
            if lease.version != action.base.version:
                return Outcome.CONFLICT, None
            uid = lease.uid
        self.version += 1
        record = Record(action.holder, action.duration, action.transitions, str(self.t), "", self.version, uid, {})
        self.lease = record
        self.say(f"{process.index} {verb.value}: holder {record.holder!r} epoch {record.transitions}")
        self.publish(record, self.version)
        return Outcome.DONE, record

    def answer(self, process: Process, number: int, outcome: Outcome, record: Record | None) -> None:
        """The answer is back; too late if the request was given up."""
        if not process.alive or number != process.request:
            return
        if self.deferred(process, self.answer, process, number, outcome, record):
            return
        process.request += 1
        retry_after = 1.0 if outcome is Outcome.REFUSED else 0.0
        core.answered(process.observed, outcome, process.clock(self.t), record, retry_after)
        self.step(process)

    def give_up(self, process: Process, number: int) -> None:
        """The request took too long."""
        self.answer(process, number, Outcome.UNKNOWN, None)

    def fault(self, process: Process, what: str) -> str | None:
        """The fault that the network has for this process now, if any."""
        t = self.t
        for window in self.schedule.windows:
            if window.start <= t < window.end and (window.who is None or window.who == process.index):
                watch = window.kind in ("watch-broken", "watch-stuck")
                if watch == (what == "watch"):
                    return window.kind
        return None

    # --- watches ----------------------------------------------------------------------------------------------------
    def open_watch(self, process: Process, number: int) -> None:
        """Try to open one; it begins with the present state."""
        if not process.alive or number != process.watch or self.deferred(process, self.open_watch, process, number):
            return
        if self.fault(process, "watch") == "watch-broken" and self.t < self.schedule.calm_at:
            self.at(self.t + 1 + self.rng.random(), self.open_watch, process, number)
            return
        core.watch_changed(process.observed, True, process.clock(self.t))
        if self.lease is not None:
            self.deliver(process, self.lease, self.lease.version)
        self.step(process)

    def break_watch(self, process: Process) -> None:
        """The connection is gone, and the shell knows."""
        if not process.alive or self.deferred(process, self.break_watch, process):
            return
        process.watch += 1
        core.watch_changed(process.observed, False, process.clock(self.t))
        self.at(self.t + 1 + self.rng.random(), self.open_watch, process, process.watch)
        self.step(process)

    def publish(self, record: Record | None, version: int) -> None:
        """Tell all watches."""
        for process in self.processes:
            if process.alive and process.observed.watching:
                self.deliver(process, record, version)

    def deliver(self, process: Process, record: Record | None, version: int) -> None:
        """Put an event on its way; a stuck watch keeps it, and the connection looks alive."""
        delay = LATENCY[0] + self.rng.random() * LATENCY[1]
        if self.t < self.schedule.calm_at:
            for window in self.schedule.windows:
                if window.kind == "watch-stuck" and window.start <= self.t < window.end:
                    if window.who is None or window.who == process.index:
                        delay += window.end - self.t
                    break
        self.at(self.t + delay, self.hear, process, process.watch, record, version)

    def hear(self, process: Process, watch: int, record: Record | None, version: int) -> None:
        """An event arrives."""
        if not process.alive or watch != process.watch:
            return
        if self.deferred(process, self.hear, process, watch, record, version):
            return
        core.seen(process.observed, record, process.clock(self.t), version)
        self.step(process)

    # --- what befalls -----------------------------------------------------------------------------------------------
    def happen(self, happening: Happening) -> None:
        """A stop, a block, a crash, a request to end, a deletion."""
        process = self.leader() if happening.who == LEADER else self.processes[happening.who]
        kind = happening.kind
        until = min(self.t + happening.seconds, self.schedule.calm_at)
        self.say(f"{kind} {process.index} {happening.seconds:.2f}")
        if kind == "delete":
            if self.lease is not None:
                self.version += 1
                self.lease = None
                self.deleted = True
                # A Lease that was deleted is left to its leader for a retry period before another is made.
                self.patience = 1.1 * max(each.retry_period for each in self.schedule.settings)
                self.publish(None, self.version)
        elif not process.alive:
            return
        elif kind == "stop":
            process.stopped_until = max(process.stopped_until, until)
        elif kind == "block":
            process.blocked_until = max(process.blocked_until, until)
        elif kind == "crash":
            self.die(process, "crash")
        elif kind == "break":
            self.break_watch(process)
        elif kind == "terminate":
            self.terminate(process, happening.seconds)
        elif kind == "step" and self.schedule.wall_clock:
            # The wall clock is set. The clock of the election must not be one that this can touch.
            process.offset += happening.seconds

    def terminate(self, process: Process, drain: float) -> None:
        """SIGTERM: the work goes on for `drain` seconds at most, and the Lease is renewed meanwhile."""
        if self.deferred(process, self.terminate, process, drain) or process.observed.shutting_down:
            return
        core.shut_down(process.observed, process.clock(self.t))
        if process.working:
            self.at(self.t + drain, self.drained, process)
        self.step(process)

    def drained(self, process: Process) -> None:
        """The work has returned."""
        if not process.alive or self.deferred(process, self.drained, process):
            return
        process.working = False
        process.request += 1
        now = process.clock(self.t)
        core.work_ended(process.observed, now)
        core.answered(process.observed, Outcome.UNKNOWN, now)
        self.step(process)

    def calm(self) -> None:
        """From here on nothing goes wrong; what hung is reset."""
        self.say("calm")
        for process in list(self.processes):
            if process.alive and process.observed.pending is not None:
                self.at(self.t, self.give_up, process, process.request)


def _renamed(template: ElectorSettings, identity: str) -> ElectorSettings:
    """The same settings under another identity, without validating them anew."""
    copy = object.__new__(ElectorSettings)
    copy.__dict__.update(template.__dict__)
    copy.__dict__["identity"] = identity
    return copy
