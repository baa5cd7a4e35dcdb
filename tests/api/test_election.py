"""The election on a real API server, by candidates that are processes. Where they ask the same, tests bear the names
of kubert's (exclusive, expires, renews, vacates), client-go's and controller-runtime's.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tandem.runtime import boottime
from tandem.runtime.testing.localapi import LocalApi
from tests.api.conftest import Candidates, free_lease
from tests.api.processes import SCALED, wait_for

pytestmark = pytest.mark.api
LEASE_SECONDS = SCALED[0]
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
MERGE = "application/merge-patch+json"


def spec(api: LocalApi, name: str) -> dict[str, Any]:
    found: dict[str, Any] = api.request("GET", f"{LEASES}/{name}")["spec"]
    return found


def edit(api: LocalApi, name: str, **changes: Any) -> None:
    api.request("PATCH", f"{LEASES}/{name}", {"spec": changes}, content=MERGE)


def lease_writes(api: LocalApi, name: str, user: str) -> list[dict[str, Any]]:
    """What this user wrote to this Lease, by the server's own record."""
    return [
        event
        for event in api.audit()
        if event["user"]["username"] == user
        and event["verb"] in ("create", "update", "patch")
        and event.get("objectRef", {}).get("resource") == "leases"
        and event["objectRef"].get("name") == name
    ]


def test_exclusive(api: LocalApi, name: str, candidates: Candidates) -> None:
    free_lease(api, name)
    leader, [other, third] = candidates.leader_of(*(candidates.start(api, name, f"{name}-{i}") for i in range(3)))
    other.until("following", holder=leader.identity)
    third.until("following", holder=leader.identity)
    time.sleep(2 * LEASE_SECONDS)
    assert not other.has_said("leading")
    assert not third.has_said("leading")
    assert lease_writes(api, name, other.identity) == [] or all(
        event["responseStatus"]["code"] == 409 for event in lease_writes(api, name, other.identity)
    )


def test_renews(api: LocalApi, name: str, candidates: Candidates) -> None:
    free_lease(api, name)
    leader = candidates.start(api, name, f"{name}-a")
    leader.until("leading")
    first = spec(api, name)
    time.sleep(2 * LEASE_SECONDS)
    second = spec(api, name)
    assert second["renewTime"] > first["renewTime"]
    for unchanged in ("holderIdentity", "acquireTime", "leaseTransitions", "leaseDurationSeconds"):
        assert second[unchanged] == first[unchanged]
    assert not leader.has_said("lost")


def test_acquire_from_no_object(api: LocalApi, name: str, candidates: Candidates) -> None:
    """Another may have been deleted under a leader: it is made at once, and led by after a lease duration."""
    candidate = candidates.start(api, name, f"{name}-a")
    following = candidate.until("following", holder="")
    assert candidate.until("leading", epoch=0)["at"] - following["at"] >= LEASE_SECONDS


def test_expires_after_kill_9(api: LocalApi, name: str, candidates: Candidates) -> None:
    """Taken over at the lease's end, by all that a follower can know of it, and not before."""
    free_lease(api, name)
    leader, [other] = candidates.leader_of(*(candidates.start(api, name, f"{name}-{i}") for i in "ab"))
    other.until("following", holder=leader.identity)
    time.sleep(1.3)
    leader.send(signal.SIGKILL)
    killed = boottime()
    leads = other.until("leading", epoch=spec(api, name)["leaseTransitions"] + 1)
    took = leads["at"] - killed
    assert LEASE_SECONDS - SCALED[2] - 0.2 < took
    assert took < LEASE_SECONDS + 2  # the machine may be busy; the benchmark has the figures


def test_vacates_on_sigterm_after_the_work_is_done(api: LocalApi, name: str, candidates: Candidates) -> None:
    """controller-runtime: should only cancel the leader election after all runnables are done."""
    free_lease(api, name)
    drain = LEASE_SECONDS + 2  # longer than a lease: it must be renewed meanwhile
    pair = [candidates.start(api, name, f"{name}-{i}", "--drain", str(drain)) for i in "ab"]
    leader, [other] = candidates.leader_of(*pair)
    other.until("following", holder=leader.identity)
    leader.send(signal.SIGTERM)
    assert leader.ended() == 0
    drained, released = leader.until("drained"), leader.until("released")
    assert drained["valid"]
    assert drained["at"] - leader.until("draining")["at"] >= drain
    leads = other.until("leading")
    assert leads["at"] > drained["at"]
    assert leads["at"] - released["at"] < 1
    assert leads["epoch"] == leader.until("leading")["epoch"] + 1


def test_a_second_signal_ends_at_once_and_releases_nothing(api: LocalApi, name: str, candidates: Candidates) -> None:
    free_lease(api, name)
    leader = candidates.start(api, name, f"{name}-a", "--drain", "60")
    leader.until("leading")
    leader.send(signal.SIGTERM)
    leader.until("draining")
    leader.send(signal.SIGTERM)
    assert leader.ended(5) == -signal.SIGTERM
    assert spec(api, name)["holderIdentity"] == leader.identity


def test_should_prevent_leader_election_when_shutting_down_a_non_elected_manager(
    api: LocalApi, name: str, candidates: Candidates
) -> None:
    free_lease(api, name)
    leader = candidates.start(api, name, f"{name}-a")
    leader.until("leading")
    other = candidates.start(api, name, f"{name}-b")
    other.until("following", holder=leader.identity)
    other.send(signal.SIGTERM)
    assert other.ended(10) == 0
    other.until("not elected")
    assert lease_writes(api, name, other.identity) == []


