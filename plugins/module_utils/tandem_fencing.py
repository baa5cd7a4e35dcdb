"""Which nodes the NFS server refuses: the record on its disk, the packet filter's rules, and who is connected.

Runs on the NFS server, and so it needs the standard library alone. The record is the only truth about a node that was
released; it outlives the run that wrote it and a reboot of the server.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "/var/lib/tandem"
RECORD: Final = "fence.json"
RULES: Final = "fence.nft"
TABLE: Final = "tandem_fence"
PORT: Final = 2049
ESTABLISHED: Final = "01"
"""In /proc/net/tcp (include/net/tcp_states.h)."""

REFUSING, REFUSED, LIFTED = "refusing", "refused", "lifted"
"""A node's phases: the rule is on its way; the server has acknowledged; readmitted, its taint not yet taken off."""


class FenceError(Exception):
    """The fence is not as it has to be; the message says what holds, what does not, and what to do."""


def read_record(folder: str | Path = FOLDER) -> dict[str, Any]:
    """Everything known of refused nodes: `epoch`, which grows with each fence, and `nodes` by name.

    Raises:
        FenceError: there is a record, but it cannot be read.
    """
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"epoch": 0, "nodes": {}}
    except (OSError, ValueError) as error:
        raise FenceError(
            f"{path}: the record of refused nodes cannot be read: {error}; rule: nobody is readmitted or released on a "
            "guess; way out: see who is in `nft list table inet tandem_fence`, and mend the file"
        ) from error
    return {"epoch": int(record["epoch"]), "nodes": dict(record["nodes"])}


def write_file(path: Path, text: str) -> None:
    """Replace a file so that it is on the disk, whole, whatever happens next."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_record(record: Mapping[str, Any], folder: str | Path = FOLDER) -> None:
    """Keep the record.

    Raises:
        OSError: it could not be written.
    """
    write_file(Path(folder) / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")


def refused_addresses(record: Mapping[str, Any]) -> list[str]:
    """Addresses and networks of all nodes that are refused, overlapping ones merged."""
    wanted = [
        ipaddress.IPv4Network(address)
        for node in record["nodes"].values()
        if node["phase"] != LIFTED
        for address in node["addresses"]
    ]
    return [
        str(network.network_address) if network.prefixlen == 32 else str(network)
        for network in ipaddress.collapse_addresses(wanted)
    ]


def ruleset(addresses: Iterable[str], port: int = PORT) -> str:
    """Input for `nft -f`: our table, put in place in one transaction, and no table when nobody is refused.

    Both ways are dropped: requests, and answers to what was received before. Nothing is rejected, for a hard mount
    that is told so would try elsewhere sooner; it waits instead, as for a server that is away.
    """
    elements = ", ".join(addresses)
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}"]
    if not elements:
        return "\n".join(lines) + "\n"
    lines += [f"table inet {TABLE} {{", "  set refused {", "    type ipv4_addr", "    flags interval"]
    lines += [f"    elements = {{ {elements} }}", "  }"]
    for hook, match in (("input", "ip saddr @refused {} dport"), ("output", "ip daddr @refused {} sport")):
        lines += [f"  chain {hook} {{", f"    type filter hook {hook} priority -300; policy accept;"]
        lines += [f"    {match.format(protocol)} {port} counter drop" for protocol in ("tcp", "udp")]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def live_addresses(listing: str, port: int = PORT) -> list[str]:
    """Whom a live table (`nft --json list table`) refuses; nobody unless it drops TCP both ways.

    Args:
        listing: nft's JSON; empty when there is no such table.
        port: of the NFS server.
    """
    try:
        items = json.loads(listing)["nftables"] if listing.strip() else []
    except (ValueError, KeyError):
        return []
    drops = {entry["rule"]["chain"] for entry in items if "rule" in entry and _drops(entry["rule"]["expr"], port)}
    hooks = {entry["chain"]["hook"]: entry["chain"]["name"] for entry in items if "hook" in entry.get("chain", {})}
    if not {"input", "output"} <= {hook for hook, chain in hooks.items() if chain in drops}:
        return []
    sets = [entry["set"] for entry in items if entry.get("set", {}).get("name") == "refused"]
    return [network for found in sets for element in found.get("elem", []) for network in _networks(element)]


def _drops(expressions: list[Any], port: int) -> bool:
    """Whether a rule drops TCP on the port for members of the set."""
    matches = [each["match"] for each in expressions if isinstance(each, dict) and "match" in each]
    protocols = [match["left"].get("payload", {}).get("protocol") for match in matches]
    rights = [match["right"] for match in matches]
    last = expressions[-1] if expressions else None
    return "tcp" in protocols and port in rights and "@refused" in rights and isinstance(last, dict) and "drop" in last


def _networks(element: Any) -> list[str]:
    """A set's element as networks: an address, a prefix or a range, with or without its counter."""
    if isinstance(element, str):
        return [f"{element}/32"]
    if "elem" in element:
        return _networks(element["elem"]["val"])
    if "prefix" in element:
        return [f"{element['prefix']['addr']}/{element['prefix']['len']}"]
    first, last = (ipaddress.IPv4Address(each) for each in element["range"])
    return [str(network) for network in ipaddress.summarize_address_range(first, last)]


