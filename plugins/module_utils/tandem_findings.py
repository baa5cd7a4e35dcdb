"""What preflight refuses. Pure functions over inventory, variables and facts.

Every refusal is one sentence of the same form: where (file or host), key, value; rule; way out.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from plugins.module_utils.tandem_kubeadm import DEAD_FLAGS
from plugins.module_utils.tandem_variables import refusal, variable_findings
from tandem import recovery

GROUPS: Final = ("control_plane", "workers", "nfs_server")
MIN_WORKERS: Final = 2
LOST_WORKER: Final = "tandem_accept_lost_worker"
GIB: Final = 1024**3


def inventory_findings(
    groups: Mapping[str, list[str]], addresses: Mapping[str, str], settings: Mapping[str, Any]
) -> list[str]:
    """What is wrong with inventory and variables alone, with no machine asked.

    Args:
        groups: Ansible's groups.
        addresses: each host's address on the cluster's network.
        settings: `profile`, `target_seconds` (0 = none stated), `accept` (names of rules accepted), `pod_subnet`,
            `service_subnet`, `pod_network`; `lost_worker` (the one that is accepted as lost, or empty) and
            `lost_worker_allowed` (whether this playbook can do without it); `variables`, all that the site sets, by
            name.
    """
    found = variable_findings(settings.get("variables") or {})
    found += [
        refusal("inventory", f"group {group}", groups.get(group), "the group has at least one host", "add it")
        for group in GROUPS
        if not groups.get(group)
    ]
    workers = groups.get("workers") or []
    if 0 < len(workers) < MIN_WORKERS:
        found.append(
            refusal(
                "inventory",
                "group workers",
                workers,
                f"at least {MIN_WORKERS} workers: with one, nothing survives its loss",
                "add a second worker; one that is lost for now stays in the inventory",
            )
        )
    if len(groups.get("nfs_server") or []) > 1:
        found.append(
            refusal("inventory", "group nfs_server", groups["nfs_server"], "one host", "keep the one that exports")
        )
    found += [
        refusal(
            "inventory", f"host {host}", "control_plane and workers", "a host has one role", "take it off one group"
        )
        for host in sorted(set(groups.get("control_plane") or []) & set(workers))
    ]
    found += [
        refusal(
            "inventory", f"host {host}", "workers and nfs_server", "the share outlives each worker", "another machine"
        )
        for host in sorted(set(groups.get("nfs_server") or []) & set(workers))
    ]
    found += _lost_worker_findings(workers, settings)
    found += _address_findings(addresses)
    found += _subnet_findings(addresses, settings)
    found += _profile_findings(settings)
    return found


def _lost_worker_findings(workers: list[str], settings: Mapping[str, Any]) -> list[str]:
    """Whether the worker that is accepted as lost may be, as far as the inventory alone says."""
    lost = str(settings.get("lost_worker") or "")
    if not lost:
        return []
    rule, way_out = "", "correct the name"
    if lost not in workers:
        rule = f"one of the workers, {', '.join(workers)}"
    elif set(workers) == {lost}:
        rule, way_out = "another worker is left", "bring it back first"
    elif not settings.get("lost_worker_allowed"):
        rule = "for backup.yml, certs.yml and restore.yml alone, which change nothing on workers"
        way_out = (
            f"leave it out, and bring {lost} back or put another machine in its place (playbooks/replace-node.yml)"
        )
    return [refusal("inventory", LOST_WORKER, lost, rule, way_out)] if rule else []


def _address_findings(addresses: Mapping[str, str]) -> list[str]:
    found, seen = [], {}  # type: ignore[var-annotated]
    for host, address in sorted(addresses.items()):
        where = f"inventory host {host}"
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            found.append(
                refusal(
                    where, "tandem_address", address, "an IPv4 address of the cluster's network", "set tandem_address"
                )
            )
            continue
        if parsed.version != 4:
            found.append(refusal(where, "tandem_address", address, "IPv4 only", "use the machine's IPv4 address"))
        if address in seen:
            found.append(
                refusal(
                    where, "tandem_address", address, f"unique; {seen[address]} has it too", "correct one of the two"
                )
            )
        seen.setdefault(address, host)
    return found


def _subnet_findings(addresses: Mapping[str, str], settings: Mapping[str, Any]) -> list[str]:
    found = []
    for key in ("pod_subnet", "service_subnet"):
        for host, address in sorted(addresses.items()):
            if _inside(address, settings.get(key)):
                found.append(
                    refusal(
                        f"inventory host {host}",
                        "tandem_address",
                        address,
                        f"outside tandem_{key} ({settings[key]})",
                        "give the cluster another subnet",
                    )
                )
    if settings.get("pod_network") == "bridge" and settings.get("node_prefix"):
        networks: dict[str, str] = {}
        for host, address in sorted(addresses.items()):
            try:
                network = str(ipaddress.ip_interface(f"{address}/{settings['node_prefix']}").network)
            except ValueError:
                continue
            networks.setdefault(network, host)
        if len(networks) > 1:
            found.append(_several_subnets("inventory", networks))
    return found


def _inside(address: str, subnet: Any) -> bool:
    """Whether an address lies in a subnet; what is neither is judged elsewhere."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(str(subnet))
    except ValueError:
        return False


