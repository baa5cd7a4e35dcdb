"""`tandem conform`: run a controller and see what no manifest shows."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from tandem import __version__
from tandem.conform.checks import Finding, Limits, Trial
from tandem.conform.ground import Ground
from tandem.conform.subject import Command, Image, Subject, SubjectError
from tandem.labels import LABEL_PREFIX
from tandem.runtime.testing.localapi import LocalApi, LocalApiError, Programs

PREDICATE: Final = f"https://{LABEL_PREFIX}/conformance/v1"
SHOWN: Final = ("idempotent", "shutdown", "lost-lead")
"""What the annotation `tandem-ha.io/conformance` of a workload can say."""
_COLOURS: Final = {"passed": "green", "failed": "red", "skipped": "yellow"}


def conform(
    command: Annotated[list[str], typer.Argument(help="The controller's command, or with --image its arguments.")] = [],  # noqa: B006 - typer's way
    work: Annotated[Path | None, typer.Option(help="Manifests that give it something to do; copies are made.")] = None,
    setup: Annotated[Path | None, typer.Option(help="Manifests that must be there first: CRDs, namespaces.")] = None,
    image: Annotated[str | None, typer.Option(help="Try an image, by podman, docker or buildah.")] = None,
    env: Annotated[list[str], typer.Option("--env", help="NAME=VALUE for it; repeat.")] = [],  # noqa: B006
    assets: Annotated[
        Path | None, typer.Option(envvar="KUBEBUILDER_ASSETS", help="Folder with etcd and kube-apiserver.")
    ] = None,
    grace: Annotated[float, typer.Option(help="terminationGracePeriodSeconds it is to run with.")] = 60.0,
    start: Annotated[
        float, typer.Option(help="Seconds from its start to its first work; more on a busy machine.")
    ] = 60.0,
    output: Annotated[Path | None, typer.Option(help="Write the attestation (JSON) here.")] = None,
) -> None:
    """Start a controller on an API server of its own, and see whether it drains, stops when it must, and is idempotent.

    The controller finds the API server by KUBECONFIG. Nothing of this machine's clusters is touched.
    """
    console = Console()
    try:
        manifests = _needed(work)
        programs = _programs(assets)
        environment = dict(part.split("=", 1) for part in env)
        subject = _subject(image, command, environment)
        with tempfile.TemporaryDirectory(prefix="tandem-conform-") as folder, LocalApi(programs) as api:
            log = Path(folder) / "subject.log"
            trial = Trial(subject, Ground(api, setup, manifests), log, Limits(start=start, grace=grace))
            findings = []
            for finding in trial.checks():
                findings.append(finding)
                colour = _COLOURS[finding.outcome]
                console.print(
                    f"[{colour}]{finding.outcome:8}[/{colour}] {finding.check}: {finding.detail}", highlight=False
                )
            statement = attestation(subject, findings, api.request("GET", "/version")["gitVersion"])
            failed = any(finding.outcome == "failed" for finding in findings)
            if failed and log.exists():
                console.print("the end of its output:", style="dim")
                console.print(log.read_text(errors="replace")[-2000:], markup=False, highlight=False)
    except (SubjectError, LocalApiError, ValueError, OSError) as error:
        console.print(f"tandem conform: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(2) from error
    if output:
        output.write_text(json.dumps(statement, indent=2) + "\n", encoding="utf-8")
    console.print(f"annotation {LABEL_PREFIX}/conformance: {statement['predicate']['annotation']}", highlight=False)
    if failed:
        raise typer.Exit(1)


def attestation(subject: Subject, findings: Sequence[Finding], kubernetes: str) -> dict[str, Any]:
    """An in-toto statement: which files or image were tried, and what was found."""
    shown = [finding.check for finding in findings if finding.outcome == "passed" and finding.check in SHOWN]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subject.digests().items()],
        "predicateType": PREDICATE,
        "predicate": {
            "tried": subject.name,
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "tandem": __version__,
            "kubernetes": kubernetes,
            "annotation": " ".join([subject.name.split()[0] if subject.name else "", *shown]),
            "checks": [
                {"check": finding.check, "outcome": finding.outcome, "detail": finding.detail} for finding in findings
            ],
        },
    }


def _needed(work: Path | None) -> Path:
    if work is None:
        raise SubjectError("--work FILE is needed: without something to do a controller shows nothing")
    return work


def _subject(image: str | None, command: list[str], environment: dict[str, str]) -> Subject:
    if image:
        return Image(image, environment, command)
    if not command:
        raise SubjectError("nothing to try: give a command after --, or --image")
    return Command(command, environment)


def _programs(assets: Path | None) -> Programs:
    """The two programs: from a folder as envtest's setup makes it, else from the path."""
    found = {}
    for name in ("etcd", "kube-apiserver"):
        path = str(assets / name) if assets else shutil.which(name)
        if path is None or not os.access(path, os.X_OK):
            where = str(assets) if assets else "the path"
            raise SubjectError(f"no {name} in {where}: give --assets, or KUBEBUILDER_ASSETS as for envtest")
        found[name] = Path(path)
    return Programs(found["etcd"], found["kube-apiserver"])
