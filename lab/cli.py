"""`python -m lab`: the lab's verbs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.build import BuildError, build
from lab.runtime import HOST, NODES, ExitCode, Lab, LabError, LabStatus, UpReport

_EXIT_CODES = """
Exit codes: 0 done, 1 failed, 2 wrong use (an unknown machine, a value out of range), 3 not running,
4 refused (another lab runs on this machine), 5 not built. `ssh` and `exec` give the command's own.
"""

app = typer.Typer(
    name="lab",
    help="Four machines on one host, whose power, cables and disks you may break.\n\n" + _EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_chosen_name: list[str | None] = [None]
_WHICH = "Which lab is meant."
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="A machine: " + ", ".join(NODES) + ".")]


@app.callback()
def _options(
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", envvar="TANDEM_LAB_NAME", help=_WHICH, show_default="default"),
    ] = None,
) -> None:
    _chosen_name[0] = name


NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help=_WHICH, show_default="default")]


def _lab(name: str | None = None) -> Lab:
    return Lab(name or _chosen_name[0])


def _at(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return time.strftime(" at %H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1000):03d}"


# --- life

app.command("build")(build)


@app.command()
def up(
    extra: Annotated[
        list[str] | None, typer.Option("--with", metavar="NODE", help="Also this machine: cp2 or w3.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NODE", help="Exactly these machines.", hidden=True)
    ] = None,
    name: NameOption = None,
) -> None:
    """Start the lab, or what of it is missing, and wait for SSH on every machine."""
    lab = _lab(name)
    with _progress() as report:
        result = lab.up(extra or (), only or (), report)
    _say_up(lab, result)
    if result.failed:
        raise typer.Exit(ExitCode.FAILED)


def _say_up(lab: Lab, result: UpReport) -> None:
    for reason in result.failed.values():
        err.print(Text(reason, style="red"))
    if result.failed:
        total = len(result.failed) + len(result.ready)
        err.print(f"{len(result.failed)} of {total} machines did not come up; the rest runs on")
        return
    count = f"{len(result.ready)} machine{'s' if len(result.ready) != 1 else ''}"
    if result.already and not result.started:
        out.print(f"the lab {lab.name!r} is already up: {count}")
    elif result.already:
        out.print(f"the lab {lab.name!r} was already up; started {', '.join(result.started)} in {result.seconds:.1f} s")
    else:
        out.print(f"the lab {lab.name!r} is up: {count} with SSH in {result.seconds:.1f} s")
    out.print(f"  ssh -F {lab.ssh_config} NODE, or: python -m lab ssh NODE")


@contextmanager
def _progress() -> Iterator[Callable[[str, str, float], None]]:
    """A table that follows the machines on a terminal, and one line per machine elsewhere."""
    seen: dict[str, tuple[str, float]] = {}
    guard = threading.Lock()

    def table() -> Table:
        grid = Table.grid(padding=(0, 2))
        with guard:
            for node in sorted(seen, key=list(NODES).index):
                phase, seconds = seen[node]
                style = {"ready": "green", "failed": "red"}.get(phase, "yellow")
                grid.add_row(f"  {node}", Text(phase, style=style), f"{seconds:.1f} s")
        return grid

    if err.is_terminal:
        with Live(table(), console=err, refresh_per_second=8, get_renderable=table):

            def follow(node: str, phase: str, seconds: float) -> None:
                with guard:
                    seen[node] = (phase, seconds)

            yield follow
        return

    def tell(node: str, phase: str, seconds: float) -> None:
        if phase in {"ready", "failed"}:
            err.print(f"  {node} {phase} after {seconds:.1f} s")

    yield tell


@app.command()
def down(name: NameOption = None) -> None:
    """End the lab and remove its disks. Safe to repeat, and after any crash."""
    lab = _lab(name)
    report = lab.down()
    for line in report.ended:
        out.print(f"ended: {line}")
    for line in report.leftovers:
        err.print(Text(f"left over: {line}", style="red"))
    if report.leftovers:
        raise typer.Exit(ExitCode.FAILED)
    if report.was_running:
        out.print(f"the lab {lab.name!r} is down; nothing is left of it")
    elif report.had_files:
        out.print(f"the lab {lab.name!r} was not running; its files are removed")
    else:
        out.print(f"there is no lab {lab.name!r}; nothing to do")


@app.command()
def status(
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    name: NameOption = None,
) -> None:
    """Show machines, cut cables, addresses and paths. Exit code 3 when the lab does not run."""
    now = _lab(name).status()
    if json_output:
        sys.stdout.write(now.model_dump_json(indent=2) + "\n")
    else:
        _show(now)
    if not now.running:
        raise typer.Exit(ExitCode.NOT_RUNNING)


def _show(now: LabStatus) -> None:
    if not now.running:
        out.print(f"the lab {now.name!r} is not running")
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("machine", "state", "address", "role", "memory", "since", "pid"):
        grid.add_column(title)
    for name, machine in now.machines.items():
        style = {"running": "green", "frozen": "cyan"}.get(machine.state, "red")
        since = time.strftime("%H:%M:%S", time.localtime(machine.since))
        cells = (machine.address, machine.role, f"{machine.memory_mib} MiB", since, str(machine.pid or "-"))
        grid.add_row(name, Text(machine.state, style=style), *cells)
    out.print(grid)
    for name, machine in now.machines.items():
        if machine.panic:
            out.print(f"{name} ended by a kernel panic: {machine.panic}", style="red", markup=False)
            out.print(f"  its console: python -m lab logs {name}; to boot it again: python -m lab power-on {name}")
    for cut in now.cuts:
        arrow = "-/->" if cut["one_way"] else "<-/->"
        out.print(f"cut: {cut['node']} {arrow} {cut['peer'] or 'everybody'}")
    for name, effect in now.degraded.items():
        out.print(f"degraded: {name}: {effect['loss_percent']:g} % lost, {effect['delay_ms']:g} ms added, each way")
    for name, service in now.services.items():
        if service["pid"] is None or service["restarts"]:
            out.print(f"service {name}: pid {service['pid']}, {service['restarts']} restarts")
    out.print(f"API server {now.api_server}   ssh -F {now.ssh_config} NODE")


# --- ways in


@app.command("ssh", context_settings=_PASS_ON)
def ssh(context: typer.Context, node: NodeArgument, name: NameOption = None) -> None:
    """Log in to NODE as root, or run a command there: `ssh NODE CMD...`."""
    _become(_lab(name).ssh_argv(node, *context.args))


@app.command("exec", context_settings=_PASS_ON)
def exec_(context: typer.Context, name: NameOption = None) -> None:
    """Run a command of the host inside the lab's network: `exec CMD...`."""
    if not context.args:
        raise typer.BadParameter("give a command to run")
    _become(_lab(name).exec_argv(*context.args))


