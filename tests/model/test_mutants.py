"""Each wrong version of the election is caught by the tests that are there to catch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.mutants import MODEL, MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
SCHEDULES = "2500"
"""Of the model's 100,000; what is wrong in a way that matters shows within these."""


def test_there_are_at_least_20_and_each_changes_one_place() -> None:
    assert len(MUTANTS) >= 20
    for mutant in MUTANTS:
        assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1, mutant.name
        assert mutant.old != mutant.new


@pytest.fixture(scope="session")
def copy_of_the_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package beside links to the tests: what `python -m pytest` finds first from there."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(ROOT / "tandem", folder / "tandem")
    for name in ("tests", "lab", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(folder: Path, killers: str) -> subprocess.CompletedProcess[str]:
    only = ["-k", "random_schedules"] if killers == MODEL else []
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "120", *only, killers],
        cwd=folder,
        env={**os.environ, "TANDEM_MODEL_SCHEDULES": SCHEDULES},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("killers", sorted({mutant.killers for mutant in MUTANTS}))
def test_what_is_right_passes(copy_of_the_package: Path, killers: str) -> None:
    """Else everything would seem to be caught."""
    result = run(copy_of_the_package, killers)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_caught(copy_of_the_package: Path, mutant: Mutant) -> None:
    changed, original = copy_of_the_package / mutant.path, ROOT / mutant.path
    changed.write_text(original.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        result = run(copy_of_the_package, mutant.killers)
    finally:
        shutil.copy2(original, changed)
    # 1: tests failed. Anything else (a mutant that does not even compile) proves nothing.
    assert result.returncode == 1, result.stdout[-2000:]
    assert "SyntaxError" not in result.stdout
