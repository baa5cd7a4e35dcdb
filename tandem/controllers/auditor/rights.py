"""What the auditor may do in a cluster: the rules of its roles, by name, and nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tandem.controllers.auditor.reports import REPORTS
from tandem.labels import PROFILE_CONFIG_MAP
from tandem.runtime.resources import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

READ: Final = ("get", "list", "watch")

AUTOSCALERS: Final = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")

JUDGED: Final = (
    DEPLOYMENTS,
    STATEFUL_SETS,
    DAEMON_SETS,
    POD_DISRUPTION_BUDGETS,
    PERSISTENT_VOLUME_CLAIMS,
    LEASES,
    SERVICES,
    AUTOSCALERS,
    PODS,
)
"""What is followed in every namespace. A report is made where there is any of the first six."""


def cluster_rules() -> list[dict[str, Any]]:
    """Rules of its ClusterRole: read what it judges, write reports and Events."""
    groups: dict[str, list[str]] = {}
    for resource in (*JUDGED, NODES):
        groups.setdefault(resource.group, []).append(resource.plural)
    read = [_rule(group, sorted(plurals), READ) for group, plurals in sorted(groups.items())]
    return [
        *read,
        # One ConfigMap by name, in whatever namespace: a watch of one name needs no more.
        _rule(CONFIG_MAPS.group, [CONFIG_MAPS.plural], READ) | {"resourceNames": [PROFILE_CONFIG_MAP]},
        _rule(REPORTS.group, [REPORTS.plural], (*READ, "create")),
        _rule(REPORTS.group, [f"{REPORTS.plural}/status"], ("patch",)),
        _rule(EVENTS.group, [EVENTS.plural], ("create", "update")),
    ]


def lease_rules(leases: Sequence[str]) -> list[dict[str, Any]]:
    """Rules of its Role: exactly its Leases. They are deployed with it, so that it need not create any."""
    return [_rule(LEASES.group, [LEASES.plural], ("get", "watch", "list", "update")) | {"resourceNames": list(leases)}]


def _rule(group: str, plurals: Sequence[str], verbs: Sequence[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(plurals), "verbs": list(verbs)}
