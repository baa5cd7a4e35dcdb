"""What `site.yml` costs where nothing is to be done: its wall time, and who used the processors meanwhile.

Three parts share the lab's host: the control node (ansible-playbook with its workers, and the modules that it runs for
itself), the ssh clients, and the machines, whose kernels and programs are processes of the host as well. What the
machines use without us (kubelets, the API server, etcd) is measured just before and taken off.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from lab.benches._tree import TICKS, measure, tree
from lab.story import ROOT, project_environment, python_module

RUNS: Final = 3
IDLE_SECONDS: Final = 30.0
ROUND_TRIPS: Final = 20
GIVE_UP_SECONDS: Final = 900.0
_UTIME: Final = 11
"""Where the user time stands in /proc/PID/stat after the name; system time and those of ended children follow."""

NOTE: Final = (
    "Processor seconds of a run that changes nothing, on a host whose cores the control node and the machines share; "
    f"the machines' are what they used beyond their own need, as measured for {IDLE_SECONDS:g} s before. An ssh client "
    "or a module that lived for less than 0.2 s counts with ansible-playbook."
)


@dataclass(frozen=True)
class Again:
    """One run that changed nothing.

    Attributes:
        seconds: wall time.
        control_node: processor seconds on the control node, by kind of process.
        machines: processor seconds of each machine beyond what it uses anyway.
    """

    seconds: float
    control_node: Mapping[str, float]
    machines: Mapping[str, float]


def kind_of(argv: str) -> str:
    """Which part of a run a command line on the control node is."""
    words = argv.split()
    program = PurePosixPath(words[0]).name if words else ""
    if program == "ssh":
        return "ssh clients"
    if "-m lab" in argv and "status" in words:
        return "inventory plug-in"
    # Pipelining hands a module to an interpreter's standard input: its command line names no file.
    if (program in ("sh", "bash") or program.startswith("python")) and "ansible-playbook" not in argv:
        return "modules on the control node"
    return "ansible-playbook"


def spent(root: int) -> float:
    """Processor seconds of a process and its descendants so far, those that have ended and were awaited included."""
    ticks = 0
    for process in tree(root):
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        ticks += sum(int(fields[_UTIME + offset]) for offset in range(4))
    return ticks / TICKS


def machines() -> tuple[dict[str, int], str]:
    """Process of each of the lab's machines, and the configuration file for ssh."""
    said = subprocess.run(
        python_module("lab", "status", "--json"), cwd=ROOT, check=True, capture_output=True, text=True
    )
    status: dict[str, Any] = json.loads(said.stdout)
    return {name: int(machine["pid"]) for name, machine in status["machines"].items()}, str(status["ssh_config"])


def once(pids: Mapping[str, int], idle: Mapping[str, float], argv: Sequence[str]) -> Again:
    """Run the command once and split what was used.

    Args:
        pids: each machine's process.
        idle: processor seconds a second that each machine uses anyway.
        argv: the command.
    """
    before = {name: spent(pid) for name, pid in pids.items()}
    already = _children()
    use = measure(argv, cwd=ROOT, env=project_environment(), kind_of=kind_of, seconds=GIVE_UP_SECONDS)
    everything = _children() - already
    others = {kind: value for kind, value in use.cpu_seconds.items() if kind != "ansible-playbook"}
    beyond = {name: spent(pid) - before[name] - idle[name] * use.seconds for name, pid in pids.items()}
    return Again(use.seconds, {"ansible-playbook": everything - sum(others.values()), **others}, beyond)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def idle_rates(pids: Mapping[str, int], seconds: float = IDLE_SECONDS) -> dict[str, float]:
    """Processor seconds a second that each machine uses while nobody asks anything of it."""
    before = {name: spent(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: max(0.0, spent(pid) - before[name]) / seconds for name, pid in pids.items()}


def round_trip(ssh_config: str, machine: str) -> float:
    """Seconds of one command over a connection that is open, the median of several."""
    found = []
    for _ in range(ROUND_TRIPS + 1):
        started = time.monotonic()
        subprocess.run(["ssh", "-F", ssh_config, machine, "true"], check=True, stdin=subprocess.DEVNULL)
        found.append(time.monotonic() - started)
    return statistics.median(found[1:])


def site_again(profile: str) -> tuple[list[Again], dict[str, float], float]:
    """Measure on the lab's cluster, which has the profile already: the runs, the machines' own need, one round trip."""
    pids, ssh_config = machines()
    idle = idle_rates(pids)
    argv = ["ansible-playbook", "site.yml", "-e", f"tandem_profile={profile}"]
    runs = [once(pids, idle, argv) for _ in range(RUNS)]
    return runs, idle, round_trip(ssh_config, next(name for name in pids if name.startswith("w")))


def rows(runs: Sequence[Again], idle: Mapping[str, float], trip: float) -> list[dict[str, str]]:
    """The median of the runs, part by part, in processor seconds."""
    parts: dict[str, list[float]] = {}
    for run in runs:
        named = dict(sorted(run.control_node.items()))
        named |= {f"machine {name}, beyond its own need": value for name, value in run.machines.items()}
        for name, value in named.items():
            parts.setdefault(name, []).append(value)
    wall = [run.seconds for run in runs]
    table = [("wall time", wall)]
    table += [(f"{name}, processor", [*values, *[0.0] * (len(runs) - len(values))]) for name, values in parts.items()]
    table += [(f"machine {name} by itself, processor, in a second", [rate]) for name, rate in idle.items()]
    table += [("one ssh round trip, connection open", [trip])]
    return [
        {
            "what": name,
            "runs": str(len(values)),
            "median, s": f"{statistics.median(values):.2f}",
            "max, s": f"{max(values):.2f}",
        }
        for name, values in table
    ]
