"""Where the lab's build reads and writes: the checkout's own files, and a cache outside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

LAB = Path(__file__).resolve().parent.parent
"""The `lab` folder of the checkout: kernel options, Go modules, packages, Containerfiles."""

PROJECT = LAB.parent


def cache_root() -> Path:
    """The cache of build results: `TANDEM_LAB_CACHE`, else `tandem-lab` under the user's cache folder."""
    named = os.environ.get("TANDEM_LAB_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tandem-lab"
