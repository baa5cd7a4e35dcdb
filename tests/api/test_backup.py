"""A snapshot of a real etcd, restored into a scratch one; and one that is not what it should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.build import artifacts
from plugins.modules import tandem_etcd
from tandem.runtime.testing.localapi import LocalApi, Programs

pytestmark = pytest.mark.api


@pytest.fixture
def etcd(api: LocalApi, programs: Programs, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The API server's etcd as the module sees one, with an object more in it."""
    monkeypatch.setenv("PATH", f"{artifacts.tools()}:{os.environ['PATH']}")
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield {"pid": 0, "args": {"advertise-client-urls": api.etcd_url}}
    api.request("DELETE", f"/api/v1/namespaces/{name}")


def take(folder: Path, etcd: dict[str, Any], **changes: Any) -> dict[str, Any]:
    parameters = {"path": str(folder / "kept" / "etcd.db"), "min_free_mib": 1, "timeout_seconds": 120}
    return tandem_etcd.take(parameters | changes, etcd)


def test_a_snapshot_is_restored_and_counted(tmp_path: Path, etcd: dict[str, Any], api: LocalApi) -> None:
    said = take(tmp_path, etcd)
    assert said["keys"] > 50
    assert said["revision"] > 1
    assert said["size"] == (tmp_path / "kept" / "etcd.db").stat().st_size
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["etcd.db"], "the trial leaves nothing"
    tools = tandem_etcd.programs(0)
    with tandem_etcd.scratch(tools, tmp_path / "kept" / "etcd.db", 120) as restored:
        before = tandem_etcd.content(tools["etcdctl"], restored, said["revision"])
        assert before["keys"] == said["keys"]
        with pytest.raises(tandem_etcd.SnapshotError):
            tandem_etcd.content(tools["etcdctl"], restored, said["revision"] + 10**6)
    assert api.request("GET", "/api/v1/namespaces/default")["metadata"]["name"] == "default", "the first etcd serves on"


def test_a_damaged_snapshot_is_none(tmp_path: Path, etcd: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = tandem_etcd.run

    def damaging(*argv: str) -> str:
        said = real(*argv)
        if "save" in argv:
            path = Path(argv[-1])
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        return said

    monkeypatch.setattr(tandem_etcd, "run", damaging)
    with pytest.raises(tandem_etcd.SnapshotError):
        take(tmp_path, etcd)
    assert not list((tmp_path / "kept").iterdir()), "nothing is left that somebody could take for a backup"


def test_a_snapshot_that_lacks_something_is_none(
    tmp_path: Path, etcd: dict[str, Any], api: LocalApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = tandem_etcd.content, []

    def one_more(etcdctl: str, arguments: list[str], revision: int) -> dict[str, Any]:
        found = real(etcdctl, arguments, revision)
        asked.append(arguments)
        return found | {"keys": found["keys"] + (1 if len(asked) == 1 else 0)}

    monkeypatch.setattr(tandem_etcd, "content", one_more)
    with pytest.raises(tandem_etcd.SnapshotError, match="keys instead of"):
        take(tmp_path, etcd)
    assert len(asked) == 2


def test_no_room_and_no_means(tmp_path: Path, etcd: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(tandem_etcd.SnapshotError, match="nothing has been changed; way out: free some space"):
        take(tmp_path, etcd, min_free_mib=10**9)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name, path="": None if name == "etcdutl" else name)
    with pytest.raises(tandem_etcd.SnapshotError, match="nobody has restored is no backup"):
        take(tmp_path, etcd)
