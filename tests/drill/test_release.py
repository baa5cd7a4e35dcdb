"""A worker is let go by hand: it serves elsewhere, which is timed, and the old writer writes nothing after it.

The worker is cut off from the control plane alone, as `tandem drill partition` does: it runs on, its clients reach
it, and its path to the share is open. Clients write through its own node port all the time, also after the network
has healed.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lab.bench import OUTPUT, summarise
from lab.demo import NAMESPACE, gather_writers, kubectl_json, workers_of
from lab.runtime import Lab
from lab.story import ROOT, Story, project_environment
from tandem.drill import oracle
from tandem.drill.clients import command
from tandem.drill.samples import Sample, from_line
from tests.conftest import PROFILE, wait_until
from tests.testinfra.playbooks import killed_after

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(3600)]

APP, NODE_PORT = "ledger-hold", 30081
CONTROL_PLANE, WORKERS, SERVER, SHARE = "cp1", ("w1", "w2"), "nfs1", "/srv/tandem"
RECORD = OUTPUT / "release.json"
"""Figures of the last run of each case; a copy in docs/bench is committed by hand (`make docs` makes the page)."""
HEALED_SECONDS = 45.0
"""How long a healed worker is given to write: three times the share's lease, and every retry of TCP up to then."""
LATER = (0.0, 60.0)
"""When the command is given, in seconds after Ready=Unknown: while all else is being evicted, and as a person would."""
START = ("PodReadyToStartContainers", "started", "Ready")
"""How a pod starts, as its status tells, to the second."""
LATER_IDS = ("at-once", "a-minute-later")
MOMENTS = tuple(float(text) for text in os.environ.get("TANDEM_KILL_MOMENTS", "2,4,6,8,11").split(","))


