"""How large the benchmarks are, and what they say while they run.

The published figures are of the defaults. Smaller ones, from the environment, show that a benchmark works:

    TANDEM_BENCH_RUNS=4 TANDEM_BENCH_OBJECTS=200 TANDEM_BENCH_SECONDS=20 TANDEM_BENCH_PEERS=kubert make bench BENCH=...
    TANDEM_BENCH_WORKLOADS=10 make bench BENCH=pulumi-scale
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

RUNS: Final = int(os.environ.get("TANDEM_BENCH_RUNS", "50"))
"""Handovers of each kind."""
OBJECTS: Final = int(os.environ.get("TANDEM_BENCH_OBJECTS", "10000"))
"""Objects of the controllers' benchmarks."""
SECONDS: Final = float(os.environ.get("TANDEM_BENCH_SECONDS", "120"))
"""How long requests are counted."""
PEERS: Final = os.environ.get("TANDEM_BENCH_PEERS")
"""Which peers, by name with commas between; none given means all that this machine can build."""
_BEGAN: Final = time.monotonic()


def wanted(peer: str) -> bool:
    """Whether this peer is to be measured."""
    return PEERS is None or peer in PEERS.split(",")


def progress(text: str) -> None:
    """Say on standard error how far it has come, with the seconds since the start."""
    sys.stderr.write(f"{time.monotonic() - _BEGAN:7.1f} s  {text}\n")
    sys.stderr.flush()
