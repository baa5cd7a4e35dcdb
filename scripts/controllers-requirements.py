#!/usr/bin/env python3
"""Print the pins of the controllers' image: what requirements.in names and all that it needs, cut out of our own pins.

Nothing is resolved anew, so that an image never runs what the tests did not. Run in the checkout's virtual environment.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
WANTED = ROOT / "tandem/controllers/requirements.in"
HEAD = "# Made by `make upgrade-pins` from requirements.in and the checkout's own pins; do not edit.\n"


def blocks() -> dict[str, str]:
    """The checkout's pins by package, each with its hashes and without pip-compile's remarks."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.lstrip().startswith("#")]
    found = re.split(r"\n(?=[A-Za-z0-9])", "\n".join(kept).strip())
    return {canonicalize_name(block.partition("==")[0]): block.rstrip() for block in found}


def needed(names: list[str]) -> set[str]:
    """The packages and all that they need here, extras left out."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


def main() -> None:
    """Print the file."""
    lines = WANTED.read_text(encoding="utf-8").splitlines()
    pins = blocks()
    names = needed([line.strip() for line in lines if line.strip() and not line.startswith("#")])
    if missing := sorted(names - pins.keys()):
        sys.exit(f"not among the pins: {', '.join(missing)}; run pip-compile first")
    sys.stdout.write(HEAD + "\n".join(pins[name] for name in sorted(names)) + "\n")


if __name__ == "__main__":
    main()
