"""How a controller's process runs: election, shards, times, ports. Everything can come from the environment."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from tandem.runtime._election.settings import ElectorSettings, default_identity
from tandem.runtime.health import PORT
from tandem.runtime.scope import EVERYTHING, Scope, Shard, check_shards
from tandem.runtime.shutdown import DRAIN_SECONDS

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_namespace(environ: Mapping[str, str] | None = None) -> str:
    """The pod's namespace: POD_NAMESPACE, else what the service account says, else `default`."""
    environ = os.environ if environ is None else environ
    if named := environ.get("POD_NAMESPACE"):
        return named
    try:
        return _NAMESPACE_FILE.read_text().strip() or "default"
    except OSError:
        return "default"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One process of a controller.

    Attributes:
        elected: work only while holding a Lease. Without, run one replica and strategy Recreate, and know that a worker
            which is only cut off keeps its copy running.
        lease_name: default the controller's name; a shard's is `<lease_name>-<shard>`.
        lease_namespace: default the pod's own.
        identity: who holds the Lease; unique for each process.
        lease_duration: whole seconds; with the next two, see `ElectorSettings`.
        renew_deadline: seconds.
        retry_period: seconds.
        scope: what an unsharded controller looks at.
        shards: scopes with a Lease each; must be disjoint.
        candidate_for: the names of the shards that this process may lead; empty is all. With one name per Deployment
            every shard has pods of its own; with all, two pods share the shards and either can take over everything.
        drain_seconds: so long may work in flight take after the first signal. With 5 s for the release and 10 s to
            spare it has to fit into terminationGracePeriodSeconds: 45 makes 60.
        trigger: makes an awaitable that asks the process to end, like a signal, when it is done.
        health_host: where to answer probes; empty is every address.
        health_port: 0 takes any free port; None answers nowhere.
        kubeconfig: path; None looks for the usual ones, see `connect_client`.
        log_level: debug, info, warning or error.
        log_json: one JSON object a line; False for a terminal.
        uvloop: use uvloop where it is installed.

    Raises:
        ValueError: the settings cannot work, with the reason.
    """

    elected: bool = True
    lease_name: str = ""
    lease_namespace: str = ""
    identity: str = field(default_factory=default_identity)
    lease_duration: int = 15
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    scope: Scope = EVERYTHING
    shards: tuple[Shard, ...] = ()
    candidate_for: tuple[str, ...] = ()
    drain_seconds: float = DRAIN_SECONDS
    trigger: Callable[[], Awaitable[object]] | None = None
    health_host: str = ""
    health_port: int | None = PORT
    kubeconfig: str | None = None
    log_level: str = "info"
    log_json: bool = True
    uvloop: bool = True

    def __post_init__(self) -> None:
        check_shards(self.shards)
        if self.shards and not self.elected:
            raise ValueError("shards need an election each: without one two processes would act on the same shard")
        if self.shards and self.scope != EVERYTHING:
            raise ValueError("scope and shards: give each shard its scope instead")
        if unknown := set(self.candidate_for) - {shard.name for shard in self.shards}:
            raise ValueError(f"candidate_for names no shard: {', '.join(sorted(unknown))}")
        if self.elected:
            self.election("any")

    def election(self, lease_name: str) -> ElectorSettings:
        """The settings of the election over one Lease.

        Raises:
            ValueError: the times cannot work.
        """
        return ElectorSettings(
            lease_name=lease_name,
            namespace=self.lease_namespace or own_namespace(),
            identity=self.identity,
            lease_duration=self.lease_duration,
            renew_deadline=self.renew_deadline,
            retry_period=self.retry_period,
            request_timeout=min(ElectorSettings.request_timeout, self.renew_deadline),
        )

    def parts(self, controller: str) -> tuple[Shard, ...]:
        """What this process may work on, each with the name of its Lease: its shards, or the whole as one."""
        lease = self.lease_name or controller
        if not self.shards:
            return (Shard(lease, self.scope),)
        chosen = [s for s in self.shards if not self.candidate_for or s.name in self.candidate_for]
        return tuple(replace(shard, name=f"{lease}-{shard.name}") for shard in chosen)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None, **defaults: Any) -> RunSettings:
        """Settings from variables like TANDEM_LEASE_DURATION, on top of `defaults`.

        Each plain attribute has its variable. TANDEM_NAMESPACES (comma-separated) and TANDEM_LABEL_SELECTOR make the
        scope; TANDEM_SHARDS is JSON, `[{"name": "a", "namespaces": ["x"], "labelSelector": "team=red"}]`;
        TANDEM_CANDIDATE_FOR is comma-separated.

        Raises:
            ValueError: a variable cannot be read, or the settings cannot work.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = dict(defaults)
        for name, read in _READERS.items():
            variable = f"TANDEM_{name.upper()}"
            if text := environ.get(variable, "").strip():
                try:
                    found[name] = read(text)
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{variable}={text!r}: {error}") from error
        namespaces, selector = environ.get("TANDEM_NAMESPACES", ""), environ.get("TANDEM_LABEL_SELECTOR", "")
        if namespaces or selector:
            found["scope"] = Scope(_names(namespaces), selector)
        return cls(**found)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _port(text: str) -> int | None:
    return None if text.lower() == "none" else int(text)


def _shards(text: str) -> tuple[Shard, ...]:
    return tuple(
        Shard(item["name"], Scope(tuple(item.get("namespaces", ())), item.get("labelSelector", "")))
        for item in orjson.loads(text)
    )


_READERS: Final[Mapping[str, Any]] = {
    "elected": _flag,
    "lease_name": str,
    "lease_namespace": str,
    "identity": str,
    "lease_duration": int,
    "renew_deadline": float,
    "retry_period": float,
    "shards": _shards,
    "candidate_for": _names,
    "drain_seconds": float,
    "health_host": str,
    "health_port": _port,
    "kubeconfig": str,
    "log_level": str,
    "log_json": _flag,
    "uvloop": _flag,
}
