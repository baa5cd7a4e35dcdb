"""A claim on a worker's own disk moves onto the share and back, under an app that writes all the time.

The volume is made by hand as rancher's local-path provisioner makes them: hostPath, bound to its worker by its name.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.tandem_kube import Kube
from tests.testinfra.playbooks import TIMEOUT_SECONDS, command, killed_at, outcome

Connect = Callable[[str], Any]
NAMESPACE, CLAIM, APP = "tandem-adopt-test", "data", "ledger"
OLD, CLASS, DISK, EXPORT = "tandem-adopt-test-old", "local-path-old", "/var/lib/tandem-adopt-test", "/srv/nfs/tandem"
RECORD = "/api/v1/namespaces/kube-system/configmaps/tandem-adopt"
SEEDS = range(int(os.environ.get("TANDEM_KILL_SEEDS", "5")))
WAIT_SECONDS = 240
WRITER = (
    "i=0; test -f /data/journal && i=$(wc -l < /data/journal); "
    "while :; do echo $i >> /data/journal; i=$((i+1)); sleep 0.2; done"
)
FILLER = r"""
import os, sys
root = os.fsencode(sys.argv[1])
os.makedirs(root + b"/deep/er", exist_ok=True)
os.chmod(root, 0o777)
for name, content, mode, owner in (
    (b"deep/er/file", b"x" * 70000, 0o640, 1000),
    (b"odd\nname 'quoted'", b"odd", 0o644, 0),
    (b"bytes-\xff", b"not UTF-8", 0o644, 0),
    (b"private", b"secret", 0o600, 1001),
    (b"tool", b"#!/bin/sh\n", 0o4755, 0),
):
    with open(root + b"/" + name, "wb") as stream:
        stream.write(content)
    os.chown(root + b"/" + name, owner, owner)
    os.chmod(root + b"/" + name, mode)
os.chmod(root + b"/deep/er", 0o2750)
os.symlink("../nowhere", root + b"/link")
os.link(root + b"/deep/er/file", root + b"/same")
os.mkfifo(root + b"/pipe", 0o600)
with open(root + b"/sparse", "wb") as stream:
    stream.truncate(8 << 20)
"""
LISTER = r"""
import hashlib, json, os, sys
root, found = os.fsencode(sys.argv[1]), {}
for top, folders, files in os.walk(root):
    for name in folders + files:
        path = os.path.join(top, name)
        seen = os.lstat(path)
        content = ""
        if os.path.islink(path):
            content = os.readlink(path).decode()
        elif os.path.isfile(path):
            content = hashlib.sha256(open(path, "rb").read()).hexdigest()
        mode = 0 if os.path.islink(path) else seen.st_mode
        found[os.path.relpath(path, root).hex()] = [mode, seen.st_uid, seen.st_gid, content]
