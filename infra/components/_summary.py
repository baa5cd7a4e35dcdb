"""What an app's entry in the stack's outputs says: where it is, and when it is there again after a worker's loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from tandem.recovery import Behaviour, Pace, RecoveryProfile, Stage, Window, predict

if TYPE_CHECKING:
    from infra.components._app import AppArgs

TOLD: Final[tuple[Stage, ...]] = ("endpoints_out", "serving")
"""The stages that callers notice: they are not sent to the lost worker any more; they are answered again."""

Seconds = dict[str, list[float]]
"""By stage: at the earliest and at the latest, after the power loss."""


def endpoints(name: str, args: AppArgs) -> list[str]:
    """Where the app's Service answers: in the cluster, on every node, and by its Ingress."""
    return list(_endpoints(name, args))


def _endpoints(name: str, args: AppArgs) -> Iterator[str]:
    inside = f"{name}.{args.namespace}.svc"
    yield f"http://{inside}"
    for each in args.ports:
        yield f"{each.protocol.lower()}://{inside}:{each.service_port or each.port}"
    for port in args.node_ports:
        yield f"any node, port {port}"
    if args.ingress:
        yield f"{'https' if args.ingress.tls_secret else 'http'}://{args.ingress.host}{args.ingress.path}"


def predicted(profile: RecoveryProfile, behaviour: Behaviour) -> Seconds:
    """The windows of the profile. Without `serving` the app stays away until the worker is back, or was let go."""
    windows = predict(profile, behaviour)
    return {stage: _rounded(windows[stage]) for stage in TOLD if stage in windows}


def predicted_lead(lease_seconds: float, retry_seconds: float) -> Seconds:
    """When the standby leads: the dead leader renewed its Lease one retry period ago at most."""
    return {"next_leader": _rounded(Window(lease_seconds - retry_seconds, lease_seconds).plus(*Pace().write))}


def _rounded(window: Window) -> list[float]:
    return [round(window.low, 1), round(window.high, 1)]
