"""From the version before to the present one under clients: single writers move, nothing else loses a request.

Needs `python -m lab build --with upgrade` before `python -m lab up`. The machines are emptied and get the older version
first, so this test makes its own cluster; it leaves it at the version that all others expect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.build._go import UPGRADE, kubernetes_version
from lab.demo import kubectl_json
from lab.runtime import Lab
from lab.story import ROOT, Story, project_environment, python_module
from tandem.drill import oracle
from tests.conftest import PROFILE, wait_until
from tests.drill.test_reboot import Watch, settled, single, whole
from tests.drill.test_release import APP, WORKERS, Clients, journal, told, volume_of
from tests.testinfra.playbooks import killed_after

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.disruptive, pytest.mark.timeout(10800)]

MACHINES = ("nfs1", "cp1", *WORKERS)
BEFORE, AFTER = (kubernetes_version(folder).removeprefix("v") for folder in (UPGRADE, "kubernetes"))
MOMENTS = tuple(float(text) for text in os.environ.get("TANDEM_KILL_MOMENTS", "60,150,240,330,420").split(","))


def command(version: str, folder: Path, *arguments: str) -> list[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    given = {
        "tandem_kubernetes_version": version,
        "tandem_backup_certificate": str(folder / "backup.crt"),
        "tandem_backup_key": str(folder / "backup.key"),
        "tandem_backup_target": str(folder / "kept"),
    }
    return [program, "playbooks/upgrade.yml", "--extra-vars", json.dumps(given), *arguments]


def upgrade(version: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = project_environment({"ANSIBLE_NOCOLOR": "1", "TANDEM_PROFILE": PROFILE})
    argv = command(version, folder, *arguments)
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=5400, check=False)


def versions() -> set[str]:
    return {node["status"]["nodeInfo"]["kubeletVersion"] for node in kubectl_json("get", "nodes")["items"]}


@pytest.fixture
def older(running_lab: Story, tmp_path: Path) -> Iterator[Path]:
    """A cluster of the version before on emptied machines, with the lab stack: the folder of the key pair."""
    lab = Lab()
    asked = lab.exec_argv("curl", "--silent", "--fail", f"{lab.status().apt}/kubernetes/Packages")
    index = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    if f"Version: {BEFORE}-" not in index:
        pytest.fail(f"the lab does not serve {BEFORE}: `python -m lab build --with upgrade`, then lab down and up")
    for machine in MACHINES:
        lab.replace(machine)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    site = [program, "site.yml", "-e", f"tandem_kubernetes_version={BEFORE}"]
    running_lab.run("site-before", site, env={"TANDEM_PROFILE": PROFILE})
    running_lab.run("pulumi-up", python_module("lab.pulumi", "up", "--profile", PROFILE))
    wait_until(settled, 300, "the apps are whole")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=backup"]
    files = ["-keyout", "backup.key", "-out", "backup.crt"]
    subprocess.run([*argv, *files], cwd=tmp_path, check=True, capture_output=True)
    yield tmp_path
    lab.heal()


def test_a_minor_version_up_under_clients(older: Path) -> None:
    lab, folder = Lab(), volume_of(APP)
    assert versions() == {f"v{BEFORE}"}
    for version, words in (("1.34.9", "does not go back"), ("1.36.99", "offers kubeadm 1.36.99")):
        done = upgrade(version, older)
        assert done.returncode != 0
        assert "Nothing has been changed" in told(done), told(done)[-2000:]
        assert words in told(done), told(done)[-2000:]
    checked = upgrade(AFTER, older, "--check")
    assert checked.returncode == 0, told(checked)[-4000:]
    assert versions() == {f"v{BEFORE}"}
    wait_until(settled, 300, "the apps are whole")
    since = journal(lab, WORKERS[0], folder, -1).last
    clients = Clients(lab, older)
    try:
        with Watch() as watch:
            done = upgrade(AFTER, older)
    finally:
        clients.stop()
    assert done.returncode == 0, told(done)[-6000:]
    assert versions() == {f"v{AFTER}"}
    print("\n".join(line for line in done.stdout.splitlines() if "seconds until it served elsewhere" in line))
    print(f"upgrade: Services without an endpoint, in looks of {watch.looks}: {dict(watch.empty)}")
    print("\n".join(watch.stories))
    # The API's own Service has one endpoint, the only control plane node's, which takes itself out while it restarts.
    assert set(watch.empty) <= single() | {"default/kubernetes"}
    verdict = oracle.judge(journal(lab, WORKERS[0], folder, since), clients.samples())
    print(f"writers: {verdict}")
    assert (verdict.doubled, verdict.lost, verdict.doubtful) == (0, 0, ())
    assert whole()
    assert len(list((older / "kept").glob("*.tar.cms"))) == 1
    again = upgrade(AFTER, older)
    assert again.returncode == 0, told(again)[-4000:]
    changed = [line for line in again.stdout.splitlines() if "changed=" in line and "changed=0 " not in line]
    assert changed == [], "a second run changes nothing"


def test_killed_at_five_moments_and_run_again(older: Path) -> None:
    environment = project_environment({"TANDEM_PROFILE": PROFILE})
    for moment in MOMENTS:
        killed_after(command(AFTER, older), moment, environment)
    done = upgrade(AFTER, older)
    assert done.returncode == 0, told(done)[-6000:]
    assert versions() == {f"v{AFTER}"}
    assert whole()
    assert not any(node["spec"].get("unschedulable") for node in kubectl_json("get", "nodes")["items"])
