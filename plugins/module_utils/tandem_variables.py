"""The variables of a site, each with what it may hold. A name that nobody reads is refused: it is a slip of the pen."""

from __future__ import annotations

import difflib
import ipaddress
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from plugins.module_utils.tandem_kubeadm import DEAD_FLAGS, REQUIRED_ADMISSION_PLUGINS, SHUTDOWN_BY_PRIORITY
from tandem import recovery

Judge = Callable[[Any], bool]

STATIC_PODS: Final = "/etc/kubernetes/manifests"
SHUTDOWN_SECONDS: Final = 45
SHUTDOWN_CRITICAL_SECONDS: Final = 15
"""Of a node's graceful shutdown, where inventory and cluster are silent."""
DEFAULTS: Final[Mapping[str, Any]] = {
    "tandem_share_path": "/srv/tandem",
    "tandem_export_path": "/srv/nfs/tandem",
    "tandem_backup_folder": "/var/backups/tandem",
    "tandem_snapshot_folder": "/srv/nfs/tandem-snapshots",
    "tandem_pod_subnet": "10.244.0.0/16",
    "tandem_service_subnet": "10.96.0.0/16",
    "tandem_nfs_lease_seconds": 15,
    "tandem_nfs_grace_seconds": 15,
}
"""What the roles take where the inventory is silent, of those variables that are judged beside one another."""


def _integer(low: int, high: int) -> Judge:
    """A whole number in a range; text of digits counts, for -e gives text."""

    def holds(value: Any) -> bool:
        text = str(value).strip()
        return not isinstance(value, bool) and bool(re.fullmatch(r"-?\d+", text)) and low <= int(text) <= high

    return holds


def _number(low: float, high: float) -> Judge:
    def holds(value: Any) -> bool:
        text = str(value).strip()
        return not isinstance(value, bool) and bool(re.fullmatch(r"\d+(\.\d+)?", text)) and low <= float(text) <= high

    return holds


def _one_of(*choices: str) -> Judge:
    return lambda value: str(value) in choices


def _boolean(value: Any) -> bool:
    return isinstance(value, bool) or str(value).lower() in ("true", "false", "yes", "no")


def _text(pattern: str) -> Judge:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


FOLDER: Final = "an absolute folder of its own, without a slash at its end or twice"


def _folder(value: Any) -> bool:
    """An absolute folder of its own: not the root, not below the static pod directory, and no `..`.

    Written as the kernel's table of mounts and systemd's unit names write it: a second slash, one at the end, or a
    dot in front of all is another name there.
    """
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)+", value):
        return False
    path = PurePosixPath(value)
    return str(path) == value and ".." not in path.parts and not path.is_relative_to(STATIC_PODS)


def _subnet(value: Any) -> bool:
    try:
        return ipaddress.ip_network(str(value)).version == 4
    except ValueError:
        return False


def _address(value: Any) -> bool:
    try:
        return ipaddress.ip_address(str(value)).version == 4
    except ValueError:
        return False


def _optional_address(value: Any) -> bool:
    return value == "" or _address(value)


def _endpoint(value: Any) -> bool:
    found = re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?:(\d+)", str(value))
    return found is not None and 0 < int(found[2]) < 65536


def _sources(value: Any) -> bool:
    """A list of IPv4 addresses or subnets."""
    return isinstance(value, list) and all(isinstance(item, str) and _subnet(item) for item in value)


def _fsid(value: Any) -> bool:
    """A number other than 0 (the root of NFSv4's pseudo file system) or a UUID."""
    if re.fullmatch(r"\d+", str(value)):
        return int(value) > 0
    try:
        uuid.UUID(str(value))
    except ValueError:
        return False
    return True


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _dictionary(value: Any) -> bool:
    return isinstance(value, Mapping)


