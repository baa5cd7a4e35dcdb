"""`make demo`: the whole main job on the lab, from nothing to two measured failovers.

Every step is a command that a user could type; this module only puts them in order, and says at the end how to reach
the cluster and how to stop it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lab.story import ROOT, StepFailedError, Story, python_module

KUBECONFIG = ROOT / "build" / "kubeconfig" / "lab" / "admin.conf"
NAMESPACE = "tandem-demo"
WRITERS = ("ledger-hold", "ledger-replace")
# The worker that holds this app; the lab stack keeps the other writers beside it.
VICTIM = "@ledger-replace"
GATHER_ATTEMPTS = 3
console = Console()


def kubectl(*args: str) -> list[str]:
    """The command that runs the lab's kubectl on the host."""
    from lab.build import artifacts  # noqa: PLC0415  # the build's imports are not needed for --help

    return [str(artifacts.tools() / "kubectl"), "--kubeconfig", str(KUBECONFIG), *args]


def kubectl_json(*args: str) -> dict[str, Any]:
    """Run the lab's kubectl on the host and return its JSON answer.

    Raises:
        subprocess.CalledProcessError: kubectl failed; its stderr is on the console.
    """
    argv = kubectl(*args, "--output=json")
    answer: dict[str, Any] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return answer


def workers_of(app: str) -> set[str]:
    """The nodes of an app's pods that are not being deleted."""
    pods = kubectl_json("get", "pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={app}")["items"]
    return {pod["spec"].get("nodeName", "") for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def gather_writers(story: Story) -> None:
    """Bring the single writers together on one worker, so that the next drill hits both.

    The one that moved away in a failover is started anew; it prefers the worker of the other.

    Raises:
        StepFailedError: a writer did not get Ready in three minutes.
    """
    for _ in range(GATHER_ATTEMPTS):
        for app in WRITERS:
            wait = ("rollout", "status", f"deployment/{app}", f"--namespace={NAMESPACE}", "--timeout=180s")
            story.run(f"wait-{app}", kubectl(*wait))
        if workers_of(WRITERS[0]) == workers_of(WRITERS[1]):
            return
        pods = ("pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={WRITERS[1]}")
        story.run("gather-writers", kubectl("delete", *pods))


def summary(story: Story, report_folders: list[Path]) -> None:
    """Print the times of the steps, where the reports are, and what to do next."""
    table = Table(title="The demo's steps")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step in story.steps:
        table.add_row(step.name, f"{step.seconds:.1f}")
    console.print(table)
    for folder in report_folders:
        console.print(f"report: {(folder / 'report.html').relative_to(ROOT)}")
    console.print(
        "\nThe cluster is up. Reach it with:\n"
        f"  export KUBECONFIG={KUBECONFIG.relative_to(ROOT)}   # then kubectl, tandem, pulumi\n"
        "  .venv/bin/python -m lab ssh cp1\n"
        "  .venv/bin/python -m lab status\n"
        "Stop it with:\n"
        "  make lab-down"
    )


def main(
    profile: Annotated[str, typer.Option(help="The recovery profile to set up and to measure.")] = os.environ.get(
        "PROFILE", "balanced"
    ),
) -> None:
    """Build what is missing, boot four machines, set them up, deploy, and lose a worker twice, on purpose."""
    story = Story(ROOT / "build" / "demo")
    reports: list[Path] = []
    try:
        story.run("build", python_module("lab", "build"))
        story.run("boot", python_module("lab", "up"))
        story.run("site", ["ansible-playbook", "site.yml", "-e", f"tandem_profile={profile}"])
        story.run("pulumi-up", python_module("lab.pulumi", "up", "--profile", profile))
        for scenario in ("power-loss", "partition"):
            gather_writers(story)
            # Exit status 1 is a verdict (a target missed, a write doubled), and the report says which: the
            # partition drill is expected to show two writers for the app that asked for `replace`.
            story.run(f"drill-{scenario}", python_module("tandem", "drill", scenario, VICTIM), accept=(0, 1))
            reports.append((ROOT / "build" / "drill" / "latest").resolve())
    except (StepFailedError, subprocess.CalledProcessError) as error:
        console.print(f"\n{error}", style="bold red", markup=False, highlight=False)
        console.print(
            "What is up stays up for you to look at (python -m lab status, python -m lab logs NODE). "
            "Run `make demo` again to go on from here, or `make lab-down` to stop."
        )
        sys.exit(1)
    finally:
        story.save(ROOT / "build" / "demo" / "steps.json")
    summary(story, reports)


if __name__ == "__main__":
    typer.run(main)
