"""What preflight refuses, and how what runs is compared with what is wanted. Pure functions over facts.

Every refusal is one sentence of the same form: where (file or host), key, value; rule; way out.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from plugins.module_utils.tandem_kubeadm import (
    DEAD_FLAGS,
    LIST_FLAGS,
    MergeError,
    flags,
    is_zero,
    merge_cluster_configuration,
    merge_kubelet_configuration,
)
from plugins.module_utils.tandem_tuning import seconds

from tandem import recovery

GROUPS: Final = ("control_plane", "workers", "nfs_server")
MIN_WORKERS: Final = 2
GIB: Final = 1024**3


def refusal(where: str, key: str, value: Any, rule: str, way_out: str) -> str:
    """One refusal in the form that all share."""
    return f"{where}: {key} is {value!r}; rule: {rule}; way out: {way_out}"


def inventory_findings(
    groups: Mapping[str, list[str]], addresses: Mapping[str, str], settings: Mapping[str, Any]
) -> list[str]:
    """What is wrong with inventory and variables alone, with no machine asked.

    Args:
        groups: Ansible's groups.
        addresses: each host's address on the cluster's network.
        settings: `profile`, `target_seconds` (0 = none stated), `accept` (names of rules accepted), `pod_subnet`,
            `service_subnet`, `pod_network`, `api_server_args`, `endpoint`.
    """
    found = []
    for group in GROUPS:
        if not groups.get(group):
            found.append(
                refusal("inventory", f"group {group}", groups.get(group), "the group has at least one host", "add it")
            )
    workers = groups.get("workers") or []
    if 0 < len(workers) < MIN_WORKERS:
        found.append(
            refusal(
                "inventory",
                "group workers",
                workers,
                f"at least {MIN_WORKERS} workers: with one, nothing survives its loss",
                "add a second worker",
            )
        )
    if len(groups.get("nfs_server") or []) > 1:
        found.append(
            refusal("inventory", "group nfs_server", groups["nfs_server"], "one host", "keep the one that exports")
        )
    for host in sorted(set(groups.get("control_plane") or []) & set(workers)):
        found.append(
            refusal("inventory", f"host {host}", "control_plane and workers", "a host has one role", "take it off one group")
        )
    found += _address_findings(addresses)
    found += _subnet_findings(addresses, settings)
    found += _profile_findings(settings)
    for name, value in (settings.get("api_server_args") or {}).items():
        if name in DEAD_FLAGS:
            found.append(refusal("inventory", f"flag {name}", value, "the flag must not be set", DEAD_FLAGS[name]))
    if ":" not in str(settings.get("endpoint", "")):
        found.append(
            refusal(
                "inventory", "tandem_endpoint", settings.get("endpoint"), "name:port, a name that can move to another machine",
                "for instance api.tandem.internal:6443",
            )
        )
    return found


def _address_findings(addresses: Mapping[str, str]) -> list[str]:
    found, seen = [], {}  # type: ignore[var-annotated]
    for host, address in sorted(addresses.items()):
        where = f"inventory host {host}"
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            found.append(
                refusal(where, "tandem_address", address, "an IPv4 address of the cluster's network", "set tandem_address")
            )
            continue
        if parsed.version != 4:
            found.append(refusal(where, "tandem_address", address, "IPv4 only", "use the machine's IPv4 address"))
        if address in seen:
            found.append(
                refusal(where, "tandem_address", address, f"unique; {seen[address]} has it too", "correct one of the two")
            )
        seen.setdefault(address, host)
    return found


def _subnet_findings(addresses: Mapping[str, str], settings: Mapping[str, Any]) -> list[str]:
    found = []
    for key in ("pod_subnet", "service_subnet"):
        value = str(settings.get(key, ""))
        if "," in value or ":" in value:
            found.append(
                refusal(
                    "inventory", f"tandem_{key}", value, "one IPv4 subnet; dual stack and IPv6 are not supported",
                    "give the IPv4 subnet alone",
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
            "inventory", "tandem_profile", name, f"{finding.rule}: {finding.message}",
            f"{finding.fix}, or accept it: tandem_accept_findings=[{finding.rule}]",
        )
        for finding in recovery.check(chosen)
        if finding.level == "error" and finding.rule not in accepted
    ]
    target = float(settings.get("target_seconds") or 0)
    if target:
        finding = recovery.check_target(chosen, target)
        if finding is not None:
            found.append(refusal("inventory", "recovery_target_seconds", target, finding.message, finding.fix))
    return found


def profile_warnings(name: str) -> list[str]:
    """What is risky, though not refused, in a known profile."""
    return [str(finding) for finding in recovery.check(recovery.profile(name)) if finding.level == "warning"]


def node_findings(host: str, node: Mapping[str, Any], rules: Mapping[str, Any], received_at: float | None = None) -> list[str]:
    """What is wrong with one machine, from the facts of `tandem_node`.

    Args:
        host: its name in the inventory.
        node: the facts.
        rules: `supported` (list of {id, version}), `architectures`, `min_disk_gib`, `min_memory_mib`, `max_skew_seconds`,
            `address`, `is_node` (part of the cluster, so swap and the kubelet's folders matter), `pod_network`.
        received_at: the control node's clock now; taken from it when left out.
    """
    found = [*_system_findings(host, node, rules), *_clock_findings(host, node, rules, received_at)]
    for path, usage in node["disks"].items():
        if usage["free"] < rules["min_disk_gib"] * GIB:
            found.append(
                refusal(
                    host, f"free space under {path}", f"{usage['free'] / GIB:.1f} GiB", f"at least {rules['min_disk_gib']} GiB",
                    "free some, or set tandem_min_disk_gib",
                )
            )
    present = {entry["address"] for entry in node["addresses"]}
    if rules["address"] not in present:
        found.append(
            refusal(host, "tandem_address", rules["address"], f"an address of the machine, which has {sorted(present)}", "correct it")
        )
    if not rules["is_node"]:
        return found
    if node["swaps"]:
        found.append(refusal(host, "swap", node["swaps"], "off on cluster nodes", "`swapoff -a` and take it out of /etc/fstab"))
    if node["foreign_manifests"]:
        found.append(
            refusal(
                host, "/etc/kubernetes/manifests", node["foreign_manifests"],
                "only kubeadm's own files: kubelet runs every file there, backups too", "move them elsewhere",
            )
        )
    for program, process in node["processes"].items():
        for name in DEAD_FLAGS:
            if name in process["args"]:
                found.append(
                    refusal(host, f"{program} --{name}", process["args"][name], "the flag must not be set", DEAD_FLAGS[name])
                )
    missing = sorted(name for name, there in node["kernel"]["present"].items() if not there)
    if missing and not node["kernel"]["loads_modules"]:
        found.append(
            refusal(host, "kernel features", missing, "built in, for this kernel loads no modules", "another kernel")
        )
    return found


def machines_findings(
    answers: Mapping[str, Mapping[str, Any]], addresses: Mapping[str, str], cluster_nodes: Iterable[str], rules: Mapping[str, Any]
) -> list[str]:
    """What is wrong with all machines together.

    Args:
        answers: `tandem_node` result by host; one without `node` was unreachable.
        addresses: each host's address on the cluster's network.
        cluster_nodes: the hosts that are nodes of the cluster.
        rules: see `node_findings`, without `address` and `is_node`; and `unreachable_hint`.
    """
    received_at = time.time()
    silent = {host: " ".join(str(answer.get("msg", "")).split()) for host, answer in answers.items() if "node" not in answer}
    nodes = {host: answer["node"] for host, answer in answers.items() if "node" in answer}
    found = []
    if silent:
        rule = f"every host answers over SSH ({next(iter(silent.values()))})"
        found.append(refusal("inventory", "unreachable hosts", sorted(silent), rule, rules["unreachable_hint"]))
    for host, node in nodes.items():
        own = {**rules, "address": addresses[host], "is_node": host in set(cluster_nodes)}
        found += node_findings(host, node, own, received_at)
    if rules["pod_network"] == "bridge":
        found += subnet_findings({host: node for host, node in nodes.items() if host in set(cluster_nodes)}, addresses)
    return found


def _system_findings(host: str, node: Mapping[str, Any], rules: Mapping[str, Any]) -> list[str]:
    found, system = [], node["os"]
    minimum = {entry["id"]: int(entry["version"]) for entry in rules["supported"]}
    version = str(system["version_id"]).split(".", maxsplit=1)[0]
    if system["id"] not in minimum or not version.isdigit() or int(version) < minimum[system["id"]]:
        supported = ", ".join(f"{name} {number} or newer" for name, number in minimum.items())
        found.append(refusal(host, "operating system", system["name"], supported, "install a supported one"))
    if system["architecture"] not in rules["architectures"]:
        found.append(
            refusal(host, "architecture", system["architecture"], " or ".join(rules["architectures"]), "another machine")
        )
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
            host, "clock", f"at least {skew:.1f} s {side} the control node's", f"within {rules['max_skew_seconds']} s",
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


def difference(host: str, key: str, wanted: Any, found: Any) -> dict[str, Any]:
    """One value that is not as wanted."""
    return {"host": host, "key": key, "wanted": wanted, "found": found}


def _same(wanted: Any, found: Any) -> bool:
    """Equality of values that may be written differently: 20s and 20s, 1m0s and 60s, 5 and '5'."""
    if str(wanted) == str(found):
        return True
    try:
        return seconds(wanted) == seconds(found)
    except ValueError:
        return False


def flag_differences(
    host: str, program: str, process: Mapping[str, Any] | None, wanted: Mapping[str, str], owned: Iterable[str]
) -> list[dict[str, Any]]:
    """Flags of a running program that are not as wanted; a flag we own and do not want must be absent."""
    if process is None:
        return [difference(host, program, "running", "not running")]
    live = process["args"]
    found = []
    for name in dict.fromkeys([*owned, *wanted]):
        want, have = wanted.get(name), live.get(name)
        if want is None and have is not None:
            found.append(difference(host, f"{program} --{name}", "not set", have))
        elif want is not None and (have is None or not _same(want, have)):
            found.append(difference(host, f"{program} --{name}", want, "not set" if have is None else have))
    return found


def environment_differences(
    host: str, program: str, process: Mapping[str, Any] | None, wanted: Mapping[str, str], owned: Iterable[str]
) -> list[dict[str, Any]]:
    """Environment variables of a running program (read from /proc) that are not as wanted."""
    live = (process or {}).get("environ", {})
    return [
        difference(host, f"{program} environment {name}", wanted.get(name, "not set"), live.get(name, "not set"))
        for name in dict.fromkeys([*owned, *wanted])
        if str(wanted.get(name, "not set")) != str(live.get(name, "not set"))
    ]


KUBELET_DEFAULTS: Final[Mapping[str, Any]] = {
    "nodeStatusUpdateFrequency": "10s",
    "nodeStatusReportFrequency": "5m0s",
    "nodeLeaseDurationSeconds": 40,
}
"""What configz shows for a field that the file leaves out (pkg/kubelet/apis/config/v1beta1/defaults.go)."""


def configz_differences(host: str, live: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of a kubelet's live configuration (configz) that are not as wanted; without a wish, the default is wanted."""
    if live is None:
        return [difference(host, "kubelet configz", "an answer", "none")]
    effective = {**KUBELET_DEFAULTS, **wanted}
    return [
        difference(host, f"kubelet configz {name}", want, live.get(name))
        for name, want in effective.items()
        if not _same(want, live.get(name))
    ]


def node_differences(host: str, node: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How one machine differs from what is wanted.

    Args:
        host: its name.
        node: the facts of `tandem_node`.
        wanted: any of `settings` (of a profile; with `control_plane` true the control plane's programs are judged too),
            `held` (packages), `mount` ({point, source, options}), `export` ({path, lease, grace}), `units` (active ones).
    """
    found: list[dict[str, Any]] = []
    settings = wanted.get("settings")
    if settings:
        found += _tuning_differences(host, node, settings, control_plane=wanted.get("control_plane", False))
    for package in wanted.get("held", []):
        held = node["packages"].get(package, {}).get("held")
        if not held:
            found.append(difference(host, f"package {package}", "held", "not installed" if held is None else "not held"))
    for unit in wanted.get("units", []):
        active = node["units"].get(unit, {}).get("active")
        if active != "active":
            found.append(difference(host, f"unit {unit}", "active", active))
    if node["foreign_manifests"]:
        found.append(difference(host, "/etc/kubernetes/manifests", "kubeadm's files only", node["foreign_manifests"]))
    if "mount" in wanted:
        found += _mount_differences(host, node["mount"], wanted["mount"])
    if "export" in wanted:
        found += _export_differences(host, node["nfs_server"], wanted["export"])
    return found


def site_differences(nodes: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the machines differ from what is wanted.

    Args:
        nodes: the facts of `tandem_node` by host.
        wanted: the hosts of `control_plane`, `workers` and `nfs_server`; `settings`, `held` and `units` of the cluster's
            nodes, `mount` of the workers, `export` of the NFS server (see `node_differences`).
    """
    found: list[dict[str, Any]] = []
    for host, node in nodes.items():
        own: dict[str, Any] = {}
        if host in wanted["control_plane"] or host in wanted["workers"]:
            own |= {key: wanted[key] for key in ("settings", "held", "units")}
            own["control_plane"] = host in wanted["control_plane"]
        if host in wanted["workers"]:
            own["mount"] = wanted["mount"]
        if host in wanted["nfs_server"]:
            own["export"] = wanted["export"]
        found += node_differences(host, node, own)
    return found


def _tuning_differences(
    host: str, node: Mapping[str, Any], settings: Mapping[str, Any], *, control_plane: bool
) -> list[dict[str, Any]]:
    owned, running = settings["owned"], node["processes"]
    found = environment_differences(host, "kubelet", running.get("kubelet"), settings["kubelet_env"], owned["kubelet_env"])
    if not control_plane:
        return found
    manager, server = running.get("kube-controller-manager"), running.get("kube-apiserver")
    found += flag_differences(
        host, "kube-apiserver", server, settings["api_server_args"], owned["api_server_args"]
    )
    found += flag_differences(
        host, "kube-controller-manager", manager, settings["controller_manager_args"], owned["controller_manager_args"]
    )
    found += environment_differences(
        host, "kube-controller-manager", manager, settings["controller_manager_env"], owned["controller_manager_env"]
    )
    plugins = str((server or {}).get("args", {}).get("enable-admission-plugins", "")).split(",")
    found += [
        difference(host, "kube-apiserver --enable-admission-plugins", f"with {plugin}", ",".join(plugins))
        for plugin in LIST_FLAGS["enable-admission-plugins"]
        if plugin not in plugins
    ]
    return found


def component_differences(
    host: str, node: Mapping[str, Any], component: str, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """How one running control plane component (kubeadm's name for it) differs from the profile's settings."""
    owned, running = settings["owned"], node["processes"]
    if component == "apiServer":
        server = running.get("kube-apiserver")
        return flag_differences(host, "kube-apiserver", server, settings["api_server_args"], owned["api_server_args"])
    manager = running.get("kube-controller-manager")
    return flag_differences(
        host, "kube-controller-manager", manager, settings["controller_manager_args"], owned["controller_manager_args"]
    ) + environment_differences(
        host, "kube-controller-manager", manager, settings["controller_manager_env"], owned["controller_manager_env"]
    )


def pending_components(
    cluster: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[str]:
    """Control plane components whose live flags, or whose part of kubeadm-config, differ from the profile's settings."""
    import yaml

    document = yaml.safe_load(cluster["kubeadm_config"]) or {}
    return [
        component
        for component in ("controllerManager", "apiServer")
        if merge_cluster_configuration(document, settings, [component]) != document
        or any(component_differences(host, node, component, settings) for host, node in nodes.items())
    ]


def pending_kubelets(
    cluster: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[str]:
    """Nodes whose kubelet, live or by its document, differs from the profile's settings."""
    import yaml

    document = yaml.safe_load(cluster["kubelet_config"]) or {}
    everyone = merge_kubelet_configuration(document, settings) != document
    return [
        host
        for host, node in nodes.items()
        if everyone
        or configz_differences(host, cluster["configz"].get(host), settings["kubelet_configuration"])
        or environment_differences(
            host, "kubelet", node["processes"].get("kubelet"), settings["kubelet_env"], settings["owned"]["kubelet_env"]
        )
    ]


def _mount_differences(host: str, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    point = wanted["point"]
    if live["source"] != wanted["source"]:
        return [difference(host, f"mount {point}", wanted["source"], live["source"] or "nothing mounted")]
    options = set(live["options"])
    return [
        difference(host, f"mount {point} option", option, ",".join(sorted(options)))
        for option in wanted["options"]
        if option not in options
    ] + ([] if live["immutable"] else [difference(host, f"bare mount point {point}", "immutable", live["immutable"])])


def _export_differences(host: str, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not live["running"]:
        return [difference(host, "NFS server", "running", "not running")]
    found = [
        difference(host, f"NFS server {key} time", wanted[key], live[key])
        for key in ("lease", "grace")
        if live[key] != wanted[key]
    ]
    if not any(line.split()[0] == wanted["path"] for line in live["exports"]):
        found.append(difference(host, f"export {wanted['path']}", "exported", live["exports"]))
    return found


def coredns_patch_differences(cluster: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the Deployment of CoreDNS differs from our patch."""
    deployment = cluster.get("coredns")
    if not deployment:
        return [difference("cluster", "Deployment kube-system/coredns", "present", "absent")]
    live = deployment["spec"]["template"]["spec"]
    return [
        difference("cluster", f"coredns {key}", value, live.get(key))
        for key, value in wanted["spec"]["template"]["spec"].items()
        if not contains(live.get(key), value)
    ]


def coredns_differences(cluster: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How CoreDNS differs from our patch, and whether its pods share a node."""
    found = coredns_patch_differences(cluster, wanted)
    deployment = cluster.get("coredns")
    if not deployment:
        return found
    hosts = [
        pod["node"]
        for pod in cluster["pods"]
        if pod["labels"].get("k8s-app") == "kube-dns" and pod["ready"] and not pod["deleting"]
    ]
    if len(set(hosts)) < min(2, deployment["spec"]["replicas"]):
        found.append(difference("cluster", "nodes that run CoreDNS", "two different ones", hosts))
    return found


def contains(found: Any, wanted: Any) -> bool:
    """Whether a live value holds everything that is wanted: dicts by key, lists item by item, scalars equal."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(contains(have, want) for have, want in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def cluster_differences(cluster: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How a cluster differs from what is wanted.

    Args:
        cluster: the facts of `tandem_cluster` (with configz).
        wanted: `settings`, `nodes` (names), `workers`, `share_label` ({key, value}), `coredns` (the patch),
            `storage_class` (fields), all optional but the first two.
    """
    if not cluster["reachable"]:
        return [difference("cluster", "API", "an answer", cluster["error"])]
    settings, found = wanted["settings"], []
    for name in wanted["nodes"]:
        node = cluster["nodes"].get(name)
        if node is None or node["ready"] != "True":
            found.append(difference(name, "node", "Ready", "absent" if node is None else f"Ready={node['ready']}"))
            continue
        found += configz_differences(name, cluster["configz"].get(name), settings["kubelet_configuration"])
        excluded = "node.kubernetes.io/exclude-disruption" in node["labels"]
        if node["control_plane"] and excluded != settings["exclude_control_plane"]:
            found.append(
                difference(name, "label node.kubernetes.io/exclude-disruption", settings["exclude_control_plane"], excluded)
            )
    record = cluster.get("record", {}).get("profile")
    if record != settings["profile"]:
        found.append(difference("cluster", "ConfigMap tandem-system/recovery-profile", settings["profile"], record))
    found += document_differences(cluster, settings)
    if wanted.get("coredns"):
        found += coredns_differences(cluster, wanted["coredns"])
    label = wanted.get("share_label")
    for name in wanted.get("workers", []) if label else []:
        have = cluster["nodes"].get(name, {}).get("labels", {}).get(label["key"])
        if have != label["value"]:
            found.append(difference(name, f"label {label['key']}", label["value"], have))
    found += _storage_differences(cluster, wanted.get("storage_class"))
    restriction = cluster.get("node_restriction", {})
    if restriction.get("asked") and not restriction["refused"]:
        found.append(
            difference("cluster", f"change of another node by {restriction['as']}'s kubelet", "403", restriction["status"])
        )
    return found


def document_differences(cluster: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How kubeadm's ConfigMaps differ from the profile: what an upgrade would render."""
    import yaml

    found = []
    try:
        document = yaml.safe_load(cluster["kubeadm_config"]) or {}
        for component, part in (("apiServer", "api_server_args"), ("controllerManager", "controller_manager_args")):
            live = {"args": flags(document.get(component) or {}, f"kubeadm-config {component}")}
            found += flag_differences("cluster", f"kubeadm-config {component}", live, settings[part], settings["owned"][part])
    except MergeError as error:
        found.append(difference("cluster", "kubeadm-config", "mergeable", str(error)))
    kubelet = yaml.safe_load(cluster["kubelet_config"]) or {}
    for name in settings["owned"]["kubelet_configuration"]:
        want, have = settings["kubelet_configuration"].get(name), kubelet.get(name)
        if not (_same(want, have) or (want is None and is_zero(have))):
            found.append(difference("cluster", f"kubelet-config {name}", want or "not set", have))
    return found


def _storage_differences(cluster: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if not wanted:
        return []
    live = cluster.get("storage_class")
    if live is None:
        return [difference("cluster", f"StorageClass {wanted['name']}", "present", "absent")]
    found = [
        difference("cluster", f"StorageClass {wanted['name']} {key}", wanted[key], live.get(key))
        for key in ("provisioner", "reclaimPolicy", "volumeBindingMode")
        if live.get(key) != wanted[key]
    ]
    provisioner = cluster.get("provisioner") or {}
    if (provisioner.get("status") or {}).get("availableReplicas", 0) < 1:
        found.append(difference("cluster", "volume provisioner", "1 pod available", "none"))
    return found


def sentences(differences: Iterable[Mapping[str, Any]]) -> list[str]:
    """Differences for people to read."""
    return [
        f"{entry['host']}: {entry['key']}: wanted {entry['wanted']!r}, found {entry['found']!r}" for entry in differences
    ]
