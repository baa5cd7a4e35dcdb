"""What can go wrong with a lab, each with the exit code of `python -m lab`.

Every message says what happened, to what, and what to do next; the command line prints it and nothing else.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of `python -m lab`; 2 is also what typer uses for a wrong option."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    REFUSED = 4
    NOT_BUILT = 5


class LabError(Exception):
    """A lab operation failed; the text is for the person who asked for it."""

    exit_code = ExitCode.FAILED


class UnknownNodeError(LabError):
    """The named machine is not one of the lab's."""

    exit_code = ExitCode.USAGE


class UsageError(LabError):
    """A value that makes no sense: a loss of 140 percent, a name with a slash."""

    exit_code = ExitCode.USAGE


class NotRunningError(LabError):
    """The lab (or the machine) would have to run for this."""

    exit_code = ExitCode.NOT_RUNNING


class RefusedError(LabError):
    """Another lab runs on this host, or another command works on this one."""

    exit_code = ExitCode.REFUSED


class NotBuiltError(LabError):
    """Artifacts are missing: `python -m lab build`."""

    exit_code = ExitCode.NOT_BUILT


#: Kinds of error as they travel over the control socket.
KINDS: dict[str, type[LabError]] = {
    kind.__name__: kind
    for kind in (LabError, UnknownNodeError, UsageError, NotRunningError, RefusedError, NotBuiltError)
}
