"""The kernel's timer, in real processes: what holds the interpreter, what is stopped, what is PID 1."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tandem.runtime import Elector, ElectorSettings, GuardError, ProcessGuard, boottime
from tandem.runtime.testing.leases import FakeLease, Fault
from tests.unit.runtime.children import Child, fork, hold_the_interpreter

STOPS = 200
AT_ONCE = 20
Say = Callable[[object], None]


def test_ends_a_process_that_holds_the_interpreter() -> None:
    def work(say: Say) -> None:
        guard = ProcessGuard()
        guard.prepare()
        guard.arm(guard, boottime() + 0.3)
        hold_the_interpreter(20)
        say("survived")

    before = time.monotonic()
    child = fork(work)
    assert child.wait() == -signal.SIGALRM
    assert child.rest() == ""
    assert time.monotonic() - before < 15


def test_waits_while_it_is_told_to_and_for_the_earliest_of_several() -> None:
    def work(say: Say) -> None:
        guard = ProcessGuard()
        guard.prepare()
        first, second = object(), object()
        for _ in range(10):
            guard.arm(first, boottime() + 5)
            guard.arm(second, boottime() + 2)
            time.sleep(0.05)
        guard.disarm(second)
        say(round(signal.getitimer(signal.ITIMER_REAL)[0]))
        guard.disarm(first)
        say(signal.getitimer(signal.ITIMER_REAL)[0])
        guard.arm(first, boottime() + 60)
        guard.arm(second, boottime() - 1)  # past: at once
        hold_the_interpreter(20)

    child = fork(work)
    assert child.wait() == -signal.SIGALRM
    assert child.rest().split() == ["5", "0.0"]


def in_flight(valid_for: float, *, guarded: bool) -> Callable[[Say], None]:
    """Work that neither asks the fence nor lets anybody cancel it: writes until it is ended."""

    def work(say: Say) -> None:
        valid_until = boottime() + valid_for
        guard = ProcessGuard()
        guard.prepare()
        if guarded:
            guard.arm(guard, valid_until - 0.1)
        say(valid_until)
        while boottime() < valid_until + 5:
            say(boottime())
            time.sleep(0.002)

    return work


def stop_around(child: Child, valid_until: float, rng: random.Random) -> None:
    time.sleep(max(0.0, valid_until - boottime() - 0.3 * rng.random()))
    child.send(signal.SIGSTOP)
    time.sleep(0.05 + 0.4 * rng.random())
    child.send(signal.SIGCONT)


def late_writes(child: Child, valid_until: float) -> int:
    return sum(float(text) >= valid_until for text in child.rest().split())


def test_no_write_after_the_lease_in_200_stops_around_its_end() -> None:
    """As after SIGSTOP and SIGCONT, a frozen cgroup, a paused machine: the lease ends while nothing of it runs."""
    rng = random.Random(5)
    late = 0
    for _ in range(STOPS // AT_ONCE):
        children = [
            (child, float(child.line())) for child in [fork(in_flight(0.6, guarded=True)) for _ in range(AT_ONCE)]
        ]
        order = sorted(((until - 0.3 * rng.random(), child) for child, until in children), key=lambda each: each[0])
        for at, child in order:
            time.sleep(max(0.0, at - boottime()))
            child.send(signal.SIGSTOP)
        time.sleep(0.4 * rng.random())
        for _, child in order:
            child.send(signal.SIGCONT)
        for child, until in children:
            assert child.wait() == -signal.SIGALRM
            late += late_writes(child, until)
    assert late == 0


def test_without_the_guard_the_same_stop_is_followed_by_writes() -> None:
    """The test above can fail."""
    child = fork(in_flight(0.3, guarded=False))
    until = float(child.line())
    stop_around(child, until, random.Random(1))
    time.sleep(0.5)
    child.send(signal.SIGKILL)
    child.wait()
    assert late_writes(child, until) > 0


def test_ends_an_elector_whose_body_holds_the_interpreter() -> None:
    """All together: no renewal gets through, the loop cannot run, the lease runs out; the process ends before it."""

    def work(say: Say) -> None:
        settings = ElectorSettings(
            lease_name="l",
            namespace="n",
            lease_duration=2,
            renew_deadline=1.2,
            retry_period=0.4,
            request_timeout=0.5,
            cancel_margin=0.5,
        )
        lease = FakeLease({"metadata": {"name": "l"}, "spec": {}})

        async def main() -> None:
            store = lease.store()
            async with Elector(store, settings) as leadership:
                await asyncio.sleep(1.5)  # renewed a few times
                say(leadership.valid_until)
                store.faults.append(Fault("reset", times=None))
                hold_the_interpreter(20)
                say("survived")

        asyncio.run(main())

    child = fork(work)
    valid_until = float(child.line())
    assert child.wait() == -signal.SIGALRM
    ended = boottime()
    assert child.rest() == ""
    assert ended < valid_until + 5  # the kernel was on time; how soon we heard of it is the machine's load


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda: signal.signal(signal.SIGALRM, lambda *_: None), "has a handler"),
        (lambda: signal.setitimer(signal.ITIMER_REAL, 60), "runs already"),
    ],
)
def test_refuses_to_share_the_signal_or_the_timer(spoil: Callable[[], object], says: str) -> None:
    def work(say: Say) -> None:
        spoil()
        with pytest.raises(GuardError, match=says):
            ProcessGuard().prepare()

    child = fork(work)
    assert (child.wait(), child.rest()) == (0, "")


PID_1 = """
import ctypes, os, signal, sys
sys.path.insert(0, {path!r})
assert os.getpid() == 1
from tandem.runtime._election.guard import ProcessGuard
from tandem.runtime.clock import boottime
if {guarded}:
    guard = ProcessGuard()
    guard.prepare()
    guard.arm(guard, boottime() + 0.3)
else:
    signal.setitimer(signal.ITIMER_REAL, 0.3)
ctypes.PyDLL(None).usleep(1500000)
print("survived", flush=True)
"""


@pytest.mark.parametrize("guarded", [True, False], ids=["guard", "default action"])
def test_ends_pid_1_which_ignores_default_actions(guarded: bool) -> None:
    """A container's first process: the kernel keeps the default action of a signal from it, the guard does not."""
    unshare = shutil.which("unshare")
    flags = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if unshare is None or subprocess.run([unshare, *flags, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no PID namespace of our own to be had here")
    script = PID_1.format(path=sys.path[0] or ".", guarded=guarded)
    child = subprocess.run(
        [unshare, *flags, sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120
    )
    if guarded:
        assert (child.returncode, child.stdout) == (14, ""), child.stderr
    else:
        assert (child.returncode, child.stdout) == (0, "survived\n"), child.stderr
