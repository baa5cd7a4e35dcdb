"""Certificates in use on a machine: when each ends, and whether the program that needs it has read it since.

`gather` runs on the machine and needs Python's standard library and openssl; the judges are pure. kubeadm's
certificates last a year, and what used to renew them in passing, `kubeadm upgrade`, the tuning runs with renewal
switched off.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

CONFIGURATION: Final = "/etc/kubernetes"
KUBELET: Final = "/var/lib/kubelet/pki/kubelet-client-current.pem"
"""kubelet's credential, which it renews itself when a tenth to three tenths of its life are left."""

USERS: Final[Mapping[str, tuple[str, ...]]] = {
    "etcd": ("pki/etcd/server.crt", "pki/etcd/peer.crt"),
    "kube-apiserver": (
        "pki/apiserver.crt",
        "pki/apiserver-etcd-client.crt",
        "pki/apiserver-kubelet-client.crt",
        "pki/front-proxy-client.crt",
    ),
    "kube-controller-manager": ("controller-manager.conf",),
    "kube-scheduler": ("scheduler.conf",),
}
"""Who uses what, in the order in which they are restarted. The last two read theirs at their start and never again."""

AUTHORITIES: Final = ("pki/ca.crt", "pki/front-proxy-ca.crt", "pki/etcd/ca.crt")
"""Not renewed by `kubeadm certs renew`; they last ten years."""

DAY: Final = 86400.0
CLOCK_SECONDS: Final = 2.0
"""A program that started so shortly before its file was written has read it: kubeadm writes in whole seconds."""


def gather() -> list[dict[str, Any]]:
    """Every certificate below /etc/kubernetes, and kubelet's own: `path`, `starts`, `ends`, `written`, `error`."""
    folder = Path(CONFIGURATION)
    found = [*sorted(folder.glob("pki/*.crt")), *sorted(folder.glob("pki/etcd/*.crt"))]
    entries = [_entry(path, _text(path)) for path in (*found, Path(KUBELET)) if path.is_file()]
    for path in sorted(folder.glob("*.conf")):
        embedded = re.search(r"^\s*client-certificate-data:\s*(\S+)", _text(path), re.MULTILINE)
        if embedded is None:
            continue  # it names a file (kubelet.conf) or holds a token
        try:
            text = base64.b64decode(embedded[1], validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError) as error:
            text = f"no certificate: {error}"
        entries.append(_entry(path, text))
    return entries


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _entry(path: Path, pem: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "written": path.stat().st_mtime, "error": ""}
    try:
        return {**entry, **dates(pem)}
    except (ValueError, OSError, subprocess.SubprocessError) as error:
        return {**entry, "starts": 0.0, "ends": 0.0, "error": str(error)}


def dates(pem: str) -> dict[str, float]:
    """When the first certificate of a PEM text starts and ends, in seconds since the epoch.

    Raises:
        ValueError: it holds none.
        OSError, subprocess.SubprocessError: openssl is not there or hangs.
    """
    argv = ["openssl", "x509", "-noout", "-startdate", "-enddate"]
    done = subprocess.run(argv, input=pem, capture_output=True, text=True, timeout=20, check=False)
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if not {"notBefore", "notAfter"} <= said.keys():
        raise ValueError(f"openssl reads no certificate in it: {done.stderr.strip()[:200]}")
    return {
        "starts": float(ssl.cert_time_to_seconds(said["notBefore"])),
        "ends": float(ssl.cert_time_to_seconds(said["notAfter"])),
    }


def failures(nodes: Mapping[str, Mapping[str, Any]], fail_days: float) -> list[dict[str, Any]]:
    """Certificates that end within `fail_days`, have ended or cannot be read, as differences.

    Args:
        nodes: the facts of `tandem_node` by host.
        fail_days: days.
    """
    found = []
    for host, node in nodes.items():
        for entry in node.get("certificates", []):
            key = f"certificate {entry['path']}"
            if entry["error"]:
                found.append({"host": host, "key": key, "wanted": "readable", "found": entry["error"]})
            elif (left := (entry["ends"] - node["now"]) / DAY) < fail_days:
                wanted = f"valid for {fail_days:g} days"
                found.append({"host": host, "key": key, "wanted": wanted, "found": _left(left, entry["path"])})
    return found


