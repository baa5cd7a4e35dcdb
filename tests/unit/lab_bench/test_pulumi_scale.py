"""What many workloads cost: how it is reckoned, and that the settings are ones that the program takes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from infra.settings import parse_settings
from lab.benches._tree import CommandError, Process, measure, summary
from lab.benches.pulumi_scale import Found, kind_of, rows, settings
from tests.pulumi.stack_files import as_text, raw_config

MEBI = 2**20


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        ("/tools/pulumi-resource-kubernetes 127.0.0.1:4000", "provider"),
        ("/usr/bin/python3 -u /home/x/lab/pulumi/program.py {} /home/x/infra", "program"),
        ("/usr/bin/python3 /opt/pulumi/pulumi-language-python-exec --monitor x", "program"),
        ("/usr/bin/python3 -P -u -m lab.pulumi.language_host 127.0.0.1:4000", "host"),
        ("/opt/pulumi/pulumi-language-python 127.0.0.1:4000", "host"),
        ("pulumi preview --stack dev", "CLI"),
    ],
)
def test_kinds(argv: str, kind: str) -> None:
    assert kind_of(argv) == kind


def test_memory_is_of_one_moment_and_time_is_what_each_process_had_last() -> None:
    looks = [
        [Process(1, "cli", 0.1, 10), Process(2, "program", 1.0, 50)],
        [Process(1, "cli", 0.2, 30), Process(2, "program", 3.0, 20), Process(3, "program", 0.5, 5)],
        [Process(1, "cli", 0.4, 40)],
    ]
    use = summary(2.5, looks, lambda argv: argv)
    assert use.peak_memory == 60, "not 40 + 50, which were never there together"
    assert use.peak_of == {"cli": 40, "program": 50}
    assert use.cpu_seconds == pytest.approx({"cli": 0.4, "program": 3.5})
    assert use.dominated_by == "program"


BUSY = """
import subprocess, sys, time
if sys.argv[1:] == ["child"]:
    held = bytearray(64 * 2**20)
    end = time.process_time() + 0.5
    while time.process_time() < end: pass
    time.sleep(0.5)
else:
    subprocess.run([sys.executable, __file__, "child"], check=True)
"""


def test_descendants_are_measured(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text(BUSY)

    def kind(argv: str) -> str:
        return "child" if argv.endswith("child") else "parent"

    env = {"PATH": os.environ["PATH"]}
    use = measure([sys.executable, str(script)], cwd=tmp_path, env=env, kind_of=kind, seconds=120)
    assert use.peak_of["child"] > 64 * MEBI > use.peak_of["parent"]
    assert use.peak_memory >= use.peak_of["child"] + 4 * MEBI
    assert use.cpu_seconds["child"] >= 0.4
    assert use.dominated_by == "child"
    assert use.seconds >= 1


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no cluster')"]
    with pytest.raises(CommandError, match=r"status 1:\n[\s\S]*no cluster"):
        measure(argv, cwd=tmp_path, env={}, kind_of=str, seconds=60)


def test_the_settings_are_a_stack_s() -> None:
    raw = raw_config("dev") | {f"tandem:{key}": as_text(value) for key, value in settings(12).items()}
    parsed = parse_settings(raw, "dev")
    assert len(parsed.apps) == 12
    assert json.loads(raw["tandem:apps"])["app-0"]["patch"]["Deployment"]["metadata"]["annotations"]


def test_rows() -> None:
    use = summary(2.55, [[Process(1, "program", 1.24, 200 * MEBI), Process(2, "CLI", 0.3, 80 * MEBI)]], str)
    (row,) = rows(Found([1.0], {(10, "up, no change"): use}))
    assert row["resources"] == 40
    assert (row["memory, MiB"], row["of it program"], row["CPU program"]) == (280, 200, 1.2)
    assert row["dominated by"] == "program"
