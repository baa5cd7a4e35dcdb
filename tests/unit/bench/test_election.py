"""The benchmarks' own arithmetic, and that a candidate which cannot run is told of at once."""

from __future__ import annotations

import datetime
import signal
import sys
import time
from typing import Any

import pytest

from lab.bench import beside_figures, beside_peers, summarise
from lab.benches.election import PLAN_SECONDS, Candidate, lease_end, pairs
from lab.benches.peers import Kind
from tandem.runtime.clock import boottime

SLOW = Kind(("slow",), renewal_seconds=10, after_kill=19, after_release=19)
QUICK = Kind(("quick",), renewal_seconds=2, after_kill=14, after_release=0)


@pytest.mark.parametrize(
    ("kind", "signum", "runs", "expected"),
    [
        (QUICK, signal.SIGKILL, 50, 7),
        (QUICK, signal.SIGTERM, 50, 3),
        (SLOW, signal.SIGTERM, 50, 10),
        (SLOW, signal.SIGKILL, 1, 1),
    ],
)
def test_as_many_pairs_as_the_time_asks_for(kind: Kind, signum: signal.Signals, runs: int, expected: int) -> None:
    assert pairs(kind, signum, runs) == expected
    assert runs / expected * kind.handover_seconds(signum) <= PLAN_SECONDS


class LeaseOnly:
    """The one answer that the reckoning needs of an API server."""

    def __init__(self, age: float) -> None:
        renewed = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
        self.spec = {"renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "leaseDurationSeconds": 15}

    def request(self, verb: str, path: str) -> dict[str, Any]:
        assert (verb, path.rpartition("/")[2]) == ("GET", "it")
        return {"spec": self.spec}


def test_the_end_of_a_lease_is_told_by_the_clock_that_candidates_read() -> None:
    found = lease_end(LeaseOnly(age=4.0), "it")  # type: ignore[arg-type]
    assert found - boottime() == pytest.approx(11.0, abs=0.5)


def test_a_candidate_that_ends_is_not_waited_for_and_its_complaint_is_told() -> None:
    candidate = Candidate([sys.executable, "-c", "raise SystemExit('no such Lease')"])
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"status 1\) never said leading.*no such Lease"):
        candidate.until("leading")
    assert time.monotonic() - started < 30


def test_what_was_said_before_the_end_counts() -> None:
    candidate = Candidate([sys.executable, "-c", """print('{"at": 7.5, "event": "leading"}')"""])
    assert candidate.until("leading") == 7.5


def test_a_result_has_ours_first_and_all_else_of_the_run_as_peers() -> None:
    result = beside_peers("b", {"tandem": [2.0, 1.0, 4.0], "other": [9.0]})
    assert (result.median, result.p95, result.max, result.samples) == (2.0, 4.0, 4.0, [2.0, 1.0, 4.0])
    assert result.peers == {"other": {"samples": [9.0], "median": 9.0, "p95": 9.0, "max": 9.0}}


def test_figures_become_peers_by_kind_and_figure() -> None:
    found = {"wall": {"tandem": [3.0], "kopf": [5.0]}, "cpu": {"tandem": [1.0]}, "memory": {"tandem": [70.0]}}
    result = beside_figures("b", "wall", found, leave_out=("memory",))
    assert result.samples == [3.0]
    assert set(result.peers) == {"kopf: wall", "tandem: cpu"}


def test_no_sample_is_no_result() -> None:
    with pytest.raises(ValueError, match="no sample"):
        summarise("b", [])
