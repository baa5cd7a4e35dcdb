"""Leader election over a Lease: who may work, how long, and how it ends.

    async with Shutdown() as shutdown, Elector(store, settings, shutdown=shutdown) as leadership:
        await work(leadership)  # cancelled when the lead must end; returns when `shutdown` asks

Two endings, never mixed up. *Shutdown*: the Lease is renewed until the body has returned, then released.
*Lead lost*: no new work, no write; the body is cancelled at once when somebody else may lead already, else a second
before anybody can, and `LeadershipLost` tells the caller to end with a status other than 0. This module moves bytes
and time; what is decided is decided in `_election.core`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Protocol

from tandem.runtime._election import core, record
from tandem.runtime._election.core import Loss, Observed, Outcome, Phase, Verb
from tandem.runtime._election.guard import Guard, process_guard
from tandem.runtime._election.port import LeaseError, LeaseStore
from tandem.runtime._election.settings import ElectorSettings
from tandem.runtime.clock import Clock, boottime
from tandem.runtime.fence import NotLeading
from tandem.runtime.shutdown import Shutdown

_log = logging.getLogger(__name__)
_WATCH_SECONDS = 300.0


class NotElected(Exception):  # noqa: N818 - not a fault: the process was asked to end while it followed
    """The process was asked to end before it led."""


class LeadershipLost(Exception):  # noqa: N818 - a state, named as the field names it
    """The lead ended against our will. End the process with a status other than 0; it never leads again."""

    def __init__(self, reason: Loss) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ElectionObserver(Protocol):
    """Told of what happens, for metrics, events and logs. Must return at once and raise nothing."""

    def leading(self, epoch: int) -> None:
        """We lead from now on."""
        ...

    def following(self, holder: str) -> None:
        """We wait; `holder` leads (empty: nobody)."""
        ...

    def lost(self, reason: Loss) -> None:
        """Our lead is over against our will."""
        ...

    def released(self) -> None:
        """We gave the Lease back."""
        ...

    def request(self, verb: Verb, outcome: Outcome, seconds: float) -> None:
        """A request about the Lease ended."""
        ...


class LogObserver:
    """Writes what happens to the log."""

    def __init__(self, settings: ElectorSettings) -> None:
        self._lease = f"{settings.namespace}/{settings.lease_name}"

    def leading(self, epoch: int) -> None:
        """Log it."""
        _log.info("leading: lease=%s epoch=%d", self._lease, epoch)

    def following(self, holder: str) -> None:
        """Log it."""
        _log.info("following: lease=%s holder=%s", self._lease, holder or "(nobody)")

    def lost(self, reason: Loss) -> None:
        """Log it."""
        _log.error("leadership lost: lease=%s reason=%s", self._lease, reason.value)

    def released(self) -> None:
        """Log it."""
        _log.info("released: lease=%s", self._lease)

    def request(self, verb: Verb, outcome: Outcome, seconds: float) -> None:
        """Log what went wrong."""
        if outcome is not Outcome.DONE:
            _log.warning("lease=%s %s: %s after %.2f s", self._lease, verb.value, outcome.value, seconds)


class Leadership:
    """The right to work, for as long as it lasts. A `Fence`."""

    def __init__(self, observed: Observed, clock: Clock, shutdown: Shutdown | None) -> None:
        self._observed = observed
        self._clock = clock
        self._shutdown = shutdown
        self._lost: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()
        self._scopes: set[asyncio.Timeout] = set()
        self._over = False
        self._unused = asyncio.Event()
        self._unused.set()
        self.identity = observed.settings.identity
        self.epoch = observed.epoch
        """The Lease's leaseTransitions: a later leader of the same Lease object has a higher one."""
        self.lease_uid = observed.uid

    def is_valid(self) -> bool:
        """Whether a write may be sent now. Asks the clock, so that a process that was stopped is told the truth."""
        return core.passes_fence(self._observed, self._clock())

    def remaining(self) -> float:
        """Seconds until the fence closes unless the Lease is renewed; 0 when it is closed."""
        now = self._clock()
        return core.fence_until(self._observed) - now if core.passes_fence(self._observed, now) else 0.0

    def check(self) -> float:
        """Return `remaining()`, which also bounds the write that follows.

        Raises:
            NotLeading: Nothing may be written now.
        """
        remaining = self.remaining()
        if remaining <= 0:
            reason = self._observed.reason.value if self._observed.reason else "not renewed in time, or given up"
            raise NotLeading(f"epoch {self.epoch} is over: {reason}")
        return remaining

    @property
    def may_start(self) -> bool:
        """Whether new work may be started: the lead is valid and nobody asked the process to end."""
        return self.is_valid() and not (self._shutdown is not None and self._shutdown.requested)

    @property
    def valid_until(self) -> float:
        """Until when nobody else leads, by the elector's clock; moves with each renewal."""
        return core.valid_until(self._observed)

    async def wait_lost(self) -> Loss:
        """Wait until the lead is lost; returns why. Never returns after an orderly end."""
        return await asyncio.shield(self._lost)

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[None]:
        """A block in another task that is cancelled when the lead must end; the Lease is not released before it has.

        Raises:
            LeadershipLost: At the end of a block that was cancelled, or at once when the lead is over.
        """
        if self._over:
            raise LeadershipLost(self._observed.reason or Loss.GIVEN_UP)
        ended = asyncio.timeout(None)
        self._scopes.add(ended)
        self._unused.clear()
        try:
            async with ended:
                yield
        except TimeoutError:
            if not ended.expired():
                raise
            raise LeadershipLost(self._observed.reason or Loss.GIVEN_UP) from None
        finally:
            self._scopes.discard(ended)
            if not self._scopes:
                self._unused.set()

    def _tell_lost(self, reason: Loss) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)

    async def _ended(self) -> None:
        """End the scopes and wait until nothing runs in them; the Lease is renewed meanwhile."""
        self._end_scopes()
        await self._unused.wait()

    def _end_scopes(self) -> None:
        self._over = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if scope.when() is None:
                scope.reschedule(now)


