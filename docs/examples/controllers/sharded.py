"""The controller of elected.py, shared out: each team's namespaces are a shard with a Lease of its own.

Two copies share the shards; when one dies, the other leads them all. A third Deployment can be kept for one shard alone
with TANDEM_CANDIDATE_FOR=red.

    KUBECONFIG=... python sharded.py
"""

from __future__ import annotations

from elected import controller

from tandem.runtime import RunSettings, Scope, Shard, run

SHARDS = (
    Shard("red", Scope(("red-apps", "red-tools"))),
    Shard("blue", Scope(("blue-apps",))),
)

if __name__ == "__main__":
    run(controller, RunSettings.from_environ(shards=SHARDS))
