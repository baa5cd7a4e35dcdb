"""`--limit` leaves plays without hosts: what would have judged is not asked, and the rest must not go on without it.

The machines are this one (connection local), so our modules are stand-ins that write down what they were asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.one_lease import Leases, serving
from tests.stand_ins import install

ROOT = Path(__file__).resolve().parents[3]
ANSWERS: dict[str, dict[str, Any]] = {
    "tandem_reset": {"told": []},
    "tandem_share": {"answered": False},
    "tandem_fence": {"nodes": {}},
}

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a playbook; its status, what it said in one line, and what the machine's modules were asked."""
    log = install(tmp_path, ANSWERS)
    hosts = {"control_plane": ["cp"], "workers": ["a", "b"], "nfs_server": ["n"]}
    with serving(tmp_path) as kubeconfig:
        document: dict[str, Any] = {
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": sys.executable,
                    "tandem_address": "10.0.0.1",
                    "tandem_kubeconfig": str(kubeconfig),
                    "tandem_share_path": str(tmp_path / "share"),
                },
                "children": {group: {"hosts": {name: {} for name in names}} for group, names in hosts.items()},
            }
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(document))

        def play(playbook: str, *arguments: str) -> tuple[int, str, list[str]]:
            command = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", f"{tmp_path}/hosts.yml"]
            done = subprocess.run(
                [*command, f"playbooks/{playbook}.yml", *arguments],
                cwd=ROOT,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LIBRARY": str(tmp_path / "library")},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            return done.returncode, " ".join((done.stdout + done.stderr).split()), log.read_text().splitlines()

        yield play


def test_a_machine_is_not_cleaned_without_its_name_twice(run: Run) -> None:
    status, told, asked = run("reset", "--extra-vars", "node=a", "--limit", "a")
    assert status != 0
    assert "-e tandem_reset=a" in told
    assert asked == ["tandem_reset planned"]


def test_a_machine_is_not_cleaned_before_its_node_is_drained(run: Run) -> None:
    Leases.lease = {"metadata": {"name": "a"}, "spec": {}, "items": []}  # the node, and its pods
    status, told, asked = run("reset", "--extra-vars", "node=a tandem_reset=a", "--limit", "a")
    assert status != 0
    assert "`kubectl drain a --ignore-daemonsets`" in told
    assert asked == ["tandem_reset planned"]


def test_a_machine_that_may_be_cleaned_is(run: Run) -> None:
    status, told, asked = run("reset", "--extra-vars", "node=a tandem_reset=a", "--limit", "a", "--check")
    assert (status, asked) == (0, ["tandem_reset planned", "tandem_reset reset"]), told


@pytest.mark.parametrize("limit", ["n", "a"], ids=["without the node", "without the server"])
def test_a_node_is_not_released_by_halves(run: Run, limit: str) -> None:
    status, told, asked = run("release-node", "--extra-vars", "node=a", "--limit", limit)
    assert status != 0
    assert "the same command without --limit" in told
    assert asked == []


@pytest.mark.parametrize("playbook", ["certs", "reboot", "upgrade"])
def test_no_node_is_taken_out_of_a_cluster_that_was_not_looked_at(run: Run, playbook: str) -> None:
    status, told, asked = run(playbook, "--extra-vars", "node=a", "--limit", "a,cp")
    assert status != 0
    assert "Nothing has been changed. --limit leaves out b, n;" in told
    assert "the same command without --limit" in told
    assert asked == []
