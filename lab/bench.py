"""`make bench`: measure what users wait for, and write it as JSON.

Each benchmark writes `build/bench/NAME.json` with `name, unit, lower_is_better, samples, median, p95, max, peers`;
`peers` holds the same for each peer measured in the same run, so that ratios are of one machine and one hour. Copies
under `docs/bench/` are committed by hand when they are worth publishing, and `make docs` makes the page from them.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lab.benches import controllers, election, outage, pulumi_scale, same_node, site_again
from lab.benches.api_server import SweepError
from lab.demo import KUBECONFIG, VICTIM, gather_writers
from lab.story import ROOT, Story, python_module

OUTPUT = ROOT / "build" / "bench"
console = Console()
Samples = dict[str, list[float]]
IN_A_POD = "pod/new"
"""The drill's client in a pod on the survivor, through the ClusterIP, with a new connection for each request."""


@dataclass(frozen=True)
class Result:
    """One measured quantity; `peers` are other quantities of the same run, to compare with.

    Attributes:
        samples: each run's value, in `unit`, in order.
        p95: the 95th percentile by the nearest rank; equal to `max` below 20 samples.
        note: what a reader must know beside the figures; completed by hand in a published copy.
        table: rows that say more than samples do, column to value; shown instead of them.
        runs: everything known of each run, for those who reckon themselves.
    """

    name: str
    unit: str
    lower_is_better: bool
    samples: list[float]
    median: float
    p95: float
    max: float
    peers: dict[str, Any] = field(default_factory=dict)
    machine: str = ""
    date: str = ""
    note: str = ""
    table: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)


def summarise(name: str, samples: Sequence[float], *, unit: str = "s", peers: Samples | None = None) -> Result:
    """Make a result of raw samples.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError(f"benchmark {name}: no sample was taken")
    ordered = sorted(samples)
    rank = max(0, -(-95 * len(ordered) // 100) - 1)
    return Result(
        name=name,
        unit=unit,
        lower_is_better=True,
        samples=[round(value, 3) for value in samples],
        median=round(statistics.median(ordered), 3),
        p95=round(ordered[rank], 3),
        max=round(ordered[-1], 3),
        peers={
            peer: {
                key: value
                for key, value in asdict(summarise(peer, values, unit=unit)).items()
                if key in {"samples", "median", "p95", "max"}
            }
            for peer, values in (peers or {}).items()
            if values
        },
        machine=machine(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def machine() -> str:
    """This machine in a line: cores, memory, kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def timed(story: Story, name: str, argv: list[str], accept: Sequence[int] = (0,)) -> float:
    """Run one command and return its wall time in seconds."""
    started = time.monotonic()
    story.run(name, argv, accept=accept)
    return time.monotonic() - started


