#!/usr/bin/python
"""Ansible module: the state of one machine, read in one go and without changing anything."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_node
short_description: Reads what Tandem's roles need to know about a machine
description:
  - One read-only call in place of some twenty. Never changes anything; runs in check mode.
options:
  packages:
    description: Debian packages to look up (version, and whether they are held).
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

MANIFESTS = "/etc/kubernetes/manifests"
KUBEADM_MANIFESTS = ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")
PROGRAMS = ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "containerd")
KERNEL_NEEDS = {
    "overlay": lambda: "overlay" in _words("/proc/filesystems"),
    "br_netfilter": lambda: os.path.isdir("/proc/sys/net/bridge"),
    "nf_conntrack": lambda: os.path.exists("/proc/sys/net/netfilter/nf_conntrack_max"),
    "nfs": lambda: "nfs4" in _words("/proc/filesystems"),
}


def _read(path, default=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return default


def _words(path):
    return _read(path).split()


def _run(*argv):
    """Standard output of a command, empty when it fails or does not exist."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def operating_system():
    """The names and numbers of /etc/os-release, the machine type and the kernel."""
    release = dict(
        (key, value.strip('"'))
        for key, _, value in (line.partition("=") for line in _read("/etc/os-release").splitlines())
        if key
    )
    return {
        "id": release.get("ID", ""),
        "version_id": release.get("VERSION_ID", ""),
        "name": release.get("PRETTY_NAME", ""),
        "architecture": platform.machine(),
        "kernel": platform.release(),
    }


def processes():
    """Pid, arguments and HTTP2_* environment of the cluster's programs, the live truth about flags."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        name = _read(f"/proc/{pid}/comm").strip()
        match = next((program for program in PROGRAMS if program[:15] == name), None)
        if match is None or match in found:
            continue
        arguments = [word for word in _read(f"/proc/{pid}/cmdline").split("\0") if word]
        if not arguments or os.path.basename(arguments[0]) != match:
            continue
        environ = dict(
            item.split("=", 1) for item in _read(f"/proc/{pid}/environ").split("\0") if item.startswith("HTTP2_")
        )
        found[match] = {"pid": int(pid), "args": flag_values(arguments[1:]), "environ": environ}
    return found


def flag_values(arguments):
    """Command-line flags as name to value; a repeated flag becomes a list, a bare one true."""
    values = {}
    for argument in arguments:
        if not argument.startswith("-"):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        value = value if equals else "true"
        if name in values:
            previous = values[name] if isinstance(values[name], list) else [values[name]]
            values[name] = [*previous, value]
        else:
            values[name] = value
    return values


def packages(names):
    """Version and hold flag of each installed package among `names`, from dpkg's own database."""
    found, wanted = {}, set(names)
    for paragraph in _read("/var/lib/dpkg/status").split("\n\n"):
        head = paragraph.split("\n", 1)[0]
        name = head.partition("Package: ")[2]
        if name not in wanted:
            continue
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"(Status|Version): ", line))
        selection, _, state = fields.get("Status", "  ").partition(" ")
        if state.endswith(" installed"):
            found[name] = {"version": fields.get("Version", ""), "held": selection == "hold"}
    return found


def units(names):
    """ActiveState and UnitFileState of each unit, in one systemctl call."""
    if not names:
        return {}
    output = _run("systemctl", "show", "--property=Id,ActiveState,UnitFileState,LoadState", *names)
    found = {}
    for name, block in zip(names, output.strip().split("\n\n")):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[name] = {
            "active": values.get("ActiveState", ""),
            "enabled": values.get("UnitFileState", ""),
            "loaded": values.get("LoadState", ""),
        }
    return found


def kernel():
    """Whether the kernel can load modules, and which of the needed features it has now."""
    return {
        "loads_modules": os.path.exists("/proc/modules") and os.path.isdir(f"/lib/modules/{platform.release()}"),
        "present": {name: bool(test()) for name, test in KERNEL_NEEDS.items()},
    }


