"""Broken cables, as rules of the bridge, and bad ones, as queueing inside a guest. Pure text; others run it.

Cuts are rules of nftables' bridge family in the lab's own namespace, matched on the pair of ports and not on
addresses: they stop ARP, pod-to-pod packets routed over the wire, and connections that are open already, and they
leave every other pair of machines alone. The machines see no carrier change, as behind a switch. (A tap set down makes
UML's writes to it fail instead.)

Loss and delay run inside the guest, whose kernel has netem and IFB, for the host's may have neither. The lab's own SSH
is left out of them, so that a degraded machine can always be healed.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.runtime.errors import UsageError
from lab.runtime.plan import GATEWAY, HOST, SSH_PORT, Node, node

TABLE = "tandem_lab"


@dataclass(frozen=True, order=True)
class Cut:
    """A cut cable.

    Attributes:
        node: the machine that is cut.
        peer: from whom: a machine, `host`, or None for everybody.
        one_way: only what `node` sends is lost; what it is sent still arrives.
    """

    node: str
    peer: str | None = None
    one_way: bool = False


def ruleset(cuts: list[Cut]) -> str:
    """Input for `nft -f -`: the whole table for CUTS, put in place in one transaction."""
    chains: dict[str, list[str]] = {"prerouting": [], "forward": [], "input": [], "output": [], "postrouting": []}

    def drop(chain: str, match: str, cut: Cut) -> None:
        comment = f"{cut.node} {'->' if cut.one_way else '<->'} {cut.peer or 'all'}"
        line = f'{match} counter drop comment "{comment}"'
        if line not in chains[chain]:
            chains[chain].append(line)

    for cut in sorted(set(cuts), key=lambda c: (c.node, c.peer or "", c.one_way)):
        tap = node(cut.node).tap
        if cut.peer is None:
            drop("prerouting", f'iifname "{tap}"', cut)
            if not cut.one_way:
                drop("postrouting", f'oifname "{tap}"', cut)
        elif cut.peer == HOST:
            drop("input", f'iifname "{tap}"', cut)
            if not cut.one_way:
                drop("output", f'oifname "{tap}"', cut)
        else:
            other = node(cut.peer).tap
            drop("forward", f'iifname "{tap}" oifname "{other}"', cut)
            if not cut.one_way:
                drop("forward", f'iifname "{other}" oifname "{tap}"', cut)

    lines = [f"add table bridge {TABLE}", f"delete table bridge {TABLE}", f"table bridge {TABLE} {{"]
    for chain, rules in chains.items():
        lines.append(f"  chain {chain} {{")
        lines.append(f"    type filter hook {chain} priority 0; policy accept;")
        lines += [f"    {rule}" for rule in rules]
        lines.append("  }")
    lines.append("}")
    return "\n".join(lines) + "\n"


def check_degrade(loss_percent: float, delay_ms: float) -> None:
    """Refuse values that netem would not take or that mean something else.

    Raises:
        UsageError: see the text.
    """
    if not 0 <= loss_percent <= 100:
        raise UsageError(f"a loss of {loss_percent:g} percent cannot be: give 0 to 100")
    if not 0 <= delay_ms <= 60_000:
        raise UsageError(f"a delay of {delay_ms:g} ms is out of range: give 0 to 60000")
    if loss_percent == 0 and delay_ms == 0:
        raise UsageError("nothing to degrade: give --loss, --delay or both (`heal` takes them away)")


_FIND_DEVICE = f"dev=$(ip -o -4 route get {GATEWAY} | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p'); test -n \"$dev\""


def heal_script() -> str:
    """Shell for the guest: take every trace of `degrade_script` away; harmless when there is none."""
    return "\n".join(
        [
            "set -e",
            _FIND_DEVICE,
            'tc qdisc del dev "$dev" root 2>/dev/null || true',
            'tc qdisc del dev "$dev" ingress 2>/dev/null || true',
            "ip link del ifb-lab 2>/dev/null || true",
        ]
    )


def degrade_script(loss_percent: float, delay_ms: float) -> str:
    """Shell for the guest: lose and delay what it sends and what it is sent, but for the lab's SSH.

    Args:
        loss_percent: share of packets lost, in each direction by itself.
        delay_ms: added to each packet, in each direction by itself, so a round trip takes twice this longer.
    """
    check_degrade(loss_percent, delay_ms)
    netem = "netem limit 10000"
    if delay_ms:
        netem += f" delay {delay_ms:g}ms"
    if loss_percent:
        netem += f" loss {loss_percent:g}%"
    ssh_out = f"u32 match ip dst {GATEWAY}/32 match ip sport {SSH_PORT} 0xffff"
    ssh_in = f"u32 match ip src {GATEWAY}/32 match ip dport {SSH_PORT} 0xffff"
    to_ifb = "action mirred egress redirect dev ifb-lab"
    return "\n".join(
        [
            heal_script(),
            'tc qdisc add dev "$dev" root handle 1: prio bands 2 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1',
            f'tc qdisc add dev "$dev" parent 1:2 handle 20: {netem}',
            f'tc filter add dev "$dev" parent 1: protocol ip prio 1 {ssh_out} flowid 1:1',
            "ip link add ifb-lab type ifb",
            "ip link set ifb-lab up",
            f"tc qdisc add dev ifb-lab root {netem}",
            'tc qdisc add dev "$dev" handle ffff: ingress',
            f'tc filter add dev "$dev" parent ffff: protocol ip prio 1 {ssh_in} action pass',
            f'tc filter add dev "$dev" parent ffff: protocol all prio 2 u32 match u32 0 0 {to_ifb}',
        ]
    )


def describe(machine: Node, cut: Cut) -> str:
    """One line about CUT for a person."""
    whom = cut.peer or "everybody"
    return f"{machine.name} cut from {whom}" + (" (only what it sends)" if cut.one_way else "")
