"""The control plane node is lost with its disk and comes back from a backup; the workers' pods run on meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, kubectl, kubectl_json
from lab.runtime import Lab
from lab.story import ROOT, project_environment
from tandem.drill import oracle
from tests.conftest import PROFILE, wait_until
from tests.drill.test_reboot import whole
from tests.drill.test_release import APP, WORKERS, Clients, journal, on, ready, told, volume_of
from tests.testinfra.playbooks import killed_after

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(5400)]

CONTROL_PLANE = "cp1"
LEADING = "controller"
"""Workloads of this kind end their program when they lose their lead, as they do without the API."""
MOMENTS = tuple(float(text) for text in os.environ.get("TANDEM_KILL_MOMENTS", "20,60,110,150,190").split(","))


def command(playbook: str, *arguments: str, **variables: Any) -> list[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return [program, f"playbooks/{playbook}.yml", "--extra-vars", json.dumps(variables), *arguments]


def run(playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    environment = project_environment({"ANSIBLE_NOCOLOR": "1", "TANDEM_PROFILE": PROFILE})
    argv = command(playbook, *arguments, **variables)
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2400, check=False)


def containers() -> dict[str, int]:
    """Restarts of each worker's pod by its UID, without those of programs that lead."""
    return {
        pod["metadata"]["uid"]: sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
        for pod in kubectl_json("get", "pods", "--all-namespaces")["items"]
        if pod["spec"].get("nodeName") in WORKERS
        and pod["metadata"].get("labels", {}).get("tandem-ha.io/workload") != LEADING
        and pod["metadata"]["namespace"] != "local-path-storage"
    }


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A key pair, and a folder for backups."""
    folder = tmp_path_factory.mktemp("backup")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=backup"]
    for name in ("backup", "other"):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        subprocess.run([*argv, *files], cwd=folder, check=True, capture_output=True)
    return {
        "tandem_backup_certificate": str(folder / "backup.crt"),
        "tandem_backup_key": str(folder / "backup.key"),
        "tandem_backup_target": str(folder / "kept"),
    }


@pytest.fixture
def lab(deployed: Path, given: dict[str, str]) -> Iterator[Lab]:
    """The lab with everything whole and backed up; a control plane that a test left half restored is restored."""
    lab = Lab()
    wait_until(whole, 240, "the apps are whole")
    done = run("backup", **given)
    assert done.returncode == 0, told(done)[-4000:]
    yield lab
    try:
        kubectl_json("get", "nodes")
    except subprocess.CalledProcessError:
        run("restore", **given)


def test_what_is_refused_changes_nothing(lab: Lab, given: dict[str, str]) -> None:
    before = on(lab, CONTROL_PLANE, "sha256sum", "/etc/kubernetes/admin.conf").stdout
    kept = Path(given["tandem_backup_target"])
    [about] = sorted(kept.glob("*.json"))[-1:]
    for change, words in (
        ({}, "-e tandem_restore_over_node=cp1"),
        ({"tandem_backup_key": given["tandem_backup_key"].replace("backup.key", "other.key")}, "cannot be opened"),
        ({"tandem_backup_key": ""}, "the private key that opens it"),
        ({"tandem_restore_max_age_hours": 0}, "at most 0 hours"),
        ({"tandem_restore_backup": "lab-20200101T000000Z"}, "holds 0 backups"),
        ({"tandem_kubernetes_version": "1.36.1"}, "the version that the machine will get, v1.36.1"),
    ):
        done = run("restore", **(given | change))
        assert done.returncode != 0
        assert "Nothing has been changed" in told(done), told(done)[-2000:]
        assert words in told(done), told(done)[-2000:]
    said = json.loads(about.read_text())
    about.write_text(json.dumps(said | {"sha256": "0" * 64}))
    done = run("restore", **given)
    about.write_text(json.dumps(said))
    assert "the checksum that stands beside it" in told(done), told(done)[-2000:]
    assert on(lab, CONTROL_PLANE, "sha256sum", "/etc/kubernetes/admin.conf").stdout == before
    assert whole()


def test_a_lost_control_plane_node_comes_back_and_no_pod_restarts(
    lab: Lab, given: dict[str, str], tmp_path: Path
) -> None:
    before, folder = containers(), volume_of(APP)
    since = journal(lab, WORKERS[0], folder, -1).last
    clients = Clients(lab, tmp_path)
    begun = time.monotonic()
    try:
        lab.replace(CONTROL_PLANE)
        checked = run("restore", "--check", **given)
        assert checked.returncode == 0, told(checked)[-4000:]
        assert on(lab, CONTROL_PLANE, "ls", "/etc/kubernetes").returncode != 0, "a check run changes nothing"
        done = run("restore", **given)
        print(f"restore: {time.monotonic() - begun:.0f} s from the loss to verified")
    finally:
        clients.stop()
    assert done.returncode == 0, told(done)[-6000:]
    print("\n".join(line for line in done.stdout.splitlines() if "containers ran" in line))
    wait_until(whole, 240, "the apps are whole")
    assert all(ready(node) for node in (CONTROL_PLANE, *WORKERS))
    after = containers()
    assert {uid: after.get(uid) for uid in before} == before, "the same pods, and none restarted"
    verdict = oracle.judge(journal(lab, WORKERS[0], folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    # And the cluster goes on: a pod that is deleted is made anew and serves.
    [pod] = kubectl_json("get", "pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={APP}")["items"]
    subprocess.run(kubectl("delete", "pod", pod["metadata"]["name"], f"--namespace={NAMESPACE}"), check=True)
    wait_until(whole, 240, "the writer serves again")
    again = run("restore", **given)
    assert again.returncode != 0
    assert "-e tandem_restore_over_node=cp1" in told(again)


def test_killed_at_five_moments_and_run_again(lab: Lab, given: dict[str, str]) -> None:
    before = containers()
    lab.replace(CONTROL_PLANE)
    killed = [
        killed_after(command("restore", **given), moment, project_environment({"TANDEM_PROFILE": PROFILE}))
        for moment in MOMENTS
    ]
    done = run("restore", **given)
    ended = "-e tandem_restore_over_node=cp1" in told(done)
    assert done.returncode == 0 or (ended and not all(killed)), told(done)[-6000:]
    wait_until(whole, 240, "the apps are whole")
    after = containers()
    assert {uid: after.get(uid) for uid in before} == before, "the same pods, and none restarted"
