"""The gateway as a process: follow Ingress objects and Services, pass requests on, end without breaking one.

Asked to end, it first says so at `READY_PATH` for `LINGER_SECONDS` and goes on serving: whoever sends clients here (the
shared address, a load balancer, kube-proxy) looks elsewhere meanwhile. Then it takes no more and finishes what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from tandem.controllers.gateway.proxy import Proxy, ProxySettings
from tandem.controllers.gateway.routes import Route, Upstream, matching, routes, upstream
from tandem.runtime._connection import ConfigError
from tandem.runtime.cache import Cache
from tandem.runtime.client import Client, connect_client
from tandem.runtime.health import Health
from tandem.runtime.logging import configure, get_logger
from tandem.runtime.metrics import Metrics
from tandem.runtime.reflector import Reflector
from tandem.runtime.resources import Key, Object, Resource
from tandem.runtime.settings import RunSettings
from tandem.runtime.shutdown import Shutdown

INGRESSES: Final = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
SERVICES: Final = Resource("", "v1", "services", "Service")
READY_PATH: Final = "/.tandem/ready"
"""On the port for requests, for the check of the shared address: 200 while clients are welcome, else 503."""

LINGER_SECONDS: Final = 5.0
"""Two failed checks of the role virtual_ip, one a second, and the time that the address takes to move."""

UNUSABLE: Final = 2


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """One gateway.

    Attributes:
        ingress_class: whose Ingress objects it serves.
        port: where it takes requests; 0 takes any free one.
        host: the address; empty is every one.
        linger_seconds: see the module.
        proxy: times and sizes of requests.
        process: logging, kubeconfig, health, scope and time to drain, as for a controller that is not elected.
    """

    ingress_class: str = "tandem"
    port: int = 8000
    host: str = ""
    linger_seconds: float = LINGER_SECONDS
    proxy: ProxySettings = field(default_factory=ProxySettings)
    process: RunSettings = field(default_factory=lambda: RunSettings(elected=False))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> GatewaySettings:
        """From the environment; see `__main__`.

        Raises:
            ValueError: a variable cannot be read.
        """
        text = environ.get("TANDEM_GATEWAY_PORT", "8000")
        if not text.isdigit() or int(text) > 65535:
            raise ValueError(f"TANDEM_GATEWAY_PORT={text!r}: a port, 0 to 65535")
        process = RunSettings.from_environ(environ, elected=False)
        return cls(ingress_class=environ.get("TANDEM_GATEWAY_CLASS") or "tandem", port=int(text), process=process)


class Table:
    """The routes as the caches have them, made anew after a change when the next request asks."""

    def __init__(self, ingresses: Cache, services: Cache, of_class: str) -> None:
        self._ingresses, self._services, self._class = ingresses, services, of_class
        self._routes: list[Route] | None = None
        ingresses.listen(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._routes = None

    def find(self, host: str, path: str) -> Upstream | None:
        """Where a request goes; None for nowhere."""
        if self._routes is None:
            self._routes = routes(self._ingresses, self._class)
        route = matching(self._routes, host, path)
        return upstream(route, self._service) if route else None

    def _service(self, key: Key) -> Object | None:
        return self._services.get(key)


def run_gateway(settings: GatewaySettings) -> int:
    """Run as this process; returns the exit status: 0 asked to end and done, 2 there is no way to the API server."""
    configure(level=settings.process.log_level, json_lines=settings.process.log_json)
    return asyncio.run(_process(settings))


async def _process(settings: GatewaySettings) -> int:
    metrics = Metrics()
    try:
        async with (
            Shutdown(drain_seconds=settings.process.drain_seconds) as shutdown,
            connect_client(settings.process.kubeconfig, user_agent="tandem/gateway") as client,
        ):
            await serve(settings, client, shutdown=shutdown, metrics=metrics)
    except ConfigError as error:
        get_logger("gateway").error("no way to the API server", error=str(error))
        return UNUSABLE
    return 0


async def serve(
    settings: GatewaySettings,
    client: Client,
    *,
    shutdown: Shutdown,
    metrics: Metrics,
    started: asyncio.Future[int] | None = None,
) -> None:
    """Serve until asked to end.

    Args:
        settings: the gateway.
        client: the API server.
        shutdown: who may ask it to end.
        metrics: where to count.
        started: is given the port for requests, once it is open.

    Raises:
        OSError: a port is taken.
    """
    ingresses, services = Cache(INGRESSES), Cache(SERVICES)
    namespaces = settings.process.scope.namespaces or (None,)
    followers = [
        Reflector(client, cache, namespace=namespace) for cache in (ingresses, services) for namespace in namespaces
    ]
    health = Health(metrics.registry)

    def not_ready() -> str | None:
        if shutdown.requested:
            return "asked to end"
        waiting = sum(not each.synced.is_set() for each in followers)
        return f"{waiting} lists of the cluster's objects are missing" if waiting else None

    health.ready.add("gateway", not_ready)
    table = Table(ingresses, services, settings.ingress_class)
    proxy = Proxy(table.find, metrics.registry, settings.proxy, ready=(READY_PATH, not_ready))
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(each.run()) for each in followers]
        if settings.process.health_port is not None:
            await stack.enter_async_context(health.serving(settings.process.health_host, settings.process.health_port))
        port = await stack.enter_async_context(
            proxy.serving(settings.host, settings.port, settings.process.drain_seconds)
        )
        if started is not None:
            started.set_result(port)
        await shutdown.wait()
        await asyncio.sleep(settings.linger_seconds)
        for task in tasks:
            task.cancel()
