"""What an app may have beside its container: ports, helpers, mounts, an Ingress, an autoscaler; each with its rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from infra.components._names import check_image, check_name
from infra.errors import ArgsError

NODE_PORTS: Final = range(30000, 32768)
"""Kubernetes' default --service-node-port-range."""

QUANTITY: Final = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")

_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class Part:
    """An argument that is an object itself: a key that it does not have is refused, not passed over."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def check_range(name: str, value: int, low: int, high: int, rule: str) -> None:
    """Refuse a number out of its range; raises `ArgsError`."""
    if not low <= value <= high:
        raise ArgsError(name, value, f"{rule}; {low} to {high}", f"choose a value from {low} to {high}")


def check_quantity(name: str, value: str) -> None:
    """Refuse what Kubernetes would not read as a quantity; raises `ArgsError`."""
    if not QUANTITY.fullmatch(value):
        raise ArgsError(name, value, "must be a Kubernetes quantity", "64Mi for memory, 50m for cpu")


def check_node_port(name: str, value: int | None) -> None:
    """Refuse a port that the API server would refuse; raises `ArgsError`."""
    if value is not None and value not in NODE_PORTS:
        rule = f"outside Kubernetes' node port range {NODE_PORTS.start} to {NODE_PORTS.stop - 1}"
        raise ArgsError(name, value, rule, "choose a port in the range, or leave it out")


def check_path(name: str, path: str) -> None:
    """Refuse a path that is no place inside a container; raises `ArgsError`."""
    if not path.startswith("/") or path == "/" or ".." in path.split("/") or ":" in path:
        raise ArgsError(name, path, "must be an absolute path below /, without .. and :", "/etc/app/app.yaml")


def file_key(path: str) -> str:
    """A file's key in its ConfigMap or Secret."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.strip("/"))


@dataclass(frozen=True, kw_only=True)
class PortArgs(Part):
    """A port beside the one for HTTP.

    Args:
        name: at most 15 lower case letters, digits and dashes.
        port: of the container.
        service_port: of the Service; the container's when None.
        protocol: of both.
        node_port: makes it reachable on every node at this port.
    """

    name: str
    port: int
    service_port: int | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    node_port: int | None = None

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_name(self.name, "ports.name")
        if len(self.name) > 15 or self.name == "http":
            rule = "a port's name has at most 15 letters, and http is the app's own"
            raise ArgsError("ports.name", self.name, rule, "a short name, e.g. grpc")
        check_range("ports.port", self.port, 1, 65535, "a port of the container")
        check_range("ports.service_port", self.service_port or self.port, 1, 65535, "a port of the Service")
        check_node_port("ports.node_port", self.node_port)


@dataclass(frozen=True, kw_only=True)
class HelperArgs(Part):
    """A container beside the app's: one that runs before it, or a sidecar that starts before it and ends after it.

    Args:
        name: of the container.
        image: pinned, as the app's own.
        command: what it runs; the image's own when empty.
        arguments: of the command, or of the image's own.
        env: environment variables.
        cpu_request: what the scheduler reserves.
        memory_request: the same for memory.
        memory_limit: above it the container is killed.
        share_mounts: it sees the app's data, files and mounts, at the same paths. /tmp is shared anyhow.
    """

    name: str
    image: str
    command: Sequence[str] = ()
    arguments: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cpu_request: str = "10m"
    memory_request: str = "16Mi"
    memory_limit: str = "64Mi"
    share_mounts: bool = False

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_name(self.name, "helper.name")
        check_image(self.image, "helper.image")
        for name in ("cpu_request", "memory_request", "memory_limit"):
            check_quantity(f"helper.{name}", getattr(self, name))
        if self.name == "app":
            raise ArgsError("helper.name", self.name, "is the app's own container", "another name")


@dataclass(frozen=True, kw_only=True)
class MountArgs(Part):
    """A folder from an object that somebody else owns, or an empty one. A change of its content restarts nothing.

    Args:
        path: where.
        config_map: a ConfigMap of the namespace.
        secret: or a Secret, e.g. one that cert-manager renews.
        empty_size: or an empty folder that goes with the pod, of at most this size.
    """

    path: str
    config_map: str | None = None
    secret: str | None = None
    empty_size: str | None = None

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        check_path("mounts.path", self.path)
        given = [each for each in (self.config_map, self.secret, self.empty_size) if each]
        if len(given) != 1:
            rule = "a mount is of a ConfigMap, of a Secret, or empty"
            raise ArgsError("mounts", given, rule, "one of config_map, secret, empty_size")
        if self.empty_size:
            check_quantity("mounts.empty_size", self.empty_size)


@dataclass(frozen=True, kw_only=True)
class IngressArgs(Part):
    """An Ingress to the app's HTTP port.

    Args:
        host: the name that callers use.
        path: what of it belongs to the app, with all below.
        class_name: of the Ingress controller; the cluster's default when None.
        tls_secret: the Secret with its certificate; plain HTTP when None.
        annotations: for the Ingress controller.
    """

    host: str
    path: str = "/"
    class_name: str | None = None
    tls_secret: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        if not _HOST.fullmatch(self.host):
            raise ArgsError("ingress.host", self.host, "must be a DNS name in lower case", "shop.example.org")
        if not self.path.startswith("/"):
            raise ArgsError("ingress.path", self.path, "starts with /", "/")


@dataclass(frozen=True, kw_only=True)
class AutoscalingArgs(Part):
    """Bounds and aims of a HorizontalPodAutoscaler; the cluster needs metrics-server.

    Args:
        min_replicas: at least two: in a quiet hour it scales to this, and one worker may be lost in that hour too.
        max_replicas: the most.
        cpu_percent: of the CPU requests, as a mean over the pods.
        memory_percent: the same for memory; not looked at when None.
    """

    min_replicas: int = 2
    max_replicas: int = 4
    cpu_percent: int = 70
    memory_percent: int | None = None

    def __post_init__(self) -> None:
        """Check the rules; raises `ArgsError` for the first one broken."""
        if self.min_replicas < 2:
            rule = "it scales to one in a quiet hour, and that one is on the worker that is lost"
            raise ArgsError("autoscaling.min_replicas", self.min_replicas, rule, "min_replicas: 2")
        if self.max_replicas <= self.min_replicas:
            rule = "nothing is left to scale"
            raise ArgsError("autoscaling.max_replicas", self.max_replicas, rule, "above min_replicas, or replicas")
        check_range("autoscaling.cpu_percent", self.cpu_percent, 1, 1000, "a share of the requests")
        if self.memory_percent is not None:
            check_range("autoscaling.memory_percent", self.memory_percent, 1, 1000, "a share of the requests")
