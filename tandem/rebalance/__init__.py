"""Brings crowded pods apart after a node's return: `tandem rebalance`, and the same as a CronJob.

Kubernetes moves no running pod. Replicas that joined the survivor when their worker was lost (`on_node_loss: crowd`)
stay there, and the next loss takes all of them. What moves a pod here is an eviction, so budgets hold; one pod at a
time, and the next only when its app is whole again.
"""

from __future__ import annotations

from tandem.rebalance.plan import Move, Plan, plan
from tandem.rebalance.run import Outcome, rebalance

__all__ = ["Move", "Outcome", "Plan", "plan", "rebalance"]
