"""The cluster's programs as they run on a machine: the live truth about their flags, and since when it holds."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

PROGRAMS = ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "containerd")
COMM_LENGTH = 15
"""The kernel cuts a process' name in /proc/PID/comm to this many characters."""


def read(path: str | Path) -> str:
    """Content of a file, empty when it cannot be read (a process may end between two looks)."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def names_in(folder: str | Path) -> list[str]:
    """Names of a folder's entries, sorted; none when it does not exist."""
    try:
        return sorted(entry.name for entry in Path(folder).iterdir())
    except OSError:
        return []


def processes() -> dict[str, Any]:
    """Pid, arguments and HTTP2_* environment of the cluster's programs, the live truth about flags."""
    by_comm = {program[:COMM_LENGTH]: program for program in PROGRAMS}
    found: dict[str, Any] = {}
    for pid in filter(str.isdigit, names_in("/proc")):
        program = by_comm.get(read(f"/proc/{pid}/comm").strip())
        if program is None or program in found:
            continue
        arguments = [word for word in read(f"/proc/{pid}/cmdline").split("\0") if word]
        if not arguments or Path(arguments[0]).name != program:
            continue
        variables = (item.partition("=") for item in read(f"/proc/{pid}/environ").split("\0"))
        environ = {name: value for name, _, value in variables if name.startswith("HTTP2_")}
        found[program] = {
            "pid": int(pid),
            "args": flag_values(arguments[1:]),
            "environ": environ,
            "started": started(read(f"/proc/{pid}/stat"), read("/proc/stat")),
        }
    return found


def at_work(folder: str = "/proc") -> list[str]:
    """What kubeadm does on this machine now, as `kubeadm upgrade apply (pid 42)`; empty when it does not run.

    A run that is killed leaves the command that it had begun at work. Of the command line only the verbs are told, for
    what follows may be a token.
    """
    found = []
    for pid in filter(str.isdigit, names_in(folder)):
        words = read(f"{folder}/{pid}/cmdline").split("\0")
        if Path(words[0]).name != "kubeadm":
            continue
        verbs = itertools.takewhile(str.isalpha, words[1:])
        found.append(f"{' '.join(['kubeadm', *verbs])} (pid {pid})")
    return found


def flag_values(arguments: list[str]) -> dict[str, Any]:
    """Command-line flags as name to value; a repeated flag becomes a list, a bare one true."""
    values: dict[str, Any] = {}
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


def started(process: str, machine: str) -> float:
    """When a process started, in seconds since the epoch, by /proc/PID/stat and /proc/stat; 0 when it has ended."""
    boot = re.search(r"^btime (\d+)$", machine, re.MULTILINE)
    fields = process.rpartition(")")[2].split()
    if boot is None or len(fields) < 20:
        return 0.0
    return float(boot[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
