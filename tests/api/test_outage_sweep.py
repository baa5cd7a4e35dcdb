"""The sweep's way of looking misses nothing, on a real API server: what happens in its first moment back is counted.

A stand-in for the machine takes the server away; another for kube-controller-manager keeps its Lease, and marks a live
node lost at once when the server is back, for as short as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.benches import outage
from lab.benches.api_server import Held, Way
from lab.benches.damage import UNREACHABLE
from tandem.drill.api import connect
from tandem.recovery import FAST
from tandem.runtime.testing.localapi import LocalApi

pytestmark = pytest.mark.api
KEY, _, EFFECT = UNREACHABLE.partition(":")
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def mark(api: LocalApi, status: str, *, tainted: bool = False) -> None:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": status, "reason": "Test", "message": "", "lastTransitionTime": stamp}
    patch = {"status": {"conditions": [{**condition, "lastHeartbeatTime": stamp}]}}
    merge = "application/strategic-merge-patch+json"
    api.request("PATCH", "/api/v1/nodes/w1/status", patch, content=merge)
    taints = [{"key": KEY, "effect": EFFECT}] if tainted else []
    api.request("PATCH", "/api/v1/nodes/w1", {"spec": {"taints": taints}}, content="application/merge-patch+json")


def endpoint(api: LocalApi, *, ready: bool) -> None:
    entry = {"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": "web-1"}}
    patch = {"endpoints": [entry]}
    api.request("PATCH", f"{SLICES}/web", patch, content="application/merge-patch+json")


def furnish(api: LocalApi) -> None:
    """A node, a Service's endpoint, and kube-controller-manager's Lease."""
    meta = {"name": "w1"}
    api.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta})
    empty = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web"}}
    api.request("POST", SLICES, {**empty, "addressType": "IPv4", "endpoints": []})
    spec = {"holderIdentity": "first", "renewTime": now(), "leaseDurationSeconds": 15}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "kube-controller-manager"}}
    api.request("POST", outage.LEASE.rsplit("/", 1)[0], {**lease, "spec": spec})
    mark(api, "True")
    endpoint(api, ready=True)


class Hands:
    """Takes the server away as asked, and does the damage as soon as it is back."""

    def __init__(self, api: LocalApi, holder_after: str) -> None:
        self.api, self.holder, self.holder_after = api, "first", holder_after

    async def hold(self, way: Way, seconds: float, begun: Callable[[], None]) -> Held:
        away, back = {
            "stop": (self.api.stop_answering, self.api.answer_again),
            "kill": (self.api.kill_server, self.api.start_server),
        }[way]
        await asyncio.to_thread(away)
        begun()
        self.holder = self.holder_after
        since = time.time()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(back)
        ended = time.time()
        await asyncio.to_thread(self.harm)
        return Held(ended - since, ended)

    def harm(self) -> None:
        mark(self.api, "Unknown", tainted=True)
        endpoint(self.api, ready=False)
        mark(self.api, "True")
        endpoint(self.api, ready=True)

    async def restart_kubelet(self) -> None:
        raise AssertionError("the server came back by itself")

    async def lead(self) -> None:
        while True:
            patch = {"spec": {"holderIdentity": self.holder, "renewTime": now()}}
            with contextlib.suppress(OSError):
                await asyncio.to_thread(
                    self.api.request, "PATCH", outage.LEASE, patch, content="application/merge-patch+json"
                )
            await asyncio.sleep(0.3)


@pytest.mark.parametrize("way", ["stop", pytest.param("kill", marks=pytest.mark.long)])
async def test_a_flap_right_after_the_outage_is_counted(
    own_api: LocalApi, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    monkeypatch.setattr(outage, "SETTLE_SECONDS", 1.2)
    monkeypatch.setattr(outage, "MARGIN_SECONDS", 0.5)
    furnish(own_api)
    hands = Hands(own_api, "first" if way == "stop" else "second")
    leading = asyncio.create_task(hands.lead())
    try:
        async with connect(own_api.kubeconfig()) as api:
            made, reference = await outage.one_outage(api, hands, FAST, (1, 1.5, way, 0.3), None)
    finally:
        leading.cancel()
        await asyncio.wait({leading})
    assert made.damage.lost == 1, made
    assert made.damage.endpoints_lost == 1 or made.damage.unseen == 1, made
    assert made.manager_exited is (way == "kill")
    assert 1.5 <= made.away_seconds < 60
    assert (way == "stop") <= (made.damage.tainted == 1), "a stopped server resumes its watches: nothing is unseen"
    assert len(reference.slices) >= 1
