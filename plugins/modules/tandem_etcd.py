#!/usr/bin/python
"""Ansible module: a snapshot of etcd that has been restored, started and counted before anybody calls it a backup."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_processes import processes
from ansible.module_utils.tandem_snapshots import BINARIES, SnapshotError, run

DOCUMENTATION = """
module: tandem_etcd
short_description: Takes a snapshot of etcd and proves it by a trial restore
description:
  - Runs on a node whose etcd is a static pod. Its own programs are used, out of the container that runs
    (C(/proc/PID/root)), so that they have its version and need not be installed.
  - The snapshot is restored into a scratch folder and a second etcd is started on it, on loopback and with no way
    to the
    first. It has to hold as many keys, at the snapshot's revision, as the first says, and the namespace kube-system
    with the same content. The scratch folder goes again.
  - Supports check mode, in which only the means are looked at.
  - With C(state=healthy) nothing is taken; every member is asked whether it is healthy, and for alarms. A control plane
    node without a manifest of etcd has its etcd elsewhere, and nothing to tell.
options:
  path:
    description: Where the snapshot goes.
    type: path
    default: ''
  state:
    description: What to do.
    type: str
    choices: [kept, healthy]
    default: kept
  min_free_mib:
    description: Free space that must remain on the disk of C(path), in MiB, besides three times the size of etcd.
    type: int
    default: 64
  timeout_seconds:
    description: How long the scratch etcd may take to answer.
    type: int
    default: 60
  wait_seconds:
    description: With C(state=healthy), how long a member that has just started may take to be so.
    type: int
    default: 0
author: Tandem
"""

EXAMPLES = """
- name: etcd is kept, and proven
  tandem_etcd: {path: /run/tandem-backup/etcd.db}
"""

RETURN = """
snapshot:
  description: C(revision), C(keys), C(size), C(sha256) and C(seconds), of the trial too.
  returned: when taken
  type: dict
sick:
  description: With C(state=healthy), what is wrong with etcd; empty when nothing is.
  returned: when asked
  type: str
