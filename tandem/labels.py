"""Names of the labels, namespaces and objects that the parts of Tandem share. One constant holds the prefix."""

from __future__ import annotations

from typing import Final

LABEL_PREFIX: Final = "tandem-ha.io"

WORKLOAD: Final = f"{LABEL_PREFIX}/workload"
"""What kind of workload an object belongs to; blocking rules judge labelled objects only."""

SPREAD: Final = "spread"
SINGLE_WRITER: Final = "single-writer"
NODE_AGENT: Final = "node-agent"
CONTROLLER: Final = "controller"
WORKLOAD_KINDS: Final = (SPREAD, SINGLE_WRITER, NODE_AGENT, CONTROLLER)

SHARED_STORAGE: Final = f"{LABEL_PREFIX}/shared-storage"
"""Node label; the value `mounted` says that the shared file system was found mounted."""

PROBE: Final = f"{LABEL_PREFIX}/probe"
"""Label of the pods that a drill creates as clients inside the cluster, so that left-over ones can be found."""

SYSTEM_NAMESPACE: Final = "tandem-system"
PROFILE_CONFIG_MAP: Final = "recovery-profile"
"""ConfigMap in `tandem-system` in which the tuning records the applied profile (keys `profile`, `recovery.json`)."""
