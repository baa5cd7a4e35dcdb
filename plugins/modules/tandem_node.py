#!/usr/bin/python
"""Ansible module: the state of one machine, read in one go and without changing anything."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import tandem_certificates
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_fencing import TABLE, FenceError, live_addresses, read_record
from ansible.module_utils.tandem_processes import at_work, names_in, processes, read

DOCUMENTATION = """
module: tandem_node
short_description: Reads what Tandem's roles need to know about a machine
description:
  - One read-only call in place of some twenty. Never changes anything; runs in check mode.
options:
  packages:
    description: Packages to look up in the database of dpkg or rpm (version, and whether they are held).
    type: list
    elements: str
    default: []
  units:
    description: systemd units to look up.
    type: list
    elements: str
    default: []
  mount_point:
    description: Where the share is to be mounted.
    type: str
    default: ''
  disk_paths:
    description: Paths whose free space is wanted. A missing path counts as its nearest existing parent.
    type: list
    elements: str
    default: [/var/lib]
  files:
    description: Paths of which only the existence is wanted.
    type: list
    elements: str
    default: []
  wait_seconds:
    description:
      - How long to wait for the end of a kubeadm that runs on the machine, for all else may change meanwhile. What runs
        all the same is in C(node.busy).
    type: int
    default: 0
  sent_at:
    description: The control node's clock when it sent the request, seconds since the epoch. Returned as it is.
    type: float
    default: 0
author: Tandem
"""

EXAMPLES = """
- name: The machine's state is known
  tandem_node:
    packages: [kubelet]
  register: node
"""

RETURN = """
node:
  description: The machine's state.
  returned: always
  type: dict
"""

MANIFESTS = Path("/etc/kubernetes/manifests")
KUBEADM_MANIFESTS = ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")
KUBELET = Path("/var/lib/kubelet")


def run(*argv: str) -> str:
    """Standard output of a command, empty when it fails or does not exist."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def operating_system() -> dict[str, str]:
    """The names and numbers of /etc/os-release, the family by its package manager, the machine type and the kernel."""
    lines = (line.partition("=") for line in read("/etc/os-release").splitlines())
    release = {key: value.strip('"') for key, _, value in lines if key}
    return {
        "id": release.get("ID", ""),
        "family": family(release.get("ID", ""), release.get("ID_LIKE", "")),
        "version_id": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "name": release.get("PRETTY_NAME", ""),
        "architecture": platform.machine(),
        "kernel": platform.release(),
    }


def family(name: str, like: str) -> str:
    """`debian` (apt, dpkg) or `redhat` (dnf, rpm), from ID and ID_LIKE of /etc/os-release; empty for others."""
    known = {"debian": "debian", "ubuntu": "debian", "rhel": "redhat", "centos": "redhat", "fedora": "redhat"}
    return next((known[each] for each in (name, *like.split()) if each in known), "")


def packages(names: list[str], of_family: str) -> dict[str, Any]:
    """Version and hold flag of each installed package among `names`; nothing for a family that is not known."""
    lookup = {"debian": dpkg_packages, "redhat": rpm_packages}.get(of_family)
    return lookup(names) if lookup and names else {}


def dpkg_packages(names: list[str]) -> dict[str, Any]:
    """From dpkg's own database, where a hold is too."""
    found, wanted = {}, set(names)
    for paragraph in read("/var/lib/dpkg/status").split("\n\n"):
        name = paragraph.split("\n", 1)[0].partition("Package: ")[2]
        if name not in wanted:
            continue
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"(Status|Version): ", line))
        selection, _, state = fields.get("Status", "").partition(" ")
        if state.endswith(" installed"):
            found[name] = {"version": fields.get("Version", ""), "held": selection == "hold"}
    return found


