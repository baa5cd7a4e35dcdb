"""What a drill reads from the cluster: a snapshot before, a stream of observations during."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tandem import labels
from tandem.drill.api import NETWORK_ERRORS, Api, ApiError, Object
from tandem.drill.apps import discover
from tandem.drill.observe import Kind, Observation, distil
from tandem.recovery import RecoveryProfile, from_dict
from tandem.survivability import Snapshot

RECONNECT_SECONDS: Final = 0.25
"""A watch that broke is taken up again after this long: an outage of the API must not blind the drill for longer."""


async def snapshot(api: Api, namespace: str) -> Snapshot:
    """Nodes, all pods and the namespace's apps.

    Raises:
        ApiError, OSError, aiohttp.ClientError: the API refused or could not be reached.
    """
    apps, core = f"/apis/apps/v1/namespaces/{namespace}", f"/api/v1/namespaces/{namespace}"
    workloads: list[Object] = []
    for path, kind in (("deployments", "Deployment"), ("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet")):
        workloads += [{**item, "kind": kind} for item in await api.items(f"{apps}/{path}")]
    found = discover(
        workloads,
        await api.items(f"{core}/services"),
        await api.items(f"{core}/persistentvolumeclaims"),
        await api.items("/api/v1/persistentvolumes"),
    )
    return Snapshot(await api.items("/api/v1/nodes"), await api.items("/api/v1/pods"), found)


async def applied_profile(api: Api) -> RecoveryProfile | None:
    """The recovery profile that the tuning recorded in the cluster, None when there is no record.

    Raises:
        ApiError: there is a record, but it cannot be read.
    """
    path = f"/api/v1/namespaces/{labels.SYSTEM_NAMESPACE}/configmaps/{labels.PROFILE_CONFIG_MAP}"
    record = await api.find(path)
    if record is None:
        return None
    try:
        return from_dict(json.loads(record["data"]["recovery.json"]))
    except (KeyError, ValueError) as error:
        raise ApiError(f"{path} does not hold a recovery profile: {error}", 0) from error


class Watcher:
    """Watches nodes, and pods and EndpointSlices of one namespace or of all, and keeps what it saw in order.

    Args:
        api: the connection.
        namespace: the apps' namespace; None for all.
        notify: called with each observation as it is made.
    """

    def __init__(self, api: Api, namespace: str | None, notify: Callable[[Observation], None] = lambda _: None) -> None:
        self.api, self.notify = api, notify
        self.observations: list[Observation] = []
        self.breaks = 0
        scope = f"/namespaces/{namespace}" if namespace else ""
        self.paths: dict[Kind, str] = {
            "node": "/api/v1/nodes",
            "pod": f"/api/v1{scope}/pods",
            "slice": f"/apis/discovery.k8s.io/v1{scope}/endpointslices",
        }

    async def run(self, started: asyncio.Event) -> None:
        """Watch until cancelled; `started` is set once every list has been read."""
        ready = [asyncio.Event() for _ in self.paths]
        async with asyncio.TaskGroup() as group:
            for event, kind in zip(ready, self.paths, strict=True):
                group.create_task(self._follow(kind, event))
            for event in ready:
                await event.wait()
            started.set()

    async def _follow(self, kind: Kind, listed: asyncio.Event) -> None:
        known: dict[str, Object] = {}
        version = ""
        while True:
            with suppress(*NETWORK_ERRORS, ApiError, ValueError):
                if not version:
                    answer = await self.api.get(self.paths[kind])
                    current = {item["metadata"]["uid"]: item for item in answer["items"]}
                    for uid in known.keys() - current.keys():
                        self._see(kind, known[uid], gone=True)
                    for uid, item in current.items():
                        if (
                            known.get(uid, {}).get("metadata", {}).get("resourceVersion")
                            != item["metadata"]["resourceVersion"]
                        ):
                            self._see(kind, item)
                    known, version = current, answer["metadata"]["resourceVersion"]
                    listed.set()
                version = await self._stream(kind, version, known)
            self.breaks += 1
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _stream(self, kind: Kind, version: str, known: dict[str, Object]) -> str:
        """Follow one watch to its end; returns the version to go on from, empty to list anew."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        try:
            async for line in self.api.lines(self.paths[kind], **query):
                event: dict[str, Any] = json.loads(line)
                obj = event["object"]
                if event["type"] == "ERROR":
                    return ""
                version = obj["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                gone = event["type"] == "DELETED"
                known.pop(obj["metadata"]["uid"], None)
                if not gone:
                    known[obj["metadata"]["uid"]] = obj
                self._see(kind, obj, gone=gone)
        except ApiError as error:
            if error.status == 410:
                return ""
            raise
        except NETWORK_ERRORS:
            return version
        return version

    def _see(self, kind: Kind, obj: Object, *, gone: bool = False) -> None:
        seen = distil(time.time(), kind, obj, gone=gone)
        self.observations.append(seen)
        self.notify(seen)
