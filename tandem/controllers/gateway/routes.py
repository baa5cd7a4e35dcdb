"""Which Service a request goes to, by the Ingress objects of one class. Pure functions on API objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tandem.runtime.resources import Key, Object, key_of

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
"""How an Ingress named its class before `spec.ingressClassName`; API servers still take it."""

Lookup = Callable[[Key], Object | None]
"""Finds a Service by its key."""


@dataclass(frozen=True)
class Upstream:
    """Where a request goes: the address and port of a Service, or why there is none.

    Attributes:
        service: the Service's key.
        host: its cluster IP; empty when it has none.
        port: its port's number; 0 when it has no such port.
    """

    service: Key
    host: str = ""
    port: int = 0

    @property
    def usable(self) -> bool:
        """Whether requests can be sent there."""
        return bool(self.host and self.port)


@dataclass(frozen=True)
class Route:
    """One path of one rule.

    Attributes:
        host: a name, `*.` and a name, or empty for every host.
        path: begins with a slash.
        exact: whether the path must be the whole of it; else it is a prefix by whole elements.
        backend: namespace and `backend` of the Ingress.
        ingress: the Ingress that says so.
    """

    host: str
    path: str
    exact: bool
    backend: dict[str, Any]
    ingress: Key

    def takes_host(self, host: str) -> bool:
        """Whether a request for the host is meant; a wildcard stands for one element, as the API documents it."""
        if not self.host.startswith("*."):
            return self.host in ("", host)
        first, _, rest = host.partition(".")
        return bool(first) and rest == self.host[2:]

    def takes_path(self, path: str) -> bool:
        """Whether the path is meant: `/a` as a prefix takes /a and /a/b, not /ab."""
        if self.exact:
            return path == self.path
        own = self.path.rstrip("/")
        return path == own or path.startswith(f"{own}/")

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts the most specific first: host, then exact paths and long ones; then by name, so that all agree."""
        wildcard = self.host.startswith("*.")
        return (not self.host, wildcard, not self.exact, -len(self.path), self.ingress)


def class_of(ingress: Object) -> str:
    """The name of its class, empty when it has none."""
    annotations = ingress["metadata"].get("annotations") or {}
    return str(ingress.get("spec", {}).get("ingressClassName") or annotations.get(CLASS_ANNOTATION, ""))


def routes(ingresses: Iterable[Object], of_class: str) -> list[Route]:
    """All routes of the class, the most specific first."""
    found = []
    for ingress in ingresses:
        if class_of(ingress) != of_class:
            continue
        spec, key = ingress.get("spec", {}), key_of(ingress)
        if "defaultBackend" in spec:
            found.append(Route("", "/", False, spec["defaultBackend"], key))
        for rule in spec.get("rules") or []:
            for path in rule.get("http", {}).get("paths", []):
                exact = path.get("pathType") == "Exact"
                found.append(Route(rule.get("host", "").lower(), path.get("path") or "/", exact, path["backend"], key))
    return sorted(found, key=lambda route: route.order)


def matching(table: Iterable[Route], host: str, path: str) -> Route | None:
    """The first route of a sorted table that takes the request.

    Args:
        table: what `routes` made.
        host: the Host header; its port does not count.
        path: the path as it was sent, without the query.
    """
    name = host.rsplit(":", 1)[0].lower().rstrip(".") if not host.endswith("]") else host.lower()
    return next((route for route in table if route.takes_host(name) and route.takes_path(path)), None)


def upstream(route: Route, service: Lookup) -> Upstream:
    """The Service of a route, as far as it exists; a backend that is no Service has none."""
    named = route.backend.get("service") or {}
    key = Key(route.ingress.namespace, str(named.get("name", "")))
    spec = (service(key) or {}).get("spec", {})
    address = spec.get("clusterIP", "")
    wanted = named.get("port", {})
    ports = [
        port["port"]
        for port in spec.get("ports") or []
        if wanted.get("number") == port["port"] or (wanted.get("name") and wanted["name"] == port.get("name"))
    ]
    return Upstream(key, "" if address == "None" else address, ports[0] if ports else 0)
