"""A controller at work: reflectors that run from the start, workers while they may.

What ends it, and in which order, is documented in docs/controllers.md and held by its tests:

1. asked to end: the queue hands out nothing more; what is in flight goes on;
2. nothing is in flight any more: Events that are still to be written are written;
3. `work` returns, and only then is the Lease released (by the elector, whose body it is);
4. the reflectors are cancelled, the connections closed.

A lead that is lost enters at the first step without an order to wait for: whoever holds the fence cancels `work`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Final

from tandem.runtime.cache import Cache
from tandem.runtime.client import Client
from tandem.runtime.controller import Context, Controller, RequeueAfter, Watch, checked
from tandem.runtime.elector import Leadership
from tandem.runtime.errors import Conflict
from tandem.runtime.events import EventRecorder
from tandem.runtime.fence import Fence, NotLeading, StaleEpoch
from tandem.runtime.logging import get_logger
from tandem.runtime.metrics import Metrics, QueueMetrics, ReflectorMetrics
from tandem.runtime.reflector import Reflector, wait_for_sync
from tandem.runtime.resources import Key, Object
from tandem.runtime.scope import EVERYTHING, Scope
from tandem.runtime.shutdown import Shutdown
from tandem.runtime.workqueue import QueueClosed, WorkQueue
from tandem.runtime.writer import Writer

RESULTS: Final = ("success", "requeue_after", "error", "conflict", "absent")
"""Values of the label `result`: controller-runtime's, and two that it counts as errors or not at all."""