found.pop(b"journal".hex(), None)
print(json.dumps(found))
"""

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(4 * TIMEOUT_SECONDS)]


def wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"not after {WAIT_SECONDS} s: {what}"
        time.sleep(1)


class Shop:
    """An app with a volume on a worker's own disk."""

    def __init__(self, kube: Kube, machine: Connect, worker: str, server: str) -> None:
        self.kube, self.machine, self.worker, self.server = kube, machine, worker, server

    def path(self, plural: str, name: str = "") -> str:
        group = "apis/apps/v1" if plural == "deployments" else "api/v1"
        return f"/{group}/namespaces/{NAMESPACE}/{plural}" + (f"/{name}" if name else "")

    def make(self) -> None:
        """The volume with its files, the claim, the app."""
        self.machine(self.worker).check_output(f"mkdir -p {DISK} && python3 -c {shlex.quote(FILLER)} {DISK}")
        self.kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
        node = self.kube.get(f"/api/v1/nodes/{self.worker}")
        host = node["metadata"]["labels"]["kubernetes.io/hostname"]
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": DISK, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        }
        self.kube.request("POST", "/api/v1/persistentvolumes", body={"metadata": {"name": OLD}, "spec": spec})
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "volumeName": OLD,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        body = {"metadata": {"name": CLAIM, "labels": {"shop": "yes"}}, "spec": claim}
        self.kube.request("POST", self.path("persistentvolumeclaims"), body=body)
        labels = {"app": APP}
        template = {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "writer",
                        "image": "docker.io/library/busybox:1.37",
                        "command": ["sh", "-c", WRITER],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
            },
        }
        deployment = {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": template,
        }
        self.kube.request("POST", self.path("deployments"), body={"metadata": {"name": APP}, "spec": deployment})
        wait(self.ready, "the app is Ready")

    def ready(self) -> bool:
        status = self.kube.get(self.path("deployments", APP)).get("status", {})
        return bool(status.get("readyReplicas") == 1 and status.get("observedGeneration"))

    def volume(self) -> dict[str, Any]:
        claim = self.kube.get(self.path("persistentvolumeclaims", CLAIM))
        assert claim["status"]["phase"] == "Bound"
        return self.kube.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")

    def on_share(self) -> bool:
        return bool(self.volume()["spec"]["storageClassName"] == "tandem-shared")

    def place(self) -> tuple[str, str]:
        """Machine and folder with the data, where root sees them as they are."""
        path = str(self.volume()["spec"]["hostPath"]["path"])
        return (self.server, f"{EXPORT}/{Path(path).name}") if self.on_share() else (self.worker, path)

    def files(self, place: tuple[str, str]) -> dict[str, list[Any]]:
        machine, folder = place
        found: dict[str, list[Any]] = json.loads(
            self.machine(machine).check_output(f"python3 -c {shlex.quote(LISTER)} {folder}")
        )
        return found

    def records(self) -> list[int]:
        machine, folder = self.place()
        text = self.machine(machine).check_output(f"cat {folder}/journal")
        return [int(line) for line in text.split()]

    def remove(self) -> None:
        """Everything, also what a failed test left half done."""
        if self.kube.find(f"/api/v1/namespaces/{NAMESPACE}") is not None:
            self.kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
            wait(lambda: self.kube.find(f"/api/v1/namespaces/{NAMESPACE}") is None, "the namespace is gone")
        for volume in self.kube.get("/api/v1/persistentvolumes")["items"]:
            name, reference = volume["metadata"]["name"], volume["spec"].get("claimRef") or {}
            if name == OLD or (reference.get("namespace") == NAMESPACE and volume["status"]["phase"] == "Released"):
                self.kube.request("DELETE", f"/api/v1/persistentvolumes/{name}")
        wait(lambda: self.kube.find(f"/api/v1/persistentvolumes/{OLD}") is None, "the old volume is gone")
        if self.kube.find(RECORD) is not None:
            self.kube.request("DELETE", RECORD)
        self.machine(self.worker).check_output(f"rm -rf {DISK}")
        self.machine(self.server).check_output(f"rm -rf {EXPORT}/*_{NAMESPACE}_* {EXPORT}/.tandem-adopt-*")


@pytest.fixture
def shop(kube: Kube, machine: Connect, workers: list[str], inventory: dict[str, Any]) -> Iterator[Shop]:
    made = Shop(kube, machine, workers[0], next(iter(inventory["nfs_server"]["hosts"])))
    made.remove()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def adopt(profile: str, *arguments: str, **variables: Any) -> tuple[int, str]:
    return outcome("adopt", profile, *arguments, tandem_adopt_claim=f"{NAMESPACE}/{CLAIM}", **variables)


