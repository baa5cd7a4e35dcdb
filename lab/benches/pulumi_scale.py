"""What a stack of many workloads costs: `pulumi preview`, and `pulumi up` where nothing is to be done.

Each size has an API server of its own on loopback. No kubelet and no controller is there, so nothing is awaited: what
is measured is Pulumi, its provider, our program and the API server's answers. A workload is a `spread` app: a
Deployment, a budget, a Service and the component that holds them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.benches._tree import Use, measure
from lab.benches.scale import progress
from lab.build import artifacts
from lab.pulumi.workspace import PROJECT, Workspace, official_tools
from tandem.runtime.testing.localapi import LocalApi, Programs

SIZES: Final = tuple(int(each) for each in os.environ.get("TANDEM_BENCH_WORKLOADS", "10,100,500").split(","))
"""How many workloads; published figures are of the default."""

STARTS: Final = 5
GIVE_UP_SECONDS: Final = 3600.0
RESOURCES_OF_A_WORKLOAD: Final = 4
MEBI: Final = 2**20
STACK: Final = "dev"
FIRST_UP_MOST: Final = 100
"""Above it the workloads are made without saving the state after each step, which takes the CLI most of its time."""

WITHOUT_CHECKPOINTS: Final = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
NOTE: Final = (
    "Seconds of wall time; memory of all processes together at the worst moment (what they share counts for each), and "
    "processor time by process: `program` is ours with Pulumi's SDK, `provider` pulumi-resource-kubernetes, `CLI` "
    "pulumi itself, `host` the language host. Nothing is awaited. `start` is Python from nothing to the program's "
    "modules loaded, five times. `first up` is left out above 100 workloads: there it is a run of its own kind, "
    "without checkpoints of the state between its steps."
)

Row = dict[str, str | float | int]


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        start: seconds from nothing to the program's modules loaded, each run.
        uses: by size and verb.
    """

    start: list[float]
    uses: dict[tuple[int, str], Use]


def kind_of(argv: str) -> str:
    """Which of Pulumi's processes a command line is."""
    if "pulumi-resource-kubernetes" in argv:
        return "provider"
    if "lab/pulumi/program.py" in argv or "pulumi-language-python-exec" in argv:
        return "program"
    if "lab.pulumi.language_host" in argv or "pulumi-language-python" in argv:
        return "host"
    return "CLI"


def pulumi_scale(sizes: Sequence[int] = SIZES) -> Found:
    """Measure all sizes, small ones first."""
    start = [program_start() for _ in range(STARTS)]
    progress(f"program start {min(start):.2f} to {max(start):.2f} s")
    uses: dict[tuple[int, str], Use] = {}
    built = artifacts.tools()
    for size in sorted(sizes):
        with (
            tempfile.TemporaryDirectory(prefix="tandem-scale-") as folder,
            LocalApi(Programs(built / "etcd", built / "kube-apiserver")) as api,
        ):
            workspace = Workspace(Path(folder), api.kubeconfig(), None if official_tools() else built)
            workspace.prepare()
            for verb, use in one_size(workspace, size).items():
                uses[size, verb] = use
                progress(f"{size} workloads, {verb}: {use.seconds:.1f} s, {use.peak_memory / MEBI:.0f} MiB")
    return Found(start, uses)


def one_size(workspace: Workspace, size: int) -> dict[str, Use]:
    """The verbs in a user's order: what would be made, make it, what would change, change nothing."""
    file = workspace.write_stack_file(STACK, settings(size))
    workspace.create_stack(STACK)
    common = ["--stack", STACK, "--config-file", str(file), "--non-interactive", "--color", "never"]
    verbs = {
        "preview of all": ["preview"],
        "first up": ["up", "--yes", "--skip-preview"],
        "preview, no change": ["preview", "--expect-no-changes"],
        "up, no change": ["up", "--yes", "--skip-preview", "--expect-no-changes"],
    }
    found = {}
    for name, verb in verbs.items():
        env = workspace.environment()
        made_for_the_next = name == "first up" and size > FIRST_UP_MOST
        if made_for_the_next:
            env |= WITHOUT_CHECKPOINTS
        use = measure(["pulumi", *verb, *common], cwd=PROJECT, env=env, kind_of=kind_of, seconds=GIVE_UP_SECONDS)
        if not made_for_the_next:
            found[name] = use
    return found


def settings(size: int) -> dict[str, Any]:
    """The stack's settings: so many workloads, none of which is waited for."""
    skip = {"Deployment": {"metadata": {"annotations": {"pulumi.com/skipAwait": "true"}}}}
    app = {"kind": "spread", "image": "tandem-ha.io/demo:0.1.0", "replicas": 2, "patch": skip}
    return {"cluster_check": "skip", "namespace": "scale", "apps": {f"app-{number}": app for number in range(size)}}


def program_start() -> float:
    """Seconds from nothing to the program's modules loaded."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import infra.__main__"], cwd=PROJECT, check=True)
    return time.monotonic() - started


def rows(found: Found) -> list[Row]:
    """One row for each size and verb."""
    table: list[Row] = []
    for (size, verb), use in found.uses.items():
        cpu = {kind: round(use.cpu_seconds.get(kind, 0.0), 1) for kind in ("program", "provider", "CLI", "host")}
        table.append(
            {
                "workloads": size,
                "resources": size * RESOURCES_OF_A_WORKLOAD,
                "verb": verb,
                "seconds": round(use.seconds, 1),
                "memory, MiB": round(use.peak_memory / MEBI),
                "of it program": round(use.peak_of.get("program", 0) / MEBI),
                "of it provider": round(use.peak_of.get("provider", 0) / MEBI),
                **{f"CPU {kind}": seconds for kind, seconds in cpu.items()},
                "dominated by": use.dominated_by,
            }
        )
    return table
