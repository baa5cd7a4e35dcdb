"""The command `tandem`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tandem import __version__, recovery
from tandem.conform.cli import conform
from tandem.docs import profiles_page
from tandem.drill.cli import app as drill

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="A two-worker cluster that survives the loss of one."
)
app.add_typer(drill, name="drill")
app.command()(conform)

Behaviours = Annotated[str, typer.Option(help="replace, hold, spread-wait, spread-crowd, stateful or node-agent.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Tandem."""
    if version:
        Console().print(__version__)
        raise typer.Exit


@app.command()
def predict(
    profile: Annotated[str | None, typer.Option(help="One profile; default: all.")] = None,
    behaviour: Behaviours = "replace",
    target: Annotated[float | None, typer.Option(help="recovery_target_seconds; a slower profile fails.")] = None,
    json_output: JsonOption = False,
) -> None:
    """When each stage is to be expected after a worker's power loss, and what speaks against a profile."""
    if behaviour not in recovery.BEHAVIOURS:
        raise typer.BadParameter(f"unknown behaviour {behaviour!r}; known: {', '.join(recovery.BEHAVIOURS)}")
    try:
        chosen = [recovery.profile(profile)] if profile else list(recovery.PROFILES.values())
    except recovery.UnknownProfileError as error:
        raise typer.BadParameter(str(error)) from error
    findings = {p.name: _findings(p, target) for p in chosen}
    windows = {p.name: recovery.predict(p, recovery.BEHAVIOURS[behaviour]) for p in chosen}
    console = Console()
    if json_output:
        data: dict[str, Any] = {
            name: {
                "prediction": {stage: [round(w.low, 1), round(w.high, 1)] for stage, w in windows[name].items()},
                "findings": [vars(finding) for finding in findings[name]],
            }
            for name in windows
        }
        console.print_json(json.dumps(data))
    else:
        table = Table(title=f"seconds after power loss, an app that answers by `{behaviour}`")
        table.add_column("stage")
        for p in chosen:
            table.add_column(p.name, justify="right")
        for stage in recovery.STAGES:
            row = [windows[p.name].get(stage) for p in chosen]
            table.add_row(stage, *("-" if w is None else f"{w.low:.1f} .. {w.high:.1f}" for w in row))
        console.print(table)
        for name, found in findings.items():
            for finding in found:
                colour = "red" if finding.level == "error" else "yellow"
                console.print(f"[{colour}]{name}[/{colour}] {finding}", highlight=False)
    if any(finding.level == "error" for found in findings.values() for finding in found):
        raise typer.Exit(1)


@app.command()
def profiles() -> None:
    """The recovery profiles and their settings, as Markdown."""
    typer.echo(profiles_page())


def _findings(profile: recovery.RecoveryProfile, target: float | None) -> list[recovery.Finding]:
    found = list(recovery.check(profile))
    if target is not None and (missed := recovery.check_target(profile, target)):
        found.append(missed)
    return found


def main() -> None:
    """Run the command line."""
    app(prog_name="tandem")


if __name__ == "__main__":
    main()
