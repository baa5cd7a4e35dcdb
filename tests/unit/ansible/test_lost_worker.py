"""A worker that is accepted as lost: which playbooks go on without it, and what is not asked of it then.

The machines are this one (connection local), and a port on which nobody listens for the lost one.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.local_https import Answers, serving

ROOT = Path(__file__).resolve().parents[3]
ADDRESSES = {"cp": "10.0.0.10", "a": "10.0.0.11", "b": "10.0.0.12", "n": "10.0.0.20"}
SILENT = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}
NETWORK = """
ip link set lo up
for address in 10.0.0.10 10.0.0.11 10.0.0.20; do ip address add "$address/24" dev lo; done
exec "$@"
"""


def inventory(tmp_path: Path, **variables: Any) -> Path:
    """The control plane node, the NFS server and worker a answer; worker b does not."""
    groups = {"control_plane": ["cp"], "workers": ["b", "a"], "nfs_server": ["n"]}
    document = {
        "all": {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "preflight_supported_systems": [{"id": "debian", "version": 1}, {"id": "ubuntu", "version": 1}],
                "preflight_max_skew_seconds": 600,
                "tandem_min_disk_gib": 0,
                "tandem_kubeconfig": "/nowhere/admin.conf",
                "tandem_backup_target": str(tmp_path / "kept"),
                "tandem_backup_key": "/nowhere/backup.key",
                **variables,
            },
            "children": {
                group: {
                    "hosts": {
                        name: {"tandem_address": ADDRESSES[name], **(SILENT if name == "b" else {})} for name in names
                    }
                }
                for group, names in groups.items()
            },
        }
    }
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(hosts: Path, playbook: str, *arguments: str, alone: bool = True) -> tuple[int, str]:
    """Exit status and words of a playbook; in a network of its own, where the machines' addresses are this one's."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", str(hosts), playbook, *arguments]
    if alone:
        command = ["unshare", "--net", "bash", "-ec", NETWORK, "bash", *command]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network of its own")
LOST = ("--extra-vars", "tandem_accept_lost_worker=b")


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("playbook", "words"),
    [
        ("backup", "tandem_backup_certificate is empty"),
        ("certs", "rule: certificates are renewed one node at a time"),
        ("restore", "The restore is refused: backup tandem-20260101T000000Z"),
    ],
)
def test_three_playbooks_go_on_without_it(tmp_path: Path, playbook: str, words: str) -> None:
    """Each to a refusal of its own, for there is neither a cluster here nor a backup that can be opened."""
    about = {"date": "20260101T000000Z", "etcd": {"keys": 1, "revision": 1}, "kubernetes": "v1.36.3"}
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "tandem-20260101T000000Z.json").write_text(json.dumps(about))
    (tmp_path / "kept" / "tandem-20260101T000000Z.tar.cms").write_text("none")
    hosts, path = inventory(tmp_path, certificates_api_timeout_seconds=1), f"playbooks/{playbook}.yml"
    status, told = run(hosts, path)
    assert status != 0
    assert "unreachable hosts is ['b']" in told, told
    assert "or, when it is powered off or released, -e tandem_accept_lost_worker=b" in told
    assert words not in told
    status, told = run(hosts, path, *LOST)
    assert status != 0
    assert "b does not answer and is accepted as lost" in told, told
    assert words in told, told


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("playbook", "lost", "words"),
    [
        (
            "backup",
            "a",
            "tandem_accept_lost_worker is 'a'; rule: a worker that is powered off or released; this one answers",
        ),
        ("backup", "n", "tandem_accept_lost_worker is 'n'; rule: one of the workers, a, b"),
        ("bootstrap", "b", "rule: for backup.yml, certs.yml and restore.yml alone"),
        ("upgrade", "b", "rule: for backup.yml, certs.yml and restore.yml alone"),
        ("verify", "b", "rule: for backup.yml, certs.yml and restore.yml alone"),
    ],
)
def test_it_is_refused_where_it_is_not_true_or_not_meant(tmp_path: Path, playbook: str, lost: str, words: str) -> None:
    arguments = ("--extra-vars", f"tandem_accept_lost_worker={lost}")
    status, told = run(inventory(tmp_path), f"playbooks/{playbook}.yml", *arguments)
    assert status != 0
    assert "Nothing has been changed" in told
    assert words in told, told


class Cluster(Answers, http.server.BaseHTTPRequestHandler):
    """As much of an API server as is read. It has not noticed the loss, or just has (`b`: Ready's status)."""

    b = "True"
    asked: tuple[str, ...] = ()

    def do_GET(self) -> None:
        Cluster.asked += (self.path,)
        if self.path.startswith("/api/v1/nodes/b"):
            self.answer(503, {})
        elif self.path == "/api/v1/nodes":
            self.answer(200, {"items": [self._node(name) for name in ("cp", "a", "b")]})
        elif "configz" in self.path:
            self.answer(200, {"kubeletconfig": {}})
        elif self.path == "/version":
            self.answer(200, {"gitVersion": "v1.36.3"})
        else:
            self.answer(200 if self.path.count("/") < 5 and "namespaces" not in self.path else 404, {"items": []})

    def do_PATCH(self) -> None:
        self.answer(403, {})

    def _node(self, name: str) -> dict[str, Any]:
        ready = {"type": "Ready", "status": self.b if name == "b" else "True"}
        status = {"conditions": [ready], "addresses": [], "nodeInfo": {"kubeletVersion": "v1.36.3"}}
        return {"metadata": {"name": name}, "spec": {"podCIDR": "10.244.0.0/24"}, "status": status}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """Of a server that runs for the test."""
    with serving(tmp_path, Cluster) as path:
        yield path


@pytest.mark.parametrize("state", ["True", "Unknown"])
def test_nothing_is_awaited_or_verified_of_it(
    tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """What restore.yml does after the control plane serves: the pod network, and the verification."""
    monkeypatch.setattr(Cluster, "b", state)
    monkeypatch.setattr(Cluster, "asked", ())
    facts = {"node": {"joined": True, "files": {"/etc/cni/net.d/10-tandem.conflist": False}}}
    hosts = inventory(
        tmp_path,
        tandem_kubeconfig=str(kubeconfig),
        preflight_done=True,
        preflight_lost=["b"],
        preflight_answer=facts,
        pod_network_ready_timeout_seconds=2,
    )
    tasks = [{"name": "Pod network", "ansible.builtin.import_role": {"name": "pod_network"}}]
    play = {"name": "Restored", "hosts": "control_plane", "gather_facts": False, "tasks": tasks}
    path = tmp_path / "play.yml"
    path.write_text(
        yaml.safe_dump(
            [play, {"name": "Verified", "ansible.builtin.import_playbook": str(ROOT / "playbooks/verify.yml")}]
        )
    )
    status, told = run(hosts, str(path), alone=False)
    assert status != 0
    differing = told.split("Live values differ from the wanted ones:")
    assert len(differing) > 1, told
    assert "cp: node" not in told
    assert "a: " in differing[1]
    assert " b: " not in differing[1].split("PLAY RECAP")[0], differing[1]
    assert "UNREACHABLE" not in told
    assert [each for each in Cluster.asked if "configz" in each] == [
        f"/api/v1/nodes/{name}/proxy/configz" for name in ("cp", "a")
    ]