def bench_lab_build(story: Story) -> Result:
    """`python -m lab build` with everything cached; the cold times are what each artifact's manifest recorded."""
    warm = [timed(story, "build-warm", python_module("lab", "build")) for _ in range(3)]
    report = subprocess.run(
        python_module("lab", "build", "--json"), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    cold = [float(artifact["seconds"]) for artifact in json.loads(report).values()]
    return summarise("lab-build", warm, peers={"cold (sum of artifacts)": [sum(cold)]})


def bench_lab_up(story: Story) -> Result:
    """`python -m lab up`: four machines with SSH, from warm artifacts."""
    story.run("down", python_module("lab", "down"))
    samples = []
    down = []
    for _ in range(3):
        samples.append(timed(story, "up", python_module("lab", "up")))
        down.append(timed(story, "down", python_module("lab", "down")))
    return summarise("lab-up", samples, peers={"down": down})


def bench_site(story: Story) -> Result:
    """`site.yml` on four fresh machines, and again on the result."""
    story.run("down", python_module("lab", "down"))
    story.run("up", python_module("lab", "up"))
    site = ["ansible-playbook", "site.yml", "-e", f"tandem_profile={profile()}"]
    first = timed(story, "site-first", site)
    second = timed(story, "site-second", site)
    return summarise("site", [first], peers={"second run": [second]})


def bench_site_again(story: Story) -> Result:
    """`site.yml` where nothing is to be done, three times: wall time, and who used the processors meanwhile."""
    story.run("site", ["ansible-playbook", "site.yml", "-e", f"tandem_profile={profile()}"])
    runs, idle, trip = site_again.site_again(profile())
    result = summarise("site-again", [run.seconds for run in runs])
    table: list[dict[str, Any]] = list(site_again.rows(runs, idle, trip))
    return replace(result, note=site_again.NOTE, table=table, runs=[asdict(run) for run in runs])


def bench_pulumi(story: Story) -> Result:
    """`pulumi up` of the lab stack on a cluster that lacks it, again, and `pulumi preview`."""
    option = ["--profile", profile()]
    story.run("destroy", python_module("lab.pulumi", "destroy", *option))
    first = timed(story, "up-first", python_module("lab.pulumi", "up", *option))
    second = [timed(story, "up-second", python_module("lab.pulumi", "up", *option)) for _ in range(3)]
    preview = [timed(story, "preview", python_module("lab.pulumi", "preview", *option)) for _ in range(3)]
    return summarise("pulumi-up", [first], peers={"second up": second, "preview": preview})


def profile() -> str:
    """The profile that the cluster is to have: PROFILE, default balanced."""
    return os.environ.get("PROFILE", "balanced")


def drill(story: Story, name: str, runs: int, *extra: str) -> Result:
    """Power loss of the worker with the single writers, under one profile; the median of `serving` per app.

    DRILL_RUNS asks for another number of runs.
    """
    runs = int(os.environ.get("DRILL_RUNS", runs))
    story.run("site", ["ansible-playbook", "site.yml", "-e", f"tandem_profile={name}"])
    story.run("pulumi-up", python_module("lab.pulumi", "up", "--profile", name))
    kept = OUTPUT / f"drill-{name}"
    shutil.rmtree(kept, ignore_errors=True)
    for run in range(runs):
        gather_writers(story)
        story.run("drill", python_module("tandem", "drill", "power-loss", VICTIM, *extra), accept=(0, 1))
        shutil.copytree((ROOT / "build" / "drill" / "latest").resolve(), kept / str(run + 1))
    return drill_result(name, sorted(kept.glob("*/report.json")))


def drill_result(profile_name: str, reports: Sequence[Path]) -> Result:
    """The result of power-loss reports under one profile: seconds until the replaced writer serves, and its peers.

    Raises:
        ValueError: a report is of another scenario or profile, or the writer never served.
    """
    serving: Samples = {}
    gaps: Samples = {}
    stages: dict[str, Samples] = {}
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        if (report["scenario"], report["profile"]) != ("power-loss", profile_name):
            raise ValueError(f"{path} reports a {report['scenario']} with the profile {report['profile']}")
        for app, data in report["apps"].items():
            value = data["stages"].get("serving")
            if value is not None:
                serving.setdefault(f"{app}: serving", []).append(float(value))
            for stage, seconds in data["stages"].items():
                stages.setdefault(app, {}).setdefault(stage, []).extend([] if seconds is None else [float(seconds)])
            for client, requests in data["requests"].items():
                if client.endswith("/new"):
                    gaps.setdefault(f"{app}: longest gap, {client}", []).append(float(requests["longest_gap_seconds"]))
    main_samples = serving.pop("ledger-replace: serving", [])
    result = summarise(f"drill-{profile_name}", main_samples, peers={**serving, **gaps})
    return replace(result, table=[timeline_row(app, stages[app], gaps) for app in sorted(stages)])


def timeline_row(app: str, stages: Samples, gaps: Samples) -> dict[str, str]:
    """One app's stages and its clients' longest gap, each as the median of the runs and, of several, the longest."""

    def cell(values: Sequence[float]) -> str:
        if not values:
            return ""
        longest = f" ({max(values):.1f})" if len(values) > 1 else ""
        return f"{statistics.median(values):.1f}{longest}"

    return {
        "app": app,
        **{stage.replace("_", " "): cell(values) for stage, values in stages.items()},
        "longest gap, client in a pod": cell(gaps.get(f"{app}: longest gap, {IN_A_POD}", [])),
    }


def bench_stock_same_node(story: Story) -> Result:
    """Stock settings with PreferSameNode, the cheapest rival: a spread app's longest gap, and without it as peers."""
    runs = int(os.environ.get("DRILL_RUNS", "1"))
    samples = same_node.same_node(story, runs, OUTPUT / "stock-same-node")
    ours = "PreferSameNode: longest gap, pod"
    return replace(beside_peers("stock-same-node", samples, ours=ours), note=same_node.NOTE)


def bench_api_outage(_: Story) -> Result:
    """API server outages of 5 to 20 s, killed and stopped: what live nodes lose, with the profile that is in force."""
    plan = outage.Plan.from_environment(os.environ)
    found = outage.sweep_lab(KUBECONFIG, plan, console.print, OUTPUT / "api-outage-runs.json")
    if not found.outages:
        raise SweepError(found.ended)
    result = summarise(f"api-outage-{found.profile.name}", [run.whole_seconds for run in found.outages])
    return replace(
        result, note=outage.note(found), table=outage.rows(found), runs=[asdict(run) for run in found.outages]
    )


def beside_peers(name: str, samples: Samples, *, ours: str = "tandem", unit: str = "s") -> Result:
    """A result of ours, with all other kinds of the same run as peers."""
    others = {kind: values for kind, values in samples.items() if kind != ours}
    return summarise(name, samples[ours], unit=unit, peers=others)


def reconcile_10k(_: Story) -> Result:
    """From its start to 10,000 objects written; CPU and a second pass without a write as peers."""
    found = controllers.reconcile_and_cache()
    return beside_figures("reconcile-10k", "write", found, leave_out=("memory",))


def cache_10k(_: Story) -> Result:
    """Memory with 10,000 objects cached, after a pass without a write."""
    return beside_peers("cache-10k", controllers.reconcile_and_cache()["memory"], unit="MiB")


def bench_shards(_: Story) -> Result:
    """Ours with 1, 2 and 3 shards on 10,000 objects: wall time; CPU and memory of the dearest process as peers."""
    return beside_figures("shards", "wall", controllers.shards(), ours="1 shards")


def bench_solo_gap(_: Story) -> Result:
    """One instance replaced by another: SIGTERM to the successor's first reconcile; the stages before as peers."""
    return beside_peers("solo-gap", controllers.solo_gap(), ours="first")


def beside_figures(
    name: str, main_figure: str, found: dict[str, Samples], *, ours: str = "tandem", leave_out: Sequence[str] = ()
) -> Result:
    """A result of one figure of ours; all else that was measured in the same run as peers named `kind: figure`."""
    peers = {
        f"{kind}: {figure}": values
        for figure, kinds in found.items()
        for kind, values in kinds.items()
        if figure not in leave_out and (kind, figure) != (ours, main_figure)
    }
    return summarise(name, found[main_figure][ours], peers=peers)


def bench_pulumi_scale(_: Story) -> Result:
    """`pulumi up` of a stack of many workloads where nothing changes, and previews; time, memory, what dominates."""
    found = pulumi_scale.pulumi_scale()
    largest = max(size for size, _ in found.uses)
    result = summarise("pulumi-scale", [found.uses[largest, "up, no change"].seconds], peers={"start": found.start})
    return replace(result, note=pulumi_scale.NOTE, table=pulumi_scale.rows(found))


BENCHMARKS: dict[str, Callable[[Story], Result]] = {
    "lab-build": bench_lab_build,
    "lab-up": bench_lab_up,
    "site": bench_site,
    "site-again": bench_site_again,
    "pulumi-up": bench_pulumi,
    "pulumi-scale": bench_pulumi_scale,
    "handover-kill": lambda _: beside_peers("handover-kill", election.handover_kill()),
    "handover-release": lambda _: beside_peers("handover-release", election.handover_release()),
    "reconcile-10k": reconcile_10k,
    "cache-10k": cache_10k,
    "shards": bench_shards,
    "solo-gap": bench_solo_gap,
    "requests-per-minute": lambda _: beside_peers(
        "requests-per-minute", election.requests_per_minute(), ours="tandem leading", unit="requests/min"
    ),
    "drill-balanced": lambda story: drill(story, "balanced", 3),
    "drill-article": lambda story: drill(story, "article", 3),
    "drill-stock": lambda story: drill(story, "stock", 1, "--give-up-after", "480"),
    "stock-same-node": bench_stock_same_node,
    "api-outage": bench_api_outage,
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which benchmarks; none means all, in order.")] = None,
) -> None:
    """Run benchmarks on the lab and write build/bench/NAME.json. `list` lists them."""
    if names == ["list"]:
        for name, function in BENCHMARKS.items():
            console.print(f"{name:16} {(function.__doc__ or 'power loss under this profile').splitlines()[0]}")
        return
    unknown = sorted(set(names or []) - set(BENCHMARKS))
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in names or list(BENCHMARKS):
        story = Story(OUTPUT / "logs" / name)
        try:
            result = BENCHMARKS[name](story)
        except SweepError as error:
            console.print(f"{name}: {error}", style="red", highlight=False)
            raise typer.Exit(1) from error
        path: Path = OUTPUT / f"{result.name}.json"
        path.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
        console.print(f"{name}: median {result.median} {result.unit}, max {result.max} -> {path.relative_to(ROOT)}")


if __name__ == "__main__":
    typer.run(main)
