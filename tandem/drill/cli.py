"""`tandem drill`: what the user types, and what the exit status says.

0 passed; 1 a promise was broken (see the findings); 2 wrong usage; 3 refused by a precondition, nothing was touched;
4 broken off (driver, cluster or clients failed); 130 interrupted, the fault undone.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer
from rich.console import Console

from tandem import recovery
from tandem.drill import output, recording, report
from tandem.drill.api import connect
from tandem.drill.driver import Driver, DriverError, ProfileDriver, load
from tandem.drill.live import LiveProgress
from tandem.drill.recording import Recording, Scenario
from tandem.drill.run import ERRORS, Drill, Options, PreconditionError

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_BROKEN, EXIT_INTERRUPTED = 1, 2, 3, 4, 130

LEVELS: Final = {"failure": "red", "danger": "magenta", "warning": "yellow", "note": "dim"}

app = typer.Typer(no_args_is_help=True, help="Lose a worker on purpose; a timeline, a verdict, a report to look at.")

Node = Annotated[
    str, typer.Argument(help="The worker to lose, as Kubernetes names it, or @APP: the worker that holds APP.")
]
DriverName = Annotated[
    str,
    typer.Option("--driver", envvar="TANDEM_DRIVER", help="How to reach the machines: lab, ssh, manual or another."),
]
DriverOption = Annotated[
    list[str] | None,
    typer.Option("--driver-option", "-o", help="KEY=VALUE for the driver, e.g. ssh_config=FILE; repeat."),
]
YesReally = Annotated[bool, typer.Option("--yes-really", help="Needed by the ssh driver, which stops real machines.")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="Default: KUBECONFIG, else build/kubeconfig/DRIVER/admin.conf, else the user's own."),
]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where the labelled apps are.")]
Profile = Annotated[str | None, typer.Option(help="Judge by this profile instead of the one recorded in the cluster.")]
Target = Annotated[float | None, typer.Option(help="recovery_target_seconds: an app back later fails the drill.")]
GiveUp = Annotated[
    float | None, typer.Option("--give-up-after", help="Seconds after the fault; default: bound + 60 s.")
]
Rate = Annotated[float, typer.Option(help="Requests a second of each client on new connections.")]
KeptRate = Annotated[float, typer.Option(help="Requests a second of each client on a kept connection.")]
LeaveDown = Annotated[bool, typer.Option("--leave-down", help="Do not repair the node afterwards.")]
Accept = Annotated[
    list[str] | None, typer.Option("--accept", help="Start in spite of this precondition's rule; repeat.")
]
Compare = Annotated[str | None, typer.Option(help="Profiles to run in turn, e.g. stock,article,balanced.")]
ApplyCommand = Annotated[
    str | None,
    typer.Option("--apply-command", help="For --compare: command that applies {profile}; else the driver's own."),
]
ProbeImage = Annotated[str, typer.Option(help="Image with python3 for the clients' pod, present on the survivor.")]
Out = Annotated[Path, typer.Option("--output", help="Folder of the reports.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the report as JSON on standard output, all else on the error's.")
]


def _drill(
    scenario: Scenario,
    node: Node,
    driver: DriverName = "lab",
    driver_option: DriverOption = None,
    yes_really: YesReally = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = "tandem-demo",
    profile: Profile = None,
    target: Target = None,
    give_up_after: GiveUp = None,
    rate: Rate = 10.0,
    kept_rate: KeptRate = 2.0,
    leave_down: LeaveDown = False,
    accept: Accept = None,
    compare: Compare = None,
    apply_command: ApplyCommand = None,
    probe_image: ProbeImage = "tandem-ha.io/demo:0.1.0",
    root: Out = output.ROOT,
    json_output: Json = False,
) -> None:
    console = Console(stderr=json_output)
    try:
        names = [name.strip() for name in compare.split(",")] if compare else []
        judged = {name: recovery.profile(name) for name in [*names, *([profile] if profile else [])]}
        machines = load(driver, **_driver_options(driver_option or [], yes_really=yes_really))
        if names and not apply_command and not isinstance(machines, ProfileDriver):
            raise typer.BadParameter(f"driver {driver} cannot apply profiles; give --apply-command")
    except recovery.UnknownProfileError as error:
        raise typer.BadParameter(str(error)) from error
    except DriverError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(EXIT_BROKEN) from error
    options = Options(
        scenario=scenario,
        node=node,
        namespace=namespace,
        profile=judged.get(profile or ""),
        rate=rate,
        kept_rate=kept_rate,
        give_up_after=give_up_after,
        leave_down=leave_down,
        accept=frozenset(accept or ()),
        probe_image=probe_image,
    )
    runs: list[tuple[Recording, Mapping[str, Any]]] = []
    status = 0
    try:
        for name in names or [""]:
            if name:
                options = replace(options, profile=judged[name])
                console.print(f"[bold]applying profile {name}[/bold]")
                _apply(name, machines, apply_command)
            seen = _run(machines, options, _kubeconfig(kubeconfig, driver), context, console)
            runs.append((seen, report.build(seen, target_seconds=target)))
            _show(console, runs[-1][1])
    except PreconditionError as error:
        console.print("[red]Refused, nothing was touched:[/red]")
        for problem in error.problems:
            console.print(f"  {problem}", highlight=False)
        status = EXIT_REFUSED
    except ERRORS as error:
        console.print(f"[red]Broken off:[/red] {error!s} ({type(error).__name__})", highlight=False)
        status = EXIT_BROKEN
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("[yellow]Interrupted; the fault was undone.[/yellow]")
        status = EXIT_INTERRUPTED
    if not runs:
        raise typer.Exit(status)
    folder = output.save(root, runs)  # of several, those that were finished
    if len(runs) > 1:
        console.print(output.comparison_table([made for _, made in runs]))
    console.print(f"report: {folder / 'report.html'} (also {root / 'latest'})", highlight=False, soft_wrap=True)
    if json_output:
        sys.stdout.write((folder / "report.json").read_text(encoding="utf-8"))
    failed = any(made["verdict"] != "passed" for _, made in runs)
    raise typer.Exit(status or (EXIT_FAILED if failed else 0))


def _run(
    machines: Driver, options: Options, kubeconfig: Path | None, context: str | None, console: Console
) -> Recording:
    async def run() -> Recording:
        task = asyncio.current_task()
        if task is not None:  # a terminal that closes or a `kill` must not leave the worker down either
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        async with connect(kubeconfig, context) as api:
            return await Drill(api, machines, options, progress).run()

    with LiveProgress(console, interactive=console.is_terminal) as progress:
        return asyncio.run(run())


def _apply(name: str, machines: Driver, command: str | None) -> None:
    if command is None:
        if isinstance(machines, ProfileDriver):
            machines.apply_profile(name)
        return
    argv = [part.replace("{profile}", name) for part in shlex.split(command)]
    if subprocess.run(argv, check=False).returncode != 0:
        raise DriverError(f"`{shlex.join(argv)}` failed: profile {name} is not in force")


def _show(console: Console, made: Mapping[str, Any]) -> None:
    console.print(output.stage_table(made))
    console.print(output.request_table(made))
    console.print(output.writer_table(made))
    for finding in made["findings"]:
        where = f" {finding['app']}" if finding["app"] else ""
        colour = LEVELS[finding["level"]]
        console.print(f"[{colour}]{finding['level']}[/{colour}]{where}: {finding['message']}", highlight=False)
    colour = "green" if made["verdict"] == "passed" else "red"
    console.print(f"[bold {colour}]{made['verdict']}[/bold {colour}]")


def _kubeconfig(given: Path | None, driver: str) -> Path | None:
    default = Path("build/kubeconfig") / driver / "admin.conf"
    return given if given or "KUBECONFIG" in os.environ or not default.exists() else default


def _driver_options(pairs: list[str], *, yes_really: bool) -> dict[str, object]:
    options: dict[str, object] = {"yes_really": True} if yes_really else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise typer.BadParameter(f"driver option {pair!r} is not KEY=VALUE")
        options[key] = value
    return options


def _command(name: str, scenario: Scenario, text: str) -> None:
    """Register one scenario: the same options, its own name and help."""

    def command(*args: Any, **kwargs: Any) -> None:
        _drill(scenario, *args, **kwargs)

    command.__annotations__ = {k: v for k, v in _annotations().items() if k != "scenario"}
    command.__signature__ = _signature()  # type: ignore[attr-defined]
    command.__doc__ = text
    app.command(name, help=text)(command)


def _annotations() -> dict[str, Any]:
    return get_type_hints(_drill, include_extras=True)


def _signature() -> Any:
    signature = inspect.signature(_drill, eval_str=True)
    return signature.replace(parameters=[p for name, p in signature.parameters.items() if name != "scenario"])


_command("power-loss", "power-loss", "Take a worker's power away and watch what its apps do until it is back.")
_command(
    "partition",
    "partition",
    "Cut a worker off from the control plane alone, its path to the share open: who writes twice?",
)


@app.command()
def render(
    folder: Annotated[Path, typer.Argument(help="A saved drill, e.g. build/drill/latest.")],
    root: Out = output.ROOT,
    target: Target = None,
) -> None:
    """Make the report of a saved recording anew."""
    files = sorted(folder.glob("recording*.json"))
    if not files:
        raise typer.BadParameter(f"{folder} holds no recording")
    seen = [recording.from_dict(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    runs = [(one, report.build(one, target_seconds=target)) for one in seen]
    console = Console()
    for _, made in runs:
        _show(console, made)
    console.print(f"report: {output.save(root, runs) / 'report.html'}", highlight=False, soft_wrap=True)
