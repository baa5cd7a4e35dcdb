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

WHEN_UNREACHABLE: Final = f"{LABEL_PREFIX}/when-unreachable"
"""Annotation of a single writer: `hold` (never two writers) or `replace` (back by itself, two writers when cut off)."""

STATEFUL_SET_REASON: Final = f"{LABEL_PREFIX}/stateful-set-reason"
"""Annotation: why it must be a StatefulSet although it stays away until its lost node is back."""

LEASE: Final = f"{LABEL_PREFIX}/lease"
"""Annotation of a controller that is elected: the name of its Lease, several with commas. Absent: not elected."""

LEASE_SECONDS: Final = f"{LABEL_PREFIX}/lease-seconds"
"""Annotation: lease duration, renew deadline and retry period in seconds, as `15/10/2`."""

DRAIN_SECONDS: Final = f"{LABEL_PREFIX}/drain-seconds"
"""Annotation: what the program needs between SIGTERM and its exit, as a whole number of seconds."""

SHARD_OF: Final = f"{LABEL_PREFIX}/shard-of"
"""Annotation of a shard: the controller that it is a part of."""

SCOPE: Final = f"{LABEL_PREFIX}/scope"
"""Annotation of a shard: `namespaces=a,b`, or `labels=KEY=VALUE`."""

FIELD_MANAGER: Final = f"{LABEL_PREFIX}/field-manager"
"""Annotation of a controller: the field manager of its writes."""

CONFORMANCE: Final = f"{LABEL_PREFIX}/conformance"
"""Annotation of a controller: the image that was run, then what the run has shown, all separated by spaces."""

REBALANCED_BY: Final = f"{LABEL_PREFIX}/rebalanced-by"
"""Annotation of a spread app whose replicas crowd on the survivor: who brings them apart after the node's return."""

AUTOSCALED: Final = f"{LABEL_PREFIX}/autoscaled"
"""Annotation of an app whose replicas an autoscaler sets: its bounds, as `2-6`."""

EXEMPT_PREFIX: Final = f"exempt.{LABEL_PREFIX}/"
"""Prefix of the annotations `exempt.tandem-ha.io/RULE: reason`."""

ADMISSION: Final = f"{LABEL_PREFIX}/admission"
"""Label of a namespace that takes part in the admission policy: `warn` or `deny`."""

PROTECTED_CONFIG_MAP: Final = "tandem-admission"
"""ConfigMap of a namespace: Deployment name to `alone` (one replica at most) or `spare` (two or more, or none)."""
