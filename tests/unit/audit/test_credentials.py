"""What an audit sees of certificates from where it runs; the server's own is in tests/api/test_audit.py."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tandem.audit import credentials
from tandem.audit.credentials import Credential, findings, notes, own
from tests.unit.ansible.test_certificates import DAY, NOW, issued


def token(claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"Bearer head.{body}.signature"


def test_a_client_certificate(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    path.write_text(issued(NOW - DAY, NOW + 30 * DAY))
    assert own(str(path), "").ends == NOW + 30 * DAY
    path.write_text("nothing")
    assert "cannot be read" in own(str(path), "").note


def test_tokens() -> None:
    assert own(None, token({"exp": NOW})).ends == NOW
    assert own(None, token({"sub": "x"})).note == "has no end"
    assert own(None, token([])).note == "has no end"
    assert own(None, "Bearer a.%%.c").note == "has no end"
    assert own(None, "Bearer opaque").note == "does not show its end"


@pytest.mark.parametrize(
    ("days", "level"), [(91, None), (90, None), (89, "warning"), (14, "warning"), (13, "error"), (-2, "error")]
)
def test_levels(days: float, level: str | None) -> None:
    found = findings([Credential("it", NOW + days * DAY), Credential("other", None, "has no end")], NOW)
    assert [each.level for each in found] == ([level] if level else [])
    assert all("certs.yml" in each.fix for each in found)


def test_what_is_not_seen_is_said() -> None:
    told = notes([Credential("a", 1.0), Credential("b", None, "has no end")])
    assert told == ["b has no end", credentials.ELSEWHERE]


async def test_a_kubeconfig_that_is_none(tmp_path: Path) -> None:
    [told] = await credentials.read(tmp_path / "none", None)
    assert "cannot be read" in told.note


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(document))
    server, mine = await credentials.read(path, None)
    assert "could not be seen" in server.note
    assert mine.note == "does not show its end"
