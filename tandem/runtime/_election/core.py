"""The election without any I/O: what a candidate knows, what it does next, and how each answer changes what it knows.

`decide(observed, now)` is pure. The functions below it are the only ones that change an `Observed`; each takes the
time as an argument. The asyncio shell (`tandem.runtime.elector`) and the simulator of the model tests drive the very
same code.

The rules, in short:

- A leader's lease is counted from the *start* of its last successful request: the server may have stored it at any
  moment after that. Followers count from when they *hear* of a change, which is after the server stored it. So a
  follower's count always ends later than the leader's, whatever the network did.
- The fence is a question of time (`passes_fence`), not of a timer that has to fire: a process that was stopped for a
  minute finds it closed at its first look.
- Every write carries the resourceVersion of what it replaces. A follower may therefore try on old knowledge; it
  gets a conflict and reads again.
- A Lease that is not there is not free: it may have been deleted under a leader that still counts on it. A candidate
  that makes one leads only after it has held it for a lease duration: by then that leader has ended, or has found
  another holder in its place. A Lease with an empty holder is free.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from tandem.runtime._election.record import Record, next_epoch
from tandem.runtime._election.settings import ElectorSettings

RENEWAL_JITTER: Final = 0.1
"""Share of the retry period over which renewals are spread, evenly about it: many Leases of one process drift apart."""
RETRY_JITTER: Final = 0.2
"""Share of the retry period by which attempts after a failure are spread."""
POLL_WHILE_WATCHING: Final = 2.0
"""Retry periods without news from a watch after which a follower reads: a live leader is heard every period."""
RELEASE_RETRY: Final = 0.25
"""Attempts to release follow each other after this share of the retry period; there is no time for more."""


class Phase(enum.Enum):
    """Where a candidate stands. It leads at most once: what lost its lead ends."""

    FOLLOWING = "following"
    LEADING = "leading"
    RELEASING = "releasing"
    LOST = "lost"
    ENDED = "ended"


class Loss(enum.Enum):
    """Why a lead ended against the leader's will."""

    RENEW_DEADLINE = "renew deadline missed"
    OTHER_HOLDER = "another holder in the Lease"
    RECREATED = "Lease deleted and made anew by somebody else"
    FAILED = "the elector itself failed"
    GIVEN_UP = "given up in order"
    """Not a loss of the process: what a block outside the elector's own is told when that has ended."""

    @property
    def may_finish(self) -> bool:
        """Whether nobody else can lead yet, so that work in flight may finish without writing."""
        return self is Loss.RENEW_DEADLINE


class Verb(enum.Enum):
    """What a request is for."""

    READ = "read"
    CREATE = "create"
    ACQUIRE = "acquire"
    RENEW = "renew"
    RECREATE = "recreate"
    RELEASE = "release"


class Outcome(enum.Enum):
    """How a request ended."""

    DONE = "done"
    ABSENT = "absent"
    CONFLICT = "conflict"
    REFUSED = "refused"
    """Surely not applied: 4xx, 429."""
    UNKNOWN = "unknown"
    """Applied or not, now or later: time-out, reset, 5xx, nonsense from a proxy."""


class Wait(NamedTuple):
    """Nothing to do before `until`, unless something is heard."""

    until: float


class Send(NamedTuple):
    """One request, to be given up after `seconds`.

    `base` is what a write replaces (its resourceVersion goes with it), None to create. The other fields are the claim.
    """

    verb: Verb
    seconds: float
    base: Record | None = None
    holder: str = ""
    duration: int = 0
    transitions: int = 0


class Lose(NamedTuple):
    """The lead is over: call `lose`."""

    reason: Loss


class Finish(NamedTuple):
    """There is nothing left to do: call `end`."""


Action = Wait | Send | Lose | Finish


