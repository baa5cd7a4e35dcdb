"""`make test-long`: run the slow checks and record each result in docs/verification.json.

The file is committed, so that a reader sees what was last seen working, on which commit, and when.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "verification.json"


class Recorder:
    """A pytest plugin that keeps the outcome of every check."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep `passed`, `failed` or `skipped`; a failed set-up or clean-up counts as failed."""
        tells = report.when == "call" or report.outcome != "passed"
        if tells and self.outcomes.get(report.nodeid) != "failed":
            self.outcomes[report.nodeid] = report.outcome


def commit() -> str:
    """The commit that is checked out, marked when the tree differs from it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return head.strip() + ("+changes" if changed.strip() else "")


def main() -> int:
    """Run the checks marked `long` and merge their outcomes into the record; older ones of other checks stay."""
    recorder = Recorder()
    at = commit()
    status = int(pytest.main(["-m", "long", *sys.argv[1:]], plugins=[recorder]))
    record = {}
    if RECORD.exists():
        record = {entry["check"]: entry for entry in json.loads(RECORD.read_text(encoding="utf-8"))}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    for check, outcome in recorder.outcomes.items():
        record[check] = {"check": check, "result": outcome, "commit": at, "date": today}
    RECORD.write_text(json.dumps([record[key] for key in sorted(record)], indent=2) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
