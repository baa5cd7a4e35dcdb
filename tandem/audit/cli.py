"""`tandem audit`: what the user types, and what the exit status says.

0 nothing at or above `--fail-on`; 1 findings; 2 wrong usage; 4 a file or the cluster could not be read.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tandem import checklist, recovery
from tandem.audit import credentials, files, live, table
from tandem.audit.report import Report
from tandem.checklist import Environment, Judgement
from tandem.findings import Severity
from tandem.labels import CLUSTER_NAMESPACES
from tandem.survey import Cluster, cluster_findings, survey

EXIT_FINDINGS, EXIT_UNREADABLE = 1, 4

Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Rendered YAML or JSON, folders of it, or - for standard input. None: the live cluster."),
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Judge this namespace only.")]
Profile = Annotated[str | None, typer.Option(help="Judge by this recovery profile; default: the cluster's recorded.")]
Env = Annotated[Environment, typer.Option("--environment", "-e", help="Whose levels apply.")]
Json = Annotated[bool, typer.Option("--json", help="The report as JSON on standard output.")]
Sarif = Annotated[bool, typer.Option("--sarif", help="The report as SARIF 2.1.0 on standard output.")]
FailOn = Annotated[Severity, typer.Option("--fail-on", help="The lowest level that makes the exit status 1.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Default: KUBECONFIG, else the user's own.")]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context.")]


def audit(
    paths: Files = None,
    namespace: Namespace = None,
    profile: Profile = None,
    environment: Env = "prod",
    json_output: Json = False,
    sarif: Sarif = False,
    fail_on: FailOn = "error",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Hold the availability checklist to a live cluster or to rendered files; can each worker be lost now?

    Exit status: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage, 4 a file or the cluster cannot be read.
    """
    if json_output and sarif:
        raise typer.BadParameter("give --json or --sarif, not both")
    try:
        wanted = recovery.profile(profile) if profile else None
    except recovery.UnknownProfileError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        if paths:
            report = of_files(paths, namespace, wanted, environment)
        else:
            found = asyncio.run(live.read(kubeconfig, context, namespace))
            report = of_cluster(found, namespace, wanted, environment, time.time())
    except files.SourceError as error:
        Console(stderr=True).print(f"[red]{error}[/red]", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_UNREADABLE) from error
    if json_output or sarif:
        data = report.to_sarif() if sarif else report.to_dict()
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
    else:
        table.show(report, Console())
    if report.fails(fail_on):
        raise typer.Exit(EXIT_FINDINGS)


def of_files(
    paths: Sequence[Path], namespace: str | None, wanted: recovery.RecoveryProfile | None, environment: Environment
) -> Report:
    """The audit of rendered files.

    Raises:
        SourceError: one cannot be read.
    """
    loaded = files.read(paths, sys.stdin)
    judged = [obj for obj in loaded.objects if namespace is None or _place(obj) in {namespace, ""}]
    found = checklist.judge(
        judged,
        environment=environment,
        profile=wanted,
        source=loaded.source,
        world=checklist.World(loaded.objects),
    )
    notes = [f"{loaded.strangers} documents are no Kubernetes objects"] if loaded.strangers else []
    if not judged:
        notes.append("no Kubernetes object was found")
    return Report(environment, wanted.name if wanted else None, len(judged), found, notes=tuple(notes))


def of_cluster(
    found: live.Live,
    namespace: str | None,
    wanted: recovery.RecoveryProfile | None,
    environment: Environment,
    now: float,
) -> Report:
    """The audit of a live cluster's objects, taken at `now` (seconds since the epoch)."""
    profile = wanted or found.recorded
    world = checklist.World(found.objects)
    judged = [obj for obj in found.objects if namespace is None or _place(obj) in {namespace, ""}]
    judgements = checklist.judge(judged, environment=environment, profile=profile, now=now, world=world)
    cluster = Cluster(found.objects)
    return Report(
        environment,
        profile.name if profile else None,
        len(judged),
        tuple(each for each in judgements if namespace is not None or not _of_the_system(each)),
        (*cluster_findings(cluster, found.recorded, wanted), *credentials.findings(found.credentials, now)),
        survey(cluster),
        (*found.notes, *credentials.notes(found.credentials)),
    )


def _of_the_system(found: Judgement) -> bool:
    return found.subject.namespace in CLUSTER_NAMESPACES and checklist.rule(found.rule).labelled


def _place(obj: Any) -> str:
    return str((obj.get("metadata") or {}).get("namespace") or "")
