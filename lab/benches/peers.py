"""The Go programs that ours is measured beside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lab.story import ROOT


def build_go_peer(name: str) -> Path:
    """The program of bench/peers/NAME, built from its pinned module; a second call takes a second.

    Raises:
        subprocess.CalledProcessError: the build failed; Go's words are on stderr.
    """
    target = ROOT / "build" / "bench" / "peers" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-mod=readonly", "-trimpath", "-o", str(target), "."],
        cwd=ROOT / "bench" / "peers" / name,
        env={**os.environ, "GOFLAGS": "-buildvcs=false"},
        check=True,
    )
    return target
