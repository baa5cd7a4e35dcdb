"""Fixtures of the tests that need machines, and the order in which everything runs.

One lab serves the whole run: cheap tests first, then the lab's own life cycle (which needs the machine to itself), then
one cluster on which the roles, the stack and the drills are tried in the order of a user's work. What a fixture
started, it stops; a lab that somebody else runs is never touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.story import ROOT, Story, python_module

ORDER = ("unit", "model", "policy", "api", "pulumi", "lab", "molecule", "testinfra", "stack", "drill")
NEED_MACHINES = ("lab", "molecule", "testinfra", "stack", "drill")
# A hang, not a slow day, is what this ends: a cluster takes eight minutes on two quiet cores.
CLUSTER_SECONDS = 2400
PROFILE = "article"
KUBECONFIG = ROOT / "build" / "kubeconfig" / "lab" / "admin.conf"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap before dear, the cluster's tests in the order of a user's work; what needs machines is marked `lab`."""
    tests = Path(__file__).parent

    def folder(item: pytest.Item) -> str:
        return item.path.relative_to(tests).parts[0]

    items.sort(key=lambda item: ORDER.index(folder(item)) if folder(item) in ORDER else 0)
    for item in items:
        if folder(item) in NEED_MACHINES:
            item.add_marker(pytest.mark.lab)
            if item.get_closest_marker("timeout") is None:
                # The first of them makes the cluster.
                item.add_marker(pytest.mark.timeout(CLUSTER_SECONDS))


@pytest.fixture(autouse=True)
def _streams_stay_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Mend what a command that was cut off did to the streams that it shares with us, and say which test it was.

    An ssh makes its streams non-blocking and, when its machine goes, leaves them so: for every command that inherits
    them later, and Ansible's refuse to start with such.
    """
    yield
    for stream in (0, 1, 2):
        if not os.get_blocking(stream):
            os.set_blocking(stream, True)
            warnings.warn(f"{request.node.nodeid} left stream {stream} non-blocking", stacklevel=1)


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until `holds`, and return for how many seconds. A command that fails meanwhile is asked again.

    Raises:
        AssertionError: it did not hold in time.
    """

    def held() -> bool:
        # The API server of a busy lab, or of one whose machine has just lost power, does not answer every time.
        try:
            return holds()
        except subprocess.CalledProcessError:
            return False

    started = time.monotonic()
    while not held():
        waited = time.monotonic() - started
        assert waited < seconds, f"{what}: not after {waited:.0f} s"
        time.sleep(2)
    return time.monotonic() - started


@pytest.fixture(scope="session")
def story() -> Story:
    """Runs the project's commands for the tests; logs are kept in build/test."""
    return Story(ROOT / "build" / "test", quiet=True)


def lab_status() -> dict[str, Any]:
    """What `python -m lab status --json` says."""
    output = subprocess.run(
        python_module("lab", "status", "--json"), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    status: dict[str, Any] = json.loads(output)
    return status


@pytest.fixture(scope="session")
def running_lab(story: Story) -> Iterator[Story]:
    """The default lab with its four machines up; taken down at the end unless it was lent.

    A lab that already runs is refused, because the tests would change it; TANDEM_TEST_LAB=reuse lends it. Disks that
    an interrupted lab left behind are discarded: the tests begin on empty machines.
    """
    lent = os.environ.get("TANDEM_TEST_LAB") == "reuse"
    if not lent:
        if lab_status().get("running"):
            pytest.fail(
                "a lab is running, and the tests would change it. Stop it (make lab-down), or lend it to the tests: "
                "TANDEM_TEST_LAB=reuse make test"
            )
        story.run("lab-build", python_module("lab", "build"))
        story.run("lab-down", python_module("lab", "down"))
    try:
        story.run("lab-up", python_module("lab", "up"))
        yield story
    finally:
        if not lent:
            story.run("lab-down", python_module("lab", "down"))


@pytest.fixture(scope="session")
def cluster(running_lab: Story) -> Path:
    """A cluster made by the molecule scenario `default` with the profile `article`: the path of its kubeconfig.

    TANDEM_TESTINFRA_CLUSTER=ready lends one that is there.
    """
    if os.environ.get("TANDEM_TESTINFRA_CLUSTER") == "ready":
        return KUBECONFIG
    running_lab.run("molecule", ["molecule", "test"], env={"TANDEM_PROFILE": PROFILE, "TANDEM_MOLECULE_LAB": "reuse"})
    return KUBECONFIG


@pytest.fixture(scope="session")
def deployed(running_lab: Story, cluster: Path) -> Path:
    """The cluster with the lab stack deployed: the path of its kubeconfig."""
    running_lab.run("pulumi-up", python_module("lab.pulumi", "up", "--profile", PROFILE))
    return cluster
