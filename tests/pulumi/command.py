"""The real pulumi CLI in a workspace of its own, without a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.build import BuildError, artifacts
from lab.pulumi.workspace import PROJECT, Workspace, official_tools

Pulumi = Callable[..., subprocess.CompletedProcess[str]]


def offline_workspace(folder: Path) -> Workspace:
    """A workspace in `folder`, on the official tools where they are installed; else on the lab's."""
    try:
        tools = None if official_tools() else artifacts.tools()
    except BuildError as error:
        pytest.fail(f"pulumi and its provider are neither installed nor built: {error}")
    made = Workspace(folder, None, tools)
    made.prepare()
    return made


def runner(workspace: Workspace, *, seconds: float) -> Pulumi:
    """Runs pulumi in the workspace, each time for so long at most; fails the test on another exit code than `code`."""
    # A cluster of the user's own must play no part: a path that leads nowhere.
    env = workspace.environment() | {"KUBECONFIG": str(workspace.folder / "no-cluster")}

    def run(*arguments: str, cwd: Path = PROJECT, code: int = 0) -> subprocess.CompletedProcess[str]:
        argv = ["pulumi", *arguments, "--non-interactive", "--color", "never"]
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=seconds)
        assert done.returncode == code, f"exit code {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    return run