def _become(argv: list[str]) -> NoReturn:
    """Be this command from now on, with its signals and its exit code."""
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is meant
    except OSError as error:
        raise LabError(f"{argv[0]}: {error.strerror}") from error


@app.command()
def logs(
    node: NodeArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows, until Ctrl-C.")] = False,
    name: NameOption = None,
) -> None:
    """Show NODE's console."""
    _copy(_lab(name).console(node), follow)


def _copy(path: Path, follow: bool) -> None:
    with path.open("rb") as file:
        while True:
            while chunk := file.read(65536):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            if not follow or not path.exists():
                return
            time.sleep(0.2)


# --- power


@app.command("power-off")
def power_off(node: NodeArgument, name: NameOption = None) -> None:
    """Pull NODE's plug: its kernel and all it ran stop in one instant, nothing is written out."""
    at = _lab(name).power_off(node)
    out.print(f"{node} lost power{_at(at)}" if at else f"{node} was off already")


@app.command("power-on")
def power_on(
    node: NodeArgument,
    wait: Annotated[bool, typer.Option(help="Wait for its SSH.")] = True,
    name: NameOption = None,
) -> None:
    """Boot NODE again from the disk it had."""
    began = time.monotonic()
    started = _lab(name).power_on(node, wait=wait)
    if started:
        out.print(f"{node} has power" + (f", SSH after {time.monotonic() - began:.1f} s" if wait else ""))
    else:
        out.print(f"{node} was on already")


