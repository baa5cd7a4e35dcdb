# ruff: noqa: E501
"""Wrong versions of the election, each by one small change that somebody might well make.

A mutant is text to be replaced in one file. `test_mutants.py` runs the tests of the election on a copy of the package
with that change, and demands that they fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CORE: Final = "tandem/runtime/_election/core.py"
ELECTOR: Final = "tandem/runtime/elector.py"
RECORD: Final = "tandem/runtime/_election/record.py"
GUARD: Final = "tandem/runtime/_election/guard.py"
SHUTDOWN: Final = "tandem/runtime/shutdown.py"
CLOCK: Final = "tandem/runtime/clock.py"

MODEL: Final = "tests/model/test_election_model.py"
UNIT: Final = "tests/unit/runtime/test_elector_core.py"
SHELL: Final = "tests/unit/runtime/test_elector.py"
KERNEL: Final = "tests/unit/runtime/test_guard.py"
SIGNALS: Final = "tests/unit/runtime/test_shutdown.py"


@dataclass(frozen=True)
class Mutant:
    """One wrong version.

    Attributes:
        name: What is wrong with it.
        path: The file that is changed.
        old: Text that stands there exactly once.
        new: What replaces it.
        killers: The tests that must notice.
    """

    name: str
    path: str
    old: str
    new: str
    killers: str = MODEL


MUTANTS: Final = (
    Mutant(
        "the lease is counted from the end of the request",
        CORE,
        "    observed.renewed_at = started\n",
        "    observed.renewed_at = now\n",
    ),
    Mutant(
        "the fence stays open until the lease ends",
        CORE,
        "    return observed.renewed_at + observed.settings.renew_deadline",
        "    return observed.renewed_at + observed.settings.lease_duration",
    ),
    Mutant(
        "the fence asks only whether we lead, not the clock",
        CORE,
        "    return observed.phase is Phase.LEADING and now < fence_until(observed)",
        "    return observed.phase is Phase.LEADING",
    ),
    Mutant(
        "the fence asks only the clock, not whether we lead",
        CORE,
        "    return observed.phase is Phase.LEADING and now < fence_until(observed)",
        "    return observed.renewed_at > 0 and now < fence_until(observed)",
    ),
    Mutant(
        "work is drained after a loss as after SIGTERM",
        CORE,
        "        return valid_until(observed) - observed.settings.cancel_margin\n    return 0.0",
        "        return valid_until(observed) + 30\n    return 0.0",
        UNIT,
    ),
    Mutant(
        "the guard rings after the lease's end",
        CORE,
        "    return valid_until(observed) - observed.settings.cancel_margin / 2",
        "    return valid_until(observed) + observed.settings.cancel_margin",
    ),
    Mutant(
        "expiry by the candidate's own duration instead of the record's",
        CORE,
        "    return record.duration or float(settings.lease_duration)",
        "    return float(settings.lease_duration)",
    ),
    Mutant(
        "a follower claims a little before the lease ends",
        CORE,
        "    free_at = observed.seen_at + observed.stands\n",
        "    free_at = observed.seen_at + 0.97 * observed.stands - 0.3\n",
        UNIT,
    ),
    Mutant(
        "the count to expiry is not begun anew by a renewal",
        CORE,
        "    observed.seen_at = now\n    observed.stands = _stands(before, record, settings)\n",
        "    observed.seen_at = observed.seen_at or now\n    observed.stands = _stands(before, record, settings)\n",
    ),
    Mutant(
        "any news counts as a renewal, so that labels keep a dead leader alive",
        RECORD,
        "        return self[:5] == other[:5] and self.uid == other.uid",
        "        return False",
        UNIT,
    ),
    Mutant(
        "no read after a conflict",
        CORE,
        "        observed.reread = True\n        observed.conflicted",
        "        observed.conflicted",
        UNIT,
    ),
    Mutant(
        "a Lease that is not there counts as free",
        CORE,
        "        elif now < observed.proven_at:\n",
        "        elif False:\n",
    ),
    Mutant(
        "a Lease that was made and never proven is released",
        CORE,
        "    if now < observed.proven_at:\n        # Made by us",
        "    if False:\n        # Made by us",
        UNIT,
    ),
    Mutant(
        "old news is believed",
        CORE,
        "    if observed.known and version and version <= observed.version:\n        return\n",
        "",
        UNIT,
    ),
    Mutant(
        "a new claim keeps the epoch",
        CORE,
        "seconds, next_epoch(observed.last_transitions))",
        "seconds, max(0, observed.last_transitions))",
    ),
    Mutant(
        "who follows begins to lead while shutting down",
        CORE,
        "        elif not observed.shutting_down:\n            observed.phase = Phase.LEADING",
        "        else:\n            observed.phase = Phase.LEADING",
        UNIT,
    ),
    Mutant(
        "shutdown stops the renewals while work is in flight",
        CORE,
        "def _lead(observed: Observed, now: float) -> Action:\n    closes = fence_until(observed)\n",
        "def _lead(observed: Observed, now: float) -> Action:\n    closes = fence_until(observed)\n"
        "    if observed.shutting_down:\n        return Wait(closes)\n",
        UNIT,
    ),
    Mutant(
        "shutdown releases while work is in flight",
        CORE,
        "    observed.shutting_down = True\n    if",
        "    observed.shutting_down = True\n    work_ended(observed, now)\n    if",
    ),
    Mutant(
        "nothing is released",
        CORE,
        "    if record is None or record.holder != observed.settings.identity:\n        return Finish()\n    if now",
        "    return Finish()\n    if now",
        UNIT,
    ),
    Mutant(
        "another holder is overwritten by the release",
        CORE,
        "    if record is None or record.holder != observed.settings.identity:\n        return Finish()\n    if now",
        "    if record is None:\n        return Finish()\n    if now",
        UNIT,
    ),
    Mutant(
        "a claim of unknown outcome is left behind by a shutdown",
        CORE,
        "            observed.unsure = True\n        _back_off",
        "            pass\n        _back_off",
        UNIT,
    ),
    Mutant(
        "another holder in the Lease is not looked at",
        CORE,
        "    if record.holder != observed.settings.identity:\n        lose(observed, Loss.OTHER_HOLDER)\n    elif",
        "    if",
        UNIT,
    ),
    Mutant(
        "a Lease made anew by somebody else is taken for our own",
        CORE,
        "    elif record.uid != observed.uid and not observed.recreating:",
        "    elif False:",
        UNIT,
    ),
    Mutant(
        "work may finish although another leads",
        CORE,
        "        return self is Loss.RENEW_DEADLINE",
        "        return True",
        UNIT,
    ),
    Mutant(
        "a released Lease is taken only after it would have expired",
        CORE,
        "    if not record.holder:\n        return 0.0\n",
        "",
        UNIT,
    ),
    Mutant(
        "a follower relies on its watch and never polls",
        CORE,
        "    if now >= poll_at:\n        return Send(Verb.READ, seconds)\n    return Wait(min(free_at, poll_at))",
        "    return Wait(free_at)",
        UNIT,
    ),
    Mutant(
        "requests are not bounded by the renew deadline",
        CORE,
        "    seconds = min(observed.settings.request_timeout, closes - now)",
        "    seconds = observed.settings.request_timeout * 10",
        UNIT,
    ),
    Mutant(
        "a lease is believed without a resourceVersion",
        RECORD,
        '    lease["metadata"].pop("managedFields", None)',
        '    lease["metadata"].pop("managedFields", None)\n    lease["metadata"].pop("resourceVersion", None)',
        UNIT,
    ),
    Mutant(
        "a connection error ends the election and leaves the work running",
        ELECTOR,
        "        except Exception as error:  # noqa: BLE001 - whatever a transport raises, the lead does not hang on it\n",
        "        except TimeoutError as error:\n",
        SHELL,
    ),
    Mutant(
        "requests are not bounded in time",
        ELECTOR,
        "            async with asyncio.timeout(request.seconds) as self._request:",
        "            async with asyncio.timeout(None) as self._request:",
        SHELL,
    ),
    Mutant(
        "the guard is not armed anew by renewals",
        ELECTOR,
        "            if self._guard is not None:\n                self._guard.arm(self, core.guard_at(observed))\n"
        "            if before",
        "            if self._guard is not None and before is not Phase.LEADING:\n"
        "                self._guard.arm(self, core.guard_at(observed))\n            if before",
        SHELL,
    ),
    Mutant(
        "the body is not cancelled after a loss",
        ELECTOR,
        "                    await self._closing.wait()\n            self._end_body()",
        "                    await self._closing.wait()",
        SHELL,
    ),
    Mutant(
        "the Lease is released before the body has ended",
        ELECTOR,
        "            self._drain_expired = True\n            self._end_body()",
        "            self._drain_expired = True\n            core.work_ended(self._observed, self._clock())\n"
        "            self._end_body()",
        SHELL,
    ),
    Mutant(
        "the clock is the wall clock",
        CLOCK,
        "    return time.clock_gettime(_CLOCK_ID)",
        "    return time.time()",
        SHELL,
    ),
    Mutant(
        "the guard is a handler of the interpreter",
        GUARD,
        "    signal.signal(signum, signal.SIG_DFL)\n",
        "    signal.signal(signum, lambda *_: os._exit(142))\n",
        KERNEL,
    ),
    Mutant(
        "the second signal is the interpreter's to handle",
        SHUTDOWN,
        "            kernel_ends_process_on(each)",
        "            signal.signal(each, lambda *_: os._exit(1))",
        SIGNALS,
    ),
)
