"""Both workers, the whole site or the NFS machine are lost at once: all data is there afterwards, without a hand.

Each case pulls plugs under clients that write, gives the machines power again in one order, and does nothing else.
What it took is recorded; `python -m lab.lost` publishes it. TANDEM_LOST_CASES chooses cases: names with commas between,
or `all`; otherwise those are left out that differ little from another one.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lab import lost
from lab.demo import NAMESPACE, WRITERS, gather_writers, kubectl_json, workers_of
from lab.runtime import Lab
from lab.story import Story
from plugins.module_utils.tandem_kube import Kube, KubeError
from tandem.drill import oracle
from tests.conftest import KUBECONFIG, PROFILE, wait_until
from tests.drill.test_reboot import pods, whole
from tests.drill.test_release import CONTROL_PLANE, SERVER, WORKERS, Clients, journal, reads_the_share, ready, volume_of

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(1800)]

PORTS = {"web": 30080, "ledger-hold": 30081, "ledger-replace": 30082}
FIRST, SECOND = "the writers' worker", "the other worker"
BOTH = (FIRST, SECOND)
BACK_SECONDS = 420
"""Far beyond what any case takes: after this somebody would have to look."""
LOOKS = 5
"""So many times in a row everything has to look whole before it is believed: what the API knows is old at first."""
UNREACHABLE_SECONDS = 60
"""The article's profile has a lost worker's pods started elsewhere within this."""
FIRST_MOUNT_SECONDS = 25
"""After this the first attempt to mount was given up, and a machine's boot went on without the share."""


@dataclass(frozen=True)
class Case:
    """Which machines lose power and get it again: groups in order, with a pause between groups."""

    lost: str
    back: str
    off: tuple[tuple[str, ...], ...]
    on: tuple[tuple[str, ...], ...]
    away_seconds: float
    pause_seconds: float
    usual: bool = True


def site(back: str, *on: tuple[str, ...], usual: bool = True) -> Case:
    """The whole site off at once, for ten seconds."""
    return Case("the whole site", back, ((*BOTH, CONTROL_PLANE, SERVER),), on, 10, FIRST_MOUNT_SECONDS, usual)


CASES = {
    "workers-together": Case("both workers", "together", (BOTH,), (BOTH,), UNREACHABLE_SECONDS, 0),
    "workers-in-turn": Case(
        "both workers, one after the other",
        "the first lost first",
        ((FIRST,), (SECOND,)),
        ((FIRST,), (SECOND,)),
        0,
        UNREACHABLE_SECONDS,
    ),
    "workers-in-turn-last-first": Case(
        "both workers, one after the other",
        "the last lost first",
        ((FIRST,), (SECOND,)),
        ((SECOND,), (FIRST,)),
        0,
        UNREACHABLE_SECONDS,
        usual=False,
    ),
    "site-at-once": site("all at once", (*BOTH, CONTROL_PLANE, SERVER)),
    "site-nfs-last": site("control plane, workers, NFS machine", (CONTROL_PLANE,), BOTH, (SERVER,)),
    "site-workers-first": site("workers, control plane, NFS machine", BOTH, (CONTROL_PLANE,), (SERVER,)),
    "site-workers-nfs": site("workers, NFS machine, control plane", BOTH, (SERVER,), (CONTROL_PLANE,), usual=False),
    "site-control-plane-last": site("NFS machine, workers, control plane", (SERVER,), BOTH, (CONTROL_PLANE,)),
    "site-workers-last": site("NFS machine, control plane, workers", (SERVER,), (CONTROL_PLANE,), BOTH, usual=False),
    "site-workers-last-2": site("control plane, NFS machine, workers", (CONTROL_PLANE,), (SERVER,), BOTH, usual=False),
    "nfs-5-minutes": Case("the NFS machine, for 5 minutes", "alone", ((SERVER,),), ((SERVER,),), 300, 0),
}


def chosen() -> list[str]:
    """Names of the cases to run."""
    wish = os.environ.get("TANDEM_LOST_CASES", "")
    if wish == "all":
        return list(CASES)
    return wish.split(",") if wish else [name for name, case in CASES.items() if case.usual]


def answered(look: Callable[[], bool]) -> bool:
    """What a look at the API says; False while the API does not answer."""
    try:
        return look()
    except (subprocess.CalledProcessError, KubeError):
        return False


def boots() -> dict[str, str]:
    """Each node's boot as the cluster knows it."""
    nodes = Kube(str(KUBECONFIG)).get("/api/v1/nodes")["items"]
    return {node["metadata"]["name"]: node["status"]["nodeInfo"]["bootID"] for node in nodes}


def whole_for_good(since: float) -> float:
    """Wait until everything looks whole several times in a row; seconds from a moment to the first of them."""
    begun = looks = 0.0
    while looks < LOOKS:
        assert time.time() - since < BACK_SECONDS, f"not whole {BACK_SECONDS} s after the last machine had power"
        if not answered(whole):
            looks = 0
        else:
            begun = begun if looks else time.time()
            looks += 1
        time.sleep(2)
    return begun - since


