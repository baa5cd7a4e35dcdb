"""Ours and client-go's contend for the same Lease under kills and releases: by the server's record, never two lead."""

from __future__ import annotations

import datetime
import itertools
import signal
import sys
from typing import Any

import pytest

from lab.benches.election import Candidate
from lab.benches.peers import build_go_peer
from tandem.runtime.testing.localapi import LocalApi
from tests.api.conftest import free_lease
from tests.api.processes import wait_for

pytestmark = [pytest.mark.api, pytest.mark.long]
LEASE_SECONDS = 15


def history(api: LocalApi, lease: str) -> list[tuple[datetime.datetime, str]]:
    """(time, holder) of each write of the Lease that the server accepted."""
    found = []
    for event in api.audit():
        reference = event.get("objectRef", {})
        if (
            reference.get("resource") == "leases"
            and reference.get("name") == lease
            and event["verb"] == "update"
            and event["responseStatus"]["code"] == 200
        ):
            at = datetime.datetime.fromisoformat(event["stageTimestamp"])
            found.append((at, event["requestObject"]["spec"].get("holderIdentity") or ""))
    return found


def judge(found: list[tuple[datetime.datetime, str]]) -> tuple[int, list[str]]:
    """How often the holder changed, and which changes came before the lease of the last holder had run out."""
    changes, wrong = 0, []
    for (before, holder), (after, successor) in itertools.pairwise(found):
        if holder and successor not in (holder, ""):
            changes += 1
            stood = (after - before).total_seconds()
            if stood < LEASE_SECONDS:
                wrong.append(f"{successor} took the Lease {stood:.1f} s after a renewal by {holder}")
    return changes, wrong


def test_ours_and_client_go_never_lead_at_once(own_api: LocalApi, name: str) -> None:
    programs: list[list[str]] = [
        [sys.executable, "-m", "bench.peers.tandem.candidate"],
        [str(build_go_peer("client-go"))],
    ]
    free_lease(own_api, name)
    running: dict[str, Candidate] = {}
    kinds = itertools.cycle(enumerate(programs))

    def start() -> None:
        number, program = next(kinds)
        identity = f"{('tandem', 'client-go')[number]}-{len(running)}-{len(ended)}"
        options = ["-kubeconfig", str(own_api.kubeconfig()), "-lease", name, "-identity", identity]
        running[identity] = Candidate([*program, *options])

    ended: list[str] = []
    led: set[str] = set()
    try:
        for _ in range(4):
            start()
        for signum in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            wait_for(lambda: _holder(own_api, name) in running, 60, lambda: "nobody leads")
            leader = _holder(own_api, name)
            running[leader].until("leading")
            led.add(leader.rsplit("-", 2)[0])
            running[leader].process.send_signal(signum)
            running.pop(leader).process.wait(20)
            ended.append(leader)
            start()
        wait_for(lambda: _holder(own_api, name) in running, 60, lambda: "nobody leads")
    finally:
        for candidate in running.values():
            candidate.end()
    changes, wrong = judge(history(own_api, name))
    assert wrong == []
    assert changes >= 2
    assert led == {"tandem", "client-go"}


def _holder(api: LocalApi, name: str) -> str:
    found: dict[str, Any] = api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}")
    return found["spec"].get("holderIdentity") or ""


def test_the_judge_can_find_fault() -> None:
    moment = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    after = [moment + datetime.timedelta(seconds=seconds) for seconds in (0, 2, 16, 18, 20)]
    found = list(zip(after, ("a", "a", "b", "", "c"), strict=True))
    assert judge(found) == (1, ["b took the Lease 14.0 s after a renewal by a"])
