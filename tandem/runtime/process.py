"""A controller's process: `run(controller)` connects, follows, waits for its turn, works, and ends in good order.

Its status tells how it ended: 0 asked to and done; 1 a lead was lost; 2 it could not begin (settings, kubeconfig); 3 a
worker or a watch's function died. The kernel's guard and a second signal end it by SIGALRM, SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from tandem.runtime._connection import ConfigError, connect
from tandem.runtime._election.guard import Guard, process_guard
from tandem.runtime._election.port import LeaseStore
from tandem.runtime._election.store import ApiLeaseStore
from tandem.runtime.client import Client, KubeClient
from tandem.runtime.clock import Clock, boottime
from tandem.runtime.controller import Controller
from tandem.runtime.elector import ElectionObserver, Elector, LeadershipLost, LogObserver, NotElected
from tandem.runtime.engine import Engine
from tandem.runtime.fence import OpenFence
from tandem.runtime.health import Health
from tandem.runtime.logging import configure, get_logger
from tandem.runtime.metrics import ElectionMetrics, Metrics
from tandem.runtime.resources import LEASES, Object
from tandem.runtime.scope import Shard
from tandem.runtime.settings import RunSettings
from tandem.runtime.shutdown import Shutdown

LOST: Final = 1
UNUSABLE: Final = 2
DIED: Final = 3


@dataclass(frozen=True)
class Cluster:
    """The two ways to the API server: one for the work, one that only the electors use.

    Attributes:
        client: for caches, reads and writes.
        lease: the store of a Lease, by namespace and name.
    """

    client: Client
    lease: Callable[[str, str], LeaseStore]


@asynccontextmanager
async def connected(kubeconfig: str | None, user_agent: str, metrics: Metrics) -> AsyncIterator[Cluster]:
    """The real cluster.

    Raises:
        ConfigError: there is no usable configuration.
    """
    async with (
        connect(kubeconfig, user_agent=user_agent) as work,
        connect(kubeconfig, user_agent=f"{user_agent}-elector") as election,
    ):
        client, for_leases = KubeClient(work, observer=metrics.count_request), KubeClient(election)
        yield Cluster(client, lambda namespace, name: ApiLeaseStore(for_leases, namespace, name))


def run(controller: Controller, settings: RunSettings | None = None, *, metrics: Metrics | None = None) -> NoReturn:
    """Run a controller as this process, from first connection to exit status; see the module.

    Args:
        controller: what to do.
        settings: default: from the environment (`RunSettings.from_environ`).
        metrics: where to count; give your own to serve gauges of your own at /metrics as well.
    """
    try:
        settings = settings or RunSettings.from_environ()
        configure(level=settings.log_level, json_lines=settings.log_json)
    except ValueError as error:
        sys.stderr.write(f"{controller.name}: {error}\n")
        sys.exit(UNUSABLE)
    with asyncio.Runner(loop_factory=_loop_factory(settings.uvloop)) as runner:
        status = runner.run(_process(controller, settings, metrics or Metrics()))
    sys.exit(status)


async def _process(controller: Controller, settings: RunSettings, metrics: Metrics) -> int:
    log = get_logger("process").bind(controller=controller.name)
    try:
        async with (
            Shutdown(
                drain_seconds=settings.drain_seconds, trigger=settings.trigger() if settings.trigger else None
            ) as shutdown,
            connected(settings.kubeconfig, f"tandem/{controller.name}", metrics) as cluster,
        ):
            status = await serve(controller, settings, cluster, shutdown=shutdown, metrics=metrics)
    except ConfigError as error:
        log.error("no way to the API server", error=str(error))  # noqa: TRY400 - the message says it all
        return UNUSABLE
    except Exception as error:
        log.exception("the process died", error=repr(error))
        return DIED
    log.info("ended", status=status)
    return status


async def serve(
    controller: Controller,
    settings: RunSettings,
    cluster: Cluster,
    *,
    shutdown: Shutdown,
    metrics: Metrics | None = None,
    guard: Guard | None = process_guard,
    clock: Clock = boottime,
    rng: random.Random | None = None,
) -> int:
    """What `run` does inside its event loop; returns the exit status.

    Everything that runs belongs to one task group. The order of the end: workers (and Events), Leases, reflectors, the
    health server, and last, by the caller, the connections.

    Raises:
        ExceptionGroup: a worker or a reflector died.
    """
    metrics = metrics or Metrics()
    health = Health(metrics.registry)
    rng = rng or random.Random()  # noqa: S311 - spreads requests, keeps no secret
    parts = [
        (
            part,
            Engine(
                controller,
                cluster.client,
                scope=part.scope,
                name=part.name if settings.shards else controller.name,
                instance=settings.identity,
                metrics=metrics,
                rng=rng,
            ),
        )
        for part in settings.parts(controller.name)
    ]
    for part, engine in parts:
        health.live.add(part.name, engine.not_alive)
        health.ready.add(part.name, engine.not_ready)
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        freezing = group.create_task(_freeze_when_synced([engine for _, engine in parts]))
        following = [group.create_task(engine.follow(), name=f"follow-{part.name}") for part, engine in parts]
        if settings.health_port is not None:
            await asyncio.sleep(0)  # the reflectors run before anybody asks whether they do
            await stack.enter_async_context(health.serving(settings.health_host, settings.health_port))
        working = [
            group.create_task(
                _lead(part, engine, settings, cluster, shutdown, guard, clock, rng, metrics, rank), name=part.name
            )
            for rank, (part, engine) in enumerate(_preferred(parts, settings.identity))
        ]
        lost = await asyncio.gather(*working)
        for task in (*following, freezing):
            task.cancel()
    return LOST if any(lost) else 0


async def _lead(
    part: Shard,
    engine: Engine,
    settings: RunSettings,
    cluster: Cluster,
    shutdown: Shutdown,
    guard: Guard | None,
    clock: Clock,
    rng: random.Random,
    metrics: Metrics,
    rank: int,
) -> bool:
    """Wait for the turn of one part, work on it, end; returns whether the lead was lost."""
    if not settings.elected:
        await _work_until_drained(engine, shutdown)
        return False
    if rank:
        await _unless(shutdown, settings.retry_period * rank)
    election = settings.election(part.name)
    elector = Elector(
        cluster.lease(election.namespace, election.lease_name),
        election,
        shutdown=shutdown,
        guard=guard,
        clock=clock,
        rng=rng,
        observer=_Observers(LogObserver(election), ElectionMetrics(metrics, election.lease_name)),
    )
    try:
        async with elector as leadership:
            lease: Object = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {
                    "name": election.lease_name,
                    "namespace": election.namespace,
                    "uid": leadership.lease_uid,
                },
            }
            await engine.work(leadership, shutdown, lease=lease)
    except NotElected:
        return False
    except LeadershipLost as error:
        # The other shards end in good order; this one has ended already.
        shutdown.request(f"{part.name}: {error}")
        return True
    if shutdown.requested:
        return False
    shutdown.request(f"{part.name}: the work ended by itself")
    return True


async def _freeze_when_synced(engines: list[Engine]) -> None:
    """Take what is cached out of the garbage collector's sight.

    Ten thousand objects are some million containers without cycles; going through them all takes the collector a tenth
    of a second each time, in which nothing else runs.
    """
    for engine in engines:
        for reflector in engine.reflectors:
            await reflector.synced.wait()
    gc.collect()
    gc.freeze()


async def _work_until_drained(engine: Engine, shutdown: Shutdown) -> None:
    """Work without election; what is in flight is cut short when the drain is over, as an elector does."""
    try:
        async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as group:
            watching = group.create_task(_bound(bound, shutdown))
            await engine.work(OpenFence(), shutdown)
            watching.cancel()
    except TimeoutError:
        if not bound.expired():
            raise
        get_logger("process").warning("work was still in flight after the drain, and was cancelled")


async def _bound(bound: asyncio.Timeout, shutdown: Shutdown) -> None:
    await shutdown.wait()
    bound.reschedule(shutdown.drain_deadline)


async def _unless(shutdown: Shutdown, seconds: float) -> None:
    """Sleep, or until a shutdown is requested."""
    try:
        async with asyncio.timeout(seconds):
            await shutdown.wait()
    except TimeoutError:
        return


def _preferred(parts: list[tuple[Shard, Engine]], identity: str) -> list[tuple[Shard, Engine]]:
    """This process's order of the shards: it waits a retry period longer for each further one.

    Two pods that start together so come to lead different shards more often than not; who is left alone takes all.
    """
    return sorted(parts, key=lambda part: random.Random(f"{identity}/{part[0].name}").random())  # noqa: S311


class _Observers:
    """Several observers of one election."""

    def __init__(self, *observers: ElectionObserver) -> None:
        self._observers = observers

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*args: Any) -> None:
            for observer in self._observers:
                getattr(observer, name)(*args)

        return tell


def _loop_factory(wanted: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if wanted:
        try:
            import uvloop  # noqa: PLC0415 - optional
        except ImportError:
            return None
        return uvloop.new_event_loop
    return None
