"""A dead worker's place is taken by an empty machine, and a machine is cleaned. Long: site.yml runs each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.demo import NAMESPACE, gather_writers, kubectl, kubectl_json, workers_of
from lab.runtime import Lab
from lab.story import ROOT, Story, project_environment
from tandem.drill import oracle
from tests.conftest import PROFILE, wait_until
from tests.drill.test_reboot import pods, whole
from tests.drill.test_release import APP, SERVER, WORKERS, Clients, journal, on, reads_the_share, ready, told, volume_of
from tests.testinfra.playbooks import killed_after

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(5400)]

GONE = ("-e", "tandem_old_machine_gone=true")
SITE_SECONDS = 1800
NEW = "w3"
SERVICE = "kubernetes.io/service-name"
MOMENTS = tuple(float(text) for text in os.environ.get("TANDEM_KILL_MOMENTS", "15,30,60,100,150").split(","))
"""Before the old machine's Node goes, while the machine is set up, and while it joins."""
RESET_MOMENTS = (3.0, 6.0, 10.0, 15.0, 20.0)


def command(name: str, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), name, *arguments]


def playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = project_environment({"ANSIBLE_NOCOLOR": "1", "TANDEM_PROFILE": PROFILE})
    argv = command(name, *arguments)
    return subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SITE_SECONDS, check=False
    )


