"""Controllers that never act twice: leader election, fencing, caches, a work queue and an orderly end.

A controller's author needs `Controller`, `Watch`, `Done`, `RequeueAfter` and `run`; see docs/controllers.md.
"""

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
from tandem.runtime.cache import Cache
from tandem.runtime.client import Client, KubeClient, connect_client
from tandem.runtime.clock import Clock, boottime
from tandem.runtime.controller import (
    Context,
    Controller,
    ControllerSettings,
    Done,
    RequeueAfter,
    Result,
    Watch,
    own_key,
    spec_changed,
)
from tandem.runtime.elector import ElectionObserver, Elector, Leadership, LeadershipLost, NotElected
from tandem.runtime.engine import Engine
from tandem.runtime.epochs import epoch_policy
from tandem.runtime.events import EventRecorder
from tandem.runtime.fence import EPOCH_ANNOTATION, Fence, NotLeading, OpenFence, StaleEpoch, check_epoch, stamp_epoch
from tandem.runtime.process import run, serve
from tandem.runtime.resources import Key, Object, Resource, key_of, owner_keys
from tandem.runtime.scope import Scope, Shard, check_shards
from tandem.runtime.settings import RunSettings
from tandem.runtime.shutdown import DRAIN_SECONDS, Shutdown
from tandem.runtime.writer import Writer

__all__ = [
    "DRAIN_SECONDS",
    "EPOCH_ANNOTATION",
    "ApiLeaseStore",
    "Cache",
    "Client",
    "Clock",
    "Context",
    "Controller",
    "ControllerSettings",
    "Done",
    "ElectionObserver",
    "Elector",
    "ElectorSettings",
    "Engine",
    "EventRecorder",
    "Fence",
    "Guard",
    "GuardError",
    "Key",
    "KubeClient",
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
    "Object",
    "OpenFence",
    "ProcessGuard",
    "RequeueAfter",
    "Resource",
    "Result",
    "RunSettings",
    "Scope",
    "Shard",
    "Shutdown",
    "StaleEpoch",
    "Watch",
    "Writer",
    "boottime",
    "check_epoch",
    "check_shards",
    "connect_client",
    "default_identity",
    "epoch_policy",
    "key_of",
    "own_key",
    "owner_keys",
    "run",
    "serve",
    "spec_changed",
    "stamp_epoch",
]
