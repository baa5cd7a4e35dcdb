"""Machines rebooted in turn under clients that write: no Service without an endpoint, no record lost, all bounded."""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, kubectl_json
from lab.runtime import Lab
from lab.story import ROOT, Story, project_environment
from tandem.drill import oracle
from tests.conftest import PROFILE, wait_until
from tests.drill.test_release import APP, SERVER, WORKERS, Clients, journal, on, ready, told, volume_of
from tests.testinfra.playbooks import killed_after

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3600)]

CONTROL_PLANE = "cp1"
LOOKS = 15
HANGING_SECONDS = 1200
"""Within this a reboot under a share that hangs has ended one way or the other."""
MOMENTS = tuple(float(text) for text in os.environ.get("TANDEM_KILL_MOMENTS", "15,25,40,60,90").split(","))


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/reboot.yml", *arguments]


def reboot(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = project_environment({"ANSIBLE_NOCOLOR": "1", "TANDEM_PROFILE": PROFILE})
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2400, check=False
    )


def boot_id(lab: Lab, machine: str) -> str:
    return on(lab, machine, "cat", "/proc/sys/kernel/random/boot_id").stdout.strip()


def pods() -> dict[str, tuple[str, int]]:
    """UID and restarts of the apps' pods."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(status["restartCount"] for status in pod["status"].get("containerStatuses", [])),
        )
        for pod in kubectl_json("get", "pods", f"--namespace={NAMESPACE}")["items"]
    }


def whole() -> bool:
    """Whether every app has all its pods, all nodes are Ready and schedulable, and every worker has the share."""
    for kind in ("deployments", "statefulsets"):
        for item in kubectl_json("get", kind, f"--namespace={NAMESPACE}")["items"]:
            if item["status"].get("readyReplicas", 0) < item["spec"]["replicas"]:
                return False
    nodes = kubectl_json("get", "nodes")["items"]
    schedulable = all(not node["spec"].get("unschedulable") and ready(node["metadata"]["name"]) for node in nodes)
    return schedulable and all(map(has_share, WORKERS))


def has_share(worker: str) -> bool:
    """Whether the worker says that its share is mounted."""
    labels: dict[str, str] = kubectl_json("get", "node", worker)["metadata"]["labels"]
    return labels.get("tandem-ha.io/shared-storage") == "mounted"


def settled() -> bool:
    """Whether everything is whole at every look of half a minute: on a busy host a new leader may lose its Lease."""
    for _ in range(LOOKS):
        if not whole():
            return False
        time.sleep(2)
    return True


def stand(pod: dict[str, Any]) -> str:
    """Name, node and readiness of one pod, and when these were last changed."""
    conditions = {each["type"]: each for each in pod["status"].get("conditions", [])}
    at = conditions.get("Ready", {})
    going = f", going since {pod['metadata']['deletionTimestamp']}" if "deletionTimestamp" in pod["metadata"] else ""
    where = pod["spec"].get("nodeName", "no node")
    return f"{pod['metadata']['name']} on {where}: Ready {at.get('status')} {at.get('lastTransitionTime')}{going}"


class Watch:
    """Looks at EndpointSlices all the time: which Services were ever without a ready endpoint."""

    def __init__(self) -> None:
        self.empty = collections.Counter[str]()
        """So many looks found the Service without one."""
        self.stories: list[str] = []
        """How the pods of its namespace stood when it lost the last one."""
        self.looks = 0
        self._away: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _look(self) -> None:
        found: dict[str, bool] = {}
        for each in kubectl_json("get", "endpointslices", "--all-namespaces")["items"]:
            name = each["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
            good = any((point.get("conditions") or {}).get("ready") for point in each.get("endpoints") or [])
            key = f"{each['metadata']['namespace']}/{name}"
            found[key] = found.get(key, False) or good
        self.looks += 1
        before, self._away = self._away, {name for name, good in found.items() if not good}
        self.empty.update(self._away)
        for name in self._away - before:
            pods = kubectl_json("get", "pods", f"--namespace={name.split('/')[0]}")["items"]
            stood = "; ".join(map(stand, pods))
            self.stories.append(f"{time.strftime('%T')} {name} lost its last endpoint; pods: {stood}")

    def _run(self) -> None:
        while not self._over.wait(0.3):
            with contextlib.suppress(subprocess.CalledProcessError):  # the API's own reboot; its clients count that
                self._look()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def single() -> set[str]:
    """Services of apps with one replica: they are away while they move, as their plan says."""
    found = set()
    for kind in ("deployments", "statefulsets"):
        for item in kubectl_json("get", kind, f"--namespace={NAMESPACE}")["items"]:
            if item["spec"]["replicas"] == 1:
                found.add(f"{NAMESPACE}/{item['metadata']['name']}")
    return found


@pytest.fixture
def lab(deployed: Path) -> Iterator[Lab]:
    """The lab with everything whole, and again so afterwards."""
    lab = Lab()
    wait_until(settled, 300, "the apps are whole")
    yield lab
    lab.heal()
    for machine in (SERVER, *WORKERS):
        lab.power_on(machine)
    for worker in WORKERS:
        node = kubectl_json("get", "node", worker)
        if "tandem-ha.io/reboot" in node["metadata"].get("annotations", {}):
            reboot("-e", f"nodes={worker}")


def test_all_machines_in_turn(story: Story, lab: Lab, tmp_path: Path) -> None:
    machines = (*WORKERS, CONTROL_PLANE, SERVER)
    before = {machine: boot_id(lab, machine) for machine in machines}
    folder = volume_of(APP)
    since = journal(lab, WORKERS[0], folder, -1).last
    checked = reboot("-e", "nodes=all", "--check")
    assert checked.returncode == 0, told(checked)[-4000:]
    assert {machine: boot_id(lab, machine) for machine in machines} == before
    clients = Clients(lab, tmp_path)
    try:
        with Watch() as watch:
            done = reboot("-e", "nodes=all")
    finally:
        clients.stop()
    assert done.returncode == 0, told(done)[-4000:]
    after = {machine: boot_id(lab, machine) for machine in machines}
    assert [machine for machine in machines if after[machine] == before[machine]] == [], "not rebooted"
    assert watch.looks > 50
    print(f"reboot: Services without an endpoint, in looks of {watch.looks}: {dict(watch.empty)}")
    print("\n".join(watch.stories))
    # The provisioner and the like serve nobody by a Service; of the rest only those of one pod may have been away.
    assert set(watch.empty) <= single()
    verdict = oracle.judge(journal(lab, WORKERS[0], folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    assert whole()


def test_the_nfs_server_reboots_under_everybody(story: Story, lab: Lab, tmp_path: Path) -> None:
    folder, before, booted = volume_of(APP), pods(), boot_id(lab, SERVER)
    since = journal(lab, WORKERS[0], folder, -1).last
    clients = Clients(lab, tmp_path)
    try:
        done = reboot("-e", f"nodes={SERVER}")
        served = time.time()
        wait_until(lambda: bool(clients.good(served)), 60, "writers go on")
    finally:
        clients.stop()
    assert done.returncode == 0, told(done)[-4000:]
    assert boot_id(lab, SERVER) != booted
    assert pods() == before, "nothing was evicted, nothing restarted"
    verdict = oracle.judge(journal(lab, WORKERS[0], folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())


def test_a_share_that_hangs_is_refused(lab: Lab) -> None:
    node = WORKERS[0]
    before = boot_id(lab, node)
    lab.cut(node, [SERVER])
    begun = time.monotonic()
    done = reboot("-e", f"nodes={node}")
    print(f"refused after {time.monotonic() - begun:.0f} s")
    assert done.returncode != 0
    assert "Nothing has been changed" in told(done)
    assert "the share did not answer within" in told(done)
    assert boot_id(lab, node) == before
    assert not kubectl_json("get", "node", node)["spec"].get("unschedulable")


def test_bounded_when_the_share_hangs_in_the_middle(lab: Lab) -> None:
    node = WORKERS[0]
    before = boot_id(lab, node)
    arguments = ("-e", f"nodes={node}", "-e", "tandem_drain_seconds=60", "-e", "node_reboot_whole_seconds=60")
    environment = project_environment({"TANDEM_PROFILE": PROFILE})
    begun = time.monotonic()
    output = subprocess.DEVNULL
    with subprocess.Popen(command(*arguments), cwd=ROOT, env=environment, stdout=output, stderr=output) as run:

        def out() -> bool:
            notes: dict[str, Any] = kubectl_json("get", "node", node)["metadata"].get("annotations", {})
            return "tandem-ha.io/reboot" in notes

        wait_until(out, 240, "the node is taken out")
        lab.cut(node, [SERVER])
        status = run.wait(HANGING_SECONDS)
    print(f"ended with {status} after {time.monotonic() - begun:.0f} s")
    spec = kubectl_json("get", "node", node)["spec"]
    assert status != 0
    rebooted = boot_id(lab, node) != before
    assert bool(spec.get("unschedulable")) == rebooted, "given back when it was not rebooted, held when it has no share"
    lab.heal()
    wait_until(lambda: has_share(node), 120, "the share is mounted and the node says so")
    again = reboot("-e", f"nodes={node}")
    assert again.returncode == 0, told(again)[-4000:]
    assert whole()


def test_killed_at_five_moments_and_run_again(lab: Lab) -> None:
    node = WORKERS[1]
    for moment in MOMENTS:
        killed_after(command("-e", f"nodes={node}"), moment, project_environment({"TANDEM_PROFILE": PROFILE}))
        wait_until(lambda: on(lab, node, "true").returncode == 0, 240, "it answers")
        wait_until(lambda: ready(node), 240, "it is Ready")
        wait_until(lambda: ready(CONTROL_PLANE), 60, "so is the control plane")
    before = boot_id(lab, node)
    done = reboot("-e", f"nodes={node}")
    assert done.returncode == 0, told(done)[-4000:]
    assert boot_id(lab, node) != before
    assert whole()
    assert "tandem-ha.io/reboot" not in kubectl_json("get", "node", node)["metadata"].get("annotations", {})
