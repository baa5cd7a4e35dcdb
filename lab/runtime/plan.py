"""The address plan: which machines a lab may have, and every number that follows from it.

The network is the lab's own namespace, so the addresses cannot collide with the host's. Memory sizes are what a
kubeadm cluster was measured to need (control plane 3000 MiB, worker 2000 MiB, NFS server 700 MiB).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lab.runtime.errors import UnknownNodeError, UsageError

Role = Literal["control_plane", "worker", "nfs_server"]

BRIDGE = "br0"
GATEWAY = "10.77.0.1"
PREFIX_LENGTH = 24
APT_PORT = 8080
REGISTRY_PORT = 5000
API_PORT = 6443
SSH_PORT = 22
#: The word that stands for the host's own end of the bridge (10.77.0.1) where a peer is named.
HOST = "host"

DEFAULT_NAME = "default"
_DEFAULT_FORWARD_PORT = 16443
_OTHER_FORWARD_PORTS = range(16444, 16644)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Node:
    """One machine of the plan.

    Attributes:
        name: host name, also the name of its files and of its tap.
        number: last octet of its address.
        memory_mib: size of its memory in MiB.
        role: what the inventory uses it for.
        optional: only there when asked for (`up --with NAME`).
    """

    name: str
    number: int
    memory_mib: int
    role: Role
    optional: bool = False

    @property
    def address(self) -> str:
        """IPv4 address in the lab's network."""
        return f"10.77.0.{self.number}"

    @property
    def mac(self) -> str:
        """Ethernet address, locally administered."""
        return f"52:54:00:77:00:{self.number:02x}"

    @property
    def tap(self) -> str:
        """Name of its port on the bridge (at most 15 characters, the kernel's limit)."""
        return f"tap-{self.name}"


NODES: Mapping[str, Node] = MappingProxyType(
    {
        node.name: node
        for node in (
            Node("cp1", 10, 3000, "control_plane"),
            Node("w1", 11, 2000, "worker"),
            Node("w2", 12, 2000, "worker"),
            Node("nfs1", 20, 700, "nfs_server"),
            Node("cp2", 13, 3000, "control_plane", optional=True),
            Node("w3", 14, 2000, "worker", optional=True),
        )
    }
)


def lab_name(given: str | None = None) -> str:
    """The name of the lab meant: the argument, else TANDEM_LAB_NAME, else `default`.

    Raises:
        UsageError: the name would not do as a folder or host name.
    """
    name = given or os.environ.get("TANDEM_LAB_NAME") or DEFAULT_NAME
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no lab name: use a-z, 0-9 and '-', a letter first, at most 31 characters")
    return name


def node(name: str, known: Iterable[str] | None = None) -> Node:
    """The machine called NAME.

    Args:
        name: what the user typed.
        known: names that this lab has; all of the plan when None.

    Raises:
        UnknownNodeError: no such machine, or not one of this lab.
    """
    names = list(NODES) if known is None else list(known)
    if name in names and name in NODES:
        return NODES[name]
    listed = ", ".join(names) or "none"
    if name in NODES:
        way_out = f"`python -m lab up --with {name}` adds it" if NODES[name].optional else "`python -m lab up` adds it"
        raise UnknownNodeError(f"{name} is not part of this lab (it has: {listed}); {way_out}")
    raise UnknownNodeError(f"no machine is called {name!r}; this lab has: {listed}")


def chosen(extra: Iterable[str] = (), only: Iterable[str] = ()) -> tuple[Node, ...]:
    """The machines of `up`: the standard four and EXTRA, or exactly ONLY (which tests use to stay small)."""
    wanted = {node(name).name for name in only}
    if not wanted:
        wanted = {n.name for n in NODES.values() if not n.optional}
    wanted |= {node(name).name for name in extra}
    return tuple(n for n in NODES.values() if n.name in wanted)


def forward_ports(name: str) -> list[int]:
    """Loopback ports to try for the API server's forward, best first.

    The default lab has 16443; another name starts somewhere in 16444-16643 that follows from the name alone, so that
    its kubeconfigs stay valid from one `up` to the next.
    """
    if name == DEFAULT_NAME:
        return [_DEFAULT_FORWARD_PORT]
    size = len(_OTHER_FORWARD_PORTS)
    start = zlib.crc32(name.encode()) % size
    return [_OTHER_FORWARD_PORTS[(start + step) % size] for step in range(size)]
