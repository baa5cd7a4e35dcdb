"""With a worker away a run would wait for replicas that cannot start. Told before anything is registered.

Without the stack's `degraded` the run goes its usual way: it waits for each app that changes for the app's
`deploy_timeout_seconds`, fails, and this names the cause. With it nobody waits, and this names what was not waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pulumi

from infra.cluster import Away, AwayReader, ClusterError, read_away
from infra.components import AppArgs
from infra.settings import Settings

SWITCH: Final = "pulumi config set tandem:degraded true"
BACK: Final = "pulumi config rm tandem:degraded"


def tell_of_incident(settings: Settings, read: AwayReader | None = None) -> None:
    """Warn of a worker that is away, and of what is not waited for.

    Args:
        settings: of the stack.
        read: reads who is away; from the cluster, if it may be asked, when None.
    """
    away = Away()
    if settings.asks_cluster:
        try:
            away = (read or read_away)(settings.kube_context, settings.namespace)
        except ClusterError as error:
            pulumi.log.info(f"whether every worker is there was not seen: {error}")
    for said in remarks(settings.apps, away, degraded=settings.degraded):
        pulumi.log.warn(said)


def remarks(apps: Mapping[str, AppArgs], away: Away, *, degraded: bool) -> list[str]:
    """What there is to say, one warning each."""
    who = ", ".join(f"{node} ({why})" for node, why in away.workers.items())
    found: list[str] = []
    if degraded:
        seen = f"worker away: {who}" if who else "every worker seems to be there"
        names = ", ".join(sorted(apps)) or "no app"
        found.append(
            f"degraded: {seen}; not waited for: {names}\n"
            "  look: kubectl get pods --output=wide; what has no place starts when the worker is back\n"
            f"  way back: {BACK}, then pulumi up, which waits for all of them"
        )
    elif who:
        longest = max((each.deploy_timeout_seconds for each in apps.values()), default=0)
        found.append(
            f"worker away: {who}; replicas for it cannot start, so an app that changes is waited for in vain: "
            f"for {longest} s at most, and the run then fails\n"
            f"  way out: bring the worker back, or {SWITCH}: an update then reaches the other worker, without a wait"
        )
    return found + [_stuck(app, pods) for app, pods in away.stuck.items() if _stops_first(apps.get(app))]


def _stops_first(app: AppArgs | None) -> bool:
    """Whether no successor starts while an old pod is there."""
    return app is not None and app.stops_first


def _stuck(app: str, pods: Sequence[str]) -> str:
    names = ", ".join(pods)
    return (
        f"{app}: {names} cannot end, for the worker is away, and a change of {app} starts no new pod before: the one "
        "that serves now, if any, would end and have no successor\n"
        "  way out: leave it unchanged, or let the worker go first (playbooks/release-node.yml, docs/release.md)"
    )
