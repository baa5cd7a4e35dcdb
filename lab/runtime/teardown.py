"""The end of a lab, whatever state it is in; safe to repeat.

The supervisor's end is the end of every process, mount and interface that it made. What remains is on the host's side:
files, shared ssh connections, and programs that a user started in the lab's network with `exec`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lab.runtime import ssh
from lab.runtime.errors import LabError
from lab.runtime.lock import folder_lock, who_runs
from lab.runtime.paths import LabPaths
from lab.runtime.plan import BRIDGE
from lab.runtime.state import LabState, Process

_END_SECONDS = 15.0
_STRAY_SECONDS = 3.0


@dataclass
class DownReport:
    """What `down` found and did.

    Attributes:
        was_running: a live supervisor was ended.
        had_files: a state folder was removed.
        ended: lines about processes in the lab's network that were ended too.
        leftovers: lines about what could not be removed; empty when all is well.
    """

    was_running: bool = False
    had_files: bool = False
    ended: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def down(paths: LabPaths) -> DownReport:
    """End the lab and remove its files.

    Raises:
        RefusedError: another command works on this lab.
    """
    report = DownReport()
    if not paths.root.is_dir():
        return report
    with folder_lock(paths):
        shared = ssh.end_shared(paths)
        processes, instance = _find(paths)
        if processes:
            _end(processes, report)
        strays = _strays(instance, report) if instance else []
        _await_end([*shared, *strays], report)
        for folder in (paths.control_masters, paths.folder):
            if folder.exists():
                report.had_files |= folder == paths.folder
                shutil.rmtree(folder, ignore_errors=True)
                if folder.exists():
                    report.leftovers.append(f"folder {folder} could not be removed")
    return report


def _find(paths: LabPaths) -> tuple[list[Process], str | None]:
    """The supervisor, its launcher, and the instance, as recorded.

    Where the record is lost, the supervisor that answers on the machine's lock.
    """
    with suppress(LabError):
        state = LabState.read(paths.state)
        if state is not None:
            recorded = [state.supervisor] + ([state.launcher] if state.launcher else [])
            return recorded, state.instance
    identity = who_runs(paths.name)
    if identity and Path(identity["folder"]) == paths.folder:
        with suppress(ProcessLookupError, FileNotFoundError):
            process = Process.of(int(identity["pid"]))
            if b"lab.runtime.supervisor" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                return [process], None
    return [], None


def _end(processes: list[Process], report: DownReport) -> None:
    """Kill the supervisor, the first of PROCESSES, and wait until nothing is left of all."""
    report.was_running = processes[0].kill()
    deadline = time.monotonic() + _END_SECONDS
    while any(process.exists() for process in processes):
        if time.monotonic() > deadline:
            report.leftovers += [f"process {p.pid} of the supervisor does not end" for p in processes if p.alive()]
            return
        time.sleep(0.02)


def inhabitants(instance: str) -> list[int]:
    """Processes on the host that are in the network namespace of the lab INSTANCE.

    A namespace is recognised by the alias of its bridge, never by its number, which the kernel uses again.
    """
    by_namespace: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                by_namespace.setdefault(str((entry / "ns" / "net").readlink()), []).append(int(entry.name))
    by_namespace.pop(str(Path("/proc/self/ns/net").readlink()), None)
    found: list[int] = []
    for members in by_namespace.values():
        argv = ["nsenter", "--target", str(members[0]), "--net"]
        if os.geteuid() != 0:
            argv += ["--user", "--preserve-credentials"]
        argv += ["ip", "-j", "link", "show", "dev", BRIDGE]
        shown = subprocess.run(argv, capture_output=True, text=True, check=False)
        with suppress(ValueError):
            if any(link.get("ifalias") == f"tandem-lab {instance}" for link in json.loads(shown.stdout or "[]")):
                found += members
    return sorted(found)


def _strays(instance: str, report: DownReport) -> list[Process]:
    """Tell what a user left running in the lab's network to end: it has nobody left to talk to."""
    processes: list[Process] = []
    for pid in inhabitants(instance):
        with suppress(ProcessLookupError, FileNotFoundError):
            process = Process.of(pid)
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            processes.append(process)
            report.ended.append(f"process {pid} ({name}) was still in the lab's network")
            os.kill(pid, signal.SIGTERM)
    return processes


def _await_end(processes: list[Process], report: DownReport) -> None:
    """Wait for PROCESSES, which were told to end; kill those that do not."""
    deadline = time.monotonic() + _STRAY_SECONDS
    while any(process.alive() for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
            time.sleep(0.1)
            break
        time.sleep(0.02)
    report.leftovers += [f"process {p.pid} does not end" for p in processes if p.alive()]
