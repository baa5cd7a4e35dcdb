"""The shape that every role keeps: defaults documented there, an argument spec for each of them, small task files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.module_utils import tandem_variables

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
MAX_TASKS_A_FILE = 8


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_has_a_spec_and_every_spec_a_default(role: Path) -> None:
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(options) == set(load(role / "defaults" / "main.yml"))


DAY_TWO = re.compile("certificates|cluster_(backup|restore|upgrade)|node_(fence|reboot|replace|reset)|volume_adopt")
"""Roles whose playbooks judge their variables in a plan of their own; and where a worker is let go, seconds count."""


def entry_points() -> list[tuple[str, str]]:
    """Task files of the site's roles that are used by themselves (`tasks_from`)."""
    found = set()
    for path in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]:
        found |= set(re.findall(r"name: (\w+)\n\s+tasks_from: (\w+)", path.read_text()))
    return sorted((role, entry) for role, entry in found if not DAY_TWO.fullmatch(role))


def variables_of(role: Path, entry: str) -> set[str]:
    """The role's defaults that an entry point reads, those behind its private variables and other defaults included."""
    text, todo, seen = "", [f"{entry}.yml"], set()
    while todo:
        name = todo.pop()
        if name in seen or not (role / "tasks" / name).exists():
            continue
        seen.add(name)
        tasks = (role / "tasks" / name).read_text()
        text += tasks
        todo += re.findall(r"\w+\.yml", tasks)
        templates = [role / "templates" / found for found in re.findall(r"[\w.]+\.j2", tasks)]
        text += "".join(template.read_text() for template in templates)
    defaults = load(role / "defaults" / "main.yml")
    private = load(role / "vars" / "main.yml") if (role / "vars" / "main.yml").exists() else {}
    variable = re.compile(rf"\b_*{role.name}_\w+")
    known, waiting = set(), set(variable.findall(text))
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting |= set(variable.findall(yaml.safe_dump({**private, **defaults}.get(name))))
    return known & set(defaults)


@pytest.mark.parametrize(("role", "entry"), entry_points())
def test_every_entry_point_has_a_spec_of_what_it_reads(role: str, entry: str) -> None:
    specs = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    options = specs[entry]["options"]
    assert variables_of(ROOT / "roles" / role, entry) <= set(options)
    assert {name: specs["main"]["options"][name] for name in options} == options


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_is_documented_where_it_stands(role: Path) -> None:
    documented = False
    for line in (role / "defaults" / "main.yml").read_text().splitlines():
        if line.startswith("#"):
            documented = True
        elif re.match(r"\w+:", line):
            assert documented, f"{role.name}: {line}"
        elif line and not line.startswith((" ", "-")):
            documented = False


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_tasks_are_split_small(role: Path) -> None:
    for path in (role / "tasks").glob("*.yml"):
        assert len(load(path)) <= MAX_TASKS_A_FILE, path


def test_nothing_writes_into_the_static_pod_directory() -> None:
    for path in (ROOT / "roles").rglob("*"):
        if path.is_file() and path.suffix in {".yml", ".j2"}:
            for line in path.read_text().splitlines():
                writes = "dest:" in line or "path:" in line
                assert not (writes and "/etc/kubernetes/manifests" in line), path


def test_both_inventories_set_known_variables_only() -> None:
    read = set()
    for path in [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").glob("*.yml")]:
        read |= set(re.findall(r"\b(?:tandem|recovery)_[a-z_]+", path.read_text()))
    for inventory in ("lab", "example"):
        variables = load(ROOT / "inventories" / inventory / "group_vars" / "all.yml")
        assert set(variables) <= read, inventory


def test_every_role_takes_the_same_defaults_for_a_shutdown() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/defaults/main.yml"))
    for name, seconds in (
        ("tandem_shutdown_seconds", tandem_variables.SHUTDOWN_SECONDS),
        ("tandem_shutdown_critical_seconds", tandem_variables.SHUTDOWN_CRITICAL_SECONDS),
    ):
        found = re.findall(rf"{name} \| default\((\d+)\)", text)
        assert len(found) >= 3
        assert set(found) == {str(seconds)}