@app.command()
def replace(
    node: NodeArgument,
    wait: Annotated[bool, typer.Option(help="Wait for its SSH.")] = True,
    name: NameOption = None,
) -> None:
    """Put an empty machine in NODE's place: its disk is gone, its name, address and cable are the same."""
    began = time.monotonic()
    at = _lab(name).replace(node, wait=wait)
    out.print(f"{node} lost power{_at(at)}, and its disk" if at else f"{node} was off; its disk is gone")
    out.print(f"an empty {node} has power" + (f", SSH after {time.monotonic() - began:.1f} s" if wait else ""))


@app.command()
def remove(node: NodeArgument, name: NameOption = None) -> None:
    """Take NODE out of the lab, its disk too: the way back of `up --with NODE`."""
    at = _lab(name).remove(node)
    out.print(f"{node} lost power{_at(at)}, and is gone" if at else f"{node} was off; it is gone")


@app.command()
def freeze(node: NodeArgument, name: NameOption = None) -> None:
    """Stop NODE as a hung kernel would be; `thaw` lets it go on."""
    out.print(f"{node} is frozen{_at(_lab(name).freeze(node))}")


@app.command()
def thaw(node: NodeArgument, name: NameOption = None) -> None:
    """Let a frozen NODE go on."""
    out.print(f"{node} goes on{_at(_lab(name).thaw(node))}")


# --- cables


@app.command()
def cut(
    node: NodeArgument,
    peers: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="PEER", help=f"Only from this machine, or `{HOST}`; may be given again."),
    ] = None,
    one_way: Annotated[bool, typer.Option("--one-way", help="Lose only what NODE sends.")] = False,
    name: NameOption = None,
) -> None:
    """Cut NODE's cable, open connections included; `heal` joins it again."""
    at = _lab(name).cut(node, peers, one_way)
    whom = ", ".join(peers) if peers else "everybody"
    out.print(f"{node} is cut from {whom}{' (only what it sends)' if one_way else ''}{_at(at)}")


@app.command()
def heal(
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="Only what concerns this machine.")] = None,
    name: NameOption = None,
) -> None:
    """Join all cut cables again and take loss and delay away."""
    healed = _lab(name).heal(node)
    for line in healed:
        out.print(f"healed: {line}")
    if not healed:
        out.print("nothing was cut or degraded")


@app.command()
def degrade(
    node: NodeArgument,
    loss: Annotated[float, typer.Option("--loss", metavar="PERCENT", help="Packets lost, in each direction.")] = 0.0,
    delay: Annotated[float, typer.Option("--delay", metavar="MS", help="Milliseconds added, in each direction.")] = 0.0,
    name: NameOption = None,
) -> None:
    """Make NODE's cable a bad one: loss, delay. The lab's own SSH is spared."""
    _lab(name).degrade(node, loss, delay)
    out.print(f"{node} loses {loss:g} % and waits {delay:g} ms in each direction")


def main() -> None:
    """Run the command line; a LabError is its text and its exit code, and no traceback."""
    try:
        app()
    except LabError as error:
        err.print(Text(f"lab: {error}", style="red"))
        sys.exit(error.exit_code)
    except BuildError as error:
        err.print(Text(f"lab: {error}", style="red"))
        sys.exit(ExitCode.NOT_BUILT)
    except KeyboardInterrupt:
        sys.exit(130)
