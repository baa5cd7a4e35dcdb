"""What Pulumi waits for, and what changes while a worker is away: the stack's `degraded`."""

from __future__ import annotations

from typing import Final

from pulumi_kubernetes.apps.v1 import DaemonSetUpdateStrategyArgs, RollingUpdateDaemonSetArgs

NOT_AWAITED: Final = {"pulumi.com/skipAwait": "true"}
"""Annotation of an object for which the provider does not wait."""


def one_node_at_a_time(*, degraded: bool) -> DaemonSetUpdateStrategyArgs:
    """How a DaemonSet is updated. The pod of a worker that is away counts as unavailable: it must not be the one."""
    rolling = RollingUpdateDaemonSetArgs(max_unavailable=2 if degraded else 1)
    return DaemonSetUpdateStrategyArgs(type="RollingUpdate", rolling_update=rolling)