def covered(addresses: Iterable[str], live: Iterable[str]) -> bool:
    """Whether the live table refuses all of these addresses and networks."""
    networks = [ipaddress.IPv4Network(each) for each in live]
    return all(any(ipaddress.IPv4Network(each).subnet_of(net) for net in networks) for each in addresses)


def clients(folder: str | Path = "/proc/fs/nfsd/clients") -> list[dict[str, str]]:
    """Clients that hold state on the kernel's NFS server: `id`, `address` without port, and the `name` they gave."""
    found = []
    for info in sorted(Path(folder).glob("*/info")):
        try:
            text = info.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it went between the two looks
        fields = dict(re.findall(r'^([a-z ]+): "?(.*?)"?$', text, re.MULTILINE))
        address = fields.get("address", "").rpartition(":")[0].strip("[]").removeprefix("::ffff:")
        found.append({"id": info.parent.name, "address": address, "name": fields.get("name", "")})
    return found


def belongs(client: Mapping[str, str], node: str, addresses: Iterable[str]) -> bool:
    """Whether a client is the node: by its address, or by the host name that Linux puts at the end of its own name."""
    if any(_inside(client["address"], network) for network in addresses):
        return True
    names = {node, node.split(".", maxsplit=1)[0]}
    return any(re.search(rf"(^|[ /]){re.escape(name)}$", client["name"]) for name in names)


def connections(
    addresses: Iterable[str], port: int = PORT, tables: Iterable[str] = ("/proc/net/tcp", "/proc/net/tcp6")
) -> list[dict[str, Any]]:
    """Established TCP connections from these addresses to the port: `peer`, and `queued`, bytes nobody read yet."""
    networks = [ipaddress.IPv4Network(each) for each in addresses]
    found = []
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            local, remote, state, queues = line.split()[1:5]
            peer = _address(remote.partition(":")[0])
            if state != ESTABLISHED or int(local.partition(":")[2], 16) != port or peer is None:
                continue
            if any(peer in network for network in networks):
                found.append({"peer": str(peer), "queued": int(queues.partition(":")[2], 16)})
    return found


def _address(text: str) -> ipaddress.IPv4Address | None:
    """An address of /proc/net/tcp: words in the machine's byte order; None for an IPv6 one that maps none."""
    packed = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    if len(packed) == 16:
        return ipaddress.IPv6Address(packed).ipv4_mapped
    return ipaddress.IPv4Address(socket.inet_ntoa(packed))


def _inside(address: str, network: str) -> bool:
    try:
        return ipaddress.IPv4Address(address) in ipaddress.IPv4Network(network)
    except ValueError:
        return False