def test_a_stopped_leader_dies_when_it_goes_on(api: LocalApi, name: str, candidates: Candidates) -> None:
    """kubert: vacate_expired_noop. SIGSTOP past the lease, another leads, SIGCONT: nothing of the first is heard."""
    free_lease(api, name)
    leader, [other] = candidates.leader_of(*(candidates.start(api, name, f"{name}-{i}") for i in "ab"))
    other.until("following", holder=leader.identity)
    leader.send(signal.SIGSTOP)
    other.until("leading")
    before, writes = len(leader.said), len(lease_writes(api, name, leader.identity))
    leader.send(signal.SIGCONT)
    assert leader.ended(10) == -signal.SIGALRM
    assert len(leader.said) == before
    time.sleep(0.5)
    assert len(lease_writes(api, name, leader.identity)) == writes
    assert spec(api, name)["holderIdentity"] == other.identity


def test_a_lease_deleted_under_its_leader_is_put_back(api: LocalApi, name: str, candidates: Candidates) -> None:
    free_lease(api, name)
    leader, [other] = candidates.leader_of(*(candidates.start(api, name, f"{name}-{i}") for i in "ab"))
    other.until("following", holder=leader.identity)
    for _ in range(3):
        api.request("DELETE", f"{LEASES}/{name}")
        wait_for(lambda: _there(api, name), 10, lambda: "the Lease stayed away")
        assert spec(api, name)["holderIdentity"] == leader.identity
    time.sleep(LEASE_SECONDS)
    assert not leader.has_said("lost")
    assert not other.has_said("leading")


def _there(api: LocalApi, name: str) -> bool:
    return any(each["metadata"]["name"] == name for each in api.request("GET", LEASES)["items"])


@pytest.mark.parametrize("holder", ["", "somebody-else"])
def test_should_disable_graceful_shutdown_when_stopping_to_lead(
    api: LocalApi, name: str, candidates: Candidates, holder: str
) -> None:
    """The holder edited by hand: the work is cancelled, not drained, and the status says so."""
    free_lease(api, name)
    leader = candidates.start(api, name, f"{name}-a", "--drain", "60")
    leader.until("leading")
    edit(api, name, holderIdentity=holder)
    edited = boottime()
    assert leader.ended(20) == 1
    assert leader.until("lost", reason="OTHER_HOLDER")["at"] - edited < 1.5
    assert not leader.has_said("draining")
    assert spec(api, name)["holderIdentity"] == holder


def test_fields_edited_by_hand_are_written_over(api: LocalApi, name: str, candidates: Candidates) -> None:
    free_lease(api, name)
    leader = candidates.start(api, name, f"{name}-a")
    leader.until("leading")
    edit(api, name, leaseDurationSeconds=600, renewTime="2001-01-01T00:00:00.000000Z")
    time.sleep(2)
    assert spec(api, name)["leaseDurationSeconds"] == int(LEASE_SECONDS)
    assert not leader.has_said("lost")


def test_a_foreign_record_is_respected_for_its_own_duration(api: LocalApi, name: str, candidates: Candidates) -> None:
    free_lease(api, name)
    edit(api, name, holderIdentity="foreign", leaseDurationSeconds=7)
    candidate = candidates.start(api, name, f"{name}-a")
    following = candidate.until("following", holder="foreign")
    assert candidate.until("leading")["at"] - following["at"] >= 7


def test_a_server_that_restarts_costs_no_lead(own_api: LocalApi, name: str, candidates: Candidates) -> None:
    """Connections reset and refused, watches broken: all within the renew deadline."""
    free_lease(own_api, name)
    times = (40.0, 30.0, 1.0)
    pair = [candidates.start(own_api, name, f"{name}-{i}", times=times) for i in "ab"]
    leader, [other] = candidates.leader_of(*pair)
    other.until("following", holder=leader.identity)
    own_api.kill_server()
    own_api.start_server()
    before = spec(own_api, name)["renewTime"]
    wait_for(lambda: spec(own_api, name)["renewTime"] > before, 30, lambda: "no renewal after the restart")
    leader.send(signal.SIGTERM)
    assert leader.ended() == 0
    assert other.until("leading")["at"] - leader.until("released")["at"] < 3  # its watch is open again, or it polls


@pytest.mark.long
@pytest.mark.parametrize(("seconds", "survives"), [(5, True), (12, False), (20, False)])
def test_an_api_server_that_stops_answering(
    own_api: LocalApi, name: str, candidates: Candidates, seconds: float, survives: bool
) -> None:
    """With 15/10/2: five seconds cost nothing; more than the deadline costs the lead, and never two lead."""
    free_lease(own_api, name)
    pair = [candidates.start(own_api, name, f"{name}-{i}", times=(15.0, 10.0, 2.0)) for i in "ab"]
    leader, [other] = candidates.leader_of(*pair)
    other.until("following", holder=leader.identity)
    own_api.stop_answering()
    time.sleep(seconds)
    own_api.answer_again()
    if survives:
        time.sleep(17)
        assert not leader.has_said("lost")
        assert not other.has_said("leading")
        return
    assert leader.ended(20) == 1
    lost = leader.until("lost", reason="RENEW_DEADLINE")
    leads = other.until("leading")
    assert leads["at"] - lost["at"] > 4