def mount(point):
    """What is mounted at a mount point; an empty source when nothing is. Never touches the file system itself."""
    state = {"point": point, "source": "", "type": "", "options": [], "immutable": None}
    if not point:
        return state
    for line in _read("/proc/self/mounts").splitlines():
        source, target, kind, options = line.split()[:4]
        if target == point:
            state.update(source=source, type=kind, options=options.split(","))
    state["immutable"] = immutable_below(point)
    return state


def immutable_below(point):
    """Whether the directory under the mount carries the immutable attribute; None when it does not exist."""
    parent, name = os.path.split(point)
    script = f'mount --bind "$1" /mnt && lsattr -d "/mnt/$2"' if parent != "/" else 'lsattr -d "/$2"'
    output = _run("unshare", "--mount", "sh", "-c", script, "sh", parent, name)
    return "i" in output.split()[0] if output.split() else None


def disks(paths):
    """Free and total bytes of the file system of each path."""
    found = {}
    for path in paths:
        existing = path
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        usage = shutil.disk_usage(existing)
        found[path] = {"free": usage.free, "total": usage.total}
    return found


def addresses():
    """IPv4 addresses with their prefix length, and global IPv6 ones, by interface."""
    found = []
    try:
        links = json.loads(_run("ip", "-json", "address", "show") or "[]")
    except ValueError:
        links = []
    for link in links:
        for entry in link.get("addr_info", []):
            if entry.get("scope") == "global":
                found.append(
                    {"interface": link.get("ifname"), "address": entry["local"], "prefix": entry.get("prefixlen")}
                )
    return found


def nfs_server():
    """Lease and grace time of a running kernel NFS server, its clients, and what it exports."""
    folder = "/proc/fs/nfsd"
    lease = _read(f"{folder}/nfsv4leasetime").strip()
    if not lease:
        return {"running": False, "clients": 0, "lease": None, "grace": None, "exports": []}
    threads = _read(f"{folder}/threads").strip() or "0"
    grace = _read(f"{folder}/nfsv4gracetime").strip()
    try:
        clients = len(os.listdir(f"{folder}/clients"))
    except OSError:
        clients = 0
    return {
        "running": int(threads) > 0,
        "clients": clients,
        "lease": int(lease),
        "grace": int(grace) if grace else None,
        "exports": [line for line in _read("/var/lib/nfs/etab").splitlines() if line],
    }


def foreign_manifests():
    """Files in the static pod directory that kubeadm did not put there; kubelet runs every one of them."""
    try:
        names = os.listdir(MANIFESTS)
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and name not in KUBEADM_MANIFESTS)


def gather(parameters):
    """Everything, as one dict."""
    return {
        "os": operating_system(),
        "now": time.time(),
        "sent_at": parameters["sent_at"],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cpus": os.cpu_count(),
        "swaps": [line.split()[0] for line in _read("/proc/swaps").splitlines()[1:]],
        "kernel": kernel(),
        "disks": disks(parameters["disk_paths"]),
        "addresses": addresses(),
        "packages": packages(parameters["packages"]),
        "units": units(parameters["units"]),
        "processes": processes(),
        "foreign_manifests": foreign_manifests(),
        "joined": os.path.exists("/etc/kubernetes/kubelet.conf"),
        "control_plane": os.path.exists("/etc/kubernetes/admin.conf"),
        "mount": mount(parameters["mount_point"]),
        "nfs_server": nfs_server(),
        "files": {path: os.path.exists(path) for path in parameters["files"]},
    }


def main():
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "mount_point": {"type": "str", "default": ""},
            "disk_paths": {"type": "list", "elements": "str", "default": ["/var/lib"]},
            "files": {"type": "list", "elements": "str", "default": []},
            "sent_at": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, node=gather(module.params))


if __name__ == "__main__":
    main()