"""

PROBE_KEY = "/registry/namespaces/kube-system"
PREFIX = "/registry"
MIB = 1024 * 1024
MANIFEST = Path("/etc/kubernetes/manifests/etcd.yaml")
POLL_SECONDS = 2.0


def programs(pid: int, names: tuple[str, ...] = ("etcd", "etcdctl", "etcdutl")) -> dict[str, str]:
    """Etcd's own programs, from the container of a process, else from the machine.

    Raises:
        SnapshotError: one is missing.
    """
    found = {}
    for name in names:
        inside = Path(f"/proc/{pid}/root/{BINARIES}/{name}")
        path = (
            str(inside) if inside.is_file() else shutil.which(name, path=f"/usr/local/bin:{os.environ.get('PATH', '')}")
        )
        if path is None:
            raise SnapshotError(
                f"{name} is neither in etcd's container ({inside}) nor on this machine; rule: etcd's own programs say "
                "whether it is healthy, and prove a backup by restoring it; way out: install it, of the cluster's etcd "
                "version"
            )
        found[name] = path
    return found


def access(flags: dict[str, Any]) -> list[str]:
    """Arguments of etcdctl for the etcd that runs, by its own flags: its first address, and its own certificate."""
    urls = str(flags.get("advertise-client-urls") or flags.get("listen-client-urls") or "https://127.0.0.1:2379")
    arguments = [f"--endpoints={urls.split(',', maxsplit=1)[0]}"]
    if flags.get("cert-file"):
        arguments += [f"--cacert={flags.get('trusted-ca-file', '')}", f"--cert={flags['cert-file']}"]
        arguments.append(f"--key={flags.get('key-file', '')}")
    return arguments


def content(etcdctl: str, arguments: list[str], revision: int) -> dict[str, Any]:
    """How many keys there are at a revision, and the probe key's value as a digest.

    Raises:
        SnapshotError: etcd does not answer, or has compacted that revision.
    """
    at = f"--rev={revision}"
    fields = run(etcdctl, *arguments, "get", PREFIX, "--prefix", "--count-only", at, "--write-out=fields")
    counted = [line.partition(":")[2].strip() for line in fields.splitlines() if line.startswith('"Count"')]
    if not counted:
        raise SnapshotError(f"etcdctl told no count: {fields[:200]}")
    probe = run(etcdctl, *arguments, "get", PROBE_KEY, at, "--print-value-only")
    return {
        "keys": int(counted[0]),
        "probe": hashlib.sha256(probe.encode(errors="surrogateescape")).hexdigest() if probe else "",
    }


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def scratch(tools: dict[str, str], snapshot: Path, seconds: float) -> Iterator[list[str]]:
    """A second etcd on the restored snapshot, as arguments of etcdctl; gone with its folder at the end.

    Raises:
        SnapshotError: the snapshot cannot be restored, or the etcd on it does not answer.
    """
    with tempfile.TemporaryDirectory(dir=snapshot.parent, prefix=".trial-") as folder:
        data = Path(folder) / "data"
        run(tools["etcdutl"], "snapshot", "restore", str(snapshot), f"--data-dir={data}")
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        log = Path(folder) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [
                    tools["etcd"],
                    f"--data-dir={data}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--log-level=error",
                ],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={},
            )
        try:
            until = time.monotonic() + seconds
            while True:
                try:
                    run(tools["etcdctl"], f"--endpoints={client}", "endpoint", "health")
                    break
                except SnapshotError as error:
                    if process.poll() is not None or time.monotonic() > until:
                        said = log.read_text(errors="replace")[-500:]
                        raise SnapshotError(f"etcd does not start on the restored snapshot: {said or error}") from error
                    time.sleep(0.3)
            yield [f"--endpoints={client}"]
        finally:
            process.kill()
            process.wait()


def compare(there: dict[str, Any], restored: dict[str, Any]) -> list[str]:
    """How a restored snapshot differs from the etcd that it was taken of, as clauses."""
    found = []
    if restored["keys"] != there["keys"] or not restored["keys"]:
        found.append(f"{restored['keys']} keys instead of {there['keys']}")
    if restored["probe"] != there["probe"] or not restored["probe"]:
        found.append(f"another {PROBE_KEY}")
    return found


def take(parameters: dict[str, Any], etcd: dict[str, Any]) -> dict[str, Any]:
    """Take the snapshot and prove it.

    Raises:
        SnapshotError: it is not proven; the file is removed.
    """
    path = Path(parameters["path"])
    tools, arguments = programs(etcd["pid"]), access(etcd["args"])
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = json.loads(run(tools["etcdctl"], *arguments, "endpoint", "status", "--write-out=json"))[0]["Status"]
    refuse_full_disk(path.parent, int(status["dbSize"]), parameters["min_free_mib"])
    begun = time.monotonic()
    path.unlink(missing_ok=True)
    try:
        revision, keys = prove(path, tools, arguments, parameters["timeout_seconds"])
    except SnapshotError:
        path.unlink(missing_ok=True)
        raise
    return {
        "revision": revision,
        "keys": keys,
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "seconds": round(time.monotonic() - begun, 1),
    }


def prove(path: Path, tools: dict[str, str], arguments: list[str], seconds: float) -> tuple[int, int]:
    """Take the snapshot, restore it aside and compare; its revision and how many keys it holds.

    Raises:
        SnapshotError: it cannot be taken or restored, or differs.
    """
    run(tools["etcdctl"], *arguments, "snapshot", "save", str(path))
    path.chmod(0o600)
    said = json.loads(run(tools["etcdutl"], "snapshot", "status", str(path), "--write-out=json"))
    revision = int(said["revision"])
    there = content(tools["etcdctl"], arguments, revision)
    with scratch(tools, path, seconds) as restored:
        differences = compare(there, content(tools["etcdctl"], restored, revision))
    if differences:
        raise SnapshotError(f"the restored snapshot differs from etcd at revision {revision}: {'; '.join(differences)}")
    return revision, int(there["keys"])


def refuse_full_disk(folder: Path, size: int, min_free_mib: int) -> None:
    """Refuse when snapshot, scratch copy and archive would not fit.

    Raises:
        SnapshotError: they would not.
    """
    usage = os.statvfs(folder)
    free, wanted = usage.f_bavail * usage.f_frsize, 3 * size + min_free_mib * MIB
    if free < wanted:
        raise SnapshotError(
            f"the disk of {folder} has {free / MIB:.0f} MiB free, snapshot, trial and archive need "
            f"{wanted / MIB:.0f} MiB; "
            "nothing has been changed; way out: free some space"
        )


def sick(etcd: dict[str, Any]) -> str:
    """What is wrong with etcd: a member that does not answer, or an alarm; empty when nothing is."""
    try:
        etcdctl, arguments = programs(etcd["pid"], ("etcdctl",))["etcdctl"], access(etcd["args"])
        run(etcdctl, *arguments, "endpoint", "health", "--cluster")
        alarms: str = run(etcdctl, *arguments, "alarm", "list")
        return alarms.strip()
    except SnapshotError as error:
        return str(error)


def health(seconds: float) -> str:
    """What is wrong with etcd once a member that has just started had its time; empty when nothing is."""
    until = time.monotonic() + seconds
    while True:
        etcd = processes().get("etcd")
        gone = "it does not run" if MANIFEST.exists() else ""
        said = sick(etcd) if etcd else gone
        if not said or time.monotonic() > until:
            return said
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": ""},
            "state": {"type": "str", "choices": ["kept", "healthy"], "default": "kept"},
            "min_free_mib": {"type": "int", "default": 64},
            "timeout_seconds": {"type": "int", "default": 60},
            "wait_seconds": {"type": "int", "default": 0},
        },
        required_if=[("state", "kept", ["path"])],
        supports_check_mode=True,
    )
    if module.params["state"] == "healthy":
        module.exit_json(changed=False, sick=health(module.params["wait_seconds"]))
    etcd = processes().get("etcd")
    if etcd is None:
        module.fail_json(msg="no etcd runs on this machine; rule: it is a static pod of the control plane's nodes")
    try:
        if module.check_mode:
            module.exit_json(changed=True, programs=programs(etcd["pid"]))
        module.exit_json(changed=True, snapshot=take(module.params, etcd))
    except (SnapshotError, OSError, ValueError, KeyError) as error:
        module.fail_json(msg=f"etcd was not backed up: {error}")


if __name__ == "__main__":
    main()
