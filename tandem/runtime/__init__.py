"""Controllers that never act twice: leader election, fencing and an orderly end."""

from __future__ import annotations

from tandem.runtime._election.core import Loss
from tandem.runtime._election.guard import Guard, GuardError, ProcessGuard
from tandem.runtime._election.port import (
    LeaseBusy,
    LeaseConflict,
    LeaseError,
    LeaseNotFound,
    LeaseRefused,
    LeaseStore,
)
from tandem.runtime._election.settings import ElectorSettings, default_identity
from tandem.runtime._election.store import ApiLeaseStore
from tandem.runtime.clock import Clock, boottime
from tandem.runtime.elector import ElectionObserver, Elector, Leadership, LeadershipLost, NotElected
from tandem.runtime.fence import EPOCH_ANNOTATION, Fence, NotLeading, OpenFence, StaleEpoch, check_epoch, stamp_epoch
from tandem.runtime.shutdown import DRAIN_SECONDS, Shutdown

__all__ = [
    "DRAIN_SECONDS",
    "EPOCH_ANNOTATION",
    "ApiLeaseStore",
    "Clock",
    "ElectionObserver",
    "Elector",
    "ElectorSettings",
    "Fence",
    "Guard",
    "GuardError",
    "Leadership",
    "LeadershipLost",
    "LeaseBusy",
    "LeaseConflict",
    "LeaseError",
    "LeaseNotFound",
    "LeaseRefused",
    "LeaseStore",
    "Loss",
    "NotElected",
    "NotLeading",
    "OpenFence",
    "ProcessGuard",
    "Shutdown",
    "StaleEpoch",
    "boottime",
    "check_epoch",
    "default_identity",
    "stamp_epoch",
]
