"""`python -m lab.pulumi`: pulumi on the lab's cluster, with a state of the lab's own."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from lab.build import BuildError, artifacts
from lab.pulumi.workspace import PROJECT, Workspace, WorkspaceError, official_tools
from lab.runtime.paths import LabPaths

app = typer.Typer(
    name="lab.pulumi",
    help=(
        "pulumi on the lab's cluster. State, passphrase and a copy of the stack's file are in the lab's state folder; "
        "the lab's own pulumi is used unless an official one with its language host is on PATH. "
        "What follows -- goes to pulumi."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

KUBECONFIG = PROJECT / "build" / "kubeconfig" / "lab" / "admin.conf"

Stack = Annotated[str, typer.Option(metavar="NAME", help="A file stacks/Pulumi.NAME.yaml.")]
Profile = Annotated[str | None, typer.Option(metavar="NAME", help="Recovery profile, instead of the stack's.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a setting, e.g. apps.web.replicas=3. Repeatable."),
]
Lab = Annotated[str, typer.Option("--name", metavar="LAB", envvar="TANDEM_LAB_NAME", help="The lab.")]
Config = Annotated[Path, typer.Option("--kubeconfig", metavar="FILE", help="The cluster.")]
Without = Annotated[bool, typer.Option("--without-cluster", help="Preview on an empty state, talking to no cluster.")]
Rest = Annotated[list[str] | None, typer.Argument(metavar="[-- PULUMI OPTIONS]", help="Passed on.")]


@app.command()
def up(
    profile: Profile = None,
    change: Set = None,
    stack: Stack = "lab",
    kubeconfig: Config = KUBECONFIG,
    lab: Lab = "default",
    rest: Rest = None,
) -> None:
    """Deploy the stack; again, it changes nothing."""
    workspace = _workspace(lab, kubeconfig)
    _pulumi(workspace, ["up", "--yes", "--skip-preview"], stack, profile, change, rest)


@app.command()
def preview(
    profile: Profile = None,
    change: Set = None,
    stack: Stack = "lab",
    kubeconfig: Config = KUBECONFIG,
    without_cluster: Without = False,
    lab: Lab = "default",
    rest: Rest = None,
) -> None:
    """Show what `up` would change."""
    workspace = _workspace(lab, None if without_cluster else kubeconfig)
    changes = [*(change or []), *(["cluster_check=skip"] if without_cluster else [])]
    _pulumi(workspace, ["preview"], stack, profile, changes, rest)


@app.command()
def destroy(
    stack: Stack = "lab",
    kubeconfig: Config = KUBECONFIG,
    lab: Lab = "default",
    # Accepted, so that a caller may pass the same options to every verb; what was deployed is what is removed.
    profile: Profile = None,
    rest: Rest = None,
) -> None:
    """Remove everything that the stack deployed; data on `tandem-shared` stays."""
    _pulumi(_workspace(lab, kubeconfig), ["destroy", "--yes", "--skip-preview"], stack, profile, [], rest)


@app.command()
def render(
    profile: Profile = None,
    change: Set = None,
    stack: Stack = "lab",
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Below the checkout.")] = None,
) -> None:
    """Write the stack's objects as YAML for kubectl or a GitOps tool; no cluster is asked, no state is kept."""
    folder = PROJECT / (output or Path("build") / "render" / stack)
    if not folder.resolve().is_relative_to(PROJECT):
        raise WorkspaceError(f"--output {output}: must be below {PROJECT}, where Pulumi looks for it")
    for old in folder.glob("*/*.yaml"):
        old.unlink()
    tools = None if official_tools() else artifacts.tools()
    with tempfile.TemporaryDirectory() as state:
        workspace = Workspace(Path(state), None, tools)
        workspace.prepare()
        changes = [*(change or []), "cluster_check=skip", f"render_directory={folder.resolve().relative_to(PROJECT)}"]
        _pulumi(workspace, ["up", "--yes", "--skip-preview"], stack, profile, changes, None)


@app.command()
def cancel(stack: Stack = "lab", kubeconfig: Config = KUBECONFIG, lab: Lab = "default") -> None:
    """Take the lock of a run that was killed away; only when it has really ended."""
    workspace = _workspace(lab, kubeconfig)
    command = ["pulumi", "cancel", "--yes", "--stack", stack, "--non-interactive", "--color", "auto"]
    done = subprocess.run(command, cwd=workspace.backend, env=workspace.environment(), check=False)
    raise typer.Exit(done.returncode)


@app.command()
def env(kubeconfig: Config = KUBECONFIG, lab: Lab = "default") -> None:
    """Print shell commands that make plain `pulumi` use the lab's state: eval "$(python -m lab.pulumi env)"."""
    for key, value in _workspace(lab, kubeconfig).settings().items():
        typer.echo(f"export {key}={shlex.quote(value)}")


def _workspace(lab: str, kubeconfig: Path | None) -> Workspace:
    if kubeconfig is not None and not kubeconfig.exists():
        raise WorkspaceError(f"no kubeconfig at {kubeconfig}: run site.yml first (make site)")
    tools = None if official_tools() else artifacts.tools()
    workspace = Workspace(LabPaths.of(lab).folder / "pulumi", kubeconfig and kubeconfig.absolute(), tools)
    workspace.prepare()
    return workspace


def _pulumi(
    workspace: Workspace,
    verb: list[str],
    stack: str,
    profile: str | None,
    change: list[str] | None,
    rest: list[str] | None,
) -> None:
    """Run pulumi, and end with its exit code."""
    changes = dict(_change(each) for each in change or [])
    if profile:
        changes["profile"] = profile
    file = workspace.write_stack_file(stack, changes)
    common = ["--stack", stack, "--config-file", str(file), "--non-interactive", "--color", "auto"]
    if not workspace.has_stack(stack):
        if verb[0] == "destroy":
            typer.echo(f"nothing to destroy: stack {stack} was never deployed on this cluster")
            return
        workspace.create_stack(stack)
    command = ["pulumi", *verb, *common, *(rest or [])]
    done = subprocess.run(command, cwd=PROJECT, env=workspace.environment(), check=False)
    raise typer.Exit(done.returncode)


def _change(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise WorkspaceError(f"--set {text}: must be PATH=VALUE, e.g. apps.web.replicas=3")
    return path, yaml.safe_load(value)


def main() -> None:
    """Entry point: an error that the user can mend is one line, exit code 1."""
    try:
        app()
    except (WorkspaceError, BuildError) as error:
        typer.echo(f"lab.pulumi: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
