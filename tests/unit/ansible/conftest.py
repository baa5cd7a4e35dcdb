"""Makes the project's plugins importable as Ansible sees them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
from tests import ansible_modules  # noqa: E402, F401

NOW = 1_790_000_000.0

_NODE: dict[str, Any] = {
    "os": {
        "id": "debian",
        "family": "debian",
        "version_id": "13",
        "name": "Debian GNU/Linux 13 (trixie)",
        "architecture": "x86_64",
        "kernel": "7.2",
    },
    "selinux": "disabled",
    "now": NOW,
    "sent_at": NOW - 1,
    "swaps": [],
    "kernel": {
        "loads_modules": False,
        "present": {"overlay": True, "br_netfilter": True, "nf_conntrack": True, "nfs": True},
    },
    "disks": {"/var/lib": {"free": 20 * 1024**3, "total": 40 * 1024**3}},
    "addresses": [{"interface": "eth0", "address": "10.0.0.11", "prefix": 24}],
    "packages": {"kubelet": {"version": "1.36.3-1.1", "held": True}},
    "units": {"kubelet.service": {"active": "active", "enabled": "enabled", "loaded": "loaded"}},
    "processes": {"kubelet": {"pid": 1, "args": {"config": "/var/lib/kubelet/config.yaml"}, "environ": {}}},
    "busy": [],
    "foreign_manifests": [],
    "joined": True,
    "control_plane": False,
    "mount": {"point": "/srv/tandem", "source": "", "type": "", "options": [], "immutable": True},
    "nfs_server": {"running": False, "clients": 0, "lease": None, "grace": None, "exports": []},
}

_RULES: dict[str, Any] = {
    "supported": [{"id": "debian", "version": 12}, {"id": "ubuntu", "version": 24}],
    "architectures": ["x86_64"],
    "min_disk_gib": 5,
    "max_skew_seconds": 2.0,
    "pod_network": "bridge",
    "virtual_ip": "",
    "workers": ["a", "b"],
    "unreachable_hint": "start it",
    "lost_worker": "",
    "lost_worker_allowed": False,
}


@pytest.fixture
def node() -> Callable[..., dict[str, Any]]:
    """Makes a healthy machine's facts with some keys replaced."""

    def make(**changes: Any) -> dict[str, Any]:
        return {**copy.deepcopy(_NODE), **changes}

    return make


@pytest.fixture
def rules() -> dict[str, Any]:
    """What preflight asks of a machine."""
    return copy.deepcopy(_RULES)
