"""The command `tandem`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tandem import __version__
from tandem.audit.cli import audit
from tandem.conform.cli import conform
from tandem.docs import profiles_page
from tandem.drill.cli import app as drill
from tandem.policy import policy
from tandem.predict import predict
from tandem.rebalance.cli import rebalance

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="A two-worker cluster that survives the loss of one."
)
app.add_typer(drill, name="drill")
app.command()(audit)
app.command()(conform)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Tandem."""
    if version:
        Console().print(__version__)
        raise typer.Exit


app.command()(policy)
app.command()(predict)
app.command()(rebalance)


@app.command()
def profiles() -> None:
    """The recovery profiles and their settings, as Markdown."""
    typer.echo(profiles_page())


def main() -> None:
    """Run the command line."""
    app(prog_name="tandem")


if __name__ == "__main__":
    main()
