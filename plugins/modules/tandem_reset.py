#!/usr/bin/python
"""Ansible module: a worker's machine is cleaned of the cluster, and the share is never touched."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_mounts import (
    CrossingError,
    Mount,
    below,
    busy,
    inside,
    links,
    of_share,
    parse,
    present,
    remove_tree,
)
from ansible.module_utils.tandem_processes import read

DOCUMENTATION = """
module: tandem_reset
short_description: Cleans a worker's machine of kubelet, pods, network and mount, and never touches the share
description:
  - Runs on the machine. C(state=planned) tells what would go and fails when something forbids it; it changes nothing.
  - C(state=reset) stops keepalived, so that the address for clients outside is let go, then kubelet, the service that
    mounts, and the container runtime, ends all pods' processes, unmounts everything below the folders that go, then the
    share wherever it is mounted, reads back that all of that is so, and only then removes the folders, within their own
    file systems. Never lazily, never by force. Broken off, it goes on from there. Packages, their repositories and
    settings stay. Supports check mode.
options:
  state:
    description: What to do.
    type: str
    choices: [planned, reset]
    required: true
  share:
    description: Where the share is mounted.
    type: path
    required: true
  share_unit:
    description: systemd's name of the mount unit.
    type: str
    required: true
  timeout_seconds:
    description: How long processes may take to end, and each mount to be undone.
    type: int
    default: 30
author: Tandem
"""

EXAMPLES = """
- name: The machine is clean
  tandem_reset: {state: reset, share: /srv/tandem, share_unit: srv-tandem.mount}
"""

RETURN = """
told:
  description: What goes, for people.
  returned: always
  type: list
"""

FOLDERS = (
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/etc/cni/net.d",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/run/containerd",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/tandem",
    "/usr/local/lib/tandem",
)
"""What kubeadm, kubelet, the container runtime and our roles made, and nobody else."""

UNITS = "/etc/systemd/system"
FILES = (
    f"{UNITS}/tandem-share.service",
    f"{UNITS}/tandem-share-label.service",
    f"{UNITS}/tandem-pod-routes.service",
    f"{UNITS}/tandem-virtual-ip.service",
    f"{UNITS}/kubelet.service.d/30-tandem-runtime.conf",
    f"{UNITS}/kubelet.service.d/40-tandem-share.conf",
    f"{UNITS}/kubelet.service.d/50-tandem.conf",
)
LEFT = (
    "/etc/apt",
    "/etc/containerd",
    "/etc/hosts",
    "/etc/modules-load.d",
    "/etc/needrestart",
    "/etc/sysctl.d",
    f"{UNITS}/containerd.service.d",
    "/etc/systemd/logind.conf.d",
    "/etc/yum.repos.d",
)
"""Where our roles wrote what may stay: settings of packages and of the kernel, which do nothing without a kubelet."""

STOPPED = ("tandem-virtual-ip.service", "kubelet.service", "tandem-share.service", "containerd.service")
"""In this order: the address for clients outside goes to the other worker before anything ends here. Left to run,
keepalived would hold it on, for a health script that is gone counts as one that says yes."""

DISABLED = (
    "tandem-virtual-ip.service",
    "tandem-share.service",
    "tandem-share-label.service",
    "tandem-pod-routes.service",
)
GROUPS = ("kubepods.slice", "kubepods", "system.slice/containerd.service")
"""Control groups of all pods, by the driver, and of the container runtime's shims, which outlive it."""

POLL_SECONDS = 0.2
MOUNTINFO = Path("/proc/self/mountinfo")
CGROUPS = Path("/sys/fs/cgroup")


class ResetError(Exception):
    """The machine could not be cleaned; the message says what holds it and what to do."""


