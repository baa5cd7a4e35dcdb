"""`python -m lab build`."""

from __future__ import annotations

import json
import signal
import sys
import time
from enum import StrEnum
from types import FrameType
from typing import Annotated

import typer

from lab.build._errors import BuildError
from lab.build._progress import clock, default_progress
from lab.build._registry import session
from lab.runtime.errors import ExitCode
from lab.runtime.lock import who_runs


class Extra(StrEnum):
    """What a build makes on request."""

    UPGRADE = "upgrade"


EXTRAS = {Extra.UPGRADE: ("apt-upgrade", "registry-upgrade")}
"""`upgrade`: packages and images of a second version of Kubernetes, from which playbooks/upgrade.yml is tested."""


def build(
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this artifact and what it needs.")] = None,
    extra: Annotated[list[Extra] | None, typer.Option("--with", help="Also what an ordinary build leaves out.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print what there is as JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare digests.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Take newer Debian packages where there are some.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Afterwards remove results of older inputs. Refused while a lab runs.")
    ] = False,
) -> None:
    """Build what is missing: kernel, machines' image, packages, container images, tools."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that a build that is ended cleans up behind itself
    begin = time.monotonic()
    current = session()
    ordinary = [name for name, recipe in current.recipes.items() if not recipe.optional]
    if prune and only:
        raise typer.BadParameter("--prune would keep only what --only names; leave one of them out")
    running = who_runs("default") if prune else None
    if running:
        sys.stderr.write(f"--prune is refused: the lab {running['name']!r} runs from the cache; stop it first\n")
        raise typer.Exit(ExitCode.REFUSED)
    try:
        results = current.ensure(
            [*(only or ordinary), *(name for each in extra or () for name in EXTRAS[each])],
            default_progress(),
            full=verify,
            refresh=refresh,
        )
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        sys.stderr.write("interrupted; what was finished is kept\n")
        raise typer.Exit(130) from error
    if prune:
        kept = [*results.values(), *filter(None, current.find(current.recipes).values())]
        for folder in current.store.prune(result.folder for result in kept):
            sys.stderr.write(f"removed {folder.name}\n")
    if json_output:
        listed = {
            name: {
                "key": result.key,
                "folder": str(result.folder),
                "seconds": result.seconds,
                "info": dict(result.info),
            }
            for name, result in results.items()
        }
        sys.stdout.write(json.dumps(listed, indent=1) + "\n")
    else:
        sys.stderr.write(f"{len(results)} artifacts are there ({clock(time.monotonic() - begin)})\n")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
