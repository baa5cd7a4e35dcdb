"""Which Service a request goes to."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.controllers.gateway.routes import Upstream, class_of, matching, routes, upstream
from tandem.runtime.resources import Key, Object


def path(name: str, at: str = "/", kind: str = "Prefix", port: Any = "http") -> Object:
    by = {"number": port} if isinstance(port, int) else {"name": port}
    return {"path": at, "pathType": kind, "backend": {"service": {"name": name, "port": by}}}


def ingress(name: str, host: str, *paths: Object, namespace: str = "n", **spec: Any) -> Object:
    rule: Object = {"http": {"paths": list(paths)}}
    if host:
        rule["host"] = host
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"ingressClassName": "tandem", "rules": [rule], **spec},
    }


TABLE = routes(
    [
        ingress("every", "", path("front")),
        ingress("shop", "shop.example", path("shop"), path("cart", "/cart"), path("exact", "/cart/sum", "Exact")),
        ingress("wild", "*.example", path("wild")),
        ingress("other", "shop.example", path("never"), ingressClassName="nginx"),
    ],
    "tandem",
)


@pytest.mark.parametrize(
    ("host", "asked", "service"),
    [
        ("shop.example", "/", "shop"),
        ("SHOP.example:8080", "/x", "shop"),
        ("shop.example.", "/cart", "cart"),
        ("shop.example", "/cart/", "cart"),
        ("shop.example", "/cart/more", "cart"),
        ("shop.example", "/carton", "shop"),
        ("shop.example", "/cart/sum", "exact"),
        ("shop.example", "/cart/sum/2", "cart"),
        ("blog.example", "/", "wild"),
        ("a.blog.example", "/", "front"),
        ("example", "/", "front"),
        ("", "/", "front"),
        ("[::1]", "/", "front"),
    ],
)
def test_the_most_specific_route_takes_it(host: str, asked: str, service: str) -> None:
    route = matching(TABLE, host, asked)
    assert route is not None
    assert route.backend["service"]["name"] == service


def test_nobody_takes_what_no_rule_names() -> None:
    assert matching(routes([ingress("shop", "shop.example", path("shop"))], "tandem"), "blog.example", "/") is None


def test_a_default_backend_is_the_last_of_all() -> None:
    spare = ingress("spare", "a.example", path("a"), defaultBackend={"service": {"name": "d", "port": {"number": 1}}})
    found = matching(routes([spare], "tandem"), "b.example", "/x")
    assert found is not None
    assert found.backend["service"]["name"] == "d"


def test_a_class_is_a_field_or_an_old_annotation() -> None:
    assert class_of({"metadata": {"annotations": {"kubernetes.io/ingress.class": "tandem"}}}) == "tandem"
    assert class_of({"metadata": {}, "spec": {}}) == ""


SERVICE: Object = {"spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}, {"port": 9090}]}}


@pytest.mark.parametrize(
    ("service", "port", "found"),
    [
        (SERVICE, "http", Upstream(Key("n", "s"), "10.96.0.7", 80)),
        (SERVICE, 9090, Upstream(Key("n", "s"), "10.96.0.7", 9090)),
        (SERVICE, "metrics", Upstream(Key("n", "s"), "10.96.0.7", 0)),
        ({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}, 80, Upstream(Key("n", "s"), "", 80)),
        (None, 80, Upstream(Key("n", "s"))),
    ],
)
def test_the_service_and_its_port(service: Object | None, port: Any, found: Upstream) -> None:
    (route,) = routes([ingress("i", "h", path("s", port=port))], "tandem")
    assert upstream(route, {Key("n", "s"): service}.get) == found
    assert found.usable == (found == Upstream(Key("n", "s"), "10.96.0.7", found.port) and found.port > 0)
