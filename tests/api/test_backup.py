"""A snapshot of a real etcd, restored into a scratch one; and one that is not what it should be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.tandem_snapshots import SnapshotError, run  # the modules' own class of it

from lab.build import artifacts
from plugins.modules import tandem_etcd, tandem_etcd_restore
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
        with pytest.raises(SnapshotError):
            tandem_etcd.content(tools["etcdctl"], restored, said["revision"] + 10**6)
    assert api.request("GET", "/api/v1/namespaces/default")["metadata"]["name"] == "default", "the first etcd serves on"


def test_a_damaged_snapshot_is_none(tmp_path: Path, etcd: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = run

    def damaging(*argv: str) -> str:
        said: str = real(*argv)
        if "save" in argv:
            path = Path(argv[-1])
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        return said

    monkeypatch.setattr(tandem_etcd, "run", damaging)
    with pytest.raises(SnapshotError):
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
    with pytest.raises(SnapshotError, match="keys instead of"):
        take(tmp_path, etcd)
    assert len(asked) == 2


def test_no_room_and_no_means(tmp_path: Path, etcd: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SnapshotError, match="nothing has been changed; way out: free some space"):
        take(tmp_path, etcd, min_free_mib=10**9)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name, path="": None if name == "etcdutl" else name)
    with pytest.raises(SnapshotError, match="prove a backup by restoring it; way out: install it"):
        take(tmp_path, etcd)


def test_a_restored_folder_serves_the_same_from_later_revisions(tmp_path: Path, etcd: dict[str, Any]) -> None:
    said = take(tmp_path, etcd)
    tools, bump, data = tandem_etcd.programs(0), 1_000_000_000, tmp_path / "etcd"
    given = {"snapshot": str(tmp_path / "kept" / "etcd.db"), "name": "cp1", "address": "10.0.0.10", "bump": bump}
    tandem_etcd_restore.restore({**given, "folder": str(data)}, tools["etcdutl"])
    with pytest.raises(SnapshotError, match="never overwritten"):
        tandem_etcd_restore.restore({**given, "folder": str(data)}, tools["etcdutl"])
    client, peer = (f"http://127.0.0.1:{tandem_etcd.free_port()}" for _ in range(2))
    urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
    argv = [tools["etcd"], "--name=cp1", f"--data-dir={data}", *urls, "--log-level=error"]
    member = ["--initial-advertise-peer-urls=https://10.0.0.10:2380", "--initial-cluster=cp1=https://10.0.0.10:2380"]
    with subprocess.Popen([*argv, *member]) as process:
        try:
            arguments, until = [f"--endpoints={client}"], time.monotonic() + 120
            while True:
                try:
                    run(tools["etcdctl"], *arguments, "endpoint", "health")
                    break
                except SnapshotError:
                    assert time.monotonic() < until
                    time.sleep(0.3)
            status = json.loads(run(tools["etcdctl"], *arguments, "endpoint", "status", "--write-out=json"))
            revision = status[0]["Status"]["header"]["revision"]
            assert revision >= said["revision"] + bump
            assert tandem_etcd.content(tools["etcdctl"], arguments, revision)["keys"] == said["keys"]
            with pytest.raises(SnapshotError, match="compacted"):
                tandem_etcd.content(tools["etcdctl"], arguments, said["revision"])
        finally:
            process.kill()


def test_a_snapshot_that_is_none_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "etcd.db").write_bytes(b"nonsense")
    given = {"snapshot": str(tmp_path / "etcd.db"), "name": "cp1", "address": "10.0.0.10", "bump": 1}
    with pytest.raises(SnapshotError):
        tandem_etcd_restore.restore({**given, "folder": str(tmp_path / "etcd")}, str(artifacts.tools() / "etcdutl"))
    assert [path.name for path in tmp_path.iterdir()] == ["etcd.db"]