def rpm_packages(names: list[str]) -> dict[str, Any]:
    """From rpm's database; a hold is an entry of dnf's versionlock plugin, a line such as `kubelet-0:1.36.3-1.*`."""
    locked = [line.strip() for line in read("/etc/dnf/plugins/versionlock.list").splitlines()]
    found = {}
    for line in run("rpm", "--query", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\\n", *names).splitlines():
        name, _, version = line.partition(" ")
        if name in names:  # for a package that is not installed rpm writes a sentence
            held = any(re.match(rf"{re.escape(name)}-(\d+:)?\d", entry) for entry in locked)
            found[name] = {"version": version, "held": held}
    return found


def selinux() -> str:
    """`enforcing`, `permissive` or `disabled`."""
    return {"1": "enforcing", "0": "permissive"}.get(read("/sys/fs/selinux/enforce").strip(), "disabled")


def units(names: list[str]) -> dict[str, Any]:
    """ActiveState and UnitFileState of each unit, in one systemctl call."""
    if not names:
        return {}
    output = run("systemctl", "show", "--property=Id,ActiveState,UnitFileState,LoadState", *names)
    found = {name: {"active": "", "enabled": "", "loaded": ""} for name in names}
    for name, block in zip(names, output.strip().split("\n\n"), strict=False):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[name] = {
            "active": values.get("ActiveState", ""),
            "enabled": values.get("UnitFileState", ""),
            "loaded": values.get("LoadState", ""),
        }
    return found


def kernel() -> dict[str, Any]:
    """Whether the kernel can load modules, and which of the needed features it has now."""
    file_systems = read("/proc/filesystems").split()
    return {
        "loads_modules": Path("/proc/modules").exists() and Path("/lib/modules", platform.release()).is_dir(),
        "present": {
            "overlay": "overlay" in file_systems,
            "br_netfilter": Path("/proc/sys/net/bridge").is_dir(),
            "nf_conntrack": Path("/proc/sys/net/netfilter/nf_conntrack_max").exists(),
        },
    }


def mount(point: str) -> dict[str, Any]:
    """What is mounted at a mount point; an empty source when nothing is. Never touches the file system itself."""
    state: dict[str, Any] = {"point": point, "source": "", "type": "", "options": [], "immutable": None}
    if not point:
        return state
    for line in read("/proc/self/mounts").splitlines():
        source, target, kind, options = line.split()[:4]
        if target == point:
            state.update(source=source, type=kind, options=options.split(","))
    state["immutable"] = immutable_below(Path(point))
    return state


def immutable_below(point: Path) -> bool | None:
    """Whether the directory under a mount carries the immutable attribute; None when it does not exist."""
    script = 'mount --bind "$1" /mnt && lsattr -d "/mnt/$2"'
    output = run("unshare", "--mount", "sh", "-c", script, "sh", str(point.parent), point.name)
    return "i" in output.split()[0] if output.split() else None


def disks(paths: list[str]) -> dict[str, Any]:
    """Free and total bytes of the file system of each path, or of its nearest existing parent."""
    found = {}
    for path in paths:
        existing = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
        usage = shutil.disk_usage(existing)
        found[path] = {"free": usage.free, "total": usage.total}
    return found


def addresses() -> list[dict[str, Any]]:
    """Global addresses with their prefix length, by interface."""
    try:
        links = json.loads(run("ip", "-json", "address", "show") or "[]")
    except ValueError:
        links = []
    return [
        {"interface": link.get("ifname"), "address": entry["local"], "prefix": entry.get("prefixlen")}
        for link in links
        for entry in link.get("addr_info", [])
        if entry.get("scope") == "global"
    ]


def nfs_server() -> dict[str, Any]:
    """Lease and grace time of a running kernel NFS server, its clients, and what it exports."""
    folder = Path("/proc/fs/nfsd")
    lease, grace = (read(folder / name).strip() for name in ("nfsv4leasetime", "nfsv4gracetime"))
    if not lease:
        return {"running": False, "clients": 0, "lease": None, "grace": None, "exports": []}
    return {
        "running": int(read(folder / "threads").strip() or "0") > 0,
        "clients": len(names_in(folder / "clients")),
        "lease": int(lease),
        "grace": int(grace) if grace else None,
        "exports": [line for line in read("/var/lib/nfs/etab").splitlines() if line],
    }


def fence() -> dict[str, Any]:
    """Nodes that the NFS server on this machine refuses, by its record, and whom the packet filter refuses by now."""
    try:
        nodes = read_record()["nodes"]
    except FenceError as error:
        return {"nodes": {}, "live": [], "error": str(error)}
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") if nodes else None
    live = live_addresses(run(nft, "--json", "list", "table", "inet", TABLE)) if nft else []
    return {"nodes": nodes, "live": live, "error": ""}


def foreign_manifests() -> list[str]:
    """Files in the static pod directory that kubeadm did not put there; kubelet runs every one of them."""
    return [name for name in names_in(MANIFESTS) if not name.startswith(".") and name not in KUBEADM_MANIFESTS]


def kubelet() -> dict[str, Any]:
    """Kubelet's file, the kubelet-config that a role last had it take, and whether a role began to and did not end."""
    return {
        "file": read(KUBELET / "config.yaml"),
        "document": read(KUBELET / "tandem-document.yaml"),
        "unfinished": (KUBELET / "tandem-before.yaml").exists(),
    }


def shutdown_delay() -> float | None:
    """How long logind lets a shutdown wait for those who hold it back, seconds; None where it does not run."""
    name, path = "org.freedesktop.login1", "/org/freedesktop/login1"
    kind, _, value = run(
        "busctl", "--auto-start=no", "get-property", name, path, f"{name}.Manager", "InhibitDelayMaxUSec"
    ).partition(" ")
    return int(value) / 1e6 if kind == "t" else None


def gather(parameters: dict[str, Any]) -> dict[str, Any]:
    """Everything, as one dict."""
    system = operating_system()
    return {
        "os": system,
        "selinux": selinux(),
        "now": time.time(),
        "sent_at": parameters["sent_at"],
        "swaps": [line.split()[0] for line in read("/proc/swaps").splitlines()[1:]],
        "kernel": kernel(),
        "disks": disks(parameters["disk_paths"]),
        "addresses": addresses(),
        "packages": packages(parameters["packages"], system["family"]),
        "units": units(parameters["units"]),
        "processes": processes(),
        "busy": at_work(),
        "foreign_manifests": foreign_manifests(),
        "kubelet": kubelet(),
        "shutdown_delay_seconds": shutdown_delay(),
        "certificates": tandem_certificates.gather(),
        "joined": Path("/etc/kubernetes/kubelet.conf").exists(),
        "control_plane": Path("/etc/kubernetes/admin.conf").exists(),
        "mount": mount(parameters["mount_point"]),
        "nfs_server": nfs_server(),
        "fence": fence(),
        "files": {path: Path(path).exists() for path in parameters["files"]},
    }


def wait_for_others(seconds: int) -> None:
    """Wait until no kubeadm runs on this machine, but for so many seconds at most."""
    until = time.monotonic() + seconds
    while at_work() and time.monotonic() < until:
        time.sleep(1)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "mount_point": {"type": "str", "default": ""},
            "disk_paths": {"type": "list", "elements": "str", "default": ["/var/lib"]},
            "files": {"type": "list", "elements": "str", "default": []},
            "wait_seconds": {"type": "int", "default": 0},
            "sent_at": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    wait_for_others(module.params["wait_seconds"])
    module.exit_json(changed=False, node=gather(module.params))


if __name__ == "__main__":
    main()
