"""etcd's own programs, as those modules call them that take snapshots and restore them."""

from __future__ import annotations

import subprocess
from pathlib import Path

BINARIES = "usr/local/bin"
"""Where etcd's programs are in its image."""
COMMAND_SECONDS = 300


class SnapshotError(Exception):
    """The snapshot is none; the message says why. Nothing of the cluster was changed."""


def run(*argv: str) -> str:
    """A command's output.

    Raises:
        SnapshotError: it failed.
    """
    try:
        # Values in etcd are bytes; they come through unchanged.
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="surrogateescape", timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError(f"{argv[0]}: {error}") from error
    if done.returncode:
        raise SnapshotError(f"`{Path(argv[0]).name} {' '.join(argv[1:])}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
