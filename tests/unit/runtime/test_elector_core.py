"""What a candidate decides, as tables. The names follow client-go's tests where they ask the same."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tandem.runtime import ElectorSettings, default_identity
from tandem.runtime._election import core, record
from tandem.runtime._election.core import Loss, Observed, Outcome, Phase, Send, Verb, Wait
from tandem.runtime._election.record import Record

ME, OTHER = "me", "other"


def settings(**changes: Any) -> ElectorSettings:
    return ElectorSettings(**{"lease_name": "l", "namespace": "n", "identity": ME, **changes})


def lease(holder: str = OTHER, version: int = 5, duration: float | None = 15, **changes: Any) -> Record:
    return Record(holder, duration, 3, "t0", "t0", version, "u1", {})._replace(**changes)


def knowing(found: Record | None, at: float = 100.0, **changes: Any) -> Observed:
    observed = Observed(settings(**changes))
    core.seen(observed, found, at)
    return observed


def waits_until(observed: Observed, now: float) -> float:
    action = core.decide(observed, now)
    assert isinstance(action, Wait)
    return action.until


def phase(observed: Observed) -> Phase:
    return observed.phase


def leader(at: float = 100.0, **changes: Any) -> Observed:
    """A candidate that took a free Lease by a request that began at `at`, and was answered half a second later."""
    observed = knowing(lease("", version=5), at, **changes)
    request = core.decide(observed, at)
    assert isinstance(request, Send)
    core.sent(observed, request, at, 0.5)
    core.answered(observed, Outcome.DONE, at + 0.5, lease(ME, version=6, transitions=4))
    assert observed.phase is Phase.LEADING
    return observed


# --- acquiring: what is known, when, and what is done -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("found", "after", "verb", "transitions"),
    [
        pytest.param(lease(""), 0.0, Verb.ACQUIRE, 4, id="acquire from released object, at once"),
        pytest.param(lease(OTHER), 14.99, Verb.READ, 0, id="don't acquire from led, acked object"),
        pytest.param(lease(OTHER), 15.01, Verb.ACQUIRE, 4, id="acquire from led object after expiry"),
        pytest.param(lease(OTHER, duration=30), 29.0, Verb.READ, 0, id="expiry by the record's duration, longer"),
        pytest.param(lease(OTHER, duration=3), 3.01, Verb.ACQUIRE, 4, id="expiry by the record's duration, shorter"),
        pytest.param(lease(OTHER, duration=None), 14.99, Verb.READ, 0, id="no duration: ours"),
        pytest.param(lease(OTHER, duration=None), 15.01, Verb.ACQUIRE, 4, id="no duration: ours, expired"),
        pytest.param(lease(ME), 0.0, Verb.ACQUIRE, 3, id="acquire from led by us, unacked object"),
        pytest.param(None, 0.0, Verb.CREATE, 0, id="acquire from no object"),
    ],
)
def test_following(found: Record | None, after: float, verb: Verb, transitions: int) -> None:
    action = core.decide(knowing(found), 100 + after)
    assert isinstance(action, Send)
    assert action.verb is verb
    if verb is not Verb.READ:
        assert action.base is found
        assert (action.holder, action.duration, action.transitions) == (ME, 15, transitions)


def test_the_first_thing_is_to_read() -> None:
    action = core.decide(Observed(settings()), 0)
    assert isinstance(action, Send)
    assert action.verb is Verb.READ


def test_a_follower_waits_for_expiry_or_the_next_poll_whichever_comes_first() -> None:
    observed = knowing(lease(OTHER))
    assert core.decide(observed, 100) == Wait(102)
    core.watch_changed(observed, True, 100)
    observed.reread = False
    assert core.decide(observed, 100) == Wait(104)


def test_a_watch_that_says_nothing_is_not_relied_upon() -> None:
    observed = knowing(lease(OTHER))
    core.watch_changed(observed, True, 100)
    observed.reread = False
    action = core.decide(observed, 104)
    assert isinstance(action, Send)
    assert action.verb is Verb.READ


@pytest.mark.parametrize("roll", [0.0, 0.999])
def test_the_first_try_is_at_the_very_end_of_the_lease_and_after_a_release_at_once(roll: float) -> None:
    expiring, released = knowing(lease(OTHER)), knowing(lease(""))
    expiring.roll = released.roll = roll
    expiring.heard_at = 114.9
    assert waits_until(expiring, 114.99) == 115.0
    for observed, now in ((expiring, 115.0), (released, 100.0)):
        action = core.decide(observed, now)
        assert isinstance(action, Send)
        assert action.verb is Verb.ACQUIRE


@pytest.mark.parametrize(("roll", "after"), [(0.0, 1.9), (0.5, 2.0), (1.0, 2.1)])
def test_renewals_are_spread_evenly_about_the_retry_period(roll: float, after: float) -> None:
    observed = knowing(lease(""))
    action = core.decide(observed, 100.0)
    assert isinstance(action, Send)
    core.sent(observed, action, 100.0, roll)
    core.answered(observed, Outcome.DONE, 100.3, lease(ME, version=9))
    assert waits_until(observed, 100.3) == pytest.approx(100.0 + after)


def test_labels_and_annotations_are_no_renewal() -> None:
    observed = knowing(lease(OTHER, version=5))
    for second in range(1, 15):
        core.seen(observed, lease(OTHER, version=5 + second), 100 + second)
    action = core.decide(observed, 115.1)
    assert isinstance(action, Send)
    assert action.verb is Verb.ACQUIRE
    assert action.base is not None
    assert action.base.version == 19  # tried on the newest version all the same


def test_each_renewal_begins_the_count_anew() -> None:
    observed = knowing(lease(OTHER, version=5))
    core.seen(observed, lease(OTHER, version=6, renewed="t1"), 110)
    early = core.decide(observed, 116)
    assert isinstance(early, Send)
    assert early.verb is Verb.READ
    action = core.decide(observed, 125.1)
    assert isinstance(action, Send)
    assert action.verb is Verb.ACQUIRE


def test_old_news_changes_nothing() -> None:
    observed = knowing(lease("", version=9))
    core.seen(observed, lease(OTHER, version=8), 101)
    assert observed.record is not None
    assert observed.record.version == 9
    core.seen(observed, None, 102, version=7)
    assert observed.record.version == 9


def read(observed: Observed, found: Record, at: float) -> None:
    core.sent(observed, Send(Verb.READ, 5), at, 0.0)
    core.answered(observed, Outcome.DONE, at + 0.1, found)


def test_a_server_restored_from_a_backup_is_believed() -> None:
    """Its versions begin anew below those that we know; to take them for old news for ever would be the end."""
    observed = knowing(lease(OTHER, version=900))
    core.seen(observed, lease("third", version=20), 101)  # a watch alone may be late
    assert observed.record is not None
    assert observed.record.holder == OTHER
    read(observed, lease("third", version=20), 102)
    assert observed.record.holder == "third"
    ahead = leader()
    ahead.version = 900
    read(ahead, lease(OTHER, version=20), 102)
    assert ahead.reason is Loss.OTHER_HOLDER


def test_a_read_that_a_watch_overtook_is_old_news() -> None:
    observed = knowing(lease(OTHER, version=9))
    core.sent(observed, Send(Verb.READ, 5), 101, 0.0)
    core.seen(observed, lease("", version=10), 101.1)
    core.answered(observed, Outcome.DONE, 101.2, lease(OTHER, version=9))
    assert observed.record is not None
    assert observed.record.holder == ""


def test_a_lease_that_was_made_is_led_only_after_a_lease_duration() -> None:
    """It may have been deleted under a leader, which by then has ended or has found us in its place."""
    observed = knowing(None)
    create = core.decide(observed, 100)
    assert isinstance(create, Send)
    core.sent(observed, create, 100, 0.0)
    core.answered(observed, Outcome.DONE, 100.5, lease(ME, version=6))
    now = 100.5
    while phase(observed) is Phase.FOLLOWING:
        now = waits_until(observed, now)
        again = core.decide(observed, now)
        assert isinstance(again, Send)
        assert (again.verb, again.holder, again.transitions) == (Verb.ACQUIRE, ME, 3)
        core.sent(observed, again, now, 0.0)
        core.answered(observed, Outcome.DONE, now + 0.001, lease(ME, version=observed.version + 1, renewed=str(now)))
    assert now == pytest.approx(115.5)
    assert core.valid_until(observed) == pytest.approx(130.5)


def test_a_lease_that_was_made_and_not_proven_is_not_released() -> None:
    """Released it would count as free, and the leader it was deleted under may be at work."""
    observed = knowing(None)
    create = core.decide(observed, 100)
    assert isinstance(create, Send)
    core.sent(observed, create, 100, 0.0)
    core.answered(observed, Outcome.UNKNOWN, 105)
    core.shut_down(observed, 106)
    read(observed, lease(ME, version=6), 106)
    assert core.decide(observed, 106.1) == core.Finish()


def test_a_lease_that_was_made_by_a_request_of_unknown_outcome_must_prove_itself_too() -> None:
    observed = knowing(None)
    create = core.decide(observed, 100)
    assert isinstance(create, Send)
    core.sent(observed, create, 100, 0.0)
    core.answered(observed, Outcome.UNKNOWN, 105)
    read(observed, lease(ME, version=6), 106)
    claim = core.decide(observed, 106.1)
    assert isinstance(claim, Send)
    core.sent(observed, claim, 106.1, 0.0)
    core.answered(observed, Outcome.DONE, 106.2, lease(ME, version=7, renewed="t1"))
    assert observed.phase is Phase.FOLLOWING
    assert observed.proven_at == pytest.approx(121.1)


def test_a_deleted_lease_is_left_to_its_leader_for_a_moment_and_keeps_its_epoch() -> None:
    observed = knowing(lease(OTHER, duration=30))
    core.seen(observed, None, 105, version=6)
    assert waits_until(observed, 105) == 107
    action = core.decide(observed, 107)
    assert isinstance(action, Send)
    assert (action.verb, action.transitions) == (Verb.CREATE, 4)
    core.sent(observed, action, 107, 0.0)
    core.answered(observed, Outcome.DONE, 107.5, lease(ME, version=8, uid="u2"))
    assert observed.proven_at == pytest.approx(137.5)  # the leader's own duration was 30


# --- answers ----------------------------------------------------------------------------------------------------------
def test_the_lease_counts_from_the_start_of_the_request() -> None:
    observed = leader(at=100)
    assert core.valid_until(observed) == 115
    assert core.fence_until(observed) == 110
    request = core.decide(observed, 102.5)
    assert isinstance(request, Send)
    assert request.verb is Verb.RENEW
    core.sent(observed, request, 102.5, 0.0)
    core.answered(observed, Outcome.DONE, 107, lease(ME, version=7, renewed="t1"))
    assert core.valid_until(observed) == 117.5


def test_a_claim_answered_after_the_renew_deadline_is_not_believed() -> None:
    """The process was stopped while it waited: somebody else may lead since."""
    observed = knowing(lease(""))
    request = core.decide(observed, 100)
    assert isinstance(request, Send)
    core.sent(observed, request, 100, 0.0)
    core.answered(observed, Outcome.DONE, 111, lease(ME, version=6))
    assert observed.phase is Phase.FOLLOWING
    again = core.decide(observed, 111)
    assert isinstance(again, Send)
    assert again.verb is Verb.READ


def test_a_claim_that_was_overtaken_is_not_believed() -> None:
    observed = knowing(lease(""))
    request = core.decide(observed, 100)
    assert isinstance(request, Send)
    core.sent(observed, request, 100, 0.0)
    core.seen(observed, lease(OTHER, version=7), 101)
    core.answered(observed, Outcome.DONE, 102, lease(ME, version=6))
    assert observed.phase is Phase.FOLLOWING
    assert observed.record is not None
    assert observed.record.holder == OTHER


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.REFUSED])
def test_a_failed_attempt_is_repeated_after_the_retry_period(outcome: Outcome) -> None:
    observed = knowing(lease(""))
    request = core.decide(observed, 100)
    assert isinstance(request, Send)
    core.sent(observed, request, 100, 0.5)
    core.answered(observed, outcome, 100.1)
    assert waits_until(observed, 100.1) == pytest.approx(102.2)


def test_the_server_may_ask_for_a_little_patience_and_not_for_much() -> None:
    for asked, waits in ((2.3, 2.3), (60.0, 2.4)):
        observed = knowing(lease(""))
        request = core.decide(observed, 100)
        assert isinstance(request, Send)
        core.sent(observed, request, 100, 0.0)
        core.answered(observed, Outcome.REFUSED, 100.5, retry_after=asked)
        assert waits_until(observed, 100.5) == pytest.approx(100.5 + waits)


def test_a_conflict_is_followed_by_a_read_at_once() -> None:
    observed = knowing(lease(""))
    request = core.decide(observed, 100)
    assert isinstance(request, Send)
    core.sent(observed, request, 100, 0.0)
    core.answered(observed, Outcome.CONFLICT, 100.1)
    again = core.decide(observed, 100.1)
    assert isinstance(again, Send)
    assert again.verb is Verb.READ


def test_a_conflict_without_a_reason_does_not_spin() -> None:
    """Something before the server says 409 whatever is sent: one read, then patience."""
    observed = knowing(lease("", version=5))
    for answer in (Outcome.CONFLICT, Outcome.DONE):
        request = core.decide(observed, 100)
        assert isinstance(request, Send)
        core.sent(observed, request, 100, 0.0)
        core.answered(observed, answer, 100.0, lease("", version=5) if answer is Outcome.DONE else None)
    assert core.decide(observed, 100.0) == Wait(102)


# --- leading ----------------------------------------------------------------------------------------------------------
def test_renew_already_acquired_object() -> None:
    observed = leader(at=100)
    assert core.decide(observed, 101) == Wait(102)
    request = core.decide(observed, 102)
    assert isinstance(request, Send)
    assert (request.verb, request.holder, request.transitions) == (Verb.RENEW, ME, 4)
    assert request.base is not None
    assert request.base.version == 6


def test_no_request_outlives_the_renew_deadline() -> None:
    observed = leader(at=100)
    observed.not_before = 0
    for now, most in ((101.0, 5.0), (107.0, 3.0), (109.9, 0.1)):
        request = core.decide(observed, now)
        assert isinstance(request, Send)
        assert request.seconds == pytest.approx(most)


def test_the_deadline_is_a_question_of_time() -> None:
    observed = leader(at=100)
    assert core.passes_fence(observed, 109.99)
    assert not core.passes_fence(observed, 110.0)  # before anybody has noticed
    assert core.decide(observed, 110.0) == core.Lose(Loss.RENEW_DEADLINE)
    core.lose(observed, Loss.RENEW_DEADLINE)
    assert core.cancel_at(observed) == 114
    assert core.guard_at(observed) == 114.5
    assert core.decide(observed, 111) == core.Finish()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        pytest.param(lease(OTHER, version=7), Loss.OTHER_HOLDER, id="held by another"),
        pytest.param(lease("", version=7), Loss.OTHER_HOLDER, id="emptied by hand: a request to step down"),
        pytest.param(lease(ME, version=7, uid="u2", renewed="t9"), Loss.RECREATED, id="deleted and put back by hand"),
    ],
)
def test_what_ends_a_lead_at_once(found: Record, reason: Loss) -> None:
    observed = leader()
    core.seen(observed, found, 101)
    assert observed.reason is reason
    assert not core.passes_fence(observed, 101)
    assert core.cancel_at(observed) == 0


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(lease(ME, version=7, duration=1.0, renewed="t7"), id="duration edited by hand"),
        pytest.param(lease(ME, version=7, transitions=99, renewed="t7"), id="transitions edited by hand"),
        pytest.param(lease(ME, version=7), id="annotated"),
    ],
)
def test_what_a_leader_writes_over(found: Record) -> None:
    observed = leader()
    core.seen(observed, found, 101)
    assert core.passes_fence(observed, 101)
    request = core.decide(observed, 102.1)
    assert isinstance(request, Send)
    assert request.base is found
    assert request.duration == 15
    assert request.transitions == max(4, found.transitions)
    assert observed.epoch == 4


def test_a_leader_puts_a_deleted_lease_back_under_its_epoch() -> None:
    observed = leader()
    core.seen(observed, None, 101, version=7)
    request = core.decide(observed, 101)
    assert isinstance(request, Send)
    assert (request.verb, request.base, request.transitions) == (Verb.RECREATE, None, 4)
    core.sent(observed, request, 101, 0.0)
    core.seen(observed, lease(ME, version=8, uid="u2", renewed="t8"), 101.1)  # its own creation, by the watch
    core.answered(observed, Outcome.DONE, 101.2, lease(ME, version=8, uid="u2", renewed="t8"))
    assert core.passes_fence(observed, 102)
    assert core.valid_until(observed) == 116


def test_a_leader_whose_deleted_lease_was_taken_is_lost() -> None:
    observed = leader()
    core.seen(observed, None, 101, version=7)
    core.seen(observed, lease(OTHER, version=8, uid="u2"), 101.1)
    assert observed.reason is Loss.OTHER_HOLDER


# --- the end ----------------------------------------------------------------------------------------------------------
def test_shutdown_of_a_leader_goes_on_renewing_until_the_work_has_ended() -> None:
    observed = leader()
    core.shut_down(observed, 101)
    request = core.decide(observed, 102.1)
    assert isinstance(request, Send)
    assert request.verb is Verb.RENEW
    core.work_ended(observed, 102.1)
    assert not core.passes_fence(observed, 102.1)
    release = core.decide(observed, 102.1)
    assert isinstance(release, Send)
    assert (release.verb, release.holder, release.duration, release.transitions) == (Verb.RELEASE, "", 1, 4)


def test_shutdown_of_a_follower_ends_it() -> None:
    observed = knowing(lease(OTHER))
    core.shut_down(observed, 101)
    assert observed.phase is Phase.ENDED


def test_a_claim_that_succeeds_during_shutdown_is_given_back_and_never_led() -> None:
    observed = knowing(lease(""))
    request = core.decide(observed, 100)
    assert isinstance(request, Send)
    core.sent(observed, request, 100, 0.0)
    core.shut_down(observed, 100.1)
    assert phase(observed) is Phase.FOLLOWING  # waits for the answer
    core.answered(observed, Outcome.DONE, 100.2, lease(ME, version=6))
    assert phase(observed) is Phase.RELEASING
    assert not core.passes_fence(observed, 100.2)


def test_a_claim_of_unknown_outcome_is_looked_for_and_given_back() -> None:
    observed = knowing(lease(""))
    request = core.decide(observed, 100)
    assert isinstance(request, Send)
    core.sent(observed, request, 100, 0.0)
    core.answered(observed, Outcome.UNKNOWN, 105)
    core.shut_down(observed, 105)
    read = core.decide(observed, 105)
    assert isinstance(read, Send)
    assert read.verb is Verb.READ
    core.sent(observed, read, 105, 0.0)
    core.answered(observed, Outcome.DONE, 105.1, lease(ME, version=6))
    release = core.decide(observed, 105.1)
    assert isinstance(release, Send)
    assert release.verb is Verb.RELEASE


def test_release_retries_on_conflict_and_reads_first() -> None:
    observed = leader()
    core.work_ended(observed, 101)
    request = core.decide(observed, 101)
    assert isinstance(request, Send)
    core.sent(observed, request, 101, 0.0)
    core.answered(observed, Outcome.CONFLICT, 101.1)
    read = core.decide(observed, 101.1)
    assert isinstance(read, Send)
    assert read.verb is Verb.READ
    core.sent(observed, read, 101.1, 0.0)
    core.answered(observed, Outcome.DONE, 101.2, lease(ME, version=8, renewed="t8"))
    again = core.decide(observed, 101.2)
    assert isinstance(again, Send)
    assert again.verb is Verb.RELEASE
    assert again.base is not None
    assert again.base.version == 8


@pytest.mark.parametrize("found", [None, lease(OTHER, version=9)], ids=["no object", "held by another"])
def test_release_leaves_alone_what_is_not_ours(found: Record | None) -> None:
    observed = leader()
    core.work_ended(observed, 101)
    core.seen(observed, found, 101)
    assert core.decide(observed, 101) == core.Finish()


def test_release_gives_up_in_time() -> None:
    observed = leader()
    core.work_ended(observed, 101)
    now = 101.0
    for _ in range(100):
        action = core.decide(observed, now)
        if isinstance(action, Wait):
            now = action.until
        elif isinstance(action, Send):
            core.sent(observed, action, now, 0.0)
            now += 0.2
            core.answered(observed, Outcome.UNKNOWN, now)
        else:
            break
    assert core.decide(observed, now) == core.Finish()
    assert now <= 106.3


# --- settings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lease_duration": 10}, "cancelled as soon as"),
        ({"lease_duration": 15.5}, "whole seconds"),
        ({"renew_deadline": 4.0}, "one failed request"),
        ({"renew_deadline": 4.5}, "request_timeout"),
        ({"retry_period": 0}, "positive"),
        ({"retry_period": float("nan")}, "positive"),
        ({"identity": " "}, "identity is empty"),
        ({"lease_name": "Not A Name"}, "not a Kubernetes name"),
        ({"namespace": ""}, "not a Kubernetes name"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        settings(**changes)


def test_identity_is_new_for_each_process_of_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "auditor-0")
    first, second = default_identity(), default_identity()
    assert first.startswith("auditor-0_")
    assert first != second


# --- the record -------------------------------------------------------------------------------------------------------
def raw(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "l", "resourceVersion": "7", "uid": "u"}, "spec": spec}


@pytest.mark.parametrize(
    ("found", "holder", "duration", "transitions"),
    [
        (raw(), "", None, 0),
        ({"metadata": {"resourceVersion": "7"}}, "", None, 0),
        ({"metadata": {"resourceVersion": "7"}, "spec": None}, "", None, 0),
        (raw(holderIdentity="  "), "", None, 0),
        (raw(holderIdentity="x", leaseDurationSeconds=0), "x", None, 0),
        (raw(holderIdentity="x", leaseDurationSeconds=-5, leaseTransitions=-1), "x", None, 0),
        (raw(holderIdentity="x", leaseDurationSeconds="soon"), "x", None, 0),
        (raw(holderIdentity="x", leaseDurationSeconds=15, leaseTransitions=2, renewTime="nonsense"), "x", 15.0, 2),
    ],
)
def test_whoever_wrote_it_a_record_is_read(
    found: dict[str, Any], holder: str, duration: float | None, transitions: int
) -> None:
    parsed = record.parse(found)
    assert (parsed.holder, parsed.duration, parsed.transitions) == (holder, duration, transitions)


@pytest.mark.parametrize("found", [[], "<html>", {}, {"metadata": {}}, {"metadata": {"resourceVersion": "x"}}])
def test_what_is_no_lease_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match=r"Lease|invalid literal"):
        record.parse(found)


def test_a_renewal_keeps_what_it_does_not_own() -> None:
    found = raw(holderIdentity="me", strategy="OldestEmulationVersion", acquireTime="2026-01-01T00:00:00.000000Z")
    found["metadata"]["labels"] = {"a": "b"}
    found["metadata"]["managedFields"] = [{"manager": "x"}]
    now = datetime.datetime(2026, 11, 22, 4, 5, 6, 7, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    sent = record.body(
        record.parse(found),
        name="l",
        namespace="n",
        holder="me",
        duration=15,
        transitions=3,
        acquiring=False,
        now=now,
    )
    assert sent["metadata"]["labels"] == {"a": "b"}
    assert sent["metadata"]["resourceVersion"] == "7"
    assert "managedFields" not in sent["metadata"]
    assert sent["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 3,
        "strategy": "OldestEmulationVersion",
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-11-22T02:05:06.000007Z",  # UTC, whatever the zone
    }


def test_the_epoch_stops_where_the_field_ends() -> None:
    assert record.next_epoch(2**31 - 1) == 2**31 - 1
