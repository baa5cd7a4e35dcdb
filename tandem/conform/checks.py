"""What is tried, one check after another; each judges by what the API server recorded."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tandem.conform.ground import Ground, Write, quiet, until
from tandem.conform.subject import Run, Subject
from tandem.runtime.resources import Object

Outcome = Literal["passed", "failed", "skipped"]
IMMEDIATE_SECONDS: Final = 2.0
"""`At once` for a process on a busy machine."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: its id, as in the checklist.
        detail: what was seen, with numbers; after a failure also what to do.
    """

    check: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        start: until the subject has done its first work (a Lease that nobody holds may cost 15 s of it).
        grace: from SIGTERM to its end: terminationGracePeriodSeconds of the Deployment it is for.
        silence: without a write for so long, it has nothing more to do.
    """

    start: float = 60.0
    grace: float = 60.0
    silence: float = 5.0


class Trial:
    """Runs the checks on one subject.

    Args:
        subject: what is tried.
        ground: where.
        log: the subject's output goes there.
        limits: times.
    """

    COPIES: Final = 5

    def __init__(self, subject: Subject, ground: Ground, log: Path, limits: Limits) -> None:
        self._subject = subject
        self._ground = ground
        self._log = log
        self._limits = limits

    def checks(self) -> Iterator[Finding]:
        """All checks, in an order in which each can use what the one before left."""
        works = self._works()
        yield works
        if works.outcome == "failed":
            return
        yield self._idempotent()
        yield self._shutdown()
        yield self._second_signal()
        yield self._lost_lead()

    @contextmanager
    def _running(self) -> Iterator[Run]:
        run = self._subject.start(self._ground.kubeconfig, self._log)
        try:
            yield run
        finally:
            run.end()
            for lease in self._ground.leases():
                self._ground.give_back(lease)

    def _at_work(self, run: Run) -> bool:
        """Give it something to do and see whether it does it."""
        before = time.time()
        self._ground.make_work(self.COPIES)
        done = until(lambda: self._ground.writes(before) or run.wait(0) is not None, self._limits.start)
        return bool(done) and bool(self._ground.writes(before))

    def _works(self) -> Finding:
        with self._running() as run:
            started = time.monotonic()
            if self._at_work(run):
                return Finding("works", "passed", f"first write after {time.monotonic() - started:.1f} s")
            status = run.wait(0)
        if status is not None:
            return Finding("works", "failed", f"it ended with status {status} before its first write")
        return Finding("works", "failed", f"no write within {self._limits.start:g} s of work made for it")

    def _idempotent(self) -> Finding:
        check = "idempotent"
        with self._running() as run:
            if not self._at_work(run) or not quiet(self._ground, self._limits.silence, self._limits.start):
                return Finding(check, "failed", "it never came to rest: it writes on though nothing changes")
            run.signal(signal.SIGTERM)
            run.wait(self._limits.grace)
        began = time.time()
        with self._running() as run:
            marker = self._settled_again(run)
            again = [write for write in self._ground.writes(began) if write.at < marker]
            looked = bool(self._ground.writes(marker))
        if again:
            return Finding(check, "failed", f"a new process wrote {len(again)} times though nothing had changed "
                           f"({_some(again)}): compare with what is there before you write")  # fmt: skip
        if not looked:
            return Finding(
                check, "failed", "the new process did not act on a new object: nothing is shown by its silence"
            )
        return Finding(
            check, "passed", "a new process looked at everything, wrote nothing, and then acted on what was new"
        )

    def _settled_again(self, run: Run) -> float:
        """Wait until a new process has surely looked at everything; returns when the proof of it was asked for.

        It leads, then a while passes, then it acts on a new object; what it wrote before that was not asked for.
        """
        until(lambda: self._ground.leases() or run.wait(0) is not None, min(self._limits.start, 20.0))
        time.sleep(self._limits.silence)
        marker = time.time()
        self._ground.make_work(1)
        until(lambda: self._ground.writes(marker), self._limits.start)
        return marker

    def _shutdown(self) -> Finding:
        check = "shutdown"
        with self._running() as run:
            if not self._at_work(run):
                return Finding(check, "failed", "it did not begin to work")
            leases = self._ground.leases()
            self._ground.make_work(self.COPIES)
            asked, clock = time.time(), time.monotonic()
            run.signal(signal.SIGTERM)
            status = run.wait(self._limits.grace)
            took = time.monotonic() - clock
            if status is None:
                return Finding(check, "failed", f"it still ran {self._limits.grace:g} s after SIGTERM; kubelet would "
                               "have killed it, with its Lease held")  # fmt: skip
            kept = [lease["metadata"]["name"] for lease in leases if self._ground.holder(lease)]
            writes = len(self._ground.writes(asked))
        detail = f"ended {took:.1f} s after SIGTERM with status {status}; {writes} writes were finished meanwhile"
        if status != 0:
            return Finding(check, "failed", f"{detail}: an orderly end has status 0")
        if kept:
            return Finding(check, "failed", f"{detail}; it kept the Lease {', '.join(kept)}: the successor has to wait "
                           "until it is over. Release it")  # fmt: skip
        return Finding(check, "passed", detail)

    def _second_signal(self) -> Finding:
        """With the API server stopped, whatever has to be finished cannot be: only the second signal ends it."""
        check = "second-signal"
        with self._running() as run:
            if not self._at_work(run):
                return Finding(check, "failed", "it did not begin to work")
            self._ground.make_work(self.COPIES)
            self._ground.api.stop_answering()
            try:
                run.signal(signal.SIGTERM)
                if run.wait(1.0) is not None:
                    return Finding(check, "passed", "the first signal ended it within a second, API server or no")
                clock = time.monotonic()
                run.signal(signal.SIGTERM)
                status = run.wait(IMMEDIATE_SECONDS)
                took = time.monotonic() - clock
            finally:
                self._ground.api.answer_again()
        if status is None:
            return Finding(check, "failed", f"it still ran {IMMEDIATE_SECONDS:g} s after the second SIGTERM, while the "
                           "API server did not answer: nobody can end it by hand but with SIGKILL")  # fmt: skip
        return Finding(check, "passed", f"ended {took:.2f} s after the second SIGTERM while the API server was silent")

    def _lost_lead(self) -> Finding:
        check = "lost-lead"
        with self._running() as run:
            if not self._at_work(run):
                return Finding(check, "failed", "it did not begin to work")
            leases = self._ground.leases()
            if not leases:
                return Finding(check, "skipped", "it holds no Lease: run one replica with strategy Recreate only")
            lease = max(leases, key=_duration)
            duration = _duration(lease)
            for each in leases:
                self._ground.steal(each)
            stolen = time.time()
            while time.time() < stolen + duration + self._limits.silence:
                self._ground.make_work(1)
                time.sleep(0.5)
            late = [write for write in self._ground.writes(stolen) if write.at > stolen + duration]
            last = max((write.at for write in self._ground.writes(stolen)), default=stolen)
            status = run.wait(0)
        end = "it runs on" if status is None else f"it ended with status {status}"
        if late:
            late_by = f"later than {duration} s (its lease) after the Lease had another holder"
            return Finding(check, "failed", f"it wrote {len(late)} times {late_by} ({_some(late)}): stop the work when "
                           "the lead is lost")  # fmt: skip
        return Finding(check, "passed", f"its last write was {last - stolen:.2f} s after the theft, of {duration} s "
                       f"that it had; {end}")  # fmt: skip


def _duration(lease: Object) -> int:
    return int(lease["spec"].get("leaseDurationSeconds") or 15)


def _some(writes: list[Write]) -> str:
    shown = ", ".join(str(write) for write in writes[:3])
    return shown + (", ..." if len(writes) > 3 else "")
