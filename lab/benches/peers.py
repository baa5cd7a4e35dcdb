"""The programs that ours is measured beside: built from pinned sources, and what is known of their times."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.benches.scale import progress, wanted
from lab.story import ROOT

FOLDER: Final = ROOT / "build" / "bench" / "peers"
RUST: Final = ("kubert", "kube-leader-election", "kube-coordinate")
"""The crates for leader election; each is a member of the workspace bench/peers/rust."""


@dataclass(frozen=True)
class Kind:
    """One kind of candidate.

    Attributes:
        program: its command, without options.
        renewal_seconds: how often its leader renews; a leader is killed at a random time of this period.
        after_kill: about how long nobody leads after a kill, in seconds; only for planning.
        after_release: the same after SIGTERM.
    """

    program: Sequence[str]
    renewal_seconds: float
    after_kill: float
    after_release: float

    def handover_seconds(self, signum: signal.Signals) -> float:
        """About how long a handover takes that begins with this signal."""
        return self.after_kill if signum is signal.SIGKILL else self.after_release


def candidates() -> dict[str, Kind]:
    """Ours, client-go's, and where there is a `cargo`, the three in Rust; all built.

    Raises:
        subprocess.CalledProcessError: a build failed; the compiler's words are on stderr.
    """
    found = {"tandem": Kind((sys.executable, "-m", "bench.peers.tandem.candidate"), 2, 14, 0)}
    if wanted("client-go"):
        found["client-go"] = Kind((str(build_go_peer("client-go")),), 2, 17.5, 1.7)
    if any(map(wanted, RUST)):
        if shutil.which("cargo") is None:
            progress("no cargo here: the peers in Rust are left out")
            return found
        rust = {
            "kubert": Kind((str(build_rust_peer("kubert")),), 2, 14, 14),
            "kube-leader-election": Kind((str(build_rust_peer("kube-leader-election")),), 5, 15, 3.5),
            "kube-coordinate": Kind((str(build_rust_peer("kube-coordinate")),), 10, 19, 19),
        }
        found.update({name: kind for name, kind in rust.items() if wanted(name)})
    return found


def build_go_peer(name: str) -> Path:
    """The program of bench/peers/NAME, built from its pinned module; a second call takes a second.

    Raises:
        subprocess.CalledProcessError: the build failed; Go's words are on stderr.
    """
    target = FOLDER / name
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-mod=readonly", "-trimpath", "-o", str(target), "."],
        cwd=ROOT / "bench" / "peers" / name,
        env={**os.environ, "GOFLAGS": "-buildvcs=false"},
        check=True,
    )
    return target


def build_rust_peer(name: str) -> Path:
    """The program of a member of bench/peers/rust, with exactly the versions of its Cargo.lock.

    Raises:
        subprocess.CalledProcessError: the build failed; cargo's words are on stderr.
    """
    target = ROOT / "build" / "bench" / "cargo"
    subprocess.run(
        ["cargo", "build", "--quiet", "--locked", "--bin", name, "--target-dir", str(target)],
        cwd=ROOT / "bench" / "peers" / "rust",
        check=True,
    )
    return target / "debug" / name
