"""One real API server for all tests of this folder; each test takes names of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from lab.build import BuildError, artifacts
from tandem.runtime.testing.localapi import LocalApi, Programs


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The lab's own builds of etcd and kube-apiserver; nothing is built here."""
    try:
        tools = artifacts.tools()
    except BuildError as error:
        pytest.fail(f"{error}")
    return Programs(tools / "etcd", tools / "kube-apiserver")


@pytest.fixture(scope="session")
def api(programs: Programs) -> Iterator[LocalApi]:
    """A running API server with an audit log. Do not stop or kill it: `own_api` is for that."""
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