def _several_subnets(where: str, networks: Mapping[str, str]) -> str:
    return refusal(
        where,
        "subnets of the machines",
        ", ".join(f"{network} ({host})" for network, host in sorted(networks.items())),
        "all cluster nodes on one layer-2 subnet, for pod_network routes pods by the nodes' addresses",
        "put them on one subnet, or bring your own network plug-in with tandem_pod_network=none",
    )


def _profile_findings(settings: Mapping[str, Any]) -> list[str]:
    name = str(settings.get("profile", ""))
    try:
        chosen = recovery.profile(name)
    except recovery.UnknownProfileError:
        return [
            refusal("inventory", "tandem_profile", name, "a known profile", f"one of {', '.join(recovery.PROFILES)}")
        ]
    accepted = set(settings.get("accept") or [])
    found = [
        refusal(
            "inventory",
            "tandem_profile",
            name,
            f"{finding.rule}: {finding.message}",
            f"{finding.fix}, or accept it: tandem_accept_findings=[{finding.rule}]",
        )
        for finding in recovery.check(chosen)
        if finding.level == "error" and finding.rule not in accepted
    ]
    try:
        target = float(settings.get("target_seconds") or 0)
    except ValueError:
        return found  # judged with the variables
    if target > 0:
        finding = recovery.check_target(chosen, target)
        if finding is not None:
            found.append(refusal("inventory", "recovery_target_seconds", target, finding.message, finding.fix))
    return found


def profile_warnings(name: str) -> list[str]:
    """What is risky, though not refused, in a known profile."""
    return [str(finding) for finding in recovery.check(recovery.profile(name)) if finding.level == "warning"]


