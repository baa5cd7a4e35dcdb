"""How what runs is compared with what is wanted: one entry a value, with host, key, wanted and found.

Pure functions over the facts of `tandem_node` and `tandem_cluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from operator import eq
from typing import Any, Final

import yaml

from plugins.module_utils.tandem_kubeadm import (
    KUBEADM_SETS,
    LIST_FLAGS,
    SHUTDOWN_FIELDS,
    MergeError,
    converted,
    flags,
    is_zero,
    kubelet_fields,
    merge_cluster_configuration,
    merge_kubelet_configuration,
    shutdown_seconds,
)
from plugins.module_utils.tandem_release import fence_differences
from plugins.module_utils.tandem_tuning import seconds


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


def _without_nulls(value: Any) -> Any:
    """A wish without the entries that are to go: what kubelet puts in their place is its own affair."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _written(wanted: Any, found: Any) -> bool:
    """Whether a value of a document is as wanted; one that is to go is absent or means the default."""
    return _same(wanted, found) or (wanted is None and is_zero(found))


def _flag_holds(name: str, wanted: Any, found: Any) -> bool:
    """Whether a live flag is as wanted; one that holds a list holds at least what is wanted, in any order."""
    if name in LIST_FLAGS:
        return set(str(wanted).split(",")) <= set(str(found).split(","))
    return _same(wanted, found)


def _is_kubeadms(name: str, found: Any) -> bool:
    """Whether a live flag that nobody wants is kubeadm's own, of its own value as far as that is known."""
    default = LIST_FLAGS.get(name)
    return name in KUBEADM_SETS and (not default or set(str(found).split(",")) == set(default))


def flag_differences(
    host: str,
    program: str,
    process: Mapping[str, Any] | None,
    wanted: Mapping[str, str],
    owned: Iterable[str],
    *,
    rendered: bool = True,
) -> list[dict[str, Any]]:
    """Flags of a program that are not as wanted; a flag we own and do not want must be absent.

    Of a program that runs (`rendered`), kubeadm's own value of such a flag counts as absent.
    """
    if process is None:
        return [difference(host, program, "running", "not running")]
    live = process["args"]
    found = []
    for name in dict.fromkeys([*owned, *wanted]):
        want, have = wanted.get(name), live.get(name)
        if want is None and have is not None:
            if not (rendered and _is_kubeadms(name, have)):
                found.append(difference(host, f"{program} --{name}", "not set", have))
        elif want is not None and (have is None or not _flag_holds(name, want, have)):
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
    """Fields of a kubelet's live configuration (configz) that are not as wanted; no wish means the default.

    A structure holds at least what is wanted: kubelet fills the rest of it with defaults.
    """
    if live is None:
        return [difference(host, "kubelet configz", "an answer", "none")]
    effective = {**KUBELET_DEFAULTS, **wanted}
    return [
        difference(host, f"kubelet configz {name}", want, live.get(name))
        for name, want in effective.items()
        if not contains(live.get(name), _without_nulls(want), _same)
    ]


