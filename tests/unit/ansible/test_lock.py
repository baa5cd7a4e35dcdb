"""The lock against a second run: refused while its owner lives, free the moment it does not."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils import tandem_lock as lock
from plugins.module_utils.tandem_kube import KubeError, StrangerError

OURS, THEIRS = "us", "them"
ROOT = Path(__file__).resolve().parents[3]


class Cluster:
    """One Lease, with the API's optimistic locking. `before_write` runs between a reader's look and its write."""

    def __init__(self, lease: dict[str, Any] | None = None) -> None:
        self.lease = lease
        self.version = 1
        self.down = 0
        self.before_write: Any = None

    def find(self, _path: str) -> dict[str, Any] | None:
        self._up()
        if self.lease is None:
            return None
        found = copy.deepcopy(self.lease)
        found["metadata"]["resourceVersion"] = str(self.version)
        return found

    def request(self, method: str, _path: str, body: Any = None, headers: Any = None) -> dict[str, Any]:
        self._up()
        if self.before_write:
            self.before_write, action = None, self.before_write
            action()
        conflict = (
            self.lease is not None if method == "POST" else body["metadata"]["resourceVersion"] != str(self.version)
        )
        if conflict:
            raise KubeError("409 conflict", 409)
        self.lease, self.version = copy.deepcopy(body), self.version + 1
        return {}

    def _up(self) -> None:
        if self.down > 0:
            self.down -= 1
            raise KubeError("does not answer")


class Time:
    """A clock that moves only when somebody sleeps; `each_second` is what else happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.each_second: Callable[[], object] = int
        self.clock = lock.Clock(lambda: self.now, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.each_second()


def held(by: str, at: float = 1000.0) -> dict[str, Any]:
    spec = {
        "holderIdentity": by,
        "leaseDurationSeconds": 30,
        "renewTime": lock.stamp(at),
        "acquireTime": lock.stamp(at),
    }
    return {"metadata": {"name": lock.NAME}, "spec": spec}


def spec(cluster: Cluster) -> dict[str, Any]:
    assert cluster.lease is not None
    found: dict[str, Any] = cluster.lease["spec"]
    return found


@pytest.mark.parametrize("before", [None, held(""), held(OURS), held(THEIRS, at=-10_000)], ids=str)
def test_a_free_lock_is_taken_at_once(before: dict[str, Any] | None) -> None:
    cluster, moment = Cluster(before), Time()
    lock.acquire(cluster, OURS, moment.clock)
    assert spec(cluster)["holderIdentity"] == OURS
    assert moment.now == 1000


def test_a_living_holder_refuses_us_and_is_named() -> None:
    cluster, moment = Cluster(held(THEIRS)), Time()

    def renews() -> None:
        if moment.now >= 1005:
            lock.renew(cluster, THEIRS, moment.clock)

    moment.each_second = renews
    with pytest.raises(lock.LockError, match=r"them since .* nothing has been changed; way out: wait"):
        lock.acquire(cluster, OURS, moment.clock)
    assert spec(cluster)["holderIdentity"] == THEIRS
    assert moment.now <= 1007


def test_a_holder_whose_control_node_died_is_waited_out() -> None:
    cluster, moment = Cluster(held(THEIRS)), Time()
    lock.acquire(cluster, OURS, moment.clock)
    assert spec(cluster)["holderIdentity"] == OURS
    assert 30 <= moment.now - 1000 <= 31


def test_a_holder_that_gives_it_back_while_we_look_lets_us_in() -> None:
    cluster, moment = Cluster(held(THEIRS)), Time()

    def gives_back() -> None:
        lock.release(cluster, THEIRS)

    moment.each_second = gives_back
    lock.acquire(cluster, OURS, moment.clock)
    assert spec(cluster)["holderIdentity"] == OURS


def test_one_that_takes_it_before_us_and_is_gone_is_waited_out_too() -> None:
    """A task of a killed run waits for the lock as we do, gets it, and nobody renews it."""
    cluster, moment = Cluster(held("killed")), Time()

    def is_taken() -> None:
        if moment.now == 1005:
            cluster.lease, cluster.version = held(THEIRS, at=1005), cluster.version + 1

    moment.each_second = is_taken
    lock.acquire(cluster, OURS, moment.clock)
    assert spec(cluster)["holderIdentity"] == OURS
    assert 35 <= moment.now - 1000 <= 36


def test_one_that_takes_it_before_us_and_lives_refuses_us() -> None:
    cluster, moment = Cluster(held("killed")), Time()

    def is_taken() -> None:
        if moment.now == 1005:
            cluster.lease, cluster.version = held(THEIRS, at=1005), cluster.version + 1
        if moment.now == 1010:
            lock.renew(cluster, THEIRS, moment.clock)

    moment.each_second = is_taken
    with pytest.raises(lock.LockError, match=THEIRS):
        lock.acquire(cluster, OURS, moment.clock)
    assert moment.now == 1010


@pytest.mark.parametrize("before", [None, held("")], ids=["none", "free"])
def test_of_two_that_take_it_at_once_one_wins(before: dict[str, Any] | None) -> None:
    cluster, moment = Cluster(before), Time()
    cluster.before_write = lambda: lock.acquire(cluster, THEIRS, moment.clock)
    with pytest.raises(lock.LockError, match="them"):
        lock.acquire(cluster, OURS, moment.clock)
    assert spec(cluster)["holderIdentity"] == THEIRS


def test_confirmation() -> None:
    lock.confirm(Cluster(held(OURS)), OURS)
    for cluster in (Cluster(held(THEIRS)), Cluster(None), Cluster(held(""))):
        with pytest.raises(lock.LockError, match="run again, it resumes"):
            lock.confirm(cluster, OURS)


def test_the_keeper_renews_and_gives_back_when_its_owner_ends() -> None:
    cluster, moment = Cluster(held(OURS)), Time()
    renewals = []

    def owner_ended(seconds: float) -> bool:
        moment.sleep(seconds)
        renewals.append(spec(cluster)["renewTime"])
        return len(renewals) > 3

    lock.keep(cluster, OURS, owner_ended, moment.clock)
    assert len(set(renewals)) == 4
    assert spec(cluster)["holderIdentity"] == ""


def test_the_keeper_outlasts_a_restart_of_the_api_server() -> None:
    cluster, moment = Cluster(held(OURS)), Time()
    looks = iter([False, False, True])
    cluster.down = 7

    def owner_ended(seconds: float) -> bool:
        moment.sleep(seconds)
        return next(looks)

    lock.keep(cluster, OURS, owner_ended, moment.clock)
    assert spec(cluster)["holderIdentity"] == ""


def test_the_keeper_leaves_a_lock_that_was_taken_over_alone() -> None:
    cluster, moment = Cluster(held(THEIRS)), Time()
    lock.keep(cluster, OURS, lambda seconds: False, moment.clock)
    assert spec(cluster)["holderIdentity"] == THEIRS
    lock.keep(cluster, OURS, lambda seconds: True, moment.clock)
    assert spec(cluster)["holderIdentity"] == THEIRS


def test_the_end_of_a_killed_process_is_seen_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        ended = lock.watcher(process.pid)
        assert not ended(0.05)
        process.kill()
        begun = time.monotonic()
        assert ended(10)
        assert time.monotonic() - begun < 5
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (KubeError("does not answer"), True),
        (KubeError("too many", 429), True),
        (KubeError("starting", 503), True),
        (KubeError("conflict", 409), False),
        (StrangerError("another cluster's certificate"), False),
    ],
)
def test_who_is_asked_again(error: KubeError, away: bool) -> None:
    assert error.away == away


def test_a_keeper_without_an_owner_does_not_start() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(lock.LockError, match="did not start"):
        lock.start_keeper("nowhere", OURS, process.pid)


def test_a_lock_that_nobody_would_keep_is_given_back() -> None:
    process, cluster = subprocess.Popen([sys.executable, "-c", ""]), Cluster()
    process.wait()
    with pytest.raises(lock.LockError, match="did not start"):
        lock.hold(cluster, "nowhere", process.pid)
    assert spec(cluster)["holderIdentity"] == ""


ORPHAN = """
import multiprocessing, os, sys, time
from plugins.module_utils import tandem_lock

def task(path):
    while os.getppid() == multiprocessing.parent_process().pid:
        time.sleep(0.02)
    with open(path + ".part", "w") as stream:
        stream.write(str(tandem_lock.owner()))
    os.rename(path + ".part", path)

multiprocessing.get_context("fork").Process(target=task, args=(sys.argv[1],)).start()
os._exit(0)
"""


def test_a_task_that_outlives_its_playbook_does_not_hold_the_lock_for_init(tmp_path: Path) -> None:
    path = tmp_path / "owner"
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(path)], cwd=ROOT) as playbook:
        playbook.wait(20)
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert int(path.read_text()) == playbook.pid