def node_findings(
    host: str, node: Mapping[str, Any], rules: Mapping[str, Any], received_at: float | None = None
) -> list[str]:
    """What is wrong with one machine, from the facts of `tandem_node`.

    Args:
        host: its name in the inventory.
        node: the facts.
        rules: `supported` (list of {id, version}), `architectures`, `min_disk_gib`, `max_skew_seconds`,
            `address`, `is_node` (part of the cluster, so swap and the kubelet's folders matter), `pod_network`.
        received_at: the control node's clock now; taken from it when left out.
    """
    found = [*_system_findings(host, node, rules), *_clock_findings(host, node, rules, received_at)]
    for path, usage in node["disks"].items():
        if usage["free"] < rules["min_disk_gib"] * GIB:
            found.append(
                refusal(
                    host,
                    f"free space under {path}",
                    f"{usage['free'] / GIB:.1f} GiB",
                    f"at least {float(rules['min_disk_gib']):g} GiB",
                    "free some, or set tandem_min_disk_gib",
                )
            )
    present = {entry["address"] for entry in node["addresses"]}
    if rules["address"] not in present:
        found.append(
            refusal(
                host,
                "tandem_address",
                rules["address"],
                f"an address of the machine, which has {sorted(present)}",
                "correct it",
            )
        )
    if not rules["is_node"]:
        return found
    if node["busy"]:
        found.append(
            refusal(
                host,
                "kubeadm",
                node["busy"],
                "nothing of an earlier run, or of somebody else's, is still at work",
                "wait for its end (or end it) and run the same playbook again",
            )
        )
    if node["swaps"]:
        found.append(
            refusal(host, "swap", node["swaps"], "off on cluster nodes", "`swapoff -a` and take it out of /etc/fstab")
        )
    if node["foreign_manifests"]:
        found.append(
            refusal(
                host,
                "/etc/kubernetes/manifests",
                node["foreign_manifests"],
                "only kubeadm's own files: kubelet runs every file there, backups too",
                "move them elsewhere",
            )
        )
    found += [
        refusal(host, f"{program} --{name}", process["args"][name], "the flag must not be set", DEAD_FLAGS[name])
        for program, process in node["processes"].items()
        for name in DEAD_FLAGS
        if name in process["args"]
    ]
    missing = sorted(name for name, there in node["kernel"]["present"].items() if not there)
    if missing and not node["kernel"]["loads_modules"]:
        found.append(
            refusal(host, "kernel features", missing, "built in, for this kernel loads no modules", "another kernel")
        )
    return found


def machines_findings(
    answers: Mapping[str, Mapping[str, Any]],
    addresses: Mapping[str, str],
    cluster_nodes: Iterable[str],
    rules: Mapping[str, Any],
) -> list[str]:
    """What is wrong with all machines together.

    Args:
        answers: `tandem_node` result by host; one without `node` was unreachable.
        addresses: each host's address on the cluster's network.
        cluster_nodes: the hosts that are nodes of the cluster.
        rules: see `node_findings`, without `address` and `is_node`; `unreachable_hint`; `virtual_ip` (an address, or
            empty) and the `workers` that may hold it; `lost_worker`, whose silence is accepted, and
            `lost_worker_allowed` (whether this playbook can do without one).
    """
    received_at = time.time()
    silent = {
        host: " ".join(str(answer.get("msg", "")).split()) for host, answer in answers.items() if "node" not in answer
    }
    nodes = {host: answer["node"] for host, answer in answers.items() if "node" in answer}
    found, lost = [], rules["lost_worker"]
    if lost in nodes:
        rule, way_out = "a worker that is powered off or released; this one answers", "leave it out"
        found.append(refusal("inventory", LOST_WORKER, lost, rule, way_out))
    silent.pop(lost, None)
    if silent:
        rule, way_out = f"every host answers over SSH ({next(iter(silent.values()))})", rules["unreachable_hint"]
        [*others, last] = sorted(silent)
        if rules["lost_worker_allowed"] and not lost and not others and last in rules["workers"]:
            way_out += f"; or, when it is powered off or released, -e {LOST_WORKER}={last}"
        found.append(refusal("inventory", "unreachable hosts", sorted(silent), rule, way_out))
    for host, node in nodes.items():
        own = {**rules, "address": addresses[host], "is_node": host in set(cluster_nodes)}
        found += node_findings(host, node, own, received_at)
    if rules["virtual_ip"]:
        found += _virtual_ip_findings(nodes, addresses, rules)
    if rules["pod_network"] == "bridge":
        found += subnet_findings({host: node for host, node in nodes.items() if host in set(cluster_nodes)}, addresses)
    return found


