"""A stop between the question and the socket: what the API server accepted, by its own audit log.

The process is stopped right after the fence said yes and before the request is sent; another takes over and writes;
then the first goes on. This cannot be excluded by any check. What is left are the kernel's timer, which lets a stopped
process die when it goes on, and the resourceVersion, by which the server refuses what was decided on old knowledge.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tandem.runtime.testing.localapi import LocalApi
from tests.api.conftest import Candidates, free_lease

pytestmark = pytest.mark.api


def config_map(api: LocalApi, name: str) -> dict[str, Any]:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"epoch": "0"}}
    found: dict[str, Any] = api.request("POST", "/api/v1/namespaces/default/configmaps", body)
    return found


def writes(api: LocalApi, name: str) -> list[tuple[int, int]]:
    """(epoch, status) of each write of this ConfigMap, in the order of the server's record."""
    return [
        (int(event["requestObject"]["data"]["epoch"]), event["responseStatus"]["code"])
        for event in api.audit()
        if event["verb"] == "update"
        and event.get("objectRef", {}).get("resource") == "configmaps"
        and event["objectRef"]["name"] == name
    ]


def stale_and_accepted(found: list[tuple[int, int]]) -> int:
    """Writes of an old epoch that were accepted after one of a newer epoch was."""
    newest = stale = 0
    for epoch, status in found:
        if status == 200:
            stale += epoch < newest
            newest = max(newest, epoch)
    return stale


@pytest.mark.parametrize("guard", [True, False], ids=["guard", "no guard"])
def test_stopped_between_the_question_and_the_socket(
    api: LocalApi, name: str, candidates: Candidates, guard: bool
) -> None:
    free_lease(api, name)
    config_map(api, name)
    options = () if guard else ("--no-guard",)
    first = candidates.start(api, name, f"{name}-a", "--write", name, "--stop-at", "5", *options)
    first.until("stopping")
    old = first.until("leading")["epoch"]
    second = candidates.start(api, name, f"{name}-b", "--write", name, *options)
    second.until("wrote")
    time.sleep(0.5)
    before = writes(api, name)
    first.send(signal.SIGCONT)
    status = first.ended(20)
    time.sleep(0.5)
    after = writes(api, name)
    assert stale_and_accepted(after) == 0
    assert any(epoch > old for epoch, _ in before)
    late = [write for write in after[len(before) :] if write[0] == old]
    if guard:
        assert status == -signal.SIGALRM
        assert late == []  # not even sent
    else:
        assert status == 1
        # Sent by a process whose lead was over, and not applied: a conflict, or 504 where the process left before that.
        [(epoch, code)] = late
        assert (epoch, code in {409, 504}) == (old, True), late
        held = api.request("GET", f"/api/v1/namespaces/default/configmaps/{name}")
        assert int(held["data"]["epoch"]) > old


def test_the_counter_can_count() -> None:
    assert stale_and_accepted([(1, 200), (2, 200), (1, 409), (1, 200), (2, 200)]) == 1