@dataclass(slots=True)
class Observed:
    """All that a candidate knows. Times are of the candidate's own clock.

    Attributes:
        known: Whether the Lease, or its absence, was ever seen.
        record: The newest record seen; None when there is no Lease.
        version: The newest resourceVersion seen; what is older is old news.
        last_transitions: Of the newest record seen, also when the Lease is gone since; `last_duration` likewise.
        seen_at: When the claim was last seen to change; the count to its expiry begins here.
        stands: Seconds after `seen_at` for which the claim must be left alone.
        heard_at: When anything was last heard of the Lease.
        watching: Whether a watch is open.
        reread: What is known was contradicted; read before the next write.
        proven_at: When a Lease that we made where there was none counts as ours.
        unsure: A claim of ours was sent and its outcome is unknown: the Lease may be ours.
        conflicted: resourceVersion of the last write that met a conflict (-1: a creation).
        started: When the pending request was sent.
        started_at_version: `version` at that moment.
        not_before: No request before this, after a failure or between renewals.
        roll: A random number in [0, 1) for jitter, renewed by the shell with each request.
        renewed_at: Start of the last successful write of our claim.
        recreating: We sent a creation while leading, so that a new uid may be ours.
    """

    settings: ElectorSettings
    phase: Phase = Phase.FOLLOWING
    known: bool = False
    record: Record | None = None
    version: int = 0
    last_transitions: int = -1
    last_duration: float = 0.0
    seen_at: float = 0.0
    stands: float = 0.0
    heard_at: float = 0.0
    proven_at: float = 0.0
    watching: bool = False
    reread: bool = False
    unsure: bool = False
    conflicted: int = 0
    pending: Send | None = None
    started: float = 0.0
    started_at_version: int = 0
    not_before: float = 0.0
    roll: float = 0.0
    shutting_down: bool = False
    epoch: int = -1
    uid: str = ""
    renewed_at: float = 0.0
    recreating: bool = False
    reason: Loss | None = None
    release_by: float = 0.0


def fence_until(observed: Observed) -> float:
    """When the fence closes unless the lease is renewed."""
    return observed.renewed_at + observed.settings.renew_deadline


def valid_until(observed: Observed) -> float:
    """Until when nobody else can lead."""
    return observed.renewed_at + observed.settings.lease_duration


def passes_fence(observed: Observed, now: float) -> bool:
    """Whether a write may be sent now."""
    return observed.phase is Phase.LEADING and now < fence_until(observed)


def cancel_at(observed: Observed) -> float:
    """When work in flight must be cancelled, now that the lead is lost; 0 is at once."""
    if observed.reason is not None and observed.reason.may_finish:
        return valid_until(observed) - observed.settings.cancel_margin
    return 0.0


def guard_at(observed: Observed) -> float:
    """When the kernel is to end the process unless it hears of a renewal."""
    return valid_until(observed) - observed.settings.cancel_margin / 2


def decide(observed: Observed, now: float) -> Action:
    """What to do next. Pure: the same knowledge at the same time gives the same action."""
    phase = observed.phase
    if phase is Phase.LOST or phase is Phase.ENDED:
        return Finish()
    if phase is Phase.LEADING and now >= fence_until(observed):
        return Lose(Loss.RENEW_DEADLINE)
    if observed.pending is not None:
        return Wait(observed.started + observed.pending.seconds)
    if phase is Phase.LEADING:
        return _lead(observed, now)
    if phase is Phase.RELEASING:
        return _release(observed, now)
    return _follow(observed, now)


def _lead(observed: Observed, now: float) -> Action:
    closes = fence_until(observed)
    if now < observed.not_before:
        return Wait(min(observed.not_before, closes))
    seconds = min(observed.settings.request_timeout, closes - now)
    if observed.reread:
        return Send(Verb.READ, seconds)
    verb = Verb.RENEW if observed.record is not None else Verb.RECREATE
    transitions = max(observed.epoch, observed.record.transitions if observed.record is not None else 0)
    return _claim(observed, verb, seconds, transitions)


def _follow(observed: Observed, now: float) -> Action:
    if observed.shutting_down:
        return Finish()
    if now < observed.not_before:
        return Wait(observed.not_before)
    settings, record = observed.settings, observed.record
    seconds = settings.request_timeout
    if not observed.known or observed.reread:
        return Send(Verb.READ, seconds)
    if record is not None and record.holder == settings.identity:
        # A claim of ours arrived without our hearing of it. Only a renewal that we see succeed says how long it holds.
        return _claim(observed, Verb.ACQUIRE, seconds, record.transitions)
    # Not spread: of those that try at once, all but one get a conflict and read, which costs less than a wait.
    free_at = observed.seen_at + observed.stands
    if now >= free_at:
        return _claim(observed, Verb.ACQUIRE if record else Verb.CREATE, seconds, next_epoch(observed.last_transitions))
    quiet = POLL_WHILE_WATCHING if observed.watching else 1.0
    poll_at = observed.heard_at + settings.retry_period * (quiet + RETRY_JITTER * observed.roll)
    if now >= poll_at:
        return Send(Verb.READ, seconds)
    return Wait(min(free_at, poll_at))