def replace(node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return playbook("playbooks/replace-node.yml", "-e", f"node={node}", *arguments)


def node_object(name: str) -> dict[str, Any]:
    found: dict[str, Any] = kubectl_json("get", "node", name)
    return found


def changed(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"changed=[1-9]\d*", told(done))


def places(app: str) -> set[str]:
    """The nodes of an app's ready endpoints."""
    slices = kubectl_json("get", "endpointslices", f"--namespace={NAMESPACE}", f"--selector={SERVICE}={app}")["items"]
    points = [point for each in slices for point in each.get("endpoints") or []]
    return {str(point["nodeName"]) for point in points if point["conditions"].get("ready")}


def lose(lab: Lab, node: str) -> None:
    """The machine is dead and its disk too; an empty one stands in its place."""
    lab.replace(node)
    wait_until(lambda: not ready(node), 180, f"{node} is not Ready")


def assert_a_worker_like_any_other(lab: Lab, node: str) -> None:
    [other] = set(WORKERS) - {node}
    wait_until(whole, 300, "everything is whole")
    assert_it_works(lab, node, other)
    assert workers_of("web") == set(WORKERS), "the pending pod found its place"


def assert_it_works(lab: Lab, node: str, other: str) -> None:
    found = node_object(node)
    assert found["metadata"]["labels"]["tandem-ha.io/shared-storage"] == "mounted"
    assert "taints" not in found["spec"]
    assert reads_the_share(lab, node)
    here = kubectl_json("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}")["items"]
    address = next(pod["status"]["podIP"] for pod in here if not pod["spec"].get("hostNetwork"))
    assert on(lab, other, "ping", "-c1", "-W3", address).returncode == 0, "the other worker reaches its pods"
    lease = kubectl_json("get", "lease", node, "--namespace=kube-node-lease")
    assert lease["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]


@pytest.fixture
def lab(story: Story, deployed: Path) -> Iterator[Lab]:
    """The lab, whole before; a worker that a test left half replaced is finished afterwards."""
    lab = Lab()
    wait_until(whole, 300, "the apps are whole")
    yield lab
    lab.heal()
    for machine in (SERVER, *WORKERS):
        lab.power_on(machine)
    for worker in WORKERS:
        if on(lab, worker, "test", "-e", "/etc/kubernetes/kubelet.conf").returncode:
            replace(worker, *GONE)
    for worker in WORKERS:
        subprocess.run(kubectl("uncordon", worker), check=False, capture_output=True)


def test_an_empty_machine_takes_a_dead_workers_place(story: Story, lab: Lab, tmp_path: Path) -> None:
    gather_writers(story)
    [node] = workers_of(APP)
    [survivor] = set(WORKERS) - {node}
    folder, before = volume_of(APP), node_object(node)["metadata"]["uid"]
    since = journal(lab, survivor, folder, -1).last
    clients = Clients(lab, tmp_path)
    try:
        started = time.time()
        wait_until(lambda: bool(clients.good(started)), 60, "clients write")
        lose(lab, node)
        refused = replace(node)
        assert refused.returncode != 0
        assert "Nothing has been changed" in told(refused)
        assert "-e tandem_old_machine_gone=true" in told(refused)
        assert node_object(node)["metadata"]["uid"] == before
        begun = time.time()
        done = replace(node, *GONE)
        assert done.returncode == 0, told(done)[-4000:]
        print(f"replaced in {time.time() - begun:.0f} s")
        assert_a_worker_like_any_other(lab, node)
        served = min(each.end for each in clients.good(begun, survivor))
        print(f"the single writer that held served {served - begun:.0f} s after the command began")
    finally:
        clients.stop()
    assert node_object(node)["metadata"]["uid"] != before
    verdict = oracle.judge(journal(lab, survivor, folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    again = replace(node)
    assert again.returncode == 0, told(again)[-4000:]
    assert "there is nothing to replace" in told(again)
    assert changed(again) == []


def test_one_that_was_released_before(story: Story, lab: Lab) -> None:
    gather_writers(story)
    [node] = workers_of(APP)
    [survivor] = set(WORKERS) - {node}
    lab.power_off(node)
    wait_until(lambda: not ready(node), 180, f"{node} is not Ready")
    assert playbook("playbooks/release-node.yml", "-e", f"node={node}").returncode == 0
    lab.replace(node)
    refused = replace(node)
    assert refused.returncode != 0
    assert "-e tandem_old_machine_gone=true" in told(refused)
    done = replace(node, *GONE)
    assert done.returncode == 0, told(done)[-4000:]
    assert_a_worker_like_any_other(lab, node)
    assert workers_of(APP) == {survivor}
    assert on(lab, SERVER, "nft", "list", "table", "inet", "tandem_fence").returncode != 0, "nobody is refused"
    assert playbook("playbooks/verify.yml").returncode == 0


def test_killed_at_five_moments_and_run_again(lab: Lab) -> None:
    node = WORKERS[1]
    lose(lab, node)
    for moment in MOMENTS:
        argv = command("playbooks/replace-node.yml", "-e", f"node={node}", *GONE)
        killed_after(argv, moment, project_environment({"TANDEM_PROFILE": PROFILE}))
    done = replace(node, *GONE)
    assert done.returncode == 0, told(done)[-4000:]
    assert_a_worker_like_any_other(lab, node)


def test_a_machine_is_cleaned_and_set_up_anew(story: Story, lab: Lab) -> None:
    node = WORKERS[1]
    sure = ("-e", f"node={node}", "-e", f"tandem_reset={node}")
    listing = ("sh", "-c", "cd /srv/nfs/tandem && find . -maxdepth 2 | sort | sha256sum")
    refused = playbook("playbooks/reset.yml", *sure)
    assert refused.returncode != 0
    assert "kubectl drain" in told(refused)
    drain = kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
    story.run("drain", drain)
    nothing = subprocess.DEVNULL
    use = lab.ssh_argv(node, "cd /srv/tandem && exec sleep 300")
    with subprocess.Popen(use, stdin=nothing, stdout=nothing, stderr=nothing) as user:
        wait_until(lambda: bool(on(lab, node, "pgrep", "-x", "sleep").stdout), 30, "somebody is on the share")
        busy = playbook("playbooks/reset.yml", *sure)
        user.terminate()
    assert busy.returncode != 0
    assert "is in use by" in told(busy)
    assert ready(node), "nothing has been changed"
    on(lab, node, "pkill", "-x", "sleep")
    data = on(lab, SERVER, *listing).stdout
    for moment in RESET_MOMENTS:
        killed_after(command("playbooks/reset.yml", *sure), moment, project_environment({"TANDEM_PROFILE": PROFILE}))
    done = playbook("playbooks/reset.yml", *sure)
    assert done.returncode == 0, told(done)[-4000:]
    assert on(lab, SERVER, *listing).stdout == data, "the share is as it was"
    left = on(lab, node, "ls", "-d", "/etc/kubernetes", "/var/lib/kubelet", "/var/lib/containerd").stdout
    assert left == ""
    assert "nfs4" not in on(lab, node, "cat", "/proc/mounts").stdout
    assert node not in {each["metadata"]["name"] for each in kubectl_json("get", "nodes")["items"]}
    again = playbook("playbooks/reset.yml", *sure)
    assert again.returncode == 0, told(again)[-4000:]
    assert changed(again) == []
    site = playbook("site.yml")
    assert site.returncode == 0, told(site)[-4000:]
    assert_a_worker_like_any_other(lab, node)


def test_a_third_worker_comes_and_goes(lab: Lab, tmp_path: Path) -> None:
    before, folder = pods(), volume_of(APP)
    since = journal(lab, WORKERS[0], folder, -1).last
    lab.up((NEW,))
    checked = playbook("site.yml", "--check")
    assert checked.returncode == 0, told(checked)[-4000:]
    clients = Clients(lab, tmp_path)
    try:
        begun = time.time()
        done = playbook("site.yml")
        print(f"{NEW} was added in {time.time() - begun:.0f} s")
    finally:
        clients.stop()
    assert done.returncode == 0, told(done)[-4000:]
    assert before.items() <= pods().items(), "nothing was moved, nothing restarted"
    verdict = oracle.judge(journal(lab, WORKERS[0], folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    again = playbook("site.yml")
    assert again.returncode == 0, told(again)[-4000:]
    assert changed(again) == []
    lost, kept = WORKERS
    begun = time.time()
    lab.power_off(lost)
    wait_until(lambda: places("web") == {kept, NEW}, 180, f"web serves from {kept} and {NEW}")
    print(f"web served from two workers again {time.time() - begun:.0f} s after {lost} lost power")
    assert_it_works(lab, NEW, kept)
    lab.power_on(lost)
    wait_until(whole, 300, "everything is whole")
    subprocess.run(
        kubectl("drain", NEW, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s"),
        check=True,
        capture_output=True,
    )
    gone = playbook("playbooks/reset.yml", "-e", f"node={NEW}", "-e", f"tandem_reset={NEW}")
    assert gone.returncode == 0, told(gone)[-4000:]
    lab.remove(NEW)
    wait_until(whole, 300, "everything is whole")
    without = playbook("site.yml")
    assert without.returncode == 0, told(without)[-4000:]
    assert changed(playbook("site.yml")) == []
    assert {node["metadata"]["name"] for node in kubectl_json("get", "nodes")["items"]} == {"cp1", *WORKERS}