def _virtual_ip_findings(
    nodes: Mapping[str, Mapping[str, Any]], addresses: Mapping[str, str], rules: Mapping[str, Any]
) -> list[str]:
    """The address must be nobody's own, and of a network that every worker is in."""
    wanted, key = rules["virtual_ip"], "tandem_virtual_ip"
    owners = sorted(host for host, address in addresses.items() if address == wanted)
    if owners:
        return [refusal("inventory", key, wanted, f"nobody's own address; it is {owners[0]}'s", "choose an unused one")]
    networks = {
        host: ipaddress.ip_interface(f"{entry['address']}/{entry['prefix']}").network
        for host in rules["workers"]
        for entry in nodes.get(host, {}).get("addresses", [])
        if entry["address"] == addresses[host]
    }
    return [
        refusal(
            host, key, wanted, f"an address of the worker's network, {network}", "choose one that all workers share"
        )
        for host, network in networks.items()
        if ipaddress.ip_address(wanted) not in network
    ]


def _system_findings(host: str, node: Mapping[str, Any], rules: Mapping[str, Any]) -> list[str]:
    found, system = [], node["os"]
    minimum = {entry["id"]: int(entry["version"]) for entry in rules["supported"]}
    version = str(system["version_id"]).split(".", maxsplit=1)[0]
    if system["id"] not in minimum or not version.isdigit() or int(version) < minimum[system["id"]]:
        supported = ", ".join(f"{name} {number} or newer" for name, number in minimum.items())
        found.append(refusal(host, "operating system", system["name"], supported, "install a supported one"))
    if system["architecture"] not in rules["architectures"]:
        found.append(
            refusal(
                host, "architecture", system["architecture"], " or ".join(rules["architectures"]), "another machine"
            )
        )
    return found + _guard_findings(host, node)


def _guard_findings(host: str, node: Mapping[str, Any]) -> list[str]:
    """What the RHEL family has switched on: nobody has seen this project work under either of them."""
    found = []
    if node["selinux"] == "enforcing":
        way_out = "`setenforce 0`, and SELINUX=permissive in /etc/selinux/config"
        rule = "permissive or disabled: pods write to folders of an NFS mount, and kubeadm asks for the same"
        found.append(refusal(host, "SELinux", "enforcing", rule, way_out))
    if node["units"].get("firewalld.service", {}).get("active") == "active":
        rule = "inactive: it drops what nodes, pods and the share send each other"
        way_out = "`systemctl disable --now firewalld`; tandem_nfs_firewall=nftables guards the share"
        found.append(refusal(host, "firewalld", "active", rule, way_out))
    return found


def _clock_findings(
    host: str, node: Mapping[str, Any], rules: Mapping[str, Any], received_at: float | None
) -> list[str]:
    """The machine read its clock between our sending and our receiving; outside that span it is wrong for sure."""
    received_at = time.time() if received_at is None else received_at
    behind, ahead = node["sent_at"] - node["now"], node["now"] - received_at
    skew = max(behind, ahead)
    if not node["sent_at"] or skew <= rules["max_skew_seconds"]:
        return []
    side = "behind" if behind > ahead else "ahead of"
    return [
        refusal(
            host,
            "clock",
            f"at least {skew:.1f} s {side} the control node's",
            f"within {rules['max_skew_seconds']} s",
            "run a time service (chrony) on all machines",
        )
    ]


def subnet_findings(nodes: Mapping[str, Mapping[str, Any]], addresses: Mapping[str, str]) -> list[str]:
    """Machines whose own prefix puts their addresses on different subnets."""
    networks: dict[str, str] = {}
    for host, node in sorted(nodes.items()):
        for entry in node["addresses"]:
            if entry["address"] == addresses[host]:
                network = ipaddress.ip_interface(f"{entry['address']}/{entry['prefix']}").network
                networks.setdefault(str(network), host)
    return [_several_subnets("machines", networks)] if len(networks) > 1 else []
