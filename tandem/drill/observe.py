"""What a drill keeps of the API's objects: the few facts that its timeline needs, stamped when they were seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["node", "pod", "slice"]


@dataclass(frozen=True)
class Observation:
    """One object as it was at one moment.

    Args:
        at: when the drill saw it, seconds since the epoch by the drill's own clock.
        kind: what it is.
        name: its name.
        uid: its identity: a successor of the same name has another.
        gone: it was deleted.
        facts: for a node `ready` (True, False, Unknown), `since` (when it became so, if the object says) and `taints`
            (`key:effect`); for a pod `labels`, `node`, `ready`, `deleting` and `phase`; for an EndpointSlice `service`
            and `endpoints` (`pod`, `node`, `ready`).
    """

    at: float
    kind: Kind
    name: str
    uid: str
    gone: bool
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The observation as JSON-ready data."""
        return asdict(self)


def from_dict(data: Mapping[str, Any]) -> Observation:
    """The observation of `to_dict`'s data."""
    return Observation(**data)


def distil(at: float, kind: Kind, obj: Mapping[str, Any], *, gone: bool = False) -> Observation:
    """The facts of an API object seen at `at`."""
    meta = obj["metadata"]
    facts = {"node": _node, "pod": _pod, "slice": _slice}[kind](obj)
    return Observation(at, kind, meta["name"], meta["uid"], gone, facts)


def condition(obj: Mapping[str, Any], kind: str) -> str:
    """The status of a condition of a node or pod: True, False or Unknown."""
    conditions = obj.get("status", {}).get("conditions") or []
    return next((str(c["status"]) for c in conditions if c["type"] == kind), "Unknown")


def _node(obj: Mapping[str, Any]) -> dict[str, Any]:
    taints = [f"{taint['key']}:{taint['effect']}" for taint in obj["spec"].get("taints") or []]
    conditions = obj.get("status", {}).get("conditions") or []
    since = next((c.get("lastTransitionTime") for c in conditions if c["type"] == "Ready"), None)
    return {"ready": condition(obj, "Ready"), "taints": taints, **({"since": since} if since else {})}


def _pod(obj: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "labels": dict(obj["metadata"].get("labels") or {}),
        "node": obj["spec"].get("nodeName"),
        "ready": condition(obj, "Ready") == "True",
        "deleting": "deletionTimestamp" in obj["metadata"],
        "phase": obj.get("status", {}).get("phase"),
    }


def _slice(obj: Mapping[str, Any]) -> dict[str, Any]:
    endpoints = [
        {
            "pod": (e.get("targetRef") or {}).get("name"),
            "node": e.get("nodeName"),
            "ready": (e.get("conditions") or {}).get("ready", True) is not False,
        }
        for e in obj.get("endpoints") or []
    ]
    return {"service": (obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name"), "endpoints": endpoints}