class Elector:
    """One candidate in the election over one Lease. Use it once, as an asynchronous context.

    Entering waits until this candidate leads. The body is then the work; it is cancelled when the lead must end.

    Args:
        store: The Lease.
        settings: Names and times.
        shutdown: Who asks the process to end; then the body has `drain_seconds` to return.
        guard: Ends the process when all else fails; None only in tests and where a supervisor does it.
        clock: See `tandem.runtime.clock`.
        rng: For jitter.
        observer: Told of what happens; the default logs.
    """

    def __init__(
        self,
        store: LeaseStore,
        settings: ElectorSettings,
        *,
        shutdown: Shutdown | None = None,
        guard: Guard | None = process_guard,
        clock: Clock = boottime,
        rng: random.Random | None = None,
        observer: ElectionObserver | None = None,
    ) -> None:
        self.settings = settings
        self._store = store
        self._shutdown = shutdown
        self._guard = guard
        self._clock = clock
        self._rng = rng if rng is not None else random.Random()  # noqa: S311 - jitter is no secret
        self._observer = observer if observer is not None else LogObserver(settings)
        self._observed = Observed(settings)
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._request: asyncio.Timeout | None = None
        self._phase = Phase.FOLLOWING
        self._holder: str | None = None
        self._leadership: Leadership | None = None
        self._drain_expired = False
        self._end_wanted = False
        self._inside = False
        self._used = False

    @property
    def holder(self) -> str | None:
        """Who holds the Lease as far as we know: empty when nobody, None before the first answer."""
        if not self._observed.known:
            return None
        return self._observed.record.holder if self._observed.record is not None else ""

    @property
    def leading(self) -> bool:
        """Whether we lead now."""
        return core.passes_fence(self._observed, self._clock())

    # --- the context ------------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Leadership:
        if self._used:
            raise RuntimeError("an Elector is used once: a process that lost the lead ends")
        self._used = True
        if self._shutdown is not None and self._shutdown.requested:
            raise NotElected(self._shutdown.reason)
        if self._guard is not None:
            self._guard.prepare()
        loop = asyncio.get_running_loop()
        self._elected: asyncio.Future[bool] = loop.create_future()
        self._body = asyncio.timeout(None)
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._runner = self._group.create_task(self._run(), name="elector")
        self._helpers = [self._group.create_task(self._watch(), name="elector-watch")]
        if self._shutdown is not None:
            self._helpers.append(self._group.create_task(self._heed(self._shutdown), name="elector-shutdown"))
        try:
            elected = await self._elected
        except BaseException:
            core.work_ended(self._observed, self._clock())
            core.shut_down(self._observed, self._clock())
            await self._finish()
            raise
        if not elected:
            await self._finish()
            raise NotElected(self._shutdown.reason if self._shutdown is not None else "asked to end")
        await self._body.__aenter__()
        self._inside = True
        if self._end_wanted:
            self._end_body()
        assert self._leadership is not None  # noqa: S101 - set where `_elected` is
        return self._leadership

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        ended, self._inside = False, False
        try:
            await self._body.__aexit__(kind, error, trace)
        except TimeoutError:
            ended = True
        assert self._leadership is not None  # noqa: S101 - there was a body
        idle = False
        try:
            await self._leadership._ended()
            idle = True
        finally:
            if not idle:  # cancelled while work in other tasks was ending: nobody may say that it has ended
                core.lose(self._observed, Loss.FAILED)
            core.work_ended(self._observed, self._clock())
            await self._finish(idle=idle)
        if self._observed.reason is not None:
            raise LeadershipLost(self._observed.reason) from error
        if ended and self._drain_expired:
            _log.warning("work was still in flight after the drain, and was cancelled")
            return True
        return False

    async def _finish(self, *, idle: bool = True) -> None:
        """Let the runner give the Lease back, end the rest, wait for all. Idle: the guard has nothing left to end."""
        self._closing.set()
        if self._guard is not None and idle:
            self._guard.disarm(self)
        self._settle()
        self._abandon()
        for helper in self._helpers:
            helper.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as failures:
            raise LeadershipLost(Loss.FAILED) from failures

    # --- the tasks --------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        observed = self._observed
        try:
            while True:
                now = self._clock()
                action = core.decide(observed, now)
                if isinstance(action, core.Wait):
                    await self._sleep(action.until - now)
                elif isinstance(action, core.Send):
                    await self._perform(action)
                elif isinstance(action, core.Lose):
                    core.lose(observed, action.reason)
                else:
                    core.end(observed)
                    break
                self._settle()
        except BaseException:
            core.lose(observed, Loss.FAILED)
            raise
        finally:
            self._settle()
        if observed.phase is Phase.LOST:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, core.cancel_at(observed) - self._clock())):
                    await self._closing.wait()
            self._end_body()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        self._wake.clear()

    async def _perform(self, request: core.Send) -> None:
        started = self._clock()
        core.sent(self._observed, request, started, self._rng.random())
        outcome, found, retry_after = Outcome.UNKNOWN, None, 0.0
        try:
            async with asyncio.timeout(request.seconds) as self._request:
                found = record.parse(await self._send(request))
            outcome = Outcome.DONE
        except LeaseError as error:
            outcome, retry_after = error.outcome, error.retry_after
            _log.debug("%s: %s", request.verb.value, error)
        except Exception as error:  # noqa: BLE001 - whatever a transport raises, the lead does not hang on it
            _log.debug("%s: %r", request.verb.value, error)
        finally:
            self._request = None
        now = self._clock()
        core.answered(self._observed, outcome, now, found, retry_after)
        self._observer.request(request.verb, outcome, now - started)

    async def _send(self, request: core.Send) -> dict[str, Any]:
        if request.verb is Verb.READ:
            return await self._store.get(seconds=request.seconds)
        lease = record.body(
            request.base,
            name=self.settings.lease_name,
            namespace=self.settings.namespace,
            holder=request.holder,
            duration=request.duration,
            transitions=request.transitions,
            acquiring=request.verb is not Verb.RENEW,
            now=datetime.datetime.now(datetime.UTC),
        )
        if request.base is None:
            return await self._store.create(lease, seconds=request.seconds)
        return await self._store.replace(lease, seconds=request.seconds)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        # A live leader is heard every retry period, so silence for a whole lease is worth a new connection.
        idle = float(self.settings.lease_duration)
        while self._observed.phase not in (Phase.LOST, Phase.ENDED):
            opened = loop.time()
            try:
                async with (
                    contextlib.aclosing(self._store.watch(seconds=_WATCH_SECONDS)) as events,
                    asyncio.timeout(idle) as bound,
                ):
                    async for kind, lease in events:
                        bound.reschedule(loop.time() + idle)
                        self._hear(kind, lease)
            except Exception as error:  # noqa: BLE001 - a follower without a watch polls
                _log.debug("watch: %r", error)
            if self._observed.watching:
                core.watch_changed(self._observed, False, self._clock())
                self._wake.set()
            if loop.time() - opened < self.settings.retry_period:
                await asyncio.sleep(self.settings.retry_period * (0.5 + self._rng.random() / 2))

    def _hear(self, kind: str, lease: dict[str, Any]) -> None:
        now = self._clock()
        if not self._observed.watching:
            core.watch_changed(self._observed, True, now)
        if kind == "OPEN":
            pass
        elif kind in ("ADDED", "MODIFIED"):
            core.seen(self._observed, record.parse(lease), now)
        elif kind == "DELETED":
            core.seen(self._observed, None, now, record.version_of(lease["metadata"]))
        elif kind != "BOOKMARK":
            raise LeaseError(f"watch: {kind}")
        self._settle()
        self._wake.set()

    async def _heed(self, shutdown: Shutdown) -> None:
        await shutdown.wait()
        core.shut_down(self._observed, self._clock())
        if self._observed.pending is None:
            self._abandon()
        self._settle()
        self._wake.set()
        if self._observed.phase is Phase.LEADING and shutdown.drain_deadline is not None:
            await asyncio.sleep(max(0.0, shutdown.drain_deadline - asyncio.get_running_loop().time()))
            self._drain_expired = True
            self._end_body()

    # --- what follows from a change ----------------------------------------------------------------------------------
    def _settle(self) -> None:
        """Act on what the last transition changed. Never waits, so the fence and the body learn of it at once."""
        observed, before = self._observed, self._phase
        self._phase = observed.phase
        if observed.phase is Phase.LEADING:
            if self._guard is not None:
                self._guard.arm(self, core.guard_at(observed))
            if before is not Phase.LEADING:
                self._leadership = Leadership(observed, self._clock, self._shutdown)
                self._observer.leading(observed.epoch)
                if not self._elected.done():
                    self._elected.set_result(True)
        elif observed.phase is Phase.LOST and before is Phase.LEADING:
            self._on_loss()
        elif observed.phase is Phase.ENDED and before is not Phase.ENDED:
            if before is Phase.RELEASING and self.holder == "":
                self._observer.released()
            if not self._elected.done():
                self._elected.set_result(False)
        if observed.phase is Phase.FOLLOWING and self.holder not in (self._holder, self.settings.identity):
            self._holder = self.holder
            self._observer.following(self._holder or "")

    def _on_loss(self) -> None:
        reason = self._observed.reason or Loss.FAILED
        self._observer.lost(reason)
        self._wake.set()
        self._abandon()
        if self._leadership is not None:
            self._leadership._tell_lost(reason)
        if not reason.may_finish:
            if self._guard is not None:
                soon = self._clock() + self.settings.cancel_margin / 2
                self._guard.arm(self, min(soon, core.guard_at(self._observed)))
            self._end_body()

    def _end_body(self) -> None:
        """Cancel the body, once; if it has not begun, as soon as it does."""
        self._end_wanted = True
        if self._leadership is not None:
            self._leadership._end_scopes()
        if self._inside and self._body.when() is None:
            self._body.reschedule(asyncio.get_running_loop().time())

    def _abandon(self) -> None:
        """Give up the request that is under way, if any; its outcome is then unknown."""
        if self._request is not None and not self._request.expired():
            self._request.reschedule(asyncio.get_running_loop().time())
        self._wake.set()
