"""A claim moves onto the share and back, by the playbook as it stands, against a real API server and real files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.runtime.testing.localapi import LocalApi
from tests.api.adopting import Cluster
from tests.testinfra.playbooks import killed_at

pytestmark = [
    pytest.mark.api,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="owners of files are root's to give"),
]

SEEDS = range(int(os.environ.get("TANDEM_KILL_SEEDS", "2")))


@pytest.fixture
def cluster(api: LocalApi, name: str, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(api, name, tmp_path)
    fill(made.disk)
    try:
        yield made
    finally:
        made.end()
    assert made.failure is None


def fill(folder: Path) -> None:
    """Files of all kinds, with odd names."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_bytes(b"x" * 70_000)
    (folder / "deep" / "er").chmod(0o2750)
    (folder / "odd\nname \xe9 'quoted'").write_text("odd")
    Path(os.fsdecode(os.fsencode(folder) + b"/bytes-\xff")).write_text("not UTF-8")
    (folder / "link").symlink_to("../nowhere")
    os.link(folder / "deep" / "er" / "file", folder / "same")
    os.mkfifo(folder / "pipe", 0o640)
    (folder / "private").write_text("secret")
    (folder / "private").chmod(0o600)
    os.chown(folder / "private", 1000, 1001)
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o4755)
    with (folder / "sparse").open("wb") as stream:
        stream.truncate(64 * 2**20)
    (folder / "empty").mkdir()


def shape(folder: Path, *, squashed: bool = False) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder but the journal: kind and mode, owners, content."""
    found: dict[bytes, tuple[object, ...]] = {}
    for top, folders, files in os.walk(os.fsencode(folder)):
        for name in [*folders, *files]:
            path = os.path.join(top, name)  # noqa: PTH118  # bytes
            seen = os.lstat(path)
            owners = [65534 if squashed and each == 0 else each for each in (seen.st_uid, seen.st_gid)]
            content: object = None
            if os.path.islink(path):  # noqa: PTH114
                content = os.readlink(path)  # noqa: PTH115
            elif os.path.isfile(path):  # noqa: PTH113
                content = Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(folder))] = (oct(seen.st_mode), owners, seen.st_nlink, content)
    found.pop(b"journal", None)
    return {path: value if value[0] != "0o120777" else value[:2] + value[3:] for path, value in found.items()}


def running(cluster: Cluster) -> bool:
    return bool(cluster.kube.get(cluster.path("deployments", "app"))["spec"]["replicas"] == 1)


def test_onto_the_share_and_back(cluster: Cluster) -> None:
    before = shape(cluster.disk)
    status, told = cluster.adopt("--check")
    assert status == 0, told[-3000:]
    assert f"goes from local volume {cluster.old} of {cluster.node} to the share" in told
    assert "changed=0" in told
    assert cluster.place() == cluster.disk
    assert [each.name for each in cluster.share.iterdir()] == []

    status, told = cluster.adopt()
    assert status == 0, told[-3000:]
    assert "is on the share; its workload was away for" in told
    place = cluster.place()
    assert place.parent == cluster.share
    assert shape(place) == shape(cluster.disk, squashed=True), "root is nobody there, all else is equal"
    assert (place / "sparse").stat().st_blocks == 0, "holes stay holes"
    old = cluster.kube.get(f"/api/v1/persistentvolumes/{cluster.old}")
    assert (old["status"]["phase"], old["spec"]["persistentVolumeReclaimPolicy"]) == ("Released", "Retain")
    claim = cluster.kube.get(cluster.path("persistentvolumeclaims", "data"))
    assert claim["metadata"]["labels"] == {"shop": "yes"}
    assert claim["metadata"]["annotations"]["note"] == "kept"
    assert len(cluster.kube.get(cluster.path("persistentvolumeclaims"))["items"]) == 1, "the spare claim is gone"
    assert [each.name for each in cluster.share.iterdir()] == [place.name], "nothing of the way is left"

    status, told = cluster.adopt()
    assert status == 0, told[-3000:]
    assert "is on the share already" in told
    assert "changed=0" in told.rpartition("nfs1 :")[2]

    (place / "new").write_text("written on the share")
    (place / "empty").rmdir()
    status, told = cluster.adopt("--check", tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    assert "with what was written since" in told
    status, told = cluster.adopt(tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    assert cluster.place() == cluster.disk
    after = shape(cluster.disk)
    assert after.pop(b"new")[3] == b"written on the share"
    assert after == {path: value for path, value in before.items() if path != b"empty"}, "nobody is root again"
    assert cluster.volume()["spec"]["persistentVolumeReclaimPolicy"] == "Delete", "as it was"
    assert cluster.volume()["spec"]["storageClassName"] == "local-path"
    status, told = cluster.adopt(tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    assert "is not on the share, and no move of it has begun" in told
    records = cluster.records(cluster.disk)
    assert records == list(range(len(records))), "each record once, in order"
    assert len(records) >= cluster.written - 1


@pytest.mark.long
def test_a_workload_that_does_not_stop_runs_on_and_the_move_can_be_undone(cluster: Cluster) -> None:
    cluster.stubborn = True
    status, told = cluster.adopt(tandem_adopt_stop_seconds=10)
    assert status != 0
    assert "was not moved: " in told
    assert "the workload was started again as it was, and is Ready" in told
    assert running(cluster)
    assert cluster.place() == cluster.disk
    other = {"tandem_adopt_claim": f"{cluster.name}/another"}
    status, told = cluster.adopt(**other)
    assert status != 0
    assert "one claim at a time" in told
    cluster.stubborn = False
    status, told = cluster.adopt(tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    assert "is undone" in told
    assert running(cluster)
    assert cluster.volume()["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert len(cluster.kube.get(cluster.path("persistentvolumeclaims"))["items"]) == 1
    status, told = cluster.adopt()
    assert status == 0, told[-3000:]
    assert cluster.place().parent == cluster.share


def test_refused_before_anything_changes(cluster: Cluster) -> None:
    os.mknod(cluster.disk / "device", 0o600 | 0o020000, os.makedev(1, 3))
    status, told = cluster.adopt()
    assert status != 0
    assert "devices is ['device']" in told
    (cluster.disk / "device").unlink()
    scaler = {
        "metadata": {"name": "scaler"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"}},
    }
    path = f"/apis/autoscaling/v2/namespaces/{cluster.name}/horizontalpodautoscalers"
    cluster.kube.request("POST", path, body=scaler)
    status, told = cluster.adopt()
    assert status != 0
    assert "Nothing has been changed. It is refused:" in told
    assert "no autoscaler starts it again" in told
    assert cluster.kube.find("/api/v1/namespaces/kube-system/configmaps/tandem-adopt") is None
    assert cluster.volume()["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment_and_run_again(seed: int, cluster: Cluster) -> None:
    """Several kills on the way there, and several on the way back."""
    chance = random.Random(seed)
    for way_back in (False, True):
        for _ in range(3):
            argv, task = cluster.argv(tandem_adopt_way_back=way_back), chance.randint(7, 22)
            killed_at(argv, "TASK [volume_adopt", task, chance.uniform(0, 3), cluster.environment)
        status, told = cluster.adopt(tandem_adopt_way_back=way_back)
        assert status == 0, told[-3000:]
        assert running(cluster)
        assert (cluster.place() == cluster.disk) == way_back
    records = cluster.records(cluster.disk)
    assert records == list(range(len(records))), "each record once, in order"
