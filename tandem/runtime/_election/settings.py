"""What an election needs to know beforehand, and which combinations cannot work."""

from __future__ import annotations

import math
import os
import re
import socket
import uuid
from dataclasses import dataclass, field

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")


def default_identity() -> str:
    """Pod name (or host name) and a random part: a restarted container must not take its own old Lease for its own."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}"


@dataclass(frozen=True, kw_only=True)
class ElectorSettings:
    """One candidate's part in the election over one Lease.

    The three times are client-go's, with its defaults. Their relation is what makes the election safe: between the
    renew deadline, when the fence closes, and the end of the lease, when another may lead, lies the time in which a
    leader that could not renew must end. `lease_duration / renew_deadline` is also the clock *rate* error that is
    tolerated between two machines (1.5 by default); their wall clocks may differ by any amount.

    Attributes:
        lease_name: Name of the Lease. One for each thing that may be done by one process only.
        namespace: Namespace of the Lease.
        identity: Who holds the Lease; unique for each process.
        lease_duration: Whole seconds after its last renewal for which others leave the leader alone.
        renew_deadline: Seconds after the start of its last successful renewal when a leader closes its fence.
        retry_period: Seconds between renewals, and between attempts after a failure.
        request_timeout: Seconds that one request may take at most; always also bounded by the renew deadline.
        cancel_margin: Seconds before the end of the lease when what is still in flight is cancelled. Half as long
            before it, the kernel's timer ends the process.
        release_timeout: Seconds that giving the Lease back may take at the end, all attempts together.

    Raises:
        ValueError: The values cannot work; says which, and why.
    """

    lease_name: str
    namespace: str
    identity: str = field(default_factory=default_identity)
    lease_duration: int = 15
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    request_timeout: float = 5.0
    cancel_margin: float = 1.0
    release_timeout: float = 5.0

    def __post_init__(self) -> None:
        wrong = list(self._problems())
        if wrong:
            raise ValueError("election settings: " + "; ".join(wrong))

    def _problems(self) -> list[str]:
        problems = [
            f"{name} {value!r} is not a Kubernetes name"
            for name, value in (("lease_name", self.lease_name), ("namespace", self.namespace))
            if not _NAME.match(value)
        ]
        if not self.identity.strip():
            problems.append("identity is empty; an empty holder means that the Lease is free")
        times = (
            self.lease_duration,
            self.renew_deadline,
            self.retry_period,
            self.request_timeout,
            self.cancel_margin,
            self.release_timeout,
        )
        if not all(math.isfinite(value) and value > 0 for value in times):
            return [*problems, "every time must be a positive number of seconds"]
        if self.lease_duration != int(self.lease_duration):
            problems.append(f"lease_duration {self.lease_duration}: the API keeps whole seconds only")
        if self.renew_deadline < 2.2 * self.retry_period:
            problems.append(
                f"renew_deadline {self.renew_deadline} < 2.2 x retry_period {self.retry_period}: "
                "one failed request would cost the lead, for there is no time for a second attempt"
            )
        if self.lease_duration - self.renew_deadline <= self.cancel_margin:
            problems.append(
                f"lease_duration {self.lease_duration} - renew_deadline {self.renew_deadline} <= cancel_margin "
                f"{self.cancel_margin}: work in flight would be cancelled as soon as the deadline is missed, "
                "or only after another may lead"
            )
        if self.request_timeout > self.renew_deadline:
            problems.append(
                f"request_timeout {self.request_timeout} > renew_deadline {self.renew_deadline}: "
                "one hung request would cost the lead"
            )
        return problems
