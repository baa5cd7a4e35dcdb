"""The control plane node is lost with its disk and comes back from a backup; the workers' pods run on meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
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


def containers(nodes: Collection[str] = WORKERS) -> dict[str, int]:
    """Restarts of each pod on these workers by its UID, without those of programs that lead."""
    return {
        pod["metadata"]["uid"]: sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
        for pod in kubectl_json("get", "pods", "--all-namespaces")["items"]
        if pod["spec"].get("nodeName") in nodes
        and pod["metadata"].get("labels", {}).get("tandem-ha.io/workload") != LEADING
        and pod["metadata"]["namespace"] != "local-path-storage"
    }


def to_run(selector: tuple[str, ...]) -> list[dict[str, Any]]:
    """The pods that are to run: neither being deleted nor ended, as a graceful shutdown leaves them."""
    found: list[dict[str, Any]] = kubectl_json("get", "pods", *selector)["items"]
    ended = ("Succeeded", "Failed")
    return [
        pod for pod in found if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ended
    ]


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


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


class Seen:
    """When processes of one pod were seen on one worker: seconds of this machine's clock, from two looks a second."""

    def __init__(self, lab: Lab, node: str, uid: str) -> None:
        groups = f"/sys/fs/cgroup/kubepods.slice/*/*pod{uid.replace('-', '_')}.slice/*/cgroup.procs"
        # Two and more: the sandbox's own process does not write.
        look = f"while :; do cat {groups} 2>/dev/null | wc -l; sleep 0.5; done"
        self._process = subprocess.Popen(
            lab.ssh_argv(node, look),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.moments: list[float] = []
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if int(line) >= 2:
                self.moments.append(time.monotonic())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()


def test_a_writer_that_moved_since_the_backup_never_runs_twice(lab: Lab, given: dict[str, str], tmp_path: Path) -> None:
    selector = (f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={APP}")
    [old] = to_run(selector)
    place, folder = old["spec"]["nodeName"], volume_of(APP)
    subprocess.run(kubectl("cordon", place), check=True)
    try:
        subprocess.run(kubectl("delete", "pod", old["metadata"]["name"], f"--namespace={NAMESPACE}"), check=True)
        wait_until(
            lambda: [pod["spec"].get("nodeName") for pod in to_run(selector)] not in ([], [place]), 120, "it moved"
        )
        wait_until(lambda: all(is_ready(pod) for pod in to_run(selector)), 120, "the writer serves elsewhere")
    finally:
        subprocess.run(kubectl("uncordon", place), check=True)
    [new] = to_run(selector)
    others = {uid: count for uid, count in containers().items() if uid != new["metadata"]["uid"]}
    since = journal(lab, WORKERS[0], folder, -1).last
    clients = Clients(lab, tmp_path)
    first = Seen(lab, place, old["metadata"]["uid"])
    second = Seen(lab, new["spec"]["nodeName"], new["metadata"]["uid"])
    try:
        wait_until(lambda: bool(second.moments), 60, "the pod that the backup does not know is seen")
        lab.replace(CONTROL_PLANE)
        done = run("restore", **given)
        assert done.returncode == 0, told(done)[-6000:]
        wait_until(whole, 240, "the apps are whole")
        wait_until(lambda: bool(first.moments), 60, "the pod that the backup knows is seen")
    finally:
        clients.stop()
        first.stop()
        second.stop()
    print(f"{APP}: {first.moments[0] - second.moments[-1]:.1f} s between the one and the other")
    assert second.moments[-1] < first.moments[0], "two of a single writer ran at the same time"
    after = containers()
    assert new["metadata"]["uid"] not in after
    assert {uid: after.get(uid) for uid in others} == others, "all other pods ran on"
    verdict = oracle.judge(journal(lab, WORKERS[0], folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())


def test_a_worker_lost_at_the_same_time_is_left_out_and_comes_back(
    lab: Lab, given: dict[str, str], tmp_path: Path
) -> None:
    """The worker with the single writer that holds: nobody starts it elsewhere, and it serves when its worker does."""
    selector = (f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={APP}")
    [writer] = to_run(selector)
    victim, folder = writer["spec"]["nodeName"], volume_of(APP)
    [survivor] = set(WORKERS) - {victim}
    before, since = containers([survivor]), journal(lab, survivor, folder, -1).last
    clients = Clients(lab, tmp_path)
    try:
        lab.power_off(victim)
        lab.replace(CONTROL_PLANE)
        refused = run("restore", **given)
        assert refused.returncode != 0
        assert f"tandem_accept_lost_worker={victim}" in told(refused), told(refused)[-2000:]
        done = run("restore", tandem_accept_lost_worker=victim, **given)
        assert done.returncode == 0, told(done)[-6000:]
        wait_until(lambda: not ready(victim), 120, "the loss of the worker is known")
        after = containers([survivor])
        assert {uid: after.get(uid) for uid in before} == before, "the survivor's pods ran on"
        assert survivor not in [pod["spec"].get("nodeName") for pod in to_run(selector)]
    finally:
        lab.power_on(victim)
        wait_until(whole, 300, "the apps are whole")
        clients.stop()
    verdict = oracle.judge(journal(lab, survivor, folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    verified = run("verify")
    assert verified.returncode == 0, told(verified)[-4000:]


def test_a_living_node_is_overwritten_twice_and_what_it_held_is_kept(lab: Lab, given: dict[str, str]) -> None:
    """Once out of a cluster that works, and once more in the same hour; each sets aside what it found, whole."""
    before = containers()
    scratch = "/var/lib/tandem/restore"
    kept: list[str] = []
    for _ in range(2):
        done = run("restore", tandem_restore_over_node=CONTROL_PLANE, **given)
        assert done.returncode == 0, told(done)[-6000:]
        wait_until(whole, 240, "the apps are whole")
        found = on(lab, CONTROL_PLANE, "sh", "-c", f"ls -d {scratch}/before-*").stdout.split()
        assert len(found) == len(kept) + 1, found
        [new] = set(found) - set(kept)
        for name in ("etcd/member", "kubernetes/pki/ca.key", "manifests/etcd.yaml"):
            assert on(lab, CONTROL_PLANE, "ls", f"{new}/{name}").returncode == 0, f"{new} has no {name}"
        kept = found
    assert on(lab, CONTROL_PLANE, "ls", f"{scratch}/manifests").returncode != 0
    after = containers()
    assert {uid: after.get(uid) for uid in before} == before, "the same pods, and none restarted"


def test_killed_at_five_moments_and_run_again(lab: Lab, given: dict[str, str]) -> None:
    before = containers()
    lab.replace(CONTROL_PLANE)
    # One that was fast enough is the last: another would be a restore over a living node, and is refused.
    all_killed = all(
        killed_after(command("restore", **given), moment, project_environment({"TANDEM_PROFILE": PROFILE}))
        for moment in MOMENTS
    )
    done = run("restore", **given)
    ended = "-e tandem_restore_over_node=cp1" in told(done)
    assert done.returncode == 0 or (ended and not all_killed), told(done)[-6000:]
    wait_until(whole, 240, "the apps are whole")
    after = containers()
    assert {uid: after.get(uid) for uid in before} == before, "the same pods, and none restarted"