def playbook(name: str, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{name}.yml", "-e", f"node={node}"]
    environment = project_environment({"ANSIBLE_NOCOLOR": "1", "TANDEM_PROFILE": PROFILE})
    argv += arguments
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


def told(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def ready(node: str) -> bool:
    conditions = kubectl_json("get", "node", node)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def on(lab: Lab, machine: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        lab.ssh_argv(machine, shlex.join(argv)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def reads_the_share(lab: Lab, machine: str) -> bool:
    """Whether the share is mounted and its server answers a look-up that no cache can; bounded, for the mount is hard.

    Without the mount the same look-up is answered by the empty folder below it.
    """
    asked = f"grep -q ' {SHARE} nfs4 ' /proc/mounts && timeout --signal=KILL 5 stat {SHARE}/.nobody-{time.time_ns()}"
    done = on(lab, machine, "sh", "-c", asked)
    return "No such file" in done.stderr


def volume_of(app: str) -> str:
    """The app's folder on the share, as nodes see it."""
    pods = kubectl_json("get", "pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={app}")["items"]
    [claim] = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pods[0]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    name = kubectl_json("get", "pvc", claim, f"--namespace={NAMESPACE}")["spec"]["volumeName"]
    return str(kubectl_json("get", "pv", name)["spec"]["hostPath"]["path"])


def journal(lab: Lab, machine: str, folder: str, since: int) -> oracle.Journal:
    done = on(lab, machine, "python3", "-c", oracle.READER, folder, str(since))
    assert done.returncode == 0, done.stderr
    return oracle.parse(done.stdout)


def note_times(case: str, done: subprocess.CompletedProcess[str], command_seconds: float, first: float) -> None:
    """Keep what a release took; a slow day fails no test.

    Args:
        case: what had become of the worker.
        done: the command, which ended well.
        command_seconds: how long it took.
        first: from its start to the successor's first answer, in seconds.
    """
    print(f"{case}: command {command_seconds:.1f} s, first answer of the successor after {first:.1f} s")
    print(done.stdout[done.stdout.rindex("TASKS RECAP") :])
    [pod] = kubectl_json("get", "pods", f"--namespace={NAMESPACE}", f"--selector=app.kubernetes.io/name={APP}")["items"]
    moments = {
        each["type"]: datetime.datetime.fromisoformat(each["lastTransitionTime"])
        for each in pod["status"]["conditions"]
    }
    [status] = pod["status"]["containerStatuses"]
    moments["started"] = datetime.datetime.fromisoformat(status["state"]["running"]["startedAt"])
    start = {name: (moments[name] - moments["PodScheduled"]).total_seconds() for name in START}
    deleted = re.search(r"pods on the share deleted after ([0-9.]+) s", told(done))
    row = {
        "case": case,
        "command": round(command_seconds, 1),
        "NFS server's refusal to pods on the share deleted": float(deleted[1]) if deleted else None,
        "successor scheduled to sandbox": start["PodReadyToStartContainers"],
        "successor scheduled to started": start["started"],
        "successor scheduled to Ready": start["Ready"],
        "command's start to first answer": round(first, 1),
    }
    before = json.loads(RECORD.read_text())["table"] if RECORD.exists() else []
    rows = [*(each for each in before if each["case"] != case), row]
    result = summarise("release", [each["command's start to first answer"] for each in rows])
    note = "Seconds from `playbooks/release-node.yml` to a successor that serves, one run a case."
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(asdict(replace(result, table=rows, note=note)), indent=2) + "\n")


class Clients:
    """Clients outside the cluster, at both workers' node ports; this machine's clock is theirs. Ledgers are written."""

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        ports: Mapping[str, int] | None = None,
        *,
        rate: float = 5.0,
        kept_rate: float = 2.0,
    ) -> None:
        targets = [
            {
                "app": app,
                "vantage": worker,
                "host": lab.address(worker),
                "port": port,
                "write": app.startswith("ledger"),
            }
            for app, port in (ports or {APP: NODE_PORT}).items()
            for worker in WORKERS
        ]
        argv = command(targets, rate=rate, kept_rate=kept_rate, timeout=0.5, seconds=3000.0, stdin=False)
        self.path = folder / "samples.jsonl"
        with self.path.open("w") as stream:
            self.process = subprocess.Popen(lab.exec_argv(*argv), stdout=stream)

    def samples(self) -> list[Sample]:
        lines = self.path.read_text().splitlines()
        parsed = [json.loads(line) for line in lines if line.endswith("}")]
        return [from_line(line, 0.0) for line in parsed if "a" in line]

    def good(self, since: float, via: str = "", old: str = "") -> list[Sample]:
        """Acknowledged writes sent since a moment, through one worker, by another pod than `old`."""
        return [
            each
            for each in self.samples()
            if each.error is None and each.at >= since and each.client.startswith(via) and each.pod != old
        ]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The lab; whatever a test broke is healed, booted and readmitted afterwards."""
    lab = Lab()
    yield lab
    lab.heal()
    for machine in (SERVER, *WORKERS):
        lab.power_on(machine)
    for worker in WORKERS:
        taints = kubectl_json("get", "node", worker)["spec"].get("taints", [])
        if any(taint["key"] == "tandem-ha.io/released" for taint in taints):
            reboot(lab, worker)

            def readmitted(node: str = worker) -> bool:
                return playbook("readmit-node", node).returncode == 0

            wait_until(readmitted, 240, f"{worker} is taken back")


def reboot(lab: Lab, node: str) -> None:
    """A pulled plug and a boot; returns when the API has the new boot id and the node is Ready."""
    before = kubectl_json("get", "node", node)["status"]["nodeInfo"]["bootID"]
    lab.power_off(node)
    lab.power_on(node)

    def anew() -> bool:
        return ready(node) and kubectl_json("get", "node", node)["status"]["nodeInfo"]["bootID"] != before

    wait_until(anew, 240, f"{node} is Ready after its boot")


def lose(lab: Lab, node: str) -> None:
    lab.cut(node, [CONTROL_PLANE])
    wait_until(lambda: not ready(node), 180, f"{node} is not Ready")


def test_a_worker_that_was_only_cut_off_writes_nothing_after_its_release(
    story: Story, deployed: Path, lab: Lab, tmp_path: Path
) -> None:
    gather_writers(story)
    [node] = workers_of(APP)
    [survivor] = set(WORKERS) - {node}
    folder = volume_of(APP)
    since = journal(lab, survivor, folder, -1).last
    refused = playbook("release-node", node)
    assert refused.returncode != 0
    assert "a node that lives is not released unasked" in told(refused)
    clients = Clients(lab, tmp_path)
    try:
        started = time.time()
        wait_until(lambda: len({each.client for each in clients.good(started)}) == 6, 60, "all clients write")
        old = str(clients.good(started)[-1].pod)
        lose(lab, node)
        cut_off = time.time()
        wait_until(lambda: len(clients.good(cut_off, node)) > 10, 60, "the worker that was cut off writes on")

        began = time.time()
        done = playbook("release-node", node)
        took = time.time() - began
        assert done.returncode == 0, told(done)[-4000:]
        assert f"{node} reads the share no more" in told(done), "asked from the client's side"
        wait_until(lambda: bool(clients.good(began, survivor, old)), 60, "the successor answers")
        first = min(each.end for each in clients.good(began, survivor, old))
        note_times("cut off from the control plane", done, took, first - began)
        again = playbook("release-node", node)
        assert again.returncode == 0
        assert "changed=0" in told(again).rpartition(f"{SERVER} :")[2], "a second run changes nothing"

        healed = time.time()
        lab.heal()
        time.sleep(HEALED_SECONDS)
        assert not clients.good(healed, old=str(clients.good(healed, survivor)[-1].pod)), "the old pod acknowledged"
        assert not reads_the_share(lab, node)
        assert reads_the_share(lab, survivor)
        verified = playbook("verify", node)
        assert verified.returncode != 0
        assert f"NFS server to {node}" in told(verified)
        back = playbook("readmit-node", node)
        assert back.returncode != 0
        assert "taken back after it has booted anew" in told(back)

        lab.power_off(SERVER)
        lab.power_on(SERVER)
        wait_until(lambda: reads_the_share(lab, survivor), 120, "the share is back")
        time.sleep(20)  # the grace time is over, so the server takes whom it takes
        assert not reads_the_share(lab, node), "the refusal outlives a reboot of the NFS server"
        assert "@refused" in on(lab, SERVER, "nft", "list", "table", "inet", "tandem_fence").stdout
    finally:
        clients.stop()
    verdict = oracle.judge(journal(lab, survivor, folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    assert len(verdict.epochs) >= 2, "both writers wrote"

    reboot(lab, node)
    back = playbook("readmit-node", node)
    assert back.returncode == 0, told(back)[-4000:]
    assert reads_the_share(lab, node)
    assert "tandem-ha.io/released" not in str(kubectl_json("get", "node", node)["spec"])
    once_more = playbook("readmit-node", node)
    assert once_more.returncode == 0
    assert "was not released" in told(once_more)
    assert not re.search(r"changed=[1-9]", told(once_more))
    assert playbook("verify", node).returncode == 0


@pytest.mark.parametrize("later", LATER, ids=LATER_IDS)
def test_after_a_power_loss(later: float, story: Story, deployed: Path, lab: Lab, tmp_path: Path) -> None:
    gather_writers(story)
    [node] = workers_of(APP)
    [survivor] = set(WORKERS) - {node}
    lab.power_off(node)
    wait_until(lambda: not ready(node), 180, f"{node} is not Ready")
    time.sleep(later)
    clients = Clients(lab, tmp_path)
    try:
        began = time.time()
        done = playbook("release-node", node)
        took = time.time() - began
        assert done.returncode == 0, told(done)[-4000:]
        wait_until(lambda: bool(clients.good(began, survivor)), 60, "the successor answers")
        first = min(each.end for each in clients.good(began, survivor))
    finally:
        clients.stop()
    note_times(f"lost power, {later:g} s after Ready=Unknown", done, took, first - began)
    lab.power_on(node)
    wait_until(lambda: ready(node), 240, f"{node} is Ready")
    assert not reads_the_share(lab, node), "it boots, and gets no share before somebody takes it back"
    assert playbook("readmit-node", node).returncode == 0
    assert reads_the_share(lab, node)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_and_run_again(moment: float, story: Story, deployed: Path, lab: Lab) -> None:
    gather_writers(story)
    [node] = workers_of(APP)
    [survivor] = set(WORKERS) - {node}
    folder = volume_of(APP)
    since = journal(lab, survivor, folder, -1).last
    lose(lab, node)
    for name in ("release-node", "readmit-node"):
        if name == "readmit-node":
            lab.heal()
            reboot(lab, node)
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{name}.yml", "-e", f"node={node}"]
        killed_after(argv, moment, project_environment())
        done = playbook(name, node)
        assert done.returncode == 0, told(done)[-4000:]
        if name == "release-node":
            assert workers_of(APP) == {survivor}
            assert not reads_the_share(lab, node)
    assert reads_the_share(lab, node)
    verdict = oracle.judge(journal(lab, survivor, folder, since), [])
    assert (verdict.doubled, verdict.doubtful) == (0, ())
