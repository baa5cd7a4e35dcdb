"""Does what a stack runs fit on one worker? Asked before a loss asks it: what does not fit then stays Pending.

The sum is of requests, for that is what the scheduler reckons with: of each app what the survivor has to hold, not all
of its replicas. What others run on the worker, and what `pod_spec_overrides` and `patch` change, is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi

from infra.cluster import ClusterError, RoomReader, read_smallest_worker
from infra.components import AppArgs
from infra.components._parts import HelperArgs
from infra.settings import Settings
from tandem.survivability import quantity

MEBI: Final = 2.0**20


@dataclass(frozen=True)
class Load:
    """Requests: cores, bytes, and the pods that make them."""

    cpu: float = 0.0
    memory: float = 0.0
    pods: int = 0

    def __add__(self, other: Load) -> Load:
        """Both."""
        return Load(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods)

    def times(self, count: int) -> Load:
        """So many of it."""
        return Load(self.cpu * count, self.memory * count, self.pods * count)


def load_of(args: AppArgs) -> Load:
    """What the app asks of a worker that is left alone."""
    own = _request(args)
    for sidecar in args.sidecars:
        own += _request(sidecar)
    # One after the other, with the sidecars running and the app not yet.
    beside = [sum((_request(each) for each in args.sidecars), _request(first)) for first in args.init_containers]
    pod = Load(max([own.cpu, *(e.cpu for e in beside)]), max([own.memory, *(e.memory for e in beside)]), 1)
    return pod.times(args.pods_on_survivor)


def shortage(apps: Mapping[str, AppArgs], room: Mapping[str, str]) -> str | None:
    """What one worker of this room lacks, with the apps that ask for most; None when all fit.

    Args:
        apps: by name.
        room: what a worker has for pods, as Kubernetes quantities of cpu, memory and pods; a missing one has no end.
    """
    loads = {name: load_of(args) for name, args in apps.items()}
    total = sum(loads.values(), Load())
    asked = {"cpu": total.cpu, "memory": total.memory, "pods": float(total.pods)}
    short = [name for name, amount in asked.items() if name in room and amount > quantity(room[name])]
    if not short:
        return None
    lacks = ", ".join(f"{_shown(name, asked[name])} of {name} asked, {room[name]} there" for name in short)
    largest = sorted(loads, key=lambda name: -getattr(loads[name], short[0]))[:3]
    most = ", ".join(f"{name} {_shown(short[0], getattr(loads[name], short[0]))}" for name in largest)
    return f"the apps do not fit on one worker: {lacks}; most is asked by {most}"


def warn_of_shortage(settings: Settings, read: RoomReader | None = None) -> None:
    """Warn when what the stack runs would not fit on its smallest worker.

    Args:
        settings: of the stack. Its `worker` counts; else the cluster is asked, if it may be.
        read: reads the smallest worker's room; from the cluster when None.
    """
    room = settings.worker
    if room is None:
        if not settings.asks_cluster:
            return
        try:
            room = (read or read_smallest_worker)(settings.kube_context)
        except ClusterError as error:
            pulumi.log.info(f"whether the apps fit on one worker was not reckoned: {error}")
            return
    if short := shortage(settings.apps, room):
        way_out = "lower requests or replicas, add memory, or give what matters most a priority_class: it then stays"
        pulumi.log.warn(f"{short}\n  way out: {way_out}")


def _request(part: AppArgs | HelperArgs) -> Load:
    return Load(quantity(part.cpu_request), quantity(part.memory_request), 0)


def _shown(resource: str, amount: float) -> str:
    return f"{amount / MEBI:.0f}Mi" if resource == "memory" else f"{amount:g}"
