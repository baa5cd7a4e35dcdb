from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab import cli, driver
from lab.driver import LabDriver
from lab.runtime import ExitCode
from tandem.drill.driver import Driver, DriverError

VERBS = {
    "build",
    "up",
    "down",
    "status",
    "ssh",
    "exec",
    "logs",
    "power-off",
    "power-on",
    "remove",
    "replace",
    "freeze",
    "thaw",
    "cut",
    "heal",
    "degrade",
}


@pytest.fixture(autouse=True)
def no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LAB_STATE", str(tmp_path))
    monkeypatch.delenv("TANDEM_LAB_NAME", raising=False)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output and error output of `python -m lab WORDS`."""
    monkeypatch.setattr("sys.argv", ["lab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


def test_every_verb_has_help() -> None:
    runner = CliRunner()
    listed = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert listed == VERBS
    for verb in VERBS:
        result = runner.invoke(cli.app, [verb, "--help"])
        assert result.exit_code == 0
        assert "--help" in result.output


def test_status_of_no_lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(monkeypatch, capsys, "status", "--json", "--name", "other")
    assert code == ExitCode.NOT_RUNNING
    status = json.loads(out)
    assert (status["name"], status["running"], status["state_folder"]) == ("other", False, str(tmp_path / "other"))


@pytest.mark.parametrize(
    "verb", ["power-off", "power-on", "replace", "freeze", "thaw", "cut", "ssh", "logs", "degrade"]
)
def test_a_wrong_machine_is_named_with_the_right_ones(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--loss", "5"] if verb == "degrade" else []
    code, _, err = run(monkeypatch, capsys, verb, *options, "w9")
    assert code == ExitCode.USAGE
    assert "'w9'" in err
    assert "cp1, w1, w2, nfs1" in err


@pytest.mark.parametrize(
    "words", [["power-off", "w1"], ["replace", "w1"], ["cut", "w1"], ["heal"], ["ssh", "w1"], ["exec", "true"]]
)
def test_without_a_lab_the_way_to_one_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == ExitCode.NOT_RUNNING
    assert "`python -m lab up` starts it" in err


def test_down_without_a_lab_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "down")
    assert code == 0
    assert "nothing to do" in out


def test_the_drills_driver_fits_its_port_and_needs_a_lab() -> None:
    driver: type[Driver] = LabDriver  # mypy holds the two against each other
    assert driver.name == "lab"
    with pytest.raises(DriverError, match="not running"):
        LabDriver()
    with pytest.raises(DriverError, match="no lab name"):
        LabDriver(lab="Not A Name")


def test_a_profile_that_cannot_be_put_in_force_says_why() -> None:
    with pytest.raises(DriverError, match=r"(?s)`sh -c 'echo because; exit 4'` failed \(4\).*because"):
        driver._run(["sh", "-c", "echo because; exit 4"], "default")
    driver._run(["sh", "-c", 'test "$TANDEM_LAB_NAME" = other'], "other")
