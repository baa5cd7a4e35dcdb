# ruff: noqa: PT012 - the block that ends with an exception is what these tests are about
"""The elector in virtual time, over a Lease in memory with a bad network before it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tandem.runtime import Elector, ElectorSettings, LeadershipLost, Loss, NotElected, NotLeading, Shutdown, boottime
from tandem.runtime._election.core import Outcome, Verb
from tandem.runtime.elector import Leadership
from tandem.runtime.testing.leases import FakeLease, FakeStore, Fault
from tandem.runtime.testing.loop import virtual

FREE = {"metadata": {"name": "l", "namespace": "n"}, "spec": {"holderIdentity": ""}}
HELD = {
    "metadata": {"name": "l", "namespace": "n"},
    "spec": {"holderIdentity": "other", "leaseDurationSeconds": 15, "leaseTransitions": 4, "renewTime": "long ago"},
}


class Recorder:
    """An observer, a guard, and when each was told what."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str, Any]] = []
        self.deadlines: list[float] = []
        self.disarmed = 0
        self.prepared = False

    def _tell(self, what: str, detail: Any) -> None:
        self.told.append((now(), what, detail))

    def leading(self, epoch: int) -> None:
        self._tell("leading", epoch)

    def following(self, holder: str) -> None:
        self._tell("following", holder)

    def lost(self, reason: Loss) -> None:
        self._tell("lost", reason)

    def released(self) -> None:
        self._tell("released", None)

    def request(self, verb: Verb, outcome: Outcome, seconds: float) -> None:
        pass

    def prepare(self) -> None:
        self.prepared = True

    def arm(self, owner: object, deadline: float) -> None:
        self.deadlines.append(deadline)

    def disarm(self, owner: object) -> None:
        self.disarmed += 1

    def names(self) -> list[str]:
        return [what for _, what, _ in self.told]


def now() -> float:
    return asyncio.get_running_loop().time()


def elector(store: FakeStore, identity: str = "me", recorder: Recorder | None = None, **more: Any) -> Elector:
    settings = ElectorSettings(lease_name="l", namespace="n", identity=identity)
    recorder = recorder if recorder is not None else Recorder()
    return Elector(
        store,
        settings,
        **{"guard": recorder, "clock": now, "rng": random.Random(1), "observer": recorder, **more},
    )


@contextlib.asynccontextmanager
async def asked_to_end() -> AsyncIterator[Shutdown]:
    async with Shutdown(signals=()) as shutdown:
        yield shutdown


# --- becoming the leader --------------------------------------------------------------------------------------------
@virtual
async def test_takes_a_free_lease_at_once_and_gives_it_back() -> None:
    lease, recorder = FakeLease(FREE), Recorder()
    async with elector(lease.store(), recorder=recorder) as leadership:
        assert now() < 0.1
        assert lease.holder == "me"
        assert leadership.is_valid()
        assert leadership.may_start
        assert leadership.epoch == lease.spec["leaseTransitions"] == 1
        assert leadership.lease_uid == "uid-1"
        assert 9.9 < leadership.check() <= 10
        assert 14.9 < leadership.valid_until - now() <= 15
    assert lease.spec["holderIdentity"] == ""
    assert lease.spec["leaseDurationSeconds"] == 1
    assert not leadership.is_valid()
    with pytest.raises(NotLeading):
        leadership.check()
    assert recorder.names() == ["following", "leading", "released"]


@virtual
async def test_leads_by_a_lease_that_it_made_only_after_a_lease_duration() -> None:
    """Another may have been deleted under a leader that has not noticed yet."""
    lease = FakeLease()
    async with elector(lease.store()) as leadership:
        assert 15 <= now() < 15.5
        assert leadership.epoch == 0


@virtual
async def test_takes_over_at_expiry_after_a_crash() -> None:
    lease, recorder = FakeLease(HELD), Recorder()
    async with elector(lease.store(), recorder=recorder) as leadership:
        assert 15 <= now() < 15.3
        assert leadership.epoch == 5
    assert recorder.told[0][1:] == ("following", "other")