class Engine:
    """A controller at work in one scope: caches that are warm from the start, workers while it may act.

    Args:
        controller: what to do.
        client: the port.
        scope: which part of the cluster.
        name: of this part; default the controller's. Names metrics and logs.
        instance: which process this is, for Events.
        metrics: where to count.
        rng: jitter.
    """

    def __init__(
        self,
        controller: Controller,
        client: Client,
        *,
        scope: Scope = EVERYTHING,
        name: str = "",
        instance: str = "",
        metrics: Metrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.controller = controller
        self.name = name or controller.name
        self.caches: dict[str, Cache] = {}
        self.reflectors: list[Reflector] = []
        self._client = client
        self._instance = instance or self.name
        self._metrics = metrics or Metrics()
        self._log = get_logger("controller").bind(controller=self.name)
        self._results = {result: self._metrics.reconciles.labels(self.name, result) for result in RESULTS}
        self._errors = self._metrics.errors.labels(self.name)
        self._duration = self._metrics.duration.labels(self.name)
        self._active = self._metrics.active.labels(self.name)
        self._queue: WorkQueue[Key] | None = None
        self._following = False
        for watch in controller.watches:
            self._follow(watch, scope, rng)
        self.cache = self.caches[controller.watches[0].cache_name]

    @property
    def synced(self) -> bool:
        """Whether every cache has taken in its first list."""
        return all(reflector.synced.is_set() for reflector in self.reflectors)

    def not_ready(self) -> str | None:
        """A check for /readyz: what is still missing."""
        return None if self.synced else "caches are not synced"

    def not_alive(self) -> str | None:
        """A check for /healthz: whether all workers are stuck, or the reflectors have stopped."""
        if not self._following:
            return "the reflectors do not run"
        if self._queue is None:
            return None
        now, limit = asyncio.get_running_loop().time(), self.controller.settings.stuck_seconds
        stuck = [key for key, since in self._queue.processing.items() if now - since > limit]
        if len(stuck) < self.controller.settings.concurrency:
            return None
        return f"all {len(stuck)} workers have been at one key each for over {limit:g} s: {', '.join(map(str, stuck))}"

    async def follow(self) -> None:
        """Keep the caches in step until cancelled; an exception means that a watch's function is broken."""
        self._following = True
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self.reflectors:
                    group.create_task(reflector.run())
        finally:
            self._following = False

    async def work(self, fence: Fence, shutdown: Shutdown | None = None, *, lease: Object | None = None) -> None:
        """Reconcile everything, then what changes, for as long as we may.

        `lease` names the Lease of the lead; an Event about it says who leads now.
        Returns when a shutdown was requested and nothing is in flight any more, or when the fence has closed. Cancel
        it to cut short what is in flight; it ends when that has ended. `follow` must run meanwhile.

        Raises:
            ExceptionGroup: a worker died; the process must end, for a lease must not be held for no work.
        """
        settings = self.controller.settings
        await self._until_synced(shutdown)
        if shutdown and shutdown.requested:
            return
        queue: WorkQueue[Key] = WorkQueue(
            base_seconds=settings.backoff_seconds[0], cap_seconds=settings.backoff_seconds[1]
        )
        queue.observe(QueueMetrics(self._metrics, self.name, lambda: queue.processing))
        writer = Writer(
            self._client,
            fence,
            settings.field_manager or self.controller.name,
            epoch_field=settings.epoch_field,
            observer=lambda verb, outcome: self._metrics.writes.labels(self.name, verb, outcome).inc(),
        )
        events = EventRecorder(
            writer,
            self.controller.name,
            self._instance,
            count=lambda outcome: self._metrics.events.labels(self.name, outcome).inc(),
        )
        self._metrics.workers.labels(self.name).set(settings.concurrency)
        self._queue = queue
        for watch, cache in zip(self.controller.watches, self.caches.values(), strict=True):
            for obj in cache:
                for key in watch.maps(obj):
                    queue.add(key)
        if lease is not None:
            events.record(lease, "Normal", "LeaderElection", f"{self._instance} became leader", action="Lead")
        self._log.info("working", epoch=fence.epoch, keys=len(queue), workers=settings.concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(events.run())
                ends: list[Coroutine[Any, Any, str]] = [shutdown.wait()] if shutdown else []
                if isinstance(fence, Leadership):
                    ends.append(_lost(fence))
                stopping = [group.create_task(self._close_on(end, queue)) for end in ends]
                async with asyncio.TaskGroup() as workers:
                    for _ in range(settings.concurrency):
                        workers.create_task(self._work(queue, fence, writer, events))
                for task in stopping:
                    task.cancel()
                events.close()
        finally:
            queue.shut_down()
            self._queue = None
            self._active.set(0)

    def _follow(self, watch: Watch, scope: Scope, rng: random.Random | None) -> None:
        name = watch.cache_name
        cache = Cache(watch.resource, indexers=watch.indexers)
        cache.listen(lambda old, new: self._changed(watch, old, new))
        self.caches[name] = cache
        self._metrics.objects.labels(self.name, name).set_function(lambda: len(cache))
        limits = scope if watch.scoped else EVERYTHING
        for namespace in limits.namespaces_of(watch.resource):
            self.reflectors.append(
                Reflector(
                    self._client,
                    cache,
                    namespace=namespace,
                    label_selector=",".join(part for part in (watch.label_selector, limits.label_selector) if part),
                    field_selector=watch.field_selector,
                    metadata_only=watch.metadata_only,
                    settings=self.controller.settings.reflector,
                    rng=rng,
                    observer=ReflectorMetrics(self._metrics, self.name, name),
                )
            )

    def _changed(self, watch: Watch, old: Object | None, new: Object | None) -> None:
        """A cache changed: queue what it concerns. A follower has no queue, it will reconcile everything."""
        if self._queue is None:
            return
        if old is not None and new is not None and watch.matters and not watch.matters(old, new):
            return
        for obj in (old, new):
            if obj is not None:
                for key in watch.maps(obj):
                    self._queue.add(key)

    async def _until_synced(self, shutdown: Shutdown | None) -> None:
        """Until the caches are synced or we are asked to end."""
        if self.synced:
            return
        waits = [asyncio.create_task(wait_for_sync(self.reflectors))]
        if shutdown:
            waits.append(asyncio.create_task(shutdown.wait()))  # type: ignore[arg-type]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _close_on(self, end: Coroutine[Any, Any, str], queue: WorkQueue[Key]) -> None:
        reason = await end
        self._log.info("draining", reason=str(reason), in_flight=len(queue.processing), dropped=len(queue))
        queue.shut_down()

    async def _work(self, queue: WorkQueue[Key], fence: Fence, writer: Writer, events: EventRecorder) -> None:
        """One worker, until the queue or the fence is closed."""
        while True:
            try:
                key = await queue.get()
            except QueueClosed:
                return
            try:
                fence.check()
                self._active.inc()
                try:
                    await self._reconcile(key, queue, writer, events)
                finally:
                    self._active.dec()
            except NotLeading as error:
                self._log.warning("stopping: not leading any more", key=str(key), error=str(error))
                queue.shut_down()
            finally:
                queue.done(key)

    async def _reconcile(self, key: Key, queue: WorkQueue[Key], writer: Writer, events: EventRecorder) -> None:
        """One call, and what follows from how it ends.

        Raises:
            NotLeading: a write was refused by the fence.
        """
        settings = self.controller.settings
        if not settings.reconcile_absent and key not in self.cache:
            queue.forget(key)
            self._count("absent")
            return
        context = Context(self.cache, self.caches, self._client, writer, events, key, self.name, queue.failures(key))
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(settings.reconcile_seconds):
                result = checked(await self.controller.reconcile(key, context))
        except StaleEpoch as error:
            self._retry(context, queue, error)
        except NotLeading:
            raise
        except Conflict as error:
            # Somebody was faster, or our cache is behind: the state is looked at again, and that is all.
            delay = queue.add_with_backoff(key)
            self._count("conflict")
            context.log.debug("conflict", error=str(error), retry_in_seconds=delay)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._retry(context, queue, error)  # something that reconcile waited for was cancelled, we were not
        except Exception as error:  # noqa: BLE001 - whatever a reconcile raises, it is one key's failure
            self._retry(context, queue, error)
        else:
            queue.forget(key)
            if isinstance(result, RequeueAfter):
                queue.add_after(key, result.seconds)
                self._count("requeue_after")
            else:
                self._count("success")
        finally:
            self._duration.observe(loop.time() - started)

    def _retry(self, context: Context, queue: WorkQueue[Key], error: BaseException) -> None:
        delay = queue.add_with_backoff(context.key)
        self._count("error")
        self._errors.inc()
        context.log.error("reconcile failed", error=repr(error), retry_in_seconds=delay, exc_info=error)

    def _count(self, result: str) -> None:
        self._results[result].inc()


async def _lost(leadership: Leadership) -> str:
    """Wait until the lead is lost: nobody starts anything then, and who has nothing in flight is done."""
    return f"leadership lost: {(await leadership.wait_lost()).value}"