def _dictionaries(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _anything(_: Any) -> bool:
    return True


_URL: Final = r"https?://\S+"

VARIABLES: Final[Mapping[str, tuple[Judge, str]]] = {
    "recovery_target_seconds": (_number(0, 86400), "seconds, 0 for none"),
    "tandem_accept_lost_worker": (_text(r"|\S+"), "the inventory name of one worker, or empty"),
    "tandem_accept_findings": (_texts, "a list of rules' names"),
    "tandem_adopt_claim": (
        _text(r"|[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?"),
        "one claim as NAMESPACE/NAME",
    ),
    "tandem_adopt_gitops_paused": (_boolean, "true or false"),
    "tandem_adopt_ready_seconds": (_integer(10, 86400), "seconds, 10 to 86400"),
    "tandem_adopt_stop_seconds": (_integer(10, 86400), "seconds, 10 to 86400"),
    "tandem_adopt_way_back": (_boolean, "true or false"),
    "tandem_address": (_anything, "an IPv4 address"),  # judged host by host
    "tandem_api_server_args": (_dictionary, "a dictionary, flag name to value"),
    "tandem_backup": (
        _text(r"|[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"),
        "a backup's name, as playbooks/rollback.yml lists them",
    ),
    "tandem_backup_certificate": (_anything, "a path"),
    "tandem_backup_folder": (_folder, f"{FOLDER}, outside {STATIC_PODS}"),
    "tandem_backup_keep": (_integer(1, 1000), "a number, at least 1"),
    "tandem_backup_key": (_anything, "a path"),
    "tandem_backup_min_free_mib": (_integer(1, 10**7), "MiB, at least 1"),
    "tandem_backup_target": (_anything, "a path"),
    "tandem_backups": (_integer(1, 1000), "a number, at least 1"),
    "tandem_boot_seconds": (_integer(30, 7200), "seconds, 30 to 7200"),
    "tandem_certificate_fail_days": (_number(0, 3650), "days"),
    "tandem_certificate_warn_days": (_number(0, 3650), "days"),
    "tandem_certificate_names": (_texts, "a list of names"),
    "tandem_cluster_name": (_text(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"), "lower-case letters, digits, dots and dashes"),
    "tandem_connect_timeout_seconds": (_integer(1, 600), "seconds, 1 to 600"),
    "tandem_containerd_repository": (_dictionary, "a dictionary with url, suite and key"),
    "tandem_containerd_version": (_text(r"[0-9][0-9A-Za-z.*:~+-]*"), "an apt version pattern such as 2.*"),
    "tandem_controller_manager_args": (_dictionary, "a dictionary, flag name to value"),
    "tandem_drain_seconds": (_integer(10, 7200), "seconds, 10 to 7200"),
    "tandem_settle_seconds": (_integer(0, 3600), "seconds, 0 to 3600"),
    "tandem_endpoint": (_endpoint, "name:port, a name that can move to another machine"),
    "tandem_endpoint_address": (_address, "an IPv4 address"),
    "tandem_export_fsid": (_fsid, "a UUID, or a number other than 0"),
    "tandem_export_path": (_folder, FOLDER),
    "tandem_helper_image": (_text(r"\S+[:@]\S+"), "an image with a tag or digest"),
    "tandem_http_proxy": (_text(f"|{_URL}"), "a URL"),
    "tandem_ignore_preflight_errors": (_texts, "a list of kubeadm's names"),
    "tandem_kubeadm_timeouts": (_dictionary, "a dictionary of kubeadm's v1beta4 timeouts"),
    "tandem_kubeconfig": (_anything, "a path"),
    "tandem_kubeconfig_folder": (_anything, "a path"),
    "tandem_kubeconfig_server": (_text(_URL), "a URL"),
    "tandem_kubelet_configuration": (_dictionary, "a dictionary, field of KubeletConfiguration to value"),
    "tandem_kubelet_drop_local": (_boolean, "true or false"),
    "tandem_kubernetes_repository": (_dictionary, "a dictionary with url, suite and key"),
    "tandem_kubernetes_version": (
        _text(r"1\.(3[4-6])\.\d+"),
        "a release 1.34 to 1.36 without the leading v, e.g. 1.36.3",
    ),
    "tandem_lab_name": (_anything, "a name"),
    "tandem_max_skew_seconds": (_number(0.1, 60), "seconds, 0.1 to 60"),
    "tandem_min_disk_gib": (_number(0, 10**6), "GiB"),
    "tandem_nfs_address": (_address, "an IPv4 address"),
    "tandem_nfs_firewall": (_one_of("none", "nftables"), "none or nftables"),
    "tandem_nfs_firewall_also": (_sources, "a list of IPv4 addresses or subnets"),
    "tandem_nfs_grace_seconds": (_integer(10, 120), "seconds, 10 to 120"),
    "tandem_nfs_lease_seconds": (_integer(10, 120), "seconds, 10 to 120"),
    "tandem_nfs_restart_live": (_boolean, "true or false"),
    "tandem_nfs_threads": (_integer(1, 1024), "a number, 1 to 1024"),
    "tandem_no_proxy": (_text(r"\S*"), "names and subnets with commas between"),
    "tandem_pod_mtu": (_integer(0, 9216), "0 (the plug-in's choice) to 9216"),
    "tandem_pod_network": (_one_of("bridge", "none"), "bridge or none"),
    "tandem_pod_subnet": (_subnet, "one IPv4 subnet in CIDR form; dual stack and IPv6 are not supported"),
    "tandem_profile": (_anything, "a known profile"),  # judged with its findings
    "tandem_provisioner_image": (_text(r"\S+[:@]\S+"), "an image with a tag or digest"),
    "tandem_proxy_mode": (_one_of("nftables", "iptables", "ipvs"), "nftables, iptables or ipvs"),
    "tandem_renew_certificates": (_boolean, "true or false"),
    "tandem_renew_days": (_number(0, 3650), "days"),
    "tandem_reboot_accept": (_texts, "a list of NAMESPACE/KIND/NAME"),
    "tandem_reclaim_policy": (_one_of("Retain", "Delete"), "Retain or Delete"),
    "tandem_registry_mirrors": (_dictionaries, "a list of {registry, server, mirrors}"),
    "tandem_release_ready": (_boolean, "true or false"),
    "tandem_old_machine_gone": (_boolean, "true or false"),
    "tandem_host_key": (_text(r"SHA256:[A-Za-z0-9+/]{43}"), "SHA256:... as ssh-keygen -l prints it"),
    "tandem_reset": (_text(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"), "the name of one machine"),
    "tandem_restore_backup": (
        _text(r"|[a-z0-9][a-z0-9.-]*-[0-9]{8}T[0-9]{6}Z"),
        "a backup's name, or empty for the newest",
    ),
    "tandem_restore_grace_seconds": (_integer(0, 3600), "0 to 3600 (seconds)"),
    "tandem_restore_max_age_hours": (_number(0, 10**6), "hours"),
    "tandem_restore_over_node": (_anything, "the control plane node's name, or empty"),
    "tandem_restore_replace": (_boolean, "true or false"),
    "tandem_restore_source": (
        _text(r"|trash|replaced|\d{8}T\d{6}Z"),
        "a snapshot's name, trash, replaced, or empty for the newest",
    ),
    "tandem_restore_volume": (_text(r"|[A-Za-z0-9][A-Za-z0-9._-]*"), "the name of a volume's folder"),
    "tandem_roll_stale_pods": (_boolean, "true or false"),
    "tandem_rollback_settings": (_dictionary, "set by playbooks/rollback.yml alone"),
    "tandem_sandbox_image": (_text(r"\S+[:@]\S+"), "an image with a tag or digest"),
    "tandem_service_subnet": (_subnet, "one IPv4 subnet in CIDR form; dual stack and IPv6 are not supported"),
    "tandem_shutdown_critical_seconds": (_integer(0, 600), "seconds, at most those of tandem_shutdown_seconds"),
    "tandem_shutdown_seconds": (_integer(0, 1800), "seconds, 0 for no graceful shutdown of nodes"),
    "tandem_share_path": (_folder, FOLDER),
    "tandem_snapshot_calendar": (_text(r"[A-Za-z0-9*:,./ ~-]+"), "a calendar expression of systemd, e.g. hourly"),
    "tandem_snapshot_folder": (_folder, FOLDER),
    "tandem_snapshot_keep": (_integer(1, 10000), "a number, at least 1"),
    "tandem_snapshot_min_free_percent": (_integer(0, 90), "percent of the disk, 0 to 90"),
    "tandem_snapshot_target": (_text(r"|[^\s:]+:/\S+"), "user@host:/folder, or empty"),
    "tandem_snapshot_target_keep": (_integer(1, 100000), "a number, at least 1"),
    "tandem_snapshots": (_boolean, "true or false"),
    "tandem_trash_days": (_integer(1, 3650), "days, at least 1"),
    "tandem_unreachable_hint": (_anything, "a sentence"),
    "tandem_virtual_ip": (_optional_address, "an unused IPv4 address of the machines' subnet, or empty for none"),
    "tandem_virtual_ip_advert_seconds": (_number(0.1, 40), "seconds, 0.1 to 40"),
    "tandem_virtual_ip_path": (_text(r"|/\S*"), "a path such as /healthz, or empty for a connection alone"),
    "tandem_virtual_ip_port": (_integer(1, 65535), "a TCP port"),
    "tandem_virtual_ip_router": (_integer(1, 255), "VRRP's number of the address, 1 to 255"),
}
"""Every variable that a site may set, with a judge of its value and the rule in words."""


def refusal(where: str, key: str, value: Any, rule: str, way_out: str) -> str:
    """One refusal in the form that all share."""
    return f"{where}: {key} is {value!r}; rule: {rule}; way out: {way_out}"


def variable_findings(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the variables that a site sets, each judged by itself and then together."""
    found = []
    for name, value in sorted(values.items()):
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.75)
            found.append(
                refusal(
                    "inventory",
                    name,
                    value,
                    "a variable that some role reads",
                    f"write {near[0]}" if near else "take it out; inventories/example lists all",
                )
            )
            continue
        holds, rule = VARIABLES[name]
        if not holds(value):
            found.append(refusal("inventory", name, value, rule, "correct it; inventories/example shows each"))
    found += _shutdown(values) + _own_flags(values) + _accepted(values)
    told, values = set(values), {**DEFAULTS, **values}
    return found + _paths(values, told) + _subnets(values) + _times(values)


def _shutdown(values: Mapping[str, Any]) -> list[str]:
    """One kind of shutdown, of whose time critical pods get a part: kubelet does not start otherwise."""
    fields, named = values.get("tandem_kubelet_configuration"), "tandem_shutdown_seconds"
    steps = fields.get(SHUTDOWN_BY_PRIORITY) if isinstance(fields, Mapping) else None
    asked = values.get(named, SHUTDOWN_SECONDS if "tandem_shutdown_critical_seconds" in values else 0)
    if steps and str(asked).strip() != "0":
        key, rule = f"tandem_kubelet_configuration.{SHUTDOWN_BY_PRIORITY}", f"kubelet takes this or {named}, not both"
        return [refusal("inventory", key, steps, rule, "take one of them out")]
    grace: Any = values.get("tandem_shutdown_seconds", SHUTDOWN_SECONDS)
    critical: Any = values.get("tandem_shutdown_critical_seconds", SHUTDOWN_CRITICAL_SECONDS)
    if not (_integer(0, 1800)(grace) and _integer(0, 600)(critical)) or not 0 < int(grace) < int(critical):
        return []
    rule, way_out = f"part of tandem_shutdown_seconds, {grace} s", "lower it, or raise tandem_shutdown_seconds"
    return [refusal("inventory", "tandem_shutdown_critical_seconds", critical, rule, way_out)]


def _own_flags(values: Mapping[str, Any]) -> list[str]:
    """Flags of the operator's own that are dead, dangerous, the profile's, or not written as kubeadm wants them."""
    found = []
    owned = {name for names in recovery.managed_names().values() for name in names}
    fields: Any = values.get("tandem_kubelet_configuration")
    for field in sorted(owned & set(fields)) if isinstance(fields, Mapping) else ():
        key, rule = f"tandem_kubelet_configuration.{field}", "the recovery profile sets this field"
        found.append(refusal("inventory", key, fields[field], rule, "take it out, and choose a profile"))
    for variable in ("tandem_api_server_args", "tandem_controller_manager_args"):
        given = values.get(variable)
        for flag, value in given.items() if isinstance(given, Mapping) else ():
            key, name = f"{variable}.{flag}", str(flag)
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
                rule, way_out = "a flag's name without dashes in front", f"write {name.strip('-').split('=')[0]}"
            elif name in DEAD_FLAGS:
                rule, way_out = "the flag must not be set", DEAD_FLAGS[name]
            elif name in owned:
                rule, way_out = "the recovery profile sets this flag", "take it out, and choose a profile"
            elif isinstance(value, list | Mapping):
                rule, way_out = "one value; a list is text with commas between", "write it as text"
            elif name == "disable-admission-plugins" and set(REQUIRED_ADMISSION_PLUGINS) & set(str(value).split(",")):
                rule, way_out = f"{' and '.join(REQUIRED_ADMISSION_PLUGINS)} stay on", "take it off that list"
            else:
                continue
            found.append(refusal("inventory", key, value, rule, way_out))
    return found


RULES: Final = (
    "admission-plugin",
    "bare-integer",
    "dead-connection",
    "grace-heartbeats",
    "leader-election",
    "not-ready-toleration",
    "positive",
    "range",
)
"""Names of the profile check's errors, which `tandem_accept_findings` may list."""


def _accepted(values: Mapping[str, Any]) -> list[str]:
    given = values.get("tandem_accept_findings")
    unknown = [name for name in given if name not in RULES] if isinstance(given, list) else []
    if not unknown:
        return []
    return [
        refusal("inventory", "tandem_accept_findings", unknown, f"names of rules: {', '.join(RULES)}", "correct it")
    ]


def _paths(values: Mapping[str, Any], told: Collection[str]) -> list[str]:
    """Folders that must not lie in one another: what is deleted or hidden in one would be in the other.

    The share alone may have its name on the server: what mounts it never serves it. So a default of the server's is not
    held against the share's folder, on other machines, either.
    """
    names = ("tandem_share_path", "tandem_export_path", "tandem_backup_folder", "tandem_snapshot_folder")
    given = {name: PurePosixPath(str(values[name])) for name in names if _folder(values.get(name))}
    if str(values.get("tandem_snapshots", True)).lower() in ("false", "no"):
        given.pop("tandem_snapshot_folder", None)
    return [
        refusal("inventory", inner, str(path), f"outside {outer} ({given[outer]})", "choose another folder")
        for inner, path in given.items()
        for outer in given
        if inner != outer
        and path.is_relative_to(given[outer])
        and (outer != "tandem_share_path" or inner in told or inner == "tandem_backup_folder")
        # Of two that are the same, the later in the list is told.
        and (path != given[outer] or (names.index(inner) > names.index(outer) and inner != "tandem_export_path"))
    ]


def _subnets(values: Mapping[str, Any]) -> list[str]:
    """Pod and service subnets that overlap."""
    pods, services = values.get("tandem_pod_subnet"), values.get("tandem_service_subnet")
    if not (_subnet(pods) and _subnet(services)):
        return []
    if not ipaddress.ip_network(str(pods)).overlaps(ipaddress.ip_network(str(services))):
        return []
    return [
        refusal("inventory", "tandem_service_subnet", services, f"apart from the pods' {pods}", "correct one of them")
    ]


def _times(values: Mapping[str, Any]) -> list[str]:
    """A grace time that ends before every client must have spoken: idle ones could not reclaim their locks."""
    lease: Any = values.get("tandem_nfs_lease_seconds")
    grace: Any = values.get("tandem_nfs_grace_seconds")
    if not (_integer(10, 120)(lease) and _integer(10, 120)(grace)) or int(lease) <= int(grace):
        return []
    rule = f"at least tandem_nfs_lease_seconds, {lease} s: an idle client may learn of a restart that late"
    way_out = "raise it, or lower tandem_nfs_lease_seconds"
    return [refusal("inventory", "tandem_nfs_grace_seconds", grace, rule, way_out)]
