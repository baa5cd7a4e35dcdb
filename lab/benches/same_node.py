"""The cheapest rival to a tuned cluster: Kubernetes' own settings, and a Service that prefers its caller's node.

With `trafficDistribution: PreferSameNode`, callers on the surviving worker use the replica beside them and never meet
the lost one. Measured by power losses under the profile `stock`, of the lab's spread app with and without it. Each is
observed only until the lost endpoint is out; how long stock Kubernetes leaves a single replica away is `drill-stock`'s.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lab.demo import NAMESPACE, VICTIM, gather_writers, kubectl
from lab.story import ROOT, Story, python_module
from tandem.recovery import STOCK, predict

APP: Final = "web"
SPREADS: Final[Mapping[str, str | None]] = {"PreferSameNode": "PreferSameNode", "any node": None}
GIVE_UP_SECONDS: Final = 15 + int(predict(STOCK, "spread-wait")["serving"].high)
"""The end of the observation: the endpoint is out by then, and clients know."""

NOTE: Final = (
    f"Each power loss was observed for {GIVE_UP_SECONDS} s only: the lost endpoint is out by then. How long stock "
    "Kubernetes leaves an app of one replica away is not in these figures."
)
Samples = dict[str, list[float]]


def gaps(report: Mapping[str, Any], spread: str) -> Samples:
    """The longest time without an answer on new connections, per vantage point, of the spread app in one report.

    Clients that ask the lost worker itself are left out: no Service can help them.

    Raises:
        ValueError: the report is of something else, or the app had no pod on the lost worker.
    """
    app = report["apps"][APP]
    if (report["scenario"], report["profile"]) != ("power-loss", STOCK.name) or not app["on_node"]:
        raise ValueError(
            f"a {report['scenario']} under {report['profile']} with {app['on_node']} {APP} pods on the node"
        )
    return {
        f"{spread}: {client.removesuffix('/new')}": [float(requests["longest_gap_seconds"])]
        for client, requests in app["requests"].items()
        if client.endswith("/new") and client != f"outside-{report['node']}/new"
    }


def pooled(found: Sequence[Samples]) -> Samples:
    """The samples of several drills; vantage points outside the cluster are one, whichever worker was lost."""
    pool: Samples = {}
    for samples in found:
        for name, values in samples.items():
            spread, _, vantage = name.partition(": ")
            kind = "outside" if vantage.startswith("outside-") else vantage
            pool.setdefault(f"{spread}: longest gap, {kind}", []).extend(values)
    return pool


def same_node(story: Story, runs: int, kept: Path) -> Samples:
    """Power losses with and without PreferSameNode, under stock settings; the Service is put back as it was.

    Args:
        story: runs and logs the commands.
        runs: drills of each kind.
        kept: takes the drills' folders.
    """
    story.run("site", ["ansible-playbook", "site.yml", "-e", f"tandem_profile={STOCK.name}"])
    story.run("pulumi-up", python_module("lab.pulumi", "up", "--profile", STOCK.name))
    shutil.rmtree(kept, ignore_errors=True)
    found = []
    try:
        for spread, value in SPREADS.items():
            _prefer(story, value)
            for run in range(1, runs + 1):
                gather_writers(story)
                give_up = ("--give-up-after", str(GIVE_UP_SECONDS))
                story.run("drill", python_module("tandem", "drill", "power-loss", VICTIM, *give_up), accept=(0, 1))
                folder = kept / f"{spread.replace(' ', '-')}-{run}"
                shutil.copytree((ROOT / "build" / "drill" / "latest").resolve(), folder)
                found.append(gaps(json.loads((folder / "report.json").read_text(encoding="utf-8")), spread))
    finally:
        _prefer(story, SPREADS["PreferSameNode"])
    return pooled(found)


def _prefer(story: Story, value: str | None) -> None:
    """Set or remove the Service's trafficDistribution."""
    patch = json.dumps({"spec": {"trafficDistribution": value}})
    story.run(
        "service", kubectl("patch", "service", APP, f"--namespace={NAMESPACE}", "--type=merge", f"--patch={patch}")
    )
