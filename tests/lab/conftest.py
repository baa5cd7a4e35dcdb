"""The lab's life cycle is tried on a lab of its own, `lifecycle`, with as few machines as a test needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from lab.runtime import Lab, lock

NAME = "lifecycle"


@dataclass(frozen=True)
class Footprint:
    """What a lab could leave on a host, as far as it can be told from what others do meanwhile."""

    namespaces: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    interfaces: frozenset[str]
    processes: frozenset[str]

    @classmethod
    def now(cls, lab: Lab) -> Footprint:
        """The host as it is."""
        namespaces: set[str] = set()
        processes: set[str] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                namespaces.add(str((entry / "ns/net").readlink()))
                namespaces.add(str((entry / "ns/pid").readlink()))
                if str(lab.paths.folder).encode() in (entry / "cmdline").read_bytes():
                    processes.add(entry.name)
            except OSError:
                continue  # it ended while we looked
        mounts = {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "tandem-lab" in line}
        places = (Path("/dev/shm"), Path("/run/netns"), lab.paths.root)
        files = {str(path) for place in places if place.is_dir() for path in place.iterdir()}
        interfaces = {path.name for path in Path("/sys/class/net").iterdir()}
        return cls(*(frozenset(found) for found in (namespaces, mounts, files, interfaces, processes)))

    def left_since(self, before: Footprint) -> dict[str, set[str]]:
        """What is here now and was not BEFORE."""
        left = {name: set(mine - getattr(before, name)) for name, mine in vars(self).items()}
        return {name: found for name, found in left.items() if found}


@pytest.fixture(scope="session", autouse=True)
def machine_is_free() -> None:
    """Refuse clearly, rather than skip, where the lab cannot run."""
    other = lock.who_runs(NAME)
    if other is not None:
        pytest.fail(
            f"the lab {other['name']!r} runs on this machine, and only one fits; "
            f"`python -m lab --name {other['name']} down` ends it, then run these tests again"
        )


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab object; whatever a failed test left of it is taken down at the end."""
    lab = Lab(NAME)
    lab.down()
    yield lab
    lab.down()


@dataclass(frozen=True)
class Answer:
    """What a command line came to."""

    code: int
    out: str
    err: str


class Cli(Protocol):
    """`python -m lab WORDS`, for the lab `lifecycle` unless another name is given."""

    def __call__(self, *words: str, name: str = NAME) -> Answer: ...


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Runs the command line in a process of its own, as a user does."""

    def run(*words: str, name: str = NAME) -> Answer:
        argv = [sys.executable, "-P", "-m", "lab", "--name", name, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run