def run(*argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A command, its output kept."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)


def mounts() -> list[Mount]:
    """The machine's mounts now."""
    found: list[Mount] = parse(MOUNTINFO.read_text(encoding="utf-8", errors="replace"))
    return found


def refusals(share: str, folders: tuple[str, ...] = FOLDERS) -> list[str]:
    """What forbids it, as sentences; empty when nothing does."""
    found = [
        f"{folder} and the share at {share} lie in each other; rule: the share is never touched; way out: by hand"
        for folder in folders
        if inside(share, folder) or inside(folder, share)
    ]
    if found:
        return found
    found = [
        f"{folder} leads over the link {link}; rule: links are not followed, for they may lead to the share; way out: "
        "look where it leads, and remove that by hand"
        for folder in folders
        if (link := links(folder))
    ]
    there = busy(share)
    if there:
        found.append(
            f"the share at {share} is in use by {', '.join(there)}; rule: it is unmounted first, never by force; "
            "way out: end them, then the same command"
        )
    return found


def plan(share: str) -> dict[str, Any]:
    """What would go."""
    folders = [folder for folder in FOLDERS if present(folder)]
    now = mounts()
    told = [
        f"ended: all pods, {', '.join(STOPPED)}",
        f"unmounted: {len(below(now, FOLDERS))} mounts below these folders, and {share}",
        f"removed: {', '.join(folders) or 'nothing'}",
        f"left as it is: what is on the share, packages, their repositories and settings, {share} as an empty folder",
    ]
    left = [path for path in FILES if os.path.lexists(path)]
    return {"changed": bool(folders or left or of_share(now, share)), "told": told}


def stop(unit: str) -> None:
    """Stop a unit if there is such a one.

    Raises:
        ResetError: it does not stop.
    """
    done = run("systemctl", "stop", unit, timeout=150)
    if done.returncode not in (0, 5):  # 5: not loaded
        raise ResetError(f"{unit} does not stop: {done.stderr.strip()}; way out: see `systemctl status {unit}`")


def pids(group: Path) -> list[int]:
    """Processes of a control group and of those below it, of which any may go meanwhile."""
    return [int(line) for each in group.rglob("cgroup.procs") for line in read(each).split()]


def end_pods(seconds: float) -> None:
    """Kill every process of every pod, and wait until all are gone.

    Raises:
        ResetError: some do not end; the share hangs, most likely.
    """
    groups = [CGROUPS / name for name in GROUPS if (CGROUPS / name).is_dir()]
    until = time.monotonic() + seconds
    while left := [pid for group in groups for pid in pids(group)]:
        for group in groups:
            kill = group / "cgroup.kill"
            if kill.exists():
                kill.write_text("1", encoding="ascii")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if time.monotonic() > until:
            raise ResetError(
                f"processes of pods do not end in {seconds:g} s: {', '.join(map(str, left[:10]))}; nothing has been "
                "removed; way out: a share that hangs holds them; bring the NFS server back, then the same command"
            )
        time.sleep(POLL_SECONDS)


def unmount(point: str, seconds: float) -> None:
    """Undo one mount, plainly.

    Raises:
        ResetError: it is busy, or its server does not answer.
    """
    try:
        done = run("umount", point, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ResetError(
            f"{point} cannot be unmounted in {seconds:g} s; nothing has been removed; way out: its server does not "
            "answer: bring it back, then the same command"
        ) from error
    if done.returncode and any(each.point == point for each in mounts()):
        raise ResetError(
            f"{point} cannot be unmounted: {done.stderr.strip()}; nothing has been removed; way out: see who uses it "
            f"(`fuser --verbose --mount {point}`), then the same command"
        )


def unmount_all(share: str, share_unit: str, seconds: float) -> None:
    """Undo every mount below the folders that go, and the share wherever it shows; then make sure of it.

    Raises:
        ResetError: one stays.
    """
    for mount in below(mounts(), FOLDERS):
        unmount(mount.point, seconds)
    run("systemctl", "stop", "--no-block", share_unit)
    for mount in of_share(mounts(), share):
        unmount(mount.point, seconds)
    left = {each.point for each in [*below(mounts(), FOLDERS), *of_share(mounts(), share)]}
    if left:
        raise ResetError(
            f"still mounted: {', '.join(sorted(left))}; nothing has been removed; way out: the same command"
        )


def reset(share: str, share_unit: str, seconds: float) -> dict[str, Any]:
    """Clean the machine.

    Raises:
        ResetError: something holds it; nothing is removed before all mounts are undone.
        CrossingError: a folder reached into another file system, which was not touched.
        OSError: something could not be removed.
    """
    answer = plan(share)
    for unit in STOPPED:
        stop(unit)
    end_pods(seconds)
    unmount_all(share, share_unit, seconds)
    for unit in DISABLED:  # after the share, for one of them says that it goes
        run("systemctl", "disable", "--now", unit)
    for path in (*FILES, f"{UNITS}/{share_unit}", f"{UNITS}/{share_unit}.d", *FOLDERS):
        remove_tree(path)
    if answer["changed"]:
        run("systemctl", "daemon-reload")
        run("systemctl", "reset-failed")
        run("ip", "link", "delete", "cni0")
    return answer


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["planned", "reset"], "required": True},
            "share": {"type": "path", "required": True},
            "share_unit": {"type": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    share = module.params["share"]
    forbidden = refusals(share)
    if forbidden:
        module.fail_json(msg="\n".join(["Nothing has been changed. The reset is refused:", *forbidden]))
    try:
        if module.params["state"] == "planned" or module.check_mode:
            answer = plan(share)
            changed = answer["changed"] and module.params["state"] == "reset"
            module.exit_json(**{**answer, "changed": changed})
        module.exit_json(**reset(share, module.params["share_unit"], module.params["timeout_seconds"]))
    except (ResetError, CrossingError) as error:
        module.fail_json(msg=str(error))
    except (OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"{error}; way out: mend that, then the same command, which goes on from here")


if __name__ == "__main__":
    main()