def squashed(files: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """As the share has them: root is nobody."""
    owner = {0: 65534}
    return {
        path: [mode, owner.get(uid, uid), owner.get(gid, gid), what] for path, (mode, uid, gid, what) in files.items()
    }


def away(told: str) -> float:
    found = re.search(r"its workload was away for ([0-9.]+) s", told)
    assert found
    return float(found[1])


def whole(shop: Shop) -> None:
    """The app runs, and each of its records is there once, in order."""
    wait(shop.ready, "the app is Ready")
    before = len(shop.records())
    wait(lambda: len(shop.records()) > before, "it writes")
    records = shop.records()
    assert records == list(range(len(records)))


def test_onto_the_share_and_back(shop: Shop, profile: str) -> None:
    before = shop.files(shop.place())
    assert len(before) == 11
    status, told = adopt(profile, "--check")
    assert status == 0, told[-3000:]
    assert f"goes from local volume {OLD} of {shop.worker} to the share" in told
    assert not shop.on_share()
    assert shop.kube.find(RECORD) is None

    status, told = adopt(profile)
    assert status == 0, told[-3000:]
    print(f"onto the share: the app was away for {away(told)} s")
    assert shop.on_share()
    assert shop.files(shop.place()) == squashed(before)
    old = shop.kube.get(f"/api/v1/persistentvolumes/{OLD}")
    assert (old["status"]["phase"], old["spec"]["persistentVolumeReclaimPolicy"]) == ("Released", "Retain")
    claim = shop.kube.get(shop.path("persistentvolumeclaims", CLAIM))
    assert claim["metadata"]["labels"] == {"shop": "yes"}
    whole(shop)

    status, told = adopt(profile)
    assert status == 0, told[-3000:]
    assert "is on the share already" in told
    assert not re.search(r"changed=[1-9]", told)

    machine, folder = shop.place()
    shop.machine(machine).check_output(f"touch {folder}/new && rm {folder}/private")
    status, told = adopt(profile, tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    print(f"back: the app was away for {away(told)} s")
    assert not shop.on_share()
    after = shop.files(shop.place())
    assert after.pop(b"new".hex())[1:3] == [0, 0]
    assert after == {path: value for path, value in before.items() if path != b"private".hex()}
    whole(shop)
    status, told = adopt(profile, tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    assert "is not on the share, and no move of it has begun" in told


def test_a_stop_that_takes_too_long_is_given_up(shop: Shop, profile: str) -> None:
    body = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 120}}}}
    headers = {"Content-Type": "application/merge-patch+json"}
    shop.kube.request("PATCH", shop.path("deployments", APP), body=body, headers=headers)
    time.sleep(5)
    wait(lambda: shop.ready() and len(pods(shop)) == 1, "the app is Ready with its long end")
    status, told = adopt(profile, tandem_adopt_stop_seconds=15)
    assert status != 0
    assert "was not moved" in told
    assert not shop.on_share()
    whole(shop)
    status, told = adopt(profile, tandem_adopt_way_back=True)
    assert status == 0, told[-3000:]
    assert "is undone" in told
    assert shop.kube.get(RECORD).get("data", {}) == {}
    whole(shop)


def pods(shop: Shop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.kube.get(shop.path("pods"))["items"]
    return found


def test_a_pod_of_nobodys_is_refused(shop: Shop, profile: str) -> None:
    spec = {
        "containers": [{"name": "c", "image": "docker.io/library/busybox:1.37", "command": ["sleep", "3600"]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }
    shop.kube.request("POST", shop.path("pods"), body={"metadata": {"name": "shell"}, "spec": spec})
    status, told = adopt(profile)
    assert status != 0
    assert "Nothing has been changed. It is refused: pod shell: made by is 'bare Pod shell'" in told
    assert shop.kube.find(RECORD) is None
    whole(shop)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment_and_run_again(seed: int, shop: Shop, profile: str) -> None:
    before = shop.files(shop.place())
    chance = random.Random(seed)
    for way_back in (False, True):
        given = {"tandem_adopt_claim": f"{NAMESPACE}/{CLAIM}", "tandem_adopt_way_back": way_back}
        argv, task = command("adopt", profile, **given), chance.randint(7, 22)
        killed_at(argv, "TASK [volume_adopt", task, chance.uniform(0, 3))
        status, told = adopt(profile, tandem_adopt_way_back=way_back)
        assert status == 0, told[-3000:]
        assert shop.on_share() != way_back
        whole(shop)
        assert shop.files(shop.place()) == (before if way_back else squashed(before))
