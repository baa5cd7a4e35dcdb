"""The last guard: a kernel timer that ends the process when its lease is about to run out.

Cancelling a task needs a running event loop, and a watchdog thread needs the interpreter's lock; work that holds
either would outlive its lease. `setitimer(ITIMER_REAL)` with SIGALRM's default action needs neither: the kernel ends
the process. A process that was stopped (SIGSTOP, a frozen cgroup) finds the signal pending when it goes on, and dies
before it executes another instruction of ours.

As PID 1 of a container a process never dies of a signal's default action, not even of the kernel's own timers. There
the C library's `_exit` is installed as the handler, by way of ctypes: no Python code and no lock is involved either,
and the exit status is the signal's number, 14.

The timer counts CLOCK_MONOTONIC, which stands still while a machine is suspended; the fence's own clock does not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from typing import Protocol

from tandem.runtime.clock import Clock, boottime

_SHORTEST = 1e-4  # setitimer takes 0 for "switch off"


class GuardError(RuntimeError):
    """The guard cannot work in this process; says why."""


class Guard(Protocol):
    """Ends the process unless it is told in time to wait longer."""

    def prepare(self) -> None:
        """Be ready to be armed, or raise `GuardError`."""
        ...

    def arm(self, owner: object, deadline: float) -> None:
        """End the process at `deadline` (of the guard's clock) unless `owner` moves it or disarms."""
        ...

    def disarm(self, owner: object) -> None:
        """The owner has nothing in flight any more."""
        ...


class ProcessGuard:
    """The process's only ITIMER_REAL, shared by its electors: the earliest deadline counts."""

    def __init__(self, clock: Clock = boottime) -> None:
        self._clock = clock
        self._deadlines: dict[int, float] = {}
        self._ready = False

    def prepare(self) -> None:
        """Check that SIGALRM and the timer are free, and set the action.

        Raises:
            GuardError: Not called from the main thread, or somebody else uses SIGALRM or the timer.
        """
        if self._ready:
            return
        if threading.current_thread() is not threading.main_thread():
            raise GuardError("the first elector must be entered in the main thread: only there signals can be set")
        if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            raise GuardError("SIGALRM has a handler: the guard needs its default action. Remove the handler")
        if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            raise GuardError("ITIMER_REAL runs already (signal.alarm or setitimer): the guard needs it for itself")
        kernel_ends_process_on(signal.SIGALRM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._ready = True

    def arm(self, owner: object, deadline: float) -> None:
        """Move the owner's deadline."""
        self._deadlines[id(owner)] = deadline
        self._set()

    def disarm(self, owner: object) -> None:
        """Forget the owner's deadline."""
        if self._deadlines.pop(id(owner), None) is not None:
            self._set()

    def _set(self) -> None:
        seconds = 0.0
        if self._deadlines:
            seconds = max(_SHORTEST, min(self._deadlines.values()) - self._clock())
        signal.setitimer(signal.ITIMER_REAL, seconds)


process_guard = ProcessGuard()


def kernel_ends_process_on(signum: signal.Signals) -> None:
    """From now on this signal ends the process at once, whatever the interpreter is doing. Main thread only.

    By the signal's default action, or as PID 1, for which the kernel ignores those, by the C library's `_exit`.
    """
    signal.signal(signum, signal.SIG_DFL)
    if os.getpid() == 1:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        libc.signal.restype = ctypes.c_void_p
        libc.signal(int(signum), ctypes.cast(libc._exit, ctypes.c_void_p))