def _release(observed: Observed, now: float) -> Action:
    if now >= observed.release_by:
        return Finish()
    if now < observed.not_before:
        return Wait(min(observed.not_before, observed.release_by))
    seconds = min(observed.settings.request_timeout, observed.release_by - now)
    if observed.reread:
        return Send(Verb.READ, seconds)
    record = observed.record
    if record is None or record.holder != observed.settings.identity:
        return Finish()
    if now < observed.proven_at:
        # Made by us, and perhaps under a leader that still counts on the one before: a release would say it is free.
        return Finish()
    # client-go's form of a release: no holder, and a duration of a second for those who look at nothing else
    return Send(Verb.RELEASE, seconds, record, "", 1, record.transitions)


def _claim(observed: Observed, verb: Verb, seconds: float, transitions: int) -> Send:
    settings = observed.settings
    return Send(verb, seconds, observed.record, settings.identity, settings.lease_duration, transitions)


def sent(observed: Observed, request: Send, now: float, roll: float) -> None:
    """The request goes out now."""
    observed.pending = request
    observed.started = now
    observed.started_at_version = observed.version
    observed.roll = roll
    if request.verb is Verb.RECREATE:
        observed.recreating = True


def seen(observed: Observed, record: Record | None, now: float, version: int = 0) -> None:
    """The Lease was seen as `record` just now, by a watch or an answer; None: it is not there.

    Args:
        observed: Changed in place.
        record: The Lease, or None.
        now: When the news arrived, which is after it was true.
        version: For a deletion seen by a watch: its resourceVersion.
    """
    observed.heard_at = now
    version = record.version if record is not None else version
    if observed.known and version and version <= observed.version:
        return
    before, settings = observed.record, observed.settings
    _note_own_creation(observed, record, now)
    unchanged = observed.known and (
        before is None if record is None else before is not None and record.same_claim(before)
    )
    observed.known = True
    observed.record = record
    observed.version = max(observed.version, version)
    if unchanged:
        return
    if record is not None:
        observed.last_transitions = record.transitions
        observed.last_duration = record.duration or 0.0
    observed.seen_at = now
    observed.stands = _stands(before, record, settings)
    if observed.phase is Phase.FOLLOWING:
        observed.not_before = now
    elif observed.phase is Phase.LEADING and record is not None:
        _judge_foreign(observed, record)
    elif observed.phase is Phase.LEADING:
        observed.not_before = now


def _stands(before: Record | None, record: Record | None, settings: ElectorSettings) -> float:
    """How long a claim must stand unchanged before somebody else may claim."""
    if record is None:
        # Time for a leader to put back what was deleted under it.
        return settings.retry_period if before is not None else 0.0
    if not record.holder:
        return 0.0
    return record.duration or float(settings.lease_duration)


def _note_own_creation(observed: Observed, record: Record | None, now: float) -> None:
    """A Lease of ours where there was none, or another: from now on it must prove itself."""
    if record is None or record.holder != observed.settings.identity or observed.phase is Phase.LEADING:
        return
    if observed.record is None or observed.record.uid != record.uid:
        observed.proven_at = now + max(float(observed.settings.lease_duration), observed.last_duration)


def _judge_foreign(observed: Observed, record: Record) -> None:
    """A leader saw its Lease changed by a record that is not the answer to its own request."""
    if record.holder != observed.settings.identity:
        lose(observed, Loss.OTHER_HOLDER)
    elif record.uid != observed.uid and not observed.recreating:
        lose(observed, Loss.RECREATED)


def answered(
    observed: Observed, outcome: Outcome, now: float, record: Record | None = None, retry_after: float = 0.0
) -> None:
    """The pending request ended.

    Args:
        observed: Changed in place.
        outcome: How.
        now: When its end was noticed.
        record: The Lease that came back, when DONE.
        retry_after: Seconds that the server asks to be left alone.
    """
    request, observed.pending = observed.pending, None
    if request is None:
        return
    verb, started = request.verb, observed.started
    if outcome is Outcome.DONE and record is not None:
        if verb is Verb.READ:
            _read(observed, record, now)
        else:
            _written(observed, verb, record, started, now)
    elif outcome is Outcome.ABSENT:
        if verb is Verb.READ:
            _read(observed, None, now)
        else:
            seen(observed, None, now)
    elif outcome is Outcome.CONFLICT:
        observed.reread = True
        observed.conflicted = request.base.version if request.base is not None else -1
        observed.not_before = now
    else:
        if outcome is not Outcome.REFUSED and verb in (Verb.ACQUIRE, Verb.CREATE):
            observed.unsure = True
        _back_off(observed, started, now, retry_after)
    if observed.shutting_down and observed.phase is Phase.FOLLOWING:
        _leave(observed, now)