@virtual
async def test_takes_over_at_once_after_a_release() -> None:
    lease = FakeLease(HELD)
    asyncio.get_running_loop().call_later(7, lambda: lease.edit(holderIdentity="", leaseDurationSeconds=1))
    async with elector(lease.store()):
        assert 7 <= now() < 7.05


@virtual
async def test_takes_over_soon_after_a_release_without_a_watch() -> None:
    lease = FakeLease(HELD)
    store = lease.store()
    store.faults.append(Fault("gone", verb="watch", times=None))
    asyncio.get_running_loop().call_later(7, lambda: lease.edit(holderIdentity="", leaseDurationSeconds=1))
    async with elector(store):
        assert 7 <= now() < 7 + 2.5


@virtual
async def test_a_watch_that_says_nothing_is_noticed_by_polling() -> None:
    lease = FakeLease(HELD)
    store = lease.store()
    store.deaf = True
    asyncio.get_running_loop().call_later(7, lambda: lease.edit(holderIdentity="", leaseDurationSeconds=1))
    async with elector(store):
        assert 7 <= now() < 7 + 5


@virtual
async def test_one_of_two_leads_and_the_other_follows_at_once() -> None:
    lease = FakeLease(FREE)
    order: list[tuple[str, float]] = []

    async def candidate(name: str) -> None:
        async with elector(lease.store(name), name):
            order.append((name, now()))
            await asyncio.sleep(20)
            assert lease.holder == name

    await asyncio.gather(candidate("a"), candidate("b"))
    assert {name for name, _ in order} == {"a", "b"}
    assert order[1][1] - order[0][1] == pytest.approx(20, abs=0.1)


@virtual
async def test_an_elector_is_used_once() -> None:
    mine = elector(FakeLease(FREE).store())
    async with mine:
        pass
    with pytest.raises(RuntimeError, match="once"):
        async with mine:
            pass


# --- staying the leader ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("after", [False, True], ids=["before", "after it took effect"])
@pytest.mark.parametrize("kind", ["hang", "slow", "reset", "conflict", "busy", "refused", "error", "html", "gone"])
def test_stays_leader_through(kind: Any, after: bool) -> None:
    """One failure of any kind, and three in a row of the quick kinds, are within the renew deadline."""

    @virtual
    async def run() -> None:
        lease = FakeLease(FREE)
        store = lease.store()
        async with elector(store) as leadership:
            store.faults.append(Fault(kind, verb="replace", after=after, times=1 if kind == "hang" else 3))
            for _ in range(300):
                await asyncio.sleep(0.1)
                assert leadership.is_valid()
            assert leadership.valid_until > now() + 10
        assert lease.holder == ""

    run()


@virtual
async def test_renews_without_reading_first() -> None:
    lease = FakeLease(FREE)
    store = lease.store()
    async with elector(store):
        await asyncio.sleep(60)
        verbs = [verb for at, verb in store.requests if at > 1]
    assert set(verbs[:-1]) == {"replace"}
    assert 29 <= len(verbs) <= 34


@virtual
async def test_a_broken_watch_is_opened_again() -> None:
    lease = FakeLease(FREE)
    with pytest.raises(LeadershipLost):
        async with elector(lease.store()) as leadership:
            for _ in range(5):
                lease.break_watches()
                await asyncio.sleep(5.05)
                assert leadership.is_valid()
            lease.edit(holderIdentity="other")
            await asyncio.sleep(0.05)
            pytest.fail("the new watch says nothing")


@virtual
async def test_a_scope_of_a_lost_lead_is_not_entered() -> None:
    lease = FakeLease(FREE)
    with pytest.raises(LeadershipLost):
        async with elector(lease.store()) as leadership:
            lease.edit(holderIdentity="other")
            await asyncio.sleep(60)
    with pytest.raises(LeadershipLost):
        async with leadership.scope():
            pytest.fail("entered")


