"""A cluster in miniature for the drill's own code: a real HTTP server that speaks enough of the API, real demo servers.

It shows nothing about Kubernetes; the lab does. It lets the whole path from preconditions to report run in seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from tandem.drill.demo import server as demo
from tandem.recovery import ARTICLE, pod_tolerations, to_dict

Object = dict[str, Any]
SLICES = "/apis/discovery.k8s.io/v1/namespaces/tandem-demo/endpointslices"
PODS = "/api/v1/namespaces/tandem-demo/pods"
IMAGE = "tandem-ha.io/demo:0.1.0"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Cluster:
    def __init__(self, share: Path) -> None:
        self.share, self.port = share, free_port()
        self.objects: dict[str, dict[str, Object]] = {}
        self.version = 0
        self.watchers: list[tuple[str, asyncio.Queue[Object | None]]] = []
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.logs: dict[str, asyncio.subprocess.Process] = {}
        self.acts: list[str] = []

    def put(self, collection: str, name: str, kind: str = "MODIFIED", **content: Any) -> None:
        self.version += 1
        old = self.objects.setdefault(collection, {}).get(name, {})
        meta = {"name": name, "uid": f"uid-{name}", **old.get("metadata", {}), **content.pop("metadata", {})}
        obj = {**old, **content, "metadata": {**meta, "resourceVersion": str(self.version)}}
        self.objects[collection][name] = obj
        if kind == "DELETED":
            del self.objects[collection][name]
        for watched, queue in self.watchers:
            if watched == collection:
                queue.put_nowait({"type": kind, "object": obj})

    def node(self, name: str, ready: str = "True", taints: Sequence[str] = (), **labels: str) -> None:
        status = {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "110"},
            "images": [{"names": [IMAGE]}],
        }
        spec = {"taints": [{"key": t, "effect": "NoExecute"} for t in taints]}
        self.put("/api/v1/nodes", name, metadata={"labels": labels}, spec=spec, status=status)

    def pod(self, name: str, node: str | None, *, ready: bool, **meta: str) -> None:
        spec: Object = {"containers": [{"image": IMAGE}], "tolerations": pod_tolerations(ARTICLE)}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
        metadata = {"namespace": "tandem-demo", "labels": {"app": "db"}, **meta}
        self.put(PODS, name, metadata=metadata, spec={**spec, **({"nodeName": node} if node else {})}, status=status)

    def endpoints(self, **ready: bool) -> None:
        entries = [{"targetRef": {"name": pod}, "conditions": {"ready": r}} for pod, r in ready.items()]
        self.put(SLICES, "db-1", metadata={"labels": {"kubernetes.io/service-name": "db"}}, endpoints=entries)

    async def fill(self) -> None:
        self.node("cp1", **{"node-role.kubernetes.io/control-plane": ""})
        self.node("w1")
        self.node("w2")
        labels = {"app": "db"}
        template = {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [{"env": [{"name": "DATA_DIR", "value": "/data"}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}],
            },
        }
        self.put(
            "/apis/apps/v1/namespaces/tandem-demo/deployments",
            "db",
            metadata={"namespace": "tandem-demo", "labels": {"tandem-ha.io/workload": "single-writer"}},
            spec={"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        )
        ports = [{"port": self.port, "nodePort": self.port}]
        service = {"selector": labels, "clusterIP": "127.0.0.1", "ports": ports}
        self.put("/api/v1/namespaces/tandem-demo/services", "db", spec=service)
        claims = "/api/v1/namespaces/tandem-demo/persistentvolumeclaims"
        self.put(claims, "db", spec={"volumeName": "pv", "accessModes": ["ReadWriteMany"]})
        self.put("/api/v1/persistentvolumes", "pv", spec={"hostPath": {"path": str(self.share)}})
        record = {"profile": "article", "recovery.json": json.dumps(to_dict(ARTICLE))}
        self.put("/api/v1/namespaces/tandem-system/configmaps", "recovery-profile", data=record)
        self.pod("db-old", "w1", ready=True)
        self.endpoints(**{"db-old": True})
        await self.start_pod("db-old", "w1")

    async def start_pod(self, name: str, node: str) -> None:
        env = {"PATH": os.environ["PATH"], "PORT": str(self.port), "DATA_DIR": str(self.share), "APP": "db"}
        self.processes[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(demo.__file__), env={**env, "NODE_NAME": node, "POD_NAME": name}
        )

    async def end_pod(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        await process.wait()

    async def fail_over(self) -> None:
        """What the controllers do after a lost node, at a tenth of their pace."""
        await asyncio.sleep(0.8)
        self.node("w1", "Unknown")
        self.node("w1", "Unknown", ["node.kubernetes.io/unreachable"])
        self.endpoints(**{"db-old": False})
        await asyncio.sleep(0.5)
        self.pod("db-old", "w1", ready=False, deletionTimestamp="now")
        self.pod("db-new", None, ready=False)
        self.pod("db-new", "w2", ready=False)
        await self.start_pod("db-new", "w2")
        await asyncio.sleep(0.5)
        self.pod("db-new", "w2", ready=True)
        self.endpoints(**{"db-old": False, "db-new": True})

    def come_back(self) -> None:
        self.node("w1")
        if "db-old" in self.objects[PODS]:
            self.put(PODS, "db-old", "DELETED")

    def end_watches(self) -> None:
        for _, queue in self.watchers:
            queue.put_nowait(None)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._get)
        application.router.add_post("/{path:.*}", self._post)
        application.router.add_delete("/{path:.*}", self._delete)
        return application

    async def _get(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.endswith("/log"):
            return await self._log(request, path.split("/")[-2])
        if path == "/api/v1/pods":
            path = PODS
        if request.query.get("watch"):
            return await self._watch(request, path)
        collection, _, name = path.rpartition("/")
        if name in self.objects.get(collection, {}):
            return web.json_response(self.objects[collection][name])
        if path.endswith("/recovery-profile") or path.count("/") > 6:
            return web.json_response({"message": f"{name} not found"}, status=404)
        items = list(self.objects.get(path, {}).values())
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self.version)}})

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        self.watchers.append((path, queue))
        with suppress(ConnectionError):
            while (event := await queue.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        argv = body["spec"]["containers"][0]["command"]
        self.logs[name] = await asyncio.create_subprocess_exec(
            sys.executable, *argv[1:], stdout=asyncio.subprocess.PIPE, limit=2**20
        )
        self.put(request.path, name, metadata=body["metadata"], spec=body["spec"], status={"phase": "Running"})
        return web.json_response(body)

    async def _delete(self, request: web.Request) -> web.Response:
        collection, _, name = request.path.rpartition("/")
        with suppress(ProcessLookupError):
            self.logs[name].terminate()
        if name in self.objects[collection]:
            self.put(collection, name, "DELETED")
        return web.json_response({})

    async def _log(self, request: web.Request, name: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        out = self.logs[name].stdout
        assert out is not None
        async for line in out:
            await response.write(line)
        return response


class LocalDriver:
    """Implements tandem.drill.driver.Driver on the miniature: processes of this machine stand for nodes."""

    name = "local"

    def __init__(self, cluster: Cluster, loop: asyncio.AbstractEventLoop, *, cut_off_only: bool = False) -> None:
        self.cluster, self.loop, self.cut_off_only = cluster, loop, cut_off_only

    def power_off(self, node: str) -> None:
        self.cluster.acts.append(f"power_off {node}")
        asyncio.run_coroutine_threadsafe(self.cluster.end_pod("db-old"), self.loop).result(5)
        asyncio.run_coroutine_threadsafe(self.cluster.fail_over(), self.loop)

    def power_on(self, node: str) -> None:
        self.cluster.acts.append(f"power_on {node}")
        self.loop.call_soon_threadsafe(self.cluster.come_back)

    def cut(self, node: str, peers: Sequence[str]) -> None:
        self.cluster.acts.append(f"cut {node} from {','.join(peers)}")

    def heal(self) -> None:
        self.cluster.acts.append("heal")

    def command_on(self, node: str, argv: Sequence[str]) -> list[str]:
        return [sys.executable, *argv[1:]]

    def command_outside(self, argv: Sequence[str]) -> list[str]:
        return [sys.executable, *argv[1:]]

    def address(self, node: str) -> str:
        return "127.0.0.1"
