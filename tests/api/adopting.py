"""A small cluster for moving claims: a real API server, and one thread that plays every controller and kubelet.

It binds and provisions claims as the volume controller and the provisioner do, keeps as many pods as a workload asks
for, and lets a claim go when no pod uses it. While a pod runs, its app writes numbered records to the volume that its
claim is bound to. Both machines are this one: the worker's disk and the share are folders.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from plugins.module_utils.tandem_kube import Kube, KubeError
from tandem.runtime.testing.localapi import LocalApi
from tests.api.test_release import INFO

ROOT = Path(__file__).resolve().parents[2]
MERGE = {"Content-Type": "application/merge-patch+json"}
CLASS, CLAIM, APP = "tandem-shared", "data", "app"
PERIOD_SECONDS = 0.05


class Cluster:
    """One namespace with an app on a worker's own disk.

    Args:
        api: the server.
        name: of the namespace, and the beginning of all other names.
        folder: for disk, share and inventory.
    """

    def __init__(self, api: LocalApi, name: str, folder: Path) -> None:
        self.kubeconfig, self.name, self.folder = str(api.kubeconfig()), name, folder
        self.kube = Kube(self.kubeconfig)
        self.disk, self.share = folder / "disk" / "vol", folder / "share"
        self.node, self.claim = f"{name}-w1", f"{name}/{CLAIM}"
        for path in (self.disk, self.share):
            path.mkdir(parents=True)
        os.chown(self.share, 65534, 65534)
        self.written = self.ended = 0
        self.stubborn = False
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._make()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    # --- what is there at first --------------------------------------------------------------------------------

    def _make(self) -> None:
        kube, labels = self.kube, {"kubernetes.io/hostname": self.node, "tandem-ha.io/shared-storage": "mounted"}
        kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": self.name}})
        kube.request("POST", "/api/v1/nodes", body={"metadata": {"name": self.node, "labels": labels}})
        status = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": dict.fromkeys(INFO, "x")}
        kube.request("PATCH", f"/api/v1/nodes/{self.node}/status", body={"status": status}, headers=MERGE)
        if kube.find(f"/apis/storage.k8s.io/v1/storageclasses/{CLASS}") is None:
            body = {"metadata": {"name": CLASS}, "provisioner": "rancher.io/local-path", "reclaimPolicy": "Retain"}
            kube.request("POST", "/apis/storage.k8s.io/v1/storageclasses", body=body)
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}
        spec = {
            **volume_spec(str(self.disk), "local-path"),
            "persistentVolumeReclaimPolicy": "Delete",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        }
        kube.request("POST", "/api/v1/persistentvolumes", body={"metadata": {"name": self.old}, "spec": spec})
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "volumeName": self.old,
            "storageClassName": "local-path",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        meta = {"name": CLAIM, "labels": {"shop": "yes"}, "annotations": {"note": "kept"}}
        kube.request("POST", self.path("persistentvolumeclaims"), body={"metadata": meta, "spec": claim})
        template: dict[str, Any] = {
            "metadata": {"labels": {"app": APP}},
            "spec": {
                "containers": [{"name": "c", "image": "busybox:1"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
            },
        }
        selector = {"matchLabels": {"app": APP}}
        deployment = {"replicas": 1, "selector": selector, "template": template, "strategy": {"type": "Recreate"}}
        made = kube.request("POST", self.path("deployments"), body={"metadata": {"name": APP}, "spec": deployment})
        above = self._reference("Deployment", made)
        replicas = {"name": f"{APP}-1", "ownerReferences": [above]}
        body = {"metadata": replicas, "spec": {"replicas": 0, "selector": selector, "template": template}}
        self._set = kube.request("POST", self.path("replicasets"), body=body)
        self._template = template

    @staticmethod
    def _reference(kind: str, item: dict[str, Any]) -> dict[str, Any]:
        meta = item["metadata"]
        return {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True}

    @property
    def old(self) -> str:
        """The volume on the worker's own disk."""
        return f"{self.name}-old"

    def path(self, plural: str, name: str = "") -> str:
        """Of objects in the namespace."""
        group = "apis/apps/v1" if plural in ("deployments", "replicasets", "statefulsets") else "api/v1"
        return f"/{group}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    # --- controllers -------------------------------------------------------------------------------------------

    def _play(self) -> None:
        kube = Kube(self.kubeconfig)
        while not self._stop.is_set():
            try:
                self._round(kube)
            except KubeError as error:
                if error.status not in (0, 404, 409):
                    self.failure = error
            except OSError as error:
                self.failure = error
            time.sleep(PERIOD_SECONDS)

    def _round(self, kube: Kube) -> None:
        pods = kube.get(self.path("pods"))["items"]
        claims = kube.get(self.path("persistentvolumeclaims"))["items"]
        volumes = {each["metadata"]["name"]: each for each in kube.get("/api/v1/persistentvolumes")["items"]}
        for claim in claims:
            self._claim(kube, claim, pods, volumes)
        self._released(kube, claims, volumes)
        self._workload(kube, pods, claims, volumes)

    def _claim(self, kube: Kube, claim: dict[str, Any], pods: list[Any], volumes: dict[str, Any]) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        path = self.path("persistentvolumeclaims", meta["name"])
        if "deletionTimestamp" in meta:
            used = any(
                volume.get("persistentVolumeClaim", {}).get("claimName") == meta["name"]
                for pod in pods
                for volume in pod["spec"].get("volumes", [])
            )
            if not used:
                kube.request("PATCH", path, body={"metadata": {"finalizers": None}}, headers=MERGE)
            return
        if claim.get("status", {}).get("phase") == "Bound":
            return
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": self.name,
            "name": meta["name"],
            "uid": meta["uid"],
        }
        name = spec.get("volumeName")
        if not name:
            if spec["storageClassName"] != CLASS:
                return
            name = f"pvc-{meta['uid']}"
            folder = self.share / f"{name}_{self.name}_{meta['name']}"
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
            body = {"metadata": {"name": name}, "spec": {**volume_spec(str(folder), CLASS), "claimRef": reference}}
            if name not in volumes:
                kube.request("POST", "/api/v1/persistentvolumes", body=body)
            kube.request("PATCH", path, body={"spec": {"volumeName": name}}, headers=MERGE)
        else:
            there = volumes[name]["spec"].get("claimRef") or {}
            if there and (there.get("name") != meta["name"] or there.get("uid", meta["uid"]) != meta["uid"]):
                return  # another claim's
            body = {"spec": {"claimRef": reference}}
            kube.request("PATCH", f"/api/v1/persistentvolumes/{name}", body=body, headers=MERGE)
        self._phase(kube, f"/api/v1/persistentvolumes/{name}", "Bound")
        self._phase(kube, path, "Bound")

    @staticmethod
    def _phase(kube: Kube, path: str, phase: str) -> None:
        kube.request("PATCH", f"{path}/status", body={"status": {"phase": phase}}, headers=MERGE)

    def _released(self, kube: Kube, claims: list[Any], volumes: dict[str, Any]) -> None:
        uids = {claim["metadata"]["uid"] for claim in claims}
        for name, volume in volumes.items():
            reference = volume["spec"].get("claimRef") or {}
            gone = reference.get("namespace") == self.name and reference.get("uid") and reference["uid"] not in uids
            if gone and volume["status"].get("phase") == "Bound":
                self._phase(kube, f"/api/v1/persistentvolumes/{name}", "Released")

    def _workload(self, kube: Kube, pods: list[Any], claims: list[Any], volumes: dict[str, Any]) -> None:
        deployment = kube.get(self.path("deployments", APP))
        wanted = deployment["spec"]["replicas"]
        mine = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{APP}-1-")]
        bound = [
            each for each in claims if each["metadata"]["name"] == CLAIM and each["status"].get("phase") == "Bound"
        ]
        if mine and wanted == 0 and not self.stubborn:
            self.ended += 1
            for pod in mine:
                kube.request("DELETE", self.path("pods", pod["metadata"]["name"]) + "?gracePeriodSeconds=0")
            mine = []
        elif not mine and wanted and bound and "deletionTimestamp" not in bound[0]["metadata"]:
            name = f"{APP}-1-{self.ended}"
            meta = {"name": name, "ownerReferences": [self._reference("ReplicaSet", self._set)]}
            body = {"metadata": meta, "spec": {**self._template["spec"], "nodeName": self.node}}
            mine = [kube.request("POST", self.path("pods"), body=body)]
            running = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
            kube.request("PATCH", self.path("pods", name) + "/status", body=running, headers=MERGE)
        if mine:
            volume = volumes[bound[0]["spec"]["volumeName"]]["spec"]
            self._write(Path((volume.get("hostPath") or volume["local"])["path"]))
        status = {
            "replicas": len(mine),
            "readyReplicas": len(mine),
            "availableReplicas": len(mine),
            "observedGeneration": deployment["metadata"]["generation"],
        }
        if any(deployment.get("status", {}).get(key, 0) != value for key, value in status.items()):
            kube.request("PATCH", self.path("deployments", APP) + "/status", body={"status": status}, headers=MERGE)

    def _write(self, folder: Path) -> None:
        """The app: one more record, written through."""
        with (folder / "journal").open("a") as stream:
            stream.write(f"{self.written}\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.written += 1

    def end(self) -> None:
        """Stop, and leave nothing that another test could see."""
        self._stop.set()
        self._thread.join(10)
        kube = Kube(self.kubeconfig)
        for path in (f"/api/v1/nodes/{self.node}", "/api/v1/namespaces/kube-system/configmaps/tandem-adopt"):
            if kube.find(path) is not None:
                kube.request("DELETE", path)
        for plural in ("deployments", "replicasets", "pods"):
            for item in kube.get(self.path(plural))["items"]:
                path = self.path(plural, item["metadata"]["name"])
                kube.request("DELETE", f"{path}?gracePeriodSeconds=0&propagationPolicy=Background")

    # --- what a test asks --------------------------------------------------------------------------------------

    def volume(self) -> dict[str, Any]:
        """The volume that the claim is bound to."""
        claim = self.kube.get(self.path("persistentvolumeclaims", CLAIM))
        assert claim["status"]["phase"] == "Bound"
        return self.kube.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")

    def place(self) -> Path:
        """The folder with the data."""
        spec = self.volume()["spec"]
        return Path((spec.get("hostPath") or spec["local"])["path"])

    def records(self, place: Path) -> list[int]:
        """What the app's journal holds there."""
        return [int(line) for line in (place / "journal").read_text().split()]

    def argv(self, *arguments: str, **variables: Any) -> list[str]:
        """The playbook as an operator types it."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {
            "all": {
                "vars": local,
                "children": {
                    "nfs_server": {"hosts": {"nfs1": {}}},
                    "workers": {"hosts": {self.node: {}}},
                    "control_plane": {"hosts": {"cp1": {}}},
                },
            }
        }
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        given = {
            "preflight_done": True,
            "tandem_kubeconfig": self.kubeconfig,
            "tandem_share_path": str(self.share),
            "tandem_export_path": str(self.share),
            "tandem_adopt_claim": self.claim,
            "volume_adopt_memory_folder": str(self.folder / "memory"),
            **variables,
        }
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        extra = f"--extra-vars={json.dumps(given)}"
        return [program, f"--inventory={self.folder / 'hosts.yml'}", extra, "playbooks/adopt.yml", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Of the playbook."""
        return {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}

    def adopt(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Run it to its end: its status, and what it said in one line."""
        done = subprocess.run(
            self.argv(*arguments, **variables),
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())


def volume_spec(path: str, class_name: str) -> dict[str, Any]:
    """A volume in a folder."""
    return {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_name,
        "hostPath": {"path": path},
        "persistentVolumeReclaimPolicy": "Retain",
    }