def a_new_claim_is_bound() -> None:
    """A claim made now gets its volume; it goes afterwards."""
    api, path = Kube(str(KUBECONFIG)), f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
    name = f"after-the-loss-{int(time.time())}"
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "tandem-shared-delete",
        "resources": {"requests": {"storage": "1Mi"}},
    }
    api.request("POST", path, body={"metadata": {"name": name}, "spec": spec})
    try:
        wait_until(lambda: api.get(f"{path}/{name}")["status"].get("phase") == "Bound", 120, "a new claim is bound")
    finally:
        api.request("DELETE", f"{path}/{name}")


@pytest.fixture
def lab(deployed: Path) -> Iterator[Lab]:
    """The lab with everything whole; every machine has power afterwards."""
    lab = Lab()
    wait_until(whole, 300, "the apps are whole")
    yield lab
    for machine in (SERVER, CONTROL_PLANE, *WORKERS):
        lab.power_on(machine, wait=False)


@pytest.mark.parametrize("name", chosen())
def test_nothing_is_lost_and_nobody_has_a_hand_in_it(name: str, story: Story, lab: Lab, tmp_path: Path) -> None:
    case = CASES[name]
    gather_writers(story)
    [first] = workers_of(WRITERS[1])
    [second] = set(WORKERS) - {first}
    called = {FIRST: first, SECOND: second}
    gone = {called.get(machine, machine) for group in case.off for machine in group}
    before, before_pods = boots(), pods()
    folders = {app: volume_of(app) for app in WRITERS}
    since = {app: journal(lab, second, folder, -1).last for app, folder in folders.items()}
    clients = Clients(lab, tmp_path, PORTS, rate=2.0, kept_rate=0.5)
    try:
        started = time.time()
        wait_until(lambda: {each.app for each in clients.good(started)} == set(PORTS), 90, "every app answers")
        fault = time.time()
        for number, group in enumerate(case.off):
            time.sleep(case.pause_seconds if number else 0)
            for machine in group:
                lab.power_off(called.get(machine, machine))
        time.sleep(case.away_seconds)
        power = 0.0
        for number, group in enumerate(case.on):
            if number:
                for machine in case.on[number - 1]:
                    lab.power_on(called.get(machine, machine))  # has power; waits for its SSH
                time.sleep(case.pause_seconds)
            power = time.time()
            for machine in group:
                lab.power_on(called.get(machine, machine), wait=False)

        def nodes_back() -> bool:
            now = boots()
            return all(ready(node) and (node not in gone or now[node] != before[node]) for node in before)

        wait_until(lambda: answered(nodes_back), BACK_SECONDS, "all nodes are Ready in their new boot")
        nodes_seconds = time.time() - power
        whole_seconds = whole_for_good(power)
        healed = time.time()
        wait_until(lambda: {each.app for each in clients.good(healed)} == set(PORTS), BACK_SECONDS, "every app answers")
        for worker in WORKERS:
            wait_until(partial(reads_the_share, lab, worker), 60, f"{worker} has the share")
        a_new_claim_is_bound()
        end = time.time()
    finally:
        clients.stop()
    samples = clients.samples()
    verdicts = {
        app: oracle.judge(journal(lab, second, folder, since[app]), [each for each in samples if each.app == app])
        for app, folder in folders.items()
    }
    pauses = {app: lost.longest_pause(samples, app, fault, end) for app in PORTS}
    away = {app: round(pause, 1) if pause >= lost.NOT_AWAY_SECONDS else 0.0 for app, (pause, _) in pauses.items()}
    record = lost.Record(
        case=name,
        lost=case.lost,
        back=case.back,
        nodes_seconds=round(nodes_seconds, 1) if gone - {SERVER} else 0.0,
        whole_seconds=round(whole_seconds, 1),
        away=away,
        resumed={app: round(max(0.0, over - power), 1) if away[app] else 0.0 for app, (_, over) in pauses.items()},
        records={app: verdict.records for app, verdict in verdicts.items()},
        lost_records=sum(verdict.lost for verdict in verdicts.values()),
        doubled_records=sum(verdict.doubled for verdict in verdicts.values()),
        profile=PROFILE,
    )
    print(record)
    print(verdicts)
    for app, verdict in verdicts.items():
        assert (verdict.lost, verdict.doubled, verdict.doubtful) == (0, 0, ()), app
        assert verdict.acknowledged > 0, app
    if gone == {SERVER}:
        now = pods()
        print(
            f"restarts: { {pod: after[1] - before_pods[pod][1] for pod, after in now.items() if pod in before_pods} }"
        )
        assert {pod: uid for pod, (uid, _) in now.items()} == {pod: uid for pod, (uid, _) in before_pods.items()}
        taints = [node["spec"].get("taints", []) for node in kubectl_json("get", "nodes")["items"]]
        assert not any(taint["effect"] == "NoExecute" for found in taints for taint in found), "nothing is evicted"
    lost.save(record)