@virtual
async def test_puts_back_a_lease_that_was_deleted() -> None:
    lease = FakeLease(FREE)
    async with elector(lease.store()) as leadership:
        await asyncio.sleep(3)
        lease.delete()
        await asyncio.sleep(0.1)
        assert lease.holder == "me"
        assert lease.spec["leaseTransitions"] == leadership.epoch
        await asyncio.sleep(30)
        assert leadership.is_valid()


@virtual
async def test_writes_over_fields_that_were_edited_by_hand() -> None:
    lease = FakeLease(FREE)
    async with elector(lease.store()) as leadership:
        lease.edit(leaseDurationSeconds=600, renewTime="nonsense")
        lease.annotate(note="keep me")
        await asyncio.sleep(3)
        assert leadership.is_valid()
        assert lease.spec["leaseDurationSeconds"] == 15
        assert lease.lease is not None
        assert lease.lease["metadata"]["annotations"] == {"note": "keep me"}


# --- losing the lead ------------------------------------------------------------------------------------------------
@virtual
async def test_renew_deadline_missed() -> None:
    """The fence closes at 10 s; work in flight is cancelled at 14 s, a second before anybody else can lead."""
    lease, recorder = FakeLease(FREE), Recorder()
    store = lease.store()
    closed = cancelled = -1.0
    reason = None
    with pytest.raises(LeadershipLost) as lost:
        async with elector(store, recorder=recorder) as leadership:
            began = leadership.valid_until - 15
            store.faults.append(Fault("reset", times=None))
            reason = await leadership.wait_lost()
            closed = now() - began
            assert not leadership.is_valid()
            assert not leadership.may_start
            try:
                await asyncio.sleep(60)
            finally:
                cancelled = now() - began
    assert lost.value.reason is reason is Loss.RENEW_DEADLINE
    assert closed == pytest.approx(10, abs=0.01)
    assert cancelled == pytest.approx(14, abs=0.01)
    assert recorder.deadlines[-1] - began == pytest.approx(14.5, abs=0.01)
    assert recorder.disarmed


@virtual
async def test_a_hung_api_costs_the_lead_at_the_deadline_and_not_later() -> None:
    store = FakeLease(FREE).store()
    with pytest.raises(LeadershipLost):
        async with elector(store) as leadership:
            began = leadership.valid_until - 15
            store.faults.append(Fault("hang", times=None))
            await leadership.wait_lost()
            assert now() - began == pytest.approx(10, abs=0.01)
            await asyncio.sleep(60)


@virtual
async def test_work_that_ends_before_the_lease_does_is_not_waited_for() -> None:
    store = FakeLease(FREE).store()
    with pytest.raises(LeadershipLost):
        async with elector(store) as leadership:
            store.faults.append(Fault("reset", times=None))
            await leadership.wait_lost()
            lost_at = now()
    assert now() - lost_at < 0.01


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"holderIdentity": "other", "leaseTransitions": 9}, Loss.OTHER_HOLDER),
        ({"holderIdentity": ""}, Loss.OTHER_HOLDER),
        ({"holderIdentity": None}, Loss.OTHER_HOLDER),
    ],
)
@pytest.mark.parametrize("deaf", [False, True], ids=["watch", "no watch"])
def test_another_holder_ends_the_work_at_once(change: dict[str, Any], reason: Loss, deaf: bool) -> None:
    @virtual
    async def run() -> None:
        lease = FakeLease(FREE)
        store = lease.store()
        store.deaf = deaf
        recorder = Recorder()
        with pytest.raises(LeadershipLost) as lost:
            async with elector(store, recorder=recorder):
                await asyncio.sleep(3)
                lease.edit(**change)
                changed = now()
                await asyncio.sleep(60)
        assert lost.value.reason is reason
        assert now() - changed < (2.1 if deaf else 0.05)
        assert recorder.deadlines[-1] <= now() + 0.5
        assert lease.holder == (change["holderIdentity"] or "")  # nothing was written over it

    run()


