"""How a run that changes nothing is split: by kind of process, and with what ended children used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lab.benches import site_again
from lab.benches.site_again import Again

BURN = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        ("/venv/bin/python /venv/bin/ansible-playbook site.yml -e tandem_profile=balanced", "ansible-playbook"),
        ("ssh -F /state/ssh_config -o Port=22 w1 /bin/sh -c '/usr/bin/python3 && sleep 0'", "ssh clients"),
        ("/bin/sh -c /venv/bin/python && sleep 0", "modules on the control node"),
        ("/venv/bin/python", "modules on the control node"),
        ("/venv/bin/python -m lab --name default status --json", "inventory plug-in"),
        ("", "ansible-playbook"),
    ],
)
def test_kinds(argv: str, kind: str) -> None:
    assert site_again.kind_of(argv) == kind


def test_what_ended_children_used_is_counted() -> None:
    before = site_again.spent(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert site_again.spent(os.getpid()) - before >= 0.35


def test_a_run_is_split_and_what_was_not_seen_is_ansibles_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([10.0, 10.0, 13.0, 14.0])
    monkeypatch.setattr(site_again, "spent", lambda pid: next(used))
    pids = {"cp1": 1, "w1": 2}
    run = site_again.once(pids, {"cp1": 0.0, "w1": 0.0}, [sys.executable, "-c", BURN])
    assert run.machines == {"cp1": 3.0, "w1": 4.0}
    assert sum(run.control_node.values()) >= 0.35


def test_what_a_machine_uses_anyway_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.0, 100.0])
    monkeypatch.setattr(site_again, "spent", lambda pid: next(used))
    run = site_again.once({"w1": 1}, {"w1": 2.0}, [sys.executable, "-c", ""])
    assert run.machines["w1"] == pytest.approx(100.0 - 2.0 * run.seconds)


def test_rows_hold_medians_and_a_part_that_one_run_had_not_counts_as_nothing() -> None:
    runs = [
        Again(70, {"ansible-playbook": 40, "ssh clients": 3}, {"w1": 5}),
        Again(60, {"ansible-playbook": 30}, {"w1": 7}),
        Again(65, {"ansible-playbook": 35}, {"w1": 6}),
    ]
    told = {row["what"]: row["median, s"] for row in site_again.rows(runs, {"w1": 0.2}, 0.05)}
    assert told == {
        "wall time": "65.00",
        "ansible-playbook, processor": "35.00",
        "ssh clients, processor": "0.00",
        "machine w1, beyond its own need, processor": "6.00",
        "machine w1 by itself, processor, in a second": "0.20",
        "one ssh round trip, connection open": "0.05",
    }
