"""What each answer of the API means for the election; and the elector over the runtime's own fake of the whole API."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tandem.runtime import ApiLeaseStore, Elector, ElectorSettings
from tandem.runtime._election.core import Outcome
from tandem.runtime._election.port import LeaseError
from tandem.runtime.errors import from_response
from tandem.runtime.testing.cluster import FakeCluster
from tandem.runtime.testing.loop import virtual


def status(code: int, reason: str, **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "no", "details": details}).encode()


PAGE = b"<html><body>502 Bad Gateway</body></html>"


class Refusing:
    """A client whose every request ends in one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get(self, *_: object, **__: object) -> dict[str, Any]:
        raise self.error

    create = replace = get


@pytest.mark.parametrize(
    ("code", "body", "headers", "outcome", "wait"),
    [
        (404, status(404, "NotFound"), {}, Outcome.ABSENT, 0),
        (404, PAGE, {}, Outcome.UNKNOWN, 0),
        (409, status(409, "Conflict"), {}, Outcome.CONFLICT, 0),
        (409, status(409, "AlreadyExists"), {}, Outcome.CONFLICT, 0),
        (409, PAGE, {}, Outcome.UNKNOWN, 0),
        (410, status(410, "Gone"), {}, Outcome.REFUSED, 0),
        (422, status(422, "Invalid"), {}, Outcome.REFUSED, 0),
        (401, status(401, "Unauthorized"), {}, Outcome.REFUSED, 0),
        (403, status(403, "Forbidden"), {}, Outcome.REFUSED, 0),
        (429, b"Too many requests, please try again later.\n", {"Retry-After": "3"}, Outcome.REFUSED, 3),
        (500, status(500, "InternalError"), {}, Outcome.UNKNOWN, 0),
        (502, PAGE, {}, Outcome.UNKNOWN, 0),
        (504, status(504, "Timeout"), {}, Outcome.UNKNOWN, 0),
    ],
)
async def test_what_an_answer_means(
    code: int, body: bytes, headers: dict[str, str], outcome: Outcome, wait: float
) -> None:
    store = ApiLeaseStore(Refusing(from_response("PUT", code, body, headers)), "n", "l")  # type: ignore[arg-type]
    for call in (store.get(seconds=1), store.create({}, seconds=1), store.replace({}, seconds=1)):
        with pytest.raises(LeaseError) as raised:
            await call
        assert raised.value.outcome is outcome
        assert raised.value.retry_after == wait


@virtual
async def test_an_elector_over_the_fake_of_the_whole_api() -> None:
    cluster = FakeCluster()
    loop = asyncio.get_running_loop()
    leads: list[tuple[str, int, float]] = []

    async def candidate(name: str) -> None:
        store = ApiLeaseStore(cluster.client(name), "default", "l")
        settings = ElectorSettings(lease_name="l", namespace="default", identity=name)
        async with Elector(store, settings, guard=None, clock=loop.time) as leadership:
            leads.append((name, leadership.epoch, loop.time()))
            await asyncio.sleep(30)
            assert leadership.is_valid()

    await asyncio.gather(candidate("a"), candidate("b"))
    (_, first, began), (_, second, followed) = leads
    assert (first, second) == (0, 1)
    assert 15 <= began < 16
    assert followed - began == pytest.approx(30, abs=0.1)
