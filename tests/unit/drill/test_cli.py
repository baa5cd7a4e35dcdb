"""What the user types: wrong input is told in words, with an exit status of its own, and nothing is touched."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tandem import cli, docs, recovery
from tandem.drill import cli as drill
from tandem.drill import driver
from tandem.drill.driver import Driver, DriverError, TimedDriver
from tandem.drill.drivers.manual import ManualDriver
from tandem.drill.drivers.ssh import SshDriver


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.app, list(args), env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_an_unknown_profile_is_a_usage_error_that_lists_the_known() -> None:
    result = run("predict", "--profile", "quick")
    assert result.exit_code == 2
    assert "stock, article, balanced, fast" in result.output


def test_predict_shows_windows_and_findings() -> None:
    result = run("predict")
    assert result.exit_code == 0
    assert " 9.6 .. 30.8" in result.output
    assert "api-stall" in result.output


def test_predict_as_json_and_a_missed_target() -> None:
    data = json.loads(run("predict", "--profile", "balanced", "--json").stdout)
    assert data["balanced"]["findings"] == []
    assert list(data["balanced"]["prediction"]) == list(recovery.STAGES)
    missed = run("predict", "--profile", "article", "--target", "30", "--json")
    assert missed.exit_code == 1
    assert json.loads(missed.stdout)["article"]["findings"][-1]["rule"] == "recovery-target"


def test_an_unknown_driver_lists_the_installed() -> None:
    result = run("drill", "power-loss", "w1", "--driver", "magic")
    assert result.exit_code == drill.EXIT_BROKEN
    assert "no drill driver 'magic'; installed: " in result.output


def test_real_machines_are_not_stopped_without_yes_really(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "load", lambda name, **options: SshDriver(**options))
    result = run("drill", "power-loss", "w1", "--driver", "ssh")
    assert result.exit_code == drill.EXIT_BROKEN
    assert "--yes-really" in result.output


def test_compare_needs_somebody_who_applies_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "load", lambda name, **options: ManualDriver(**options))
    result = run("drill", "power-loss", "w1", "--driver", "manual", "--compare", "stock,article")
    assert result.exit_code == 2
    assert "--apply-command" in result.output
    assert run("drill", "power-loss", "w1", "--driver", "manual", "--compare", "stock,quick").exit_code == 2


def test_a_missing_kubeconfig_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(drill, "load", lambda name, **options: ManualDriver(**options))
    result = run("drill", "partition", "w1", "--driver", "manual", "--kubeconfig", str(tmp_path / "absent"))
    assert result.exit_code == drill.EXIT_BROKEN
    assert "absent; give one with --kubeconfig" in result.output


def test_a_malformed_driver_option_is_a_usage_error() -> None:
    result = run("drill", "power-loss", "w1", "-o", "nonsense")
    assert result.exit_code == 2
    assert "KEY=VALUE" in result.output


def test_both_scenarios_have_the_same_options() -> None:
    loss, cut = run("drill", "power-loss", "--help").output, run("drill", "partition", "--help").output
    assert "--give-up-after" in loss
    assert loss.split("Arguments")[1] == cut.split("Arguments")[1]


def test_render_needs_a_recording(tmp_path: Path) -> None:
    assert run("drill", "render", str(tmp_path)).exit_code == 2


def test_the_ssh_driver_quotes_for_the_remote_shell() -> None:
    argv = SshDriver(yes_really=True, ssh_config="site").command_on("w1", ["python3", "-c", "print('a b')\n", "{}"])
    assert argv[:3] == ["ssh", "-o", "BatchMode=yes"]
    assert shlex.split(argv[-1]) == ["python3", "-c", "print('a b')\n", "{}"]


def test_the_ssh_driver_strikes_by_sysrq_and_filters_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def fake(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(argv)
        return subprocess.CompletedProcess(argv, 0, "hostname 192.0.2.7\n", "")

    monkeypatch.setattr(subprocess, "run", fake)
    machines = SshDriver(yes_really=True)
    assert isinstance(machines, Driver)
    assert isinstance(machines, TimedDriver)
    machines.power_off("w1")
    assert "echo b >/proc/sysrq-trigger" in commands[-1][-1]
    assert machines.struck_at is not None
    machines.cut("w1", ["cp1"])
    assert "nft -f -" in commands[-1][-1]
    assert "192.0.2.7" in commands[-1][-1]
    machines.heal()
    assert "nft delete table inet tandem_drill" in commands[-1][-1]
    count = len(commands)
    machines.heal()
    assert len(commands) == count, "nothing is cut any more"
    SshDriver(yes_really=True, power_on_command="ipmitool -H {node}-bmc power on").power_on("w1")
    assert commands[-1] == ["sh", "-c", "ipmitool -H w1-bmc power on"]


def test_a_person_strikes_when_enter_is_pressed() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return ""

    machines = ManualDriver(ask=ask)
    assert isinstance(machines, Driver)
    machines.power_off("w1")
    assert "Pull the power of w1" in asked[0]
    assert machines.struck_at is not None


def test_an_installed_driver_that_lacks_a_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "half", "half:Half"

        def load(self) -> type:
            return dict

    monkeypatch.setattr(driver, "entry_points", lambda group: [Entry()])
    with pytest.raises(DriverError, match="lacks a method"):
        driver.load("half")


def test_the_page_of_profiles_names_every_stage_and_finding() -> None:
    page = docs.profiles_page()
    assert page.startswith("# Recovery profiles\n")
    assert all(f"`{stage}`" in page for stage in recovery.STAGES)
    assert "`api-stall`" in page
    assert run("profiles").output.strip() == page.strip()
