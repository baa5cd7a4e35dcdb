"""Do what the plan says: one eviction, wait until its app is whole again, look anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tandem.drill.api import Api, ApiError, Object
from tandem.rebalance.plan import SETTLED_SECONDS, Move, Plan, plan

WHOLE_SECONDS: Final = 300.0
"""How long an app may take to be whole again after an eviction: a pod's end, its successor's start, a slow machine."""

BUDGET_SECONDS: Final = 60.0
"""How long a budget that allows no eviction is asked again."""

POLL_SECONDS: Final = 2.0

_TOO_MANY: Final = 429
_GONE: Final = frozenset({404, 409})
"""The pod has gone, or another one has its name: look anew."""


@dataclass
class Outcome:
    """What was done.

    Attributes:
        moved: evictions whose replacement came to another worker.
        left: by app (or `workers`), why it is still crowded.
    """

    moved: list[Move] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


async def rebalance(
    api: Api,
    *,
    namespace: str | None = None,
    settled_seconds: float = SETTLED_SECONDS,
    whole_seconds: float = WHOLE_SECONDS,
    budget_seconds: float = BUDGET_SECONDS,
    tell: Callable[[str], None] = lambda said: None,
) -> Outcome:
    """Bring crowded pods apart.

    An app whose replacement comes back to where it was is left alone from then on; one that does not get whole ends
    the run, for nothing else should be moved then.

    Args:
        api: the cluster.
        namespace: look at this one only.
        settled_seconds: how long each worker must have been Ready.
        whole_seconds: how long an app may take after an eviction.
        budget_seconds: how long a budget that allows no eviction is asked again.
        tell: called with each step.

    Raises:
        ApiError, OSError, aiohttp.ClientError: the API refused or could not be reached.
    """
    outcome = Outcome()
    while True:
        found = await look(api, namespace, settled_seconds)
        move = next((each for each in found.moves if each.app not in outcome.left), None)
        if move is None:
            outcome.left |= {app: why for app, why in (found.waiting or {}).items() if app not in outcome.left}
            return outcome
        tell(str(move))
        if refused := await _evict(api, move, budget_seconds):
            outcome.left[move.app] = refused
            continue
        if not await _whole(api, move, whole_seconds):
            outcome.left[move.app] = f"it was not whole again {whole_seconds:.0f} s after {move.pod} went"
            return outcome
        after = next((each for each in (await look(api, namespace, 0)).moves if each.app == move.app), None)
        if after is not None and after.skew >= move.skew:
            outcome.left[move.app] = f"the replacement of {move.pod} came back to {after.source}"
            continue
        outcome.moved.append(move)


async def look(api: Api, namespace: str | None, settled_seconds: float) -> Plan:
    """What there is to do now."""
    inside = f"/namespaces/{namespace}" if namespace else ""
    places = {"Node": "/api/v1/nodes", "Deployment": f"/apis/apps/v1{inside}/deployments"}
    places["Pod"] = f"/api/v1{inside}/pods"
    # The items of a list carry no kind of their own.
    objects = [{**each, "kind": kind} for kind, path in places.items() for each in await api.items(path)]
    return plan(objects, datetime.now(UTC), settled_seconds)


async def _evict(api: Api, move: Move, seconds: float) -> str:
    """Evict the pod; why that was refused, or nothing."""
    place, _, _ = move.app.partition("/")
    body: Object = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": move.pod, "namespace": place},
        "deleteOptions": {"preconditions": {"uid": move.uid}},
    }
    until = time.monotonic() + seconds
    while True:
        try:
            await api.request("POST", f"/api/v1/namespaces/{place}/pods/{move.pod}/eviction", body=body)
        except ApiError as error:
            if error.status in _GONE:
                return ""
            if error.status != _TOO_MANY:
                raise
            if time.monotonic() >= until:
                return f"a budget keeps {move.pod}: {error}"
            await asyncio.sleep(POLL_SECONDS)
        else:
            return ""


async def _whole(api: Api, move: Move, seconds: float) -> bool:
    """Wait until the evicted pod is gone and all replicas of its app are available."""
    place, _, app = move.app.partition("/")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await asyncio.sleep(POLL_SECONDS)
        old = await api.find(f"/api/v1/namespaces/{place}/pods/{move.pod}")
        if old is not None and old["metadata"]["uid"] == move.uid:
            continue
        deployment = await api.find(f"/apis/apps/v1/namespaces/{place}/deployments/{app}")
        if deployment is None:
            return True
        status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
        seen = status.get("observedGeneration") == deployment["metadata"].get("generation")
        if seen and status.get("replicas") == status.get("availableReplicas") == wanted:
            return True
    return False