@virtual
async def test_a_lease_made_anew_by_somebody_ends_the_work_at_once() -> None:
    lease = FakeLease(FREE)
    with pytest.raises(LeadershipLost) as lost:
        async with elector(lease.store()):
            await asyncio.sleep(3)
            mine = dict(lease.lease or {})
            lease.delete()
            lease.put({**mine, "metadata": {"name": "l"}, "spec": {**mine["spec"], "renewTime": "later"}})
            await asyncio.sleep(60)
    assert lost.value.reason is Loss.RECREATED


@virtual
async def test_a_clock_that_jumped_closes_the_fence_before_anybody_noticed() -> None:
    """The machine slept: no timer has fired, no task has run."""
    jump = 0.0
    with pytest.raises(LeadershipLost):
        async with elector(FakeLease(FREE).store(), clock=lambda: now() + jump) as leadership:
            assert leadership.is_valid()
            jump = 60.0
            assert not leadership.is_valid()
            with pytest.raises(NotLeading):
                leadership.check()
            await asyncio.sleep(60)


@virtual
async def test_a_failure_of_the_body_after_the_loss_is_reported_as_the_loss() -> None:
    lease = FakeLease(FREE)
    with pytest.raises(LeadershipLost) as lost:
        async with elector(lease.store()) as leadership:
            lease.edit(holderIdentity="other")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            leadership.check()
    assert isinstance(lost.value.__cause__, NotLeading)


@virtual
async def test_work_in_other_tasks_ends_with_its_scope() -> None:
    lease = FakeLease(FREE)
    ended: list[float] = []

    async def elsewhere(leadership: Leadership) -> None:
        with pytest.raises(LeadershipLost):
            async with leadership.scope():
                await asyncio.sleep(60)
        ended.append(now())

    with pytest.raises(LeadershipLost):
        async with elector(lease.store()) as leadership:
            task = asyncio.create_task(elsewhere(leadership))
            await asyncio.sleep(1)
            lease.edit(holderIdentity="other")
            await asyncio.sleep(60)
    await task
    assert ended == [pytest.approx(1, abs=0.1)]


@virtual
async def test_the_lease_is_not_released_before_work_in_other_tasks_has_ended() -> None:
    lease, recorder = FakeLease(FREE), Recorder()

    async def elsewhere(leadership: Leadership) -> Loss:
        with pytest.raises(LeadershipLost) as ended:
            async with leadership.scope():
                try:
                    await asyncio.sleep(600)
                finally:
                    await asyncio.sleep(20)  # cleaning up; longer than a lease
                    assert lease.holder == "me"
                    assert leadership.is_valid()
                    assert not recorder.disarmed
        return ended.value.reason

    async with elector(lease.store(), recorder=recorder) as leadership:
        task = asyncio.create_task(elsewhere(leadership))
        await asyncio.sleep(1)
    assert task.done()
    assert await task is Loss.GIVEN_UP
    assert lease.holder == ""
    assert recorder.disarmed


# --- the end --------------------------------------------------------------------------------------------------------
@virtual
async def test_shutdown_renews_until_the_work_has_ended_and_only_then_releases() -> None:
    lease = FakeLease(FREE)
    async with asked_to_end() as shutdown:
        async with elector(lease.store(), shutdown=shutdown) as leadership:
            shutdown.request("test")
            assert not leadership.may_start
            for _ in range(400):
                await asyncio.sleep(0.1)
                assert leadership.is_valid()  # writes of work in flight go on
                assert lease.holder == "me"
        assert lease.holder == ""


