"""The ground on which a controller is tried: an API server on loopback, work for it, and what the audit log says."""

from __future__ import annotations

import copy
import datetime
import time
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from tandem.runtime.resources import Object, Resource
from tandem.runtime.testing.localapi import LocalApi

T = TypeVar("T")
USER: Final = "conform-subject"
"""The user under which the subject is known to the API server."""
NOT_WORK: Final = frozenset({"leases", "events", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "tokenreviews"})
"""Writes to these do not count: they are how a controller is elected, speaks, and asks who it is."""
MERGE: Final = "application/merge-patch+json"


@dataclass(frozen=True)
class Write:
    """One write of the subject that the API server accepted.

    Attributes:
        at: when the API server received it, seconds since the epoch.
    """

    verb: str
    what: str
    at: float

    def __str__(self) -> str:
        return f"{self.verb} {self.what}"


class Ground:
    """See the module.

    Args:
        api: a running API server.
        setup: manifests that have to be there first (CRDs, namespaces); a file.
        work: manifests that give the subject something to do; a file. Copies are made of them.
    """

    def __init__(self, api: LocalApi, setup: Path | None, work: Path) -> None:
        self.api = api
        self.kubeconfig = api.kubeconfig(USER)
        self._resources: dict[tuple[str, str], Resource] = {}
        self._copies = 0
        for manifest in _manifests(setup) if setup else []:
            self._create(manifest)
        self._work = _manifests(work)

    def make_work(self, copies: int) -> None:
        """New objects for the subject to act on: copies of the work's manifests under new names."""
        for _ in range(copies):
            self._copies += 1
            for manifest in self._work:
                made = copy.deepcopy(manifest)
                made["metadata"]["name"] = f"{made['metadata']['name']}-{self._copies}"
                self._create(made)

    def writes(self, since: float = 0.0) -> list[Write]:
        """The subject's accepted writes that count as work, received after a moment."""
        found = []
        for event in self.api.audit():
            about = event.get("objectRef") or {}
            if (
                event["user"]["username"] == USER
                and event["verb"] in ("create", "update", "patch", "delete", "deletecollection")
                and event.get("responseStatus", {}).get("code", 500) < 300
                and about.get("resource") not in NOT_WORK
            ):
                at = _seconds(event["requestReceivedTimestamp"])
                if at > since:
                    name = "/".join(filter(None, (about.get("namespace"), about.get("name"))))
                    kind = "/".join(filter(None, (about["resource"], about.get("subresource"))))
                    found.append(Write(event["verb"], f"{kind} {name}", at))
        return found

    def leases(self) -> list[Object]:
        """The Leases that the subject has written and holds, as stored."""
        names = {
            (event["objectRef"].get("namespace", ""), _name(event))
            for event in self.api.audit()
            if event["user"]["username"] == USER
            and (event.get("objectRef") or {}).get("resource") == "leases"
            and event["verb"] in ("create", "update", "patch")
            and event.get("responseStatus", {}).get("code", 500) < 300
        }
        found = []
        for namespace, name in sorted(names):
            lease = self.api.request("GET", _lease_path(namespace, name))
            if lease["spec"].get("holderIdentity"):
                found.append(lease)
        return found

    def steal(self, lease: Object) -> None:
        """Another holder takes the Lease over, and keeps it for an hour."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": "conform-thief",
            "leaseDurationSeconds": 3600,
            "leaseTransitions": lease["spec"].get("leaseTransitions", 0) + 1,
            "acquireTime": now,
            "renewTime": now,
        }
        self._lease(lease, spec)

    def give_back(self, lease: Object) -> None:
        """The thief lets go: the next run of the subject need not wait."""
        self._lease(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})

    def holder(self, lease: Object) -> str:
        """Who holds it now."""
        metadata = lease["metadata"]
        found = self.api.request("GET", _lease_path(metadata["namespace"], metadata["name"]))
        return str(found["spec"].get("holderIdentity") or "")

    def _lease(self, lease: Object, spec: Object) -> None:
        metadata = lease["metadata"]
        self.api.request("PATCH", _lease_path(metadata["namespace"], metadata["name"]), {"spec": spec}, content=MERGE)

    def _create(self, manifest: Object) -> None:
        resource = self._resource(manifest["apiVersion"], manifest["kind"])
        namespace = manifest["metadata"].setdefault("namespace", "default") if resource.namespaced else None
        try:
            self.api.request("POST", resource.path(namespace), manifest)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise ValueError(f"{manifest['kind']} {manifest['metadata']['name']} was refused: {said}") from error

    def _resource(self, api_version: str, kind: str) -> Resource:
        """What the API server calls this kind; a new CRD needs a moment to be served."""
        if found := self._resources.get((api_version, kind)):
            return found
        group, _, version = api_version.rpartition("/")
        path = f"/apis/{api_version}" if group else f"/api/{api_version}"

        def discovered() -> Resource | None:
            try:
                served = self.api.request("GET", path)["resources"]
            except urllib.error.HTTPError:
                return None
            for each in served:
                if each["kind"] == kind and "/" not in each["name"]:
                    return Resource(group, version, each["name"], kind, namespaced=each["namespaced"])
            return None

        resource = until(discovered, 15)
        if resource is None:
            raise ValueError(f"the API server does not know {kind} of {api_version}; is its CRD among the setup?")
        self._resources[api_version, kind] = resource
        return resource


def until(condition: Callable[[], T | None], seconds: float, pause: float = 0.1) -> T | None:
    """What `condition` returns once it is true, or None when it never was."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)


def quiet(ground: Ground, silence: float, seconds: float) -> bool:
    """Wait until the subject has not written for `silence` seconds; whether that came within `seconds`."""
    return bool(until(lambda: time.time() - max((w.at for w in ground.writes()), default=0.0) > silence, seconds, 0.5))


def _manifests(path: Path) -> Sequence[Object]:
    found: list[Any] = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]
    for each in found:
        if not isinstance(each, dict) or not all(each.get(name) for name in ("apiVersion", "kind", "metadata")):
            raise ValueError(f"{path}: a document without apiVersion, kind or metadata")
    if not found:
        raise ValueError(f"{path} holds no manifest")
    return found


def _lease_path(namespace: str, name: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"


def _name(event: Object) -> str:
    """A create names its object in the body only."""
    return str(event["objectRef"].get("name") or event.get("requestObject", {}).get("metadata", {}).get("name", ""))


def _seconds(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp()
