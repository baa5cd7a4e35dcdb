"""`tandem conform` passes the published example and names every flaw of a naive controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.runtime.testing.localapi import Programs
from tests.api.pods import EXAMPLES, HERE, ROOT

pytestmark = [pytest.mark.api, pytest.mark.timeout(400)]
NAIVE_WORK = """
apiVersion: v1
kind: ConfigMap
metadata: {name: work, labels: {n: n}}
"""


def conform(programs: Programs, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tandem", "conform", "--assets", str(programs.etcd.parent), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    print(done.stdout, done.stderr)
    return done


def test_the_example_conforms_and_the_attestation_says_what_was_shown(programs: Programs, tmp_path: Path) -> None:
    written = tmp_path / "attestation.json"
    done = conform(
        programs, "--work", str(EXAMPLES / "work.yaml"), "--output", str(written), "--env", "TANDEM_HEALTH_PORT=none",
        "--env", "TANDEM_LEASE_DURATION=6", "--env", "TANDEM_RENEW_DEADLINE=4", "--env", "TANDEM_RETRY_PERIOD=1",
        "--", sys.executable, str(EXAMPLES / "elected.py"),
    )  # fmt: skip
    assert done.returncode == 0
    statement = json.loads(written.read_text())
    checks = {check["check"]: check["outcome"] for check in statement["predicate"]["checks"]}
    assert checks == dict.fromkeys(("works", "idempotent", "shutdown", "second-signal", "lost-lead"), "passed")
    assert statement["predicate"]["annotation"].endswith("idempotent shutdown lost-lead")
    assert "elected.py" in {subject["name"] for subject in statement["subject"]}


def test_a_naive_controller_fails_every_check_but_the_first(programs: Programs, tmp_path: Path) -> None:
    work, written = tmp_path / "work.yaml", tmp_path / "attestation.json"
    work.write_text(NAIVE_WORK)
    done = conform(
        programs, "--work", str(work), "--grace", "4", "--output", str(written), "--",
        sys.executable, str(HERE / "naive_controller.py"),
    )  # fmt: skip
    assert done.returncode == 1
    checks = {check["check"]: check["outcome"] for check in json.loads(written.read_text())["predicate"]["checks"]}
    assert checks.pop("works") == "passed"
    assert checks == dict.fromkeys(("idempotent", "shutdown", "second-signal", "lost-lead"), "failed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--work", "nowhere.yaml", "--", "true"], "nowhere.yaml"),
        (["--", "true"], "--work FILE is needed"),
        (["--work", "x"], "nothing to try"),
    ],
)
def test_what_cannot_be_tried_is_said(programs: Programs, arguments: list[str], message: str) -> None:
    done = conform(programs, *arguments)
    assert done.returncode == 2
    assert message in done.stdout
