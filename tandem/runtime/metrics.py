"""What a controller counts, under controller-runtime's and client-go's names where they mean the same.

So the dashboards and alerts that people have for Go controllers work for these. What only this runtime has begins with
`tandem_`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

RECONCILE_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0,
    60.0,
)  # fmt: skip
"""controller-runtime's buckets of reconcile_time_seconds."""
QUEUE_BUCKETS: Final = tuple(10.0**exponent for exponent in range(-6, 4))
"""client-go's buckets of the work queue, without those below a microsecond, which Python does not reach."""


class Metrics:
    """All metrics of one process, in one registry.

    Args:
        registry: where they are registered; a new one of its own by default, so that tests do not meet.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        by_controller = ["controller"]
        by_queue = ["name", "controller"]
        self.reconciles = Counter(
            "controller_runtime_reconcile", "Reconciles by result.", ["controller", "result"], registry=self.registry
        )
        self.errors = Counter(
            "controller_runtime_reconcile_errors", "Reconciles that raised.", by_controller, registry=self.registry
        )
        self.duration = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Time of a reconcile.",
            by_controller,
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.active = Gauge(
            "controller_runtime_active_workers", "Workers with a key.", by_controller, registry=self.registry
        )
        self.workers = Gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers.", by_controller, registry=self.registry
        )
        self.depth = Gauge("workqueue_depth", "Keys that are ready.", by_queue, registry=self.registry)
        self.adds = Counter("workqueue_adds", "Keys that were queued.", by_queue, registry=self.registry)
        self.waited = Histogram(
            "workqueue_queue_duration_seconds",
            "Time in the queue.",
            by_queue,
            buckets=QUEUE_BUCKETS,
            registry=self.registry,
        )
        self.worked = Histogram(
            "workqueue_work_duration_seconds",
            "Time with a worker.",
            by_queue,
            buckets=QUEUE_BUCKETS,
            registry=self.registry,
        )
        self.unfinished = Gauge(
            "workqueue_unfinished_work_seconds",
            "Sum of the ages of what workers hold.",
            by_queue,
            registry=self.registry,
        )
        self.longest = Gauge(
            "workqueue_longest_running_processor_seconds",
            "Age of the oldest of what workers hold.",
            by_queue,
            registry=self.registry,
        )
        self.retries = Counter(
            "workqueue_retries", "Keys that were queued with back-off.", by_queue, registry=self.registry
        )
        self.leading = Gauge(
            "leader_election_master_status", "1 while this process leads.", ["name"], registry=self.registry
        )
        self.epoch = Gauge(
            "tandem_leader_epoch", "Epoch of our lead, 0 while following.", ["name"], registry=self.registry
        )
        self.lease_requests = Counter(
            "tandem_lease_requests", "Requests about a Lease.", ["name", "verb", "outcome"], registry=self.registry
        )
        self.lease_time = Histogram(
            "tandem_lease_request_seconds", "Time of such a request.", ["name"], registry=self.registry
        )
        self.requests = Counter(
            "rest_client_requests", "Requests to the API server.", ["code", "method"], registry=self.registry
        )
        self.writes = Counter(
            "tandem_writes", "Writes by outcome.", ["controller", "verb", "outcome"], registry=self.registry
        )
        self.events = Counter("tandem_events", "Events by outcome.", ["controller", "outcome"], registry=self.registry)
        self.objects = Gauge(
            "tandem_cache_objects", "Objects in a cache.", ["controller", "resource"], registry=self.registry
        )
        self.lists = Counter(
            "tandem_reflector_lists", "Complete lists.", ["controller", "resource"], registry=self.registry
        )
        self.list_time = Histogram(
            "tandem_reflector_list_seconds", "Time of one.", ["controller", "resource"], registry=self.registry
        )
        self.watches = Counter(
            "tandem_reflector_watches",
            "Watches by how they ended.",
            ["controller", "resource", "outcome"],
            registry=self.registry,
        )

    def count_request(self, method: str, code: int) -> None:
        """One request to the API server; code 0 when there was no answer."""
        self.requests.labels(str(code) if code else "<error>", method).inc()


class QueueMetrics:
    """A queue's observer."""

    def __init__(self, metrics: Metrics, controller: str, processing: Callable[[], dict[Any, float]]) -> None:
        labels = (controller, controller)
        self._depth = metrics.depth.labels(*labels)
        self._adds = metrics.adds.labels(*labels)
        self._waited = metrics.waited.labels(*labels)
        self._worked = metrics.worked.labels(*labels)
        self._retries = metrics.retries.labels(*labels)
        self._processing = processing
        metrics.unfinished.labels(*labels).set_function(lambda: sum(self._ages()))
        metrics.longest.labels(*labels).set_function(lambda: max(self._ages(), default=0.0))

    def added(self, depth: int) -> None:
        """See `QueueObserver`."""
        self._depth.set(depth)
        self._adds.inc()

    def taken(self, depth: int, waited: float) -> None:
        """See `QueueObserver`."""
        self._depth.set(depth)
        self._waited.observe(waited)

    def finished(self, took: float) -> None:
        """See `QueueObserver`."""
        self._worked.observe(took)

    def retried(self) -> None:
        """See `QueueObserver`."""
        self._retries.inc()

    def _ages(self) -> list[float]:
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:  # asked from outside the loop: nothing runs
            return []
        return [now - started for started in self._processing().values()]


class ReflectorMetrics:
    """A reflector's observer."""

    def __init__(self, metrics: Metrics, controller: str, resource: str) -> None:
        self._lists = metrics.lists.labels(controller, resource)
        self._time = metrics.list_time.labels(controller, resource)
        self._watches = {
            outcome: metrics.watches.labels(controller, resource, outcome) for outcome in ("ended", "expired", "broken")
        }

    def listed(self, objects: int, seconds: float) -> None:
        """See `ReflectorObserver`."""
        self._lists.inc()
        self._time.observe(seconds)

    def watched(self, outcome: str) -> None:
        """See `ReflectorObserver`."""
        self._watches[outcome].inc()


class ElectionMetrics:
    """An elector's observer."""

    def __init__(self, metrics: Metrics, lease: str) -> None:
        self._metrics = metrics
        self._lease = lease
        self._leading = metrics.leading.labels(lease)
        self._epoch = metrics.epoch.labels(lease)
        self._time = metrics.lease_time.labels(lease)

    def leading(self, epoch: int) -> None:
        """We lead."""
        self._leading.set(1)
        self._epoch.set(epoch)

    def following(self, holder: str) -> None:
        """We do not."""
        self._stop()

    def lost(self, reason: object) -> None:
        """We do not any more."""
        self._stop()

    def released(self) -> None:
        """We gave it back."""
        self._stop()

    def request(self, verb: Any, outcome: Any, seconds: float) -> None:
        """A request about the Lease ended."""
        self._metrics.lease_requests.labels(self._lease, verb.value, outcome.value).inc()
        self._time.observe(seconds)

    def _stop(self) -> None:
        self._leading.set(0)
        self._epoch.set(0)
