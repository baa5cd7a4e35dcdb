"""Runs the lab: one supervisor that owns everything, machines, cables, and the ways in.

`Lab` is the interface; `python -m lab` and the drill's driver are built on it. How it works is told in `supervisor`
(the inside), `launch` (the start) and `teardown` (the end).
"""

from __future__ import annotations

from lab.runtime.errors import (
    ExitCode,
    LabError,
    NotBuiltError,
    NotRunningError,
    RefusedError,
    UnknownNodeError,
    UsageError,
)
from lab.runtime.lab import Lab, LabStatus, MachineStatus
from lab.runtime.launch import Bootable, UpReport
from lab.runtime.plan import HOST, NODES, Node
from lab.runtime.teardown import DownReport

__all__ = [
    "HOST",
    "NODES",
    "Bootable",
    "DownReport",
    "ExitCode",
    "Lab",
    "LabError",
    "LabStatus",
    "MachineStatus",
    "Node",
    "NotBuiltError",
    "NotRunningError",
    "RefusedError",
    "UnknownNodeError",
    "UpReport",
    "UsageError",
]