@virtual
async def test_drain_that_takes_too_long_is_cancelled_and_then_released() -> None:
    lease = FakeLease(FREE)
    async with asked_to_end() as shutdown:
        async with elector(lease.store(), shutdown=shutdown):
            shutdown.request("test")
            try:
                await asyncio.sleep(600)
            finally:
                assert now() == pytest.approx(45, abs=0.1)
                assert lease.holder == "me"
                await asyncio.sleep(5)  # cleaning up, for longer than from one renewal to the next
                assert lease.holder == "me"
        assert lease.holder == ""


@virtual
async def test_shutdown_of_a_follower_ends_at_once_and_claims_nothing() -> None:
    lease = FakeLease(HELD)
    async with asked_to_end() as shutdown:
        asyncio.get_running_loop().call_later(5, shutdown.request, "test")
        with pytest.raises(NotElected):
            async with elector(lease.store(), shutdown=shutdown):
                pytest.fail("led")
    assert now() < 5.1
    assert lease.writes == []


@virtual
async def test_never_starts_leading_while_shutting_down() -> None:
    lease = FakeLease(FREE)
    store = lease.store()
    store.faults.append(Fault("slow", verb="replace", after=True, seconds=3))
    async with asked_to_end() as shutdown:
        asyncio.get_running_loop().call_later(1, shutdown.request, "test")
        with pytest.raises(NotElected):
            async with elector(store, shutdown=shutdown):
                pytest.fail("led")
    assert lease.writes == [("", "replace", "me"), ("", "replace", "")]


@virtual
async def test_shutdown_before_the_start_asks_for_nothing() -> None:
    store = FakeLease(FREE).store()
    async with asked_to_end() as shutdown:
        shutdown.request("test")
        with pytest.raises(NotElected):
            async with elector(store, shutdown=shutdown):
                pytest.fail("led")
    assert store.requests == []


@virtual
async def test_release_retries_on_conflict() -> None:
    lease = FakeLease(FREE)
    store = lease.store()
    async with elector(store):
        await asyncio.sleep(1)
        store.deaf = True
        await asyncio.sleep(2)
        lease.annotate(hand="edit")  # another version than the one we know
        store.faults.append(Fault("conflict", verb="replace", times=2))
    assert lease.holder == ""


@virtual
async def test_release_is_given_up_in_time() -> None:
    store = FakeLease(FREE).store()
    async with elector(store):
        store.faults.append(Fault("hang", times=None))
        ended = now()
    assert now() - ended == pytest.approx(5, abs=0.1)


@virtual
async def test_a_failing_body_releases_and_is_heard() -> None:
    lease = FakeLease(FREE)
    with pytest.raises(ZeroDivisionError):
        async with elector(lease.store()):
            raise ZeroDivisionError
    assert lease.holder == ""


@virtual
async def test_cancellation_from_outside_releases_and_is_passed_on() -> None:
    lease = FakeLease(FREE)

    async def work() -> None:
        async with elector(lease.store()):
            await asyncio.sleep(600)

    task = asyncio.create_task(work())
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lease.holder == ""


@virtual
async def test_cancellation_while_following_ends_the_candidate() -> None:
    lease = FakeLease(HELD)

    async def work() -> None:
        async with elector(lease.store()):
            pytest.fail("led")

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lease.writes == []
    assert len(asyncio.all_tasks()) == 1


# --- the guard and the clock ----------------------------------------------------------------------------------------
@virtual
async def test_the_guard_is_armed_with_the_lead_moved_by_renewals_and_disarmed_with_the_end() -> None:
    recorder = Recorder()
    mine = elector(FakeLease(FREE).store(), recorder=recorder)
    async with mine as leadership:
        assert recorder.prepared
        assert recorder.deadlines[0] == pytest.approx(leadership.valid_until - 0.5)
        await asyncio.sleep(9)
        assert recorder.deadlines[-1] == pytest.approx(leadership.valid_until - 0.5)
        assert recorder.deadlines[-1] > 20
    assert recorder.disarmed


def test_the_clock_is_not_the_wall_clock() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
