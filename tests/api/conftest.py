"""One real API server for all tests of this folder; each test takes names of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from lab.build import BuildError, artifacts
from tandem.runtime.testing.localapi import LocalApi, Programs
from tests import ansible_modules  # noqa: F401  # some tests run Ansible modules' functions
from tests.api.processes import Candidate, wait_for


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The lab's own builds of etcd and kube-apiserver; nothing is built here."""
    try:
        tools = artifacts.tools()
    except BuildError as error:
        pytest.fail(f"{error}")
    return Programs(tools / "etcd", tools / "kube-apiserver")


@pytest.fixture(scope="package")
def api(programs: Programs) -> Iterator[LocalApi]:
    """A running API server with an audit log, gone before machines are started.

    Do not stop or kill it: `own_api` is for that.
    """
    with LocalApi(programs) as running:
        yield running


@pytest.fixture
def own_api(programs: Programs) -> Iterator[LocalApi]:
    """An API server of the test's own, to be stopped, killed and paused."""
    with LocalApi(programs) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A name that no other test takes."""
    return f"t-{uuid.uuid4().hex[:10]}"


class Candidates:
    """Candidates for the Leases of one API server; all are ended with the test."""

    def __init__(self) -> None:
        self.started: list[Candidate] = []

    def start(self, api: LocalApi, lease: str, identity: str, *options: str, **more: Any) -> Candidate:
        """Start one."""
        candidate = Candidate(api, lease, identity, *options, **more)
        self.started.append(candidate)
        return candidate

    def leader_of(self, *those: Candidate) -> tuple[Candidate, list[Candidate]]:
        """Wait until one of these leads; returns it and the others."""
        wait_for(
            lambda: any(each.has_said("leading") for each in those),
            60,
            lambda: f"nobody leads: {[(each.said, each.errors) for each in those]}",
        )
        leader = next(each for each in those if each.has_said("leading"))
        return leader, [each for each in those if each is not leader]


@pytest.fixture
def candidates() -> Iterator[Candidates]:
    """Starts candidates as processes."""
    running = Candidates()
    yield running
    for candidate in running.started:
        candidate.process.kill()
        candidate.process.wait()


def free_lease(api: LocalApi, name: str) -> None:
    """A Lease as a deployment creates it: there, and nobody's."""
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": ""},
    }
    api.request("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", body)
