"""Every committed stack previews with the policy pack against a real API server, which was tuned for its profile."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.pulumi.workspace import PROJECT, Workspace
from tandem import recovery
from tandem.labels import PROFILE_CONFIG_MAP, SYSTEM_NAMESPACE
from tandem.runtime.testing.localapi import LocalApi
from tests.pulumi.on_api import Stack, local_api, workspace_on
from tests.pulumi.stack_files import STACKS, raw_config

pytestmark = [pytest.mark.api, pytest.mark.long, pytest.mark.timeout(1800)]

PACK = str(PROJECT / "infra" / "policy")


@pytest.fixture(scope="module")
def api() -> Iterator[LocalApi]:
    """With the record that the tuning leaves."""
    with local_api() as running:
        running.request("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM_NAMESPACE}})
        (name,) = {raw_config(stack)["tandem:profile"] for stack in STACKS}
        record = {"profile": name, "recovery.json": json.dumps(recovery.to_dict(recovery.profile(name)))}
        body = {"metadata": {"name": PROFILE_CONFIG_MAP}, "data": record}
        running.request("POST", f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps", body)
        yield running


@pytest.fixture(scope="module")
def workspace(api: LocalApi, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace_on(api, tmp_path_factory.mktemp("pulumi"))


@pytest.mark.parametrize("name", STACKS)
def test_stack(name: str, api: LocalApi, workspace: Workspace) -> None:
    said = Stack(workspace, api, name, {}).run("preview", "--policy-pack", PACK)
    assert "tandem@v0.1.0" in said
    assert "mandatory" not in said
    assert "to create" in said
    assert "was not compared" not in said, "the record was read"


def test_another_profile_is_refused_with_both(api: LocalApi, workspace: Workspace) -> None:
    said = Stack(workspace, api, "dev", {}).run("preview", code=255, profile="stock")
    assert "tandem:profile = 'stock'" in said
    assert "tuned with profile balanced" in said