def warnings(nodes: Mapping[str, Mapping[str, Any]], warn_days: float, fail_days: float) -> list[str]:
    """Certificates that end within `warn_days`, and programs that still run with an earlier one, as sentences.

    kubelet's own credential is told only when its renewal is overdue: when less than a tenth of its life is left.
    """
    found = []
    for host, node in nodes.items():
        for entry in node.get("certificates", []):
            left, life = (entry["ends"] - node["now"]) / DAY, (entry["ends"] - entry["starts"]) / DAY
            limit = min(warn_days, life / 10) if entry["path"] == KUBELET else warn_days
            if not entry["error"] and fail_days <= left < limit:
                found.append(f"{host}: certificate {entry['path']} {_left(left, entry['path'])}")
        found += [
            f"{host}: {program} started before {', '.join(paths)} was written, and may use the one of before: "
            "playbooks/certs.yml restarts it"
            for program, paths in outdated(node).items()
        ]
    return found


def _left(days: float, path: str) -> str:
    when = f"ends in {days:.0f} days" if days >= 0 else f"ended {-days:.0f} days ago"
    if path == KUBELET:
        return f"{when}; kubelet should have renewed it: see `journalctl -u kubelet` and `kubectl get csr`"
    if path.removeprefix(f"{CONFIGURATION}/") in AUTHORITIES:
        return f"{when}; an authority is not renewed by a playbook: kubernetes.io, manual rotation of CA certificates"
    return f"{when}; playbooks/certs.yml renews it"


def outdated(node: Mapping[str, Any]) -> dict[str, list[str]]:
    """Programs that run since before a file of theirs was written, and which files; in the order of their restart."""
    written = {entry["path"]: entry["written"] for entry in node.get("certificates", [])}
    found = {}
    for program, names in USERS.items():
        started = node["processes"].get(program, {}).get("started")
        paths = [f"{CONFIGURATION}/{name}" for name in names]
        late = [path for path in paths if started and written.get(path, 0.0) > started + CLOCK_SECONDS]
        if late:
            found[program] = late
    return found


def due(nodes: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], days: float, *, force: bool) -> dict[str, Any]:
    """What has to be done on each control plane node: `renew`, whether kubeadm is to renew; `restart`, which programs.

    An attempt that broke off has renewed already: what is left of it are programs older than their files.

    Args:
        nodes: the facts of `tandem_node` by host.
        hosts: the control plane.
        days: certificates that end within so many days are renewed, and all others of that node with them.
        force: renew whatever their age.
    """
    found = {}
    for host in hosts:
        node = nodes[host]
        renewable = [
            entry
            for entry in node.get("certificates", [])
            if entry["path"] != KUBELET and entry["path"].removeprefix(f"{CONFIGURATION}/") not in AUTHORITIES
        ]
        late = [entry["path"] for entry in renewable if (entry["ends"] - node["now"]) / DAY < days or entry["error"]]
        renew = force or bool(late)
        restart = list(USERS) if renew else list(outdated(node))
        if renew or restart:
            found[host] = {"renew": renew, "ending": late, "restart": restart}
    return found


def plan_sentences(plan: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A plan for people to read."""
    told = []
    for host, todo in plan.items():
        names = ", ".join(Path(path).name for path in todo["ending"])
        what = f"renewed by kubeadm ({names or 'all, as asked'}), then " if todo["renew"] else ""
        told.append(f"{host}: {what}restarted one by one: {', '.join(todo['restart'])}")
    return told or ["every certificate lasts, and every program has read its own: nothing to do"]