def node_differences(host: str, node: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How one machine differs from what is wanted.

    Args:
        host: its name.
        node: the facts of `tandem_node`.
        wanted: any of `settings` (of a profile; with `control_plane` true the control plane's programs are judged too),
            `held` (packages), `mount` ({point, source, options}), `export` ({path, lease, grace, clients}), `units`.
    """
    found: list[dict[str, Any]] = []
    settings = wanted.get("settings")
    if settings:
        found += _tuning_differences(host, node, settings, control_plane=wanted.get("control_plane", False))
    for package in wanted.get("held", []):
        held = node["packages"].get(package, {}).get("held")
        if not held:
            found.append(
                difference(host, f"package {package}", "held", "not installed" if held is None else "not held")
            )
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
        found += fence_differences(host, node.get("fence") or {})
    return found


def site_differences(nodes: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the machines differ from what is wanted.

    Args:
        nodes: the facts of `tandem_node` by host.
        wanted: the hosts of `control_plane`, `workers` and `nfs_server`; `settings`, `held` and `units` of the
            cluster's nodes, `mount` of the workers, `export` of the NFS server (see `node_differences`).
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
    found = environment_differences(
        host, "kubelet", running.get("kubelet"), settings["kubelet_env"], owned["kubelet_env"]
    )
    if not control_plane:
        return found
    manager, server = running.get("kube-controller-manager"), running.get("kube-apiserver")
    found += flag_differences(host, "kube-apiserver", server, settings["api_server_args"], owned["api_server_args"])
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


PROGRAMS: Final[Mapping[str, str]] = {"apiServer": "kube-apiserver", "controllerManager": "kube-controller-manager"}


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
    """Components whose live flags, or whose part of kubeadm-config, differ from the profile's settings.

    A component that is just restarting has no live flags to judge; its document decides alone.
    """
    document = converted(yaml.safe_load(cluster["kubeadm_config"]) or {})
    return [
        component
        for component in ("controllerManager", "apiServer")
        if merge_cluster_configuration(document, settings, [component]) != document
        or any(
            component_differences(host, node, component, settings)
            for host, node in nodes.items()
            if PROGRAMS[component] in node["processes"]
        )
    ]


def pending_kubelets(
    cluster: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[str]:
    """Nodes whose kubelet, live or by its document, differs from the profile's settings, or has not taken the document.

    The last is of use after a run that was cut short: of a field that was taken out configz tells nothing.
    """
    document = yaml.safe_load(cluster["kubelet_config"]) or {}
    everyone, wanted = merge_kubelet_configuration(document, settings) != document, kubelet_fields(document, settings)
    return [
        host
        for host, node in nodes.items()
        if everyone
        or untaken_fields(node, document)
        or configz_differences(host, cluster["configz"].get(host), wanted)
        or environment_differences(
            host, "kubelet", node["processes"].get("kubelet"), settings["kubelet_env"], settings["owned"]["kubelet_env"]
        )
    ]


def untaken_fields(node: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """Fields of the kubelet-config document that have changed since this node's kubelet took it.

    One that kubelet's file has by now was taken by somebody else's hand (kubeadm, in an upgrade), unless a run of ours
    was cut short before kubelet had begun with that file. A zero stands for the default, as does an absent field.

    Args:
        node: the facts of `tandem_node`; without a record of what its kubelet took, nothing is known.
        document: kubelet-config as it is now.
    """
    kubelet = node.get("kubelet") or {}
    texts = [yaml.safe_load(kubelet.get(name) or "") or {} for name in ("document", "file")]
    old, there, new = (
        {path: value for path, value in _leaves(each).items() if not is_zero(value)} for each in (*texts, document)
    )
    changed = [path for path in old | new if not _same(old.get(path), new.get(path))] if texts[0] else []
    cut_short = bool(kubelet.get("unfinished"))
    return sorted({".".join(path) for path in changed if cut_short or not _same(there.get(path), new.get(path))})


def kubelet_node_differences(
    nodes: Mapping[str, Mapping[str, Any]], cluster: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What a node's machine and its kubelet do not agree on: fields that it has not taken, and logind's patience.

    Args:
        nodes: the facts of `tandem_node` by host; those that are no nodes of the cluster are left out.
        cluster: the facts of `tandem_cluster`, with configz.
    """
    found = []
    document = yaml.safe_load(cluster.get("kubelet_config") or "") or {}
    for host, node in nodes.items():
        live = (cluster.get("configz") or {}).get(host)
        if live is None:
            continue
        untaken = untaken_fields(node, document)
        if untaken:
            found.append(difference(host, "kubelet", "with kubelet-config as it is", f"older: {', '.join(untaken)}"))
        wait, patience = shutdown_seconds(live), node.get("shutdown_delay_seconds")
        if patience is not None and patience < wait:
            wanted = f"{wait} s at least, for kubelet's shutdown"
            found.append(difference(host, "logind InhibitDelayMaxSec", wanted, f"{patience:g} s"))
    return found


def kubelet_losses(
    before: Mapping[str, Any], after: Mapping[str, Any], written: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[str]:
    """Values of a kubelet's file that are this node's alone, and that kubeadm would not write again, as sentences.

    Args:
        before: the file as it is.
        after: as kubeadm would write it from the present documents and the node's patches.
        written: as kubeadm wrote it when it was last tuned; empty when it never was. What is still so is kubeadm's,
            and the document has changed since: a run was killed, or went back.
        settings: what is wanted; its own fields are not a node's, nor are the values that a rollback brings back.
    """
    ours = {*settings["owned"]["kubelet_configuration"], *kubelet_fields({}, settings), *SHUTDOWN_FIELDS}
    lost = []
    documents = settings.get("documents") or {"kubelet_config": "{}"}
    new, old, back = _leaves(after), _leaves(written), _leaves(yaml.safe_load(documents["kubelet_config"]) or {})
    for path, value in _leaves(before).items():
        known = [text[path] for text in (new, old, back) if path in text]
        means_default = value is not False and (value == [] or is_zero(value))
        if path[0] not in ours and not means_default and not any(_same(value, each) for each in known):
            lost.append(f"{'.'.join(path)}: {value!r}" + (f" -> {new[path]!r}" if path in new else ""))
    return lost


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no mapping, by the keys that lead to it."""
    found: dict[tuple[str, ...], Any] = {}
    for key, item in value.items():
        found |= _leaves(item, (*path, str(key))) if isinstance(item, Mapping) else {(*path, str(key)): item}
    return found


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
    ours = [line for line in live["exports"] if line.split()[0] == wanted["path"]]
    if not ours:
        found.append(difference(host, f"export {wanted['path']}", "exported", live["exports"]))
    for line in ours:
        client, _, options = line.split(maxsplit=1)[1].partition("(")
        key = f"export {wanted['path']} to {client}"
        if client not in wanted.get("clients", [client]):
            found.append(difference(host, key, "not exported: only workers may mount", "exported"))
        elif "sync" not in options.rstrip(")").split(","):
            found.append(difference(host, key, "sync: what a client wrote is on the disk", "async"))
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


def coredns_differences(
    cluster: Mapping[str, Any], wanted: Mapping[str, Any], lost: Collection[str] = ()
) -> list[dict[str, Any]]:
    """How CoreDNS differs from our patch, and whether its pods share a node.

    Args:
        cluster: the facts of `tandem_cluster`.
        wanted: the patch.
        lost: nodes that are lost. Until their pods are evicted and made anew, one that is ready elsewhere is enough.
    """
    found = coredns_patch_differences(cluster, wanted)
    deployment = cluster.get("coredns")
    if not deployment:
        return found
    hosts = [
        pod["node"]
        for pod in cluster["pods"]
        if pod["labels"].get("k8s-app") == "kube-dns" and pod["ready"] and not pod["deleting"]
    ]
    if lost:
        left = [host for host in hosts if host not in lost]
        return [*found, *([] if left else [difference("cluster", "nodes that run CoreDNS", "one at least", left)])]
    status, replicas = deployment.get("status", {}), deployment["spec"]["replicas"]
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0) or any(
        status.get(key, 0) != replicas for key in ("replicas", "updatedReplicas", "readyReplicas")
    ):
        rolled = {key: status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")}
        found.append(difference("cluster", "pods of CoreDNS", f"{replicas}, all new and ready", rolled))
    if len(set(hosts)) < min(2, deployment["spec"]["replicas"]):
        found.append(difference("cluster", "nodes that run CoreDNS", "two different ones", hosts))
    return found


def contains(found: Any, wanted: Any, same: Callable[[Any, Any], bool] = eq) -> bool:
    """Whether a live value holds everything that is wanted: dicts by key, lists item by item, scalars equal.

    Args:
        found: the live value.
        wanted: what it has to hold.
        same: when a scalar, first wanted and then found, counts as equal.
    """
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            contains(found.get(key), value, same) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(contains(have, want, same) for have, want in zip(found, wanted, strict=True))
        )
    return bool(same(wanted, found))


def cluster_differences(cluster: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How a cluster differs from what is wanted.

    Args:
        cluster: the facts of `tandem_cluster` (with configz).
        wanted: `settings`, `nodes` (names), `workers`, `lost` (those that are neither asked nor awaited), `share_label`
            ({key, value}), `coredns` (the patch), `storage_class` (fields), all optional but the first two.
    """
    if not cluster["reachable"]:
        return [difference("cluster", "API", "an answer", cluster["error"])]
    settings, lost, found = wanted["settings"], wanted.get("lost") or (), []
    kubelet = kubelet_fields(yaml.safe_load(cluster["kubelet_config"]) or {}, settings)
    for name in wanted["nodes"]:
        node = cluster["nodes"].get(name)
        if node is None or node["ready"] != "True":
            found.append(difference(name, "node", "Ready", "absent" if node is None else f"Ready={node['ready']}"))
            continue
        found += configz_differences(name, cluster["configz"].get(name), kubelet)
        excluded = "node.kubernetes.io/exclude-disruption" in node["labels"]
        if node["control_plane"] and excluded != settings["exclude_control_plane"]:
            found.append(
                difference(
                    name, "label node.kubernetes.io/exclude-disruption", settings["exclude_control_plane"], excluded
                )
            )
    record = cluster.get("record", {}).get("profile")
    if record != settings["profile"]:
        found.append(difference("cluster", "ConfigMap tandem-system/recovery-profile", settings["profile"], record))
    found += document_differences(cluster, settings)
    if wanted.get("coredns"):
        found += coredns_differences(cluster, wanted["coredns"], lost)
    label = wanted.get("share_label") or {}
    for name in wanted.get("workers", []) if label else []:
        have = cluster["nodes"].get(name, {}).get("labels", {}).get(label["key"])
        if have != label["value"]:
            found.append(difference(name, f"label {label['key']}", label["value"], have))
    found += _storage_differences(cluster, wanted.get("storage_class"), lost)
    restriction = cluster.get("node_restriction", {})
    if restriction.get("asked") and not restriction["refused"]:
        found.append(
            difference(
                "cluster", f"change of another node by {restriction['as']}'s kubelet", "403", restriction["status"]
            )
        )
    return found


def document_differences(cluster: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How kubeadm's ConfigMaps differ from the profile: what an upgrade would render."""
    found = []
    try:
        document = yaml.safe_load(cluster["kubeadm_config"]) or {}
        for component, part in (("apiServer", "api_server_args"), ("controllerManager", "controller_manager_args")):
            live = {"args": flags(document.get(component) or {}, f"kubeadm-config {component}")}
            owned = settings["owned"][part]
            where = f"kubeadm-config {component}"
            found += flag_differences("cluster", where, live, settings[part], owned, rendered=False)
    except MergeError as error:
        found.append(difference("cluster", "kubeadm-config", "mergeable", str(error)))
    kubelet = yaml.safe_load(cluster["kubelet_config"]) or {}
    fields = kubelet_fields(kubelet, settings)
    for name in dict.fromkeys([*settings["owned"]["kubelet_configuration"], *fields]):
        want, have = fields.get(name), kubelet.get(name)
        if not contains(have, want, _written):
            found.append(difference("cluster", f"kubelet-config {name}", want or "not set", have))
    return found


def _storage_differences(
    cluster: Mapping[str, Any], wanted: Mapping[str, Any] | None, lost: Collection[str]
) -> list[dict[str, Any]]:
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
    # Its pod may have been on a lost worker, and is made elsewhere once that one's are evicted.
    if not lost and (provisioner.get("status") or {}).get("availableReplicas", 0) < 1:
        found.append(difference("cluster", "volume provisioner", "1 pod available", "none"))
    return found


def sentences(differences: Iterable[Mapping[str, Any]]) -> list[str]:
    """Differences for people to read."""
    return [
        f"{entry['host']}: {entry['key']}: wanted {entry['wanted']!r}, found {entry['found']!r}"
        for entry in differences
    ]
