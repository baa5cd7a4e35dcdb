"""What a controller costs and how fast it is: ours beside controller-runtime (Go) and kopf (Python).

All work on the same 10,000 ConfigMaps of one real API server on loopback, one after another, each with an annotation of
its own, so that what one wrote is no work done for the next. Figures are ratios of one machine and one hour: the API
server and etcd run on the same cores as the controllers. lab/benches/scale.py says how to do with fewer objects.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Final

from lab.benches.election import create_free_lease
from lab.benches.peers import FOLDER, build_go_peer
from lab.benches.scale import OBJECTS, progress, wanted
from lab.build import artifacts
from lab.story import ROOT
from tandem.runtime.client import KubeClient, connect_client
from tandem.runtime.clock import boottime
from tandem.runtime.resources import CONFIG_MAPS
from tandem.runtime.testing.localapi import LocalApi, Programs

NAMESPACES: Final = tuple(f"bench-{number}" for number in range(6))
"""Six, for they can be shared out among one, two and three shards."""
LABEL: Final = "bench=yes"
WORKERS: Final = 8
GIVE_UP_SECONDS: Final = 900.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
OURS: Final = (sys.executable, "-m", "bench.peers.tandem.controller")
Samples = dict[str, list[float]]


@dataclass
class Process:
    """One controller, what it said, and what it used."""

    argv: Sequence[str]
    kubeconfig: Path
    popen: subprocess.Popen[str] = field(init=False)
    said: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = boottime()
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        if "kopf" in " ".join(self.argv):
            paths = [str(kopf_folder()), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.popen = subprocess.Popen(
            self.argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None  # noqa: S101 - asked for above
        for line in self.popen.stdout:
            event = json.loads(line)
            self.said.setdefault(event["event"], float(event["at"]))

    def until(self, event: str) -> float:
        """Wait for it to say this; seconds since it was started.

        Raises:
            TimeoutError: it never did, or ended before.
        """
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while event not in self.said:
            if time.monotonic() > deadline or self.popen.poll() is not None:
                self._errors.seek(0)
                complaint = self._errors.read()[-2000:]
                raise TimeoutError(
                    f"{' '.join(self.argv)} (status {self.popen.poll()}) never said {event}: {complaint}"
                )
            time.sleep(0.01)
        return self.said[event] - self.began

    def cpu(self) -> float:
        """CPU seconds so far, of all its threads."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """MiB that it holds now."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def asked_to_end(self) -> None:
        """Ask it to, and wait until it has.

        Raises:
            TimeoutError: it went on.
        """
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(GIVE_UP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{' '.join(self.argv)} does not end when asked to") from error

    def end(self) -> None:
        """Kill it, if it still runs."""
        self.popen.kill()
        self.popen.wait()


@contextmanager
def stocked_api(objects: int) -> Iterator[LocalApi]:
    """An API server with the objects."""
    tools = artifacts.tools()
    with LocalApi(Programs(tools / "etcd", tools / "kube-apiserver")) as api:
        asyncio.run(_stock(api, objects))
        progress(f"{objects} objects are there")
        yield api


async def _stock(api: LocalApi, objects: int) -> None:
    for namespace in NAMESPACES:
        await asyncio.to_thread(api.request, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    numbers = iter(range(objects))
    async with connect_client(str(api.kubeconfig())) as client, asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(_create(client, numbers))


async def _create(client: KubeClient, numbers: Iterator[int]) -> None:
    key, _, value = LABEL.partition("=")
    for number in numbers:
        # About the size of a small workload's object.
        data = {"v": "1", **{f"setting-{n}": f"{number}-{n}-" + "x" * 40 for n in range(16)}}
        metadata = {"name": f"c{number:05}", "namespace": NAMESPACES[number % len(NAMESPACES)], "labels": {key: value}}
        await client.create(CONFIG_MAPS, {"metadata": metadata, "data": data}, seconds=120)


def arguments(kind: str, objects: int) -> list[str]:
    """The arguments that all programs understand; the annotation is of this run."""
    return ["-annotation", f"bench/{kind}", "-label", LABEL, "-expected", str(objects), "-workers", str(WORKERS)]


@cache
def reconcile_and_cache(objects: int = OBJECTS) -> dict[str, Samples]:
    """All three, one after another: from its start to 10,000 objects written, and again with nothing to write.

    Returns samples by figure: `write` and `look` (seconds), `cpu-write` and `cpu-look` (CPU seconds), `memory` (MiB).
    Asked a second time in one process, it returns what was measured.
    """
    kinds: dict[str, Sequence[str]] = {"tandem": OURS}
    if wanted("controller-runtime"):
        kinds["controller-runtime"] = (str(build_go_peer("controller-runtime")),)
    if wanted("kopf"):
        kopf_folder()  # fetched before anything is timed
        kinds["kopf"] = (sys.executable, str(ROOT / "bench" / "peers" / "kopf" / "controller.py"))
    found: dict[str, Samples] = {name: {} for name in ("write", "look", "cpu-write", "cpu-look", "memory")}
    with stocked_api(objects) as api:
        for kind, program in kinds.items():
            for figure in ("write", "look"):
                process = Process([*program, *arguments(kind, objects)], api.kubeconfig())
                try:
                    found[figure].setdefault(kind, []).append(process.until("done"))
                    found[f"cpu-{figure}"].setdefault(kind, []).append(process.cpu())
                    progress(f"{kind}: {figure} {found[figure][kind][-1]:.1f} s, CPU {process.cpu():.1f} s")
                    if figure == "look":
                        time.sleep(2)
                        found["memory"].setdefault(kind, []).append(process.memory())
                finally:
                    process.end()
    return found


def shards(objects: int = OBJECTS) -> dict[str, Samples]:
    """Ours with one, two and three shards: wall time to the last object, CPU and memory of the dearest process."""
    found: dict[str, Samples] = {name: {} for name in ("wall", "cpu", "memory")}
    with stocked_api(objects) as api:
        for count in (1, 2, 3):
            scopes = [NAMESPACES[number::count] for number in range(count)]
            share = [sum(1 for n in range(objects) if NAMESPACES[n % len(NAMESPACES)] in scope) for scope in scopes]
            processes = []
            try:
                for number, (scope, expected) in enumerate(zip(scopes, share, strict=True)):
                    lease = f"shards-{count}-{number}"
                    create_free_lease(api, lease)
                    own = ["-lease", lease, "-namespaces", ",".join(scope)]
                    argv = [*OURS, *arguments(f"shards-{count}", expected), *own]
                    processes.append(Process(argv, api.kubeconfig()))
                kind = f"{count} shards"
                found["wall"][kind] = [max(process.until("done") for process in processes)]
                found["cpu"][kind] = [max(process.cpu() for process in processes)]
                found["memory"][kind] = [max(process.memory() for process in processes)]
                progress(f"{kind}: {found['wall'][kind][0]:.1f} s, CPU of the dearest {found['cpu'][kind][0]:.1f} s")
            finally:
                for process in processes:
                    process.end()
    return found


def solo_gap(runs: int = 5, objects: int = OBJECTS) -> Samples:
    """One instance is replaced as strategy Recreate does it, less the kubelet's part; seconds from SIGTERM, by stage.

    `ended`: what was in flight (2 s each) is done and the Lease given back. `started`: the successor's first line.
    `first`: its first reconcile, after the list of all objects. The article's timeline is 30 s, 45 s and 46 s.
    """
    found: Samples = {"first": [], "ended": [], "started": []}
    with stocked_api(objects) as api:
        create_free_lease(api, "solo")
        for run in range(runs):
            options = [*arguments(f"solo-{run}", objects), "-lease", "solo", "-delay", "2"]
            old = Process([*OURS, *options], api.kubeconfig())
            try:
                old.until("first")
                time.sleep(3)
                asked = boottime()
                old.asked_to_end()
                found["ended"].append(boottime() - asked)
            finally:
                old.end()
            new = Process([*OURS, *options], api.kubeconfig())
            try:
                new.until("first")
                found["started"].append(new.said["started"] - asked)
                found["first"].append(new.said["first"] - asked)
                new.asked_to_end()
            finally:
                new.end()
            stages = ", ".join(f"{stage} {values[-1]:.2f} s" for stage, values in found.items())
            progress(f"run {run + 1} of {runs}: {stages}")
    return found


def kopf_folder() -> Path:
    """Where the pinned kopf is, apart from our own environment; installed on first use."""
    folder = FOLDER / "kopf"
    if not (folder / "kopf").is_dir():
        pins = ROOT / "bench" / "peers" / "kopf" / "requirements.txt"
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
                "--target", str(folder), "-r", str(pins)]  # fmt: skip
        subprocess.run(argv, check=True)
    return folder
