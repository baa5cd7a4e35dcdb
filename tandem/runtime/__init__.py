"""Controllers that never act twice: leader election, fencing, caches, a work queue and an orderly end.

A controller's author needs `Controller`, `Watch`, `Done`, `RequeueAfter` and `run`; see docs/controllers.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
    from tandem.runtime.fence import (
        EPOCH_ANNOTATION,
        Fence,
        NotLeading,
        OpenFence,
        StaleEpoch,
        check_epoch,
        stamp_epoch,
    )
    from tandem.runtime.process import run, serve
    from tandem.runtime.resources import Key, Object, Resource, key_of, owner_keys
    from tandem.runtime.scope import Scope, Shard, check_shards
    from tandem.runtime.settings import RunSettings
    from tandem.runtime.shutdown import DRAIN_SECONDS, Shutdown
    from tandem.runtime.writer import Writer

_HOMES: Final = {
    "tandem.runtime._election.core": ("Loss",),
    "tandem.runtime._election.guard": ("Guard", "GuardError", "ProcessGuard"),
    "tandem.runtime._election.port": (
        "LeaseBusy",
        "LeaseConflict",
        "LeaseError",
        "LeaseNotFound",
        "LeaseRefused",
        "LeaseStore",
    ),
    "tandem.runtime._election.settings": ("ElectorSettings", "default_identity"),
    "tandem.runtime._election.store": ("ApiLeaseStore",),
    "tandem.runtime.cache": ("Cache",),
    "tandem.runtime.client": ("Client", "KubeClient", "connect_client"),
    "tandem.runtime.clock": ("Clock", "boottime"),
    "tandem.runtime.controller": (
        "Context",
        "Controller",
        "ControllerSettings",
        "Done",
        "RequeueAfter",
        "Result",
        "Watch",
        "own_key",
        "spec_changed",
    ),
    "tandem.runtime.elector": ("ElectionObserver", "Elector", "Leadership", "LeadershipLost", "NotElected"),
    "tandem.runtime.engine": ("Engine",),
    "tandem.runtime.epochs": ("epoch_policy",),
    "tandem.runtime.events": ("EventRecorder",),
    "tandem.runtime.fence": (
        "EPOCH_ANNOTATION",
        "Fence",
        "NotLeading",
        "OpenFence",
        "StaleEpoch",
        "check_epoch",
        "stamp_epoch",
    ),
    "tandem.runtime.process": ("run", "serve"),
    "tandem.runtime.resources": ("Key", "Object", "Resource", "key_of", "owner_keys"),
    "tandem.runtime.scope": ("Scope", "Shard", "check_shards"),
    "tandem.runtime.settings": ("RunSettings",),
    "tandem.runtime.shutdown": ("DRAIN_SECONDS", "Shutdown"),
    "tandem.runtime.writer": ("Writer",),
}
"""Module to the public names that it has. They are loaded when somebody asks for them: the Pulumi program and the
command line need a scope or a resource's path, and not the second that a whole controller takes to load."""

_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


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