def _read(observed: Observed, record: Record | None, now: float) -> None:
    observed.reread = False
    refused = observed.conflicted
    observed.conflicted = 0
    if record is not None and record.version < observed.version == observed.started_at_version:
        # A read from the quorum that began after we knew better: the server's own past came back, from a backup.
        observed.version = 0
    seen(observed, record, now)
    if refused and refused == (record.version if record is not None else -1):
        # The write was refused although nothing is different: something else says conflict. Do not spin.
        _back_off(observed, now, now, 0.0)


def _written(observed: Observed, verb: Verb, record: Record, started: float, now: float) -> None:
    overtaken = observed.version > record.version
    if not overtaken:
        _note_own_creation(observed, record, now)
        observed.known, observed.record, observed.version = True, record, record.version
        observed.last_transitions = record.transitions
        observed.last_duration = record.duration or 0.0
        observed.seen_at = observed.heard_at = now
        observed.stands = _stands(None, record, observed.settings)
        observed.reread = False
    settings = observed.settings
    if verb is Verb.RELEASE:
        observed.phase = Phase.ENDED
    elif verb in (Verb.RENEW, Verb.RECREATE):
        if observed.phase is Phase.LEADING:
            _hold(observed, record, started, now)
    elif observed.phase is Phase.FOLLOWING:
        observed.unsure = True
        if overtaken or now >= started + settings.renew_deadline:
            # Old news already: somebody else may have followed us since.
            observed.reread = True
        elif now < observed.proven_at:
            observed.not_before = max(now, min(observed.proven_at, started + _between_renewals(observed)))
        elif not observed.shutting_down:
            observed.phase = Phase.LEADING
            observed.epoch = record.transitions
            _hold(observed, record, started, now)


def _hold(observed: Observed, record: Record, started: float, now: float) -> None:
    """The Lease is ours, counted from when the request began."""
    observed.renewed_at = started
    observed.uid = record.uid
    observed.not_before = max(now, started + _between_renewals(observed))


def _between_renewals(observed: Observed) -> float:
    return observed.settings.retry_period * (1 + RENEWAL_JITTER * (observed.roll - 0.5))


def _back_off(observed: Observed, started: float, now: float, retry_after: float) -> None:
    settings = observed.settings
    pause = settings.retry_period * (1 + RETRY_JITTER * observed.roll)
    if observed.phase is Phase.RELEASING:
        pause = settings.retry_period * RELEASE_RETRY
    asked = min(retry_after, settings.retry_period * (1 + RETRY_JITTER))
    observed.not_before = max(now + asked, started + pause)


def watch_changed(observed: Observed, watching: bool, now: float) -> None:
    """A watch was opened or broke. After an opening a follower reads: what happened in between was not heard."""
    observed.watching = watching
    if watching:
        observed.heard_at = now
        if observed.phase is Phase.FOLLOWING and observed.known:
            observed.reread = True


def shut_down(observed: Observed, now: float) -> None:
    """The process is to end. A leader goes on renewing until `work_ended`; who follows never leads any more."""
    observed.shutting_down = True
    if observed.phase is Phase.FOLLOWING and (observed.pending is None or observed.pending.verb is Verb.READ):
        observed.pending = None
        _leave(observed, now)


def _leave(observed: Observed, now: float) -> None:
    """End a candidate that does not lead; give back what it may hold without knowing."""
    if observed.unsure:
        observed.phase = Phase.RELEASING
        observed.release_by = now + observed.settings.release_timeout
        observed.reread = True
        observed.not_before = now
    else:
        observed.phase = Phase.ENDED


def work_ended(observed: Observed, now: float) -> None:
    """A leader's work is done, nothing of it is in flight any more: close the fence and give the Lease back."""
    if observed.phase is Phase.LEADING:
        observed.phase = Phase.RELEASING
        observed.release_by = now + observed.settings.release_timeout
        observed.not_before = now


def lose(observed: Observed, reason: Loss) -> None:
    """The lead is over; the fence is closed from now on."""
    if observed.phase is Phase.LEADING:
        observed.phase = Phase.LOST
        observed.reason = reason


def end(observed: Observed) -> None:
    """Nothing more will be sent."""
    if observed.phase is not Phase.LOST:
        observed.phase = Phase.ENDED
