"""The shape that every role keeps: defaults documented there, an argument spec for each of them, small task files."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
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


def test_no_role_has_a_default_of_its_own_for_a_shutdown() -> None:
    """Where the inventory is silent, the cluster decides first."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/defaults/main.yml"))
    for name in ("tandem_shutdown_seconds", "tandem_shutdown_critical_seconds"):
        found = re.findall(rf"{name} \| default\((.*?)\)", text)
        assert len(found) == 4
        assert set(found) == {"''"}


@pytest.mark.parametrize("name", tandem_variables.DEFAULTS)
def test_what_preflight_takes_for_silence_is_what_the_roles_take(name: str) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/defaults/main.yml"))
    found = set(re.findall(rf"\b{name} \| default\('?([^')]+)'?\)", text))
    assert found == {str(tandem_variables.DEFAULTS[name])}


def tasks_of(role: Path) -> list[dict[str, Any]]:
    return [task for path in sorted((role / "tasks").glob("*.yml")) for task in load(path) or []]


@pytest.mark.parametrize("name", ["nfs_mount", "nfs_server", "node_runtime", "pod_network", "virtual_ip"])
def test_what_follows_from_files_is_remembered_until_it_is_done(name: str) -> None:
    tasks = tasks_of(ROOT / "roles" / name)
    (written,) = [task for task in tasks if "tandem_files" in task and "register" in task]
    assert written["tandem_files"]["remember"] == name
    (acted,) = [task for task in tasks if "acted" in task.get("tandem_files", {})]
    topics = f"{written['register']}.topics"
    assert acted["tandem_files"] == {"remember": name, "acted": f"{{{{ {topics} }}}}"}
    assert acted["when"] == f"{topics} | length > 0"
    (last,) = [file for path in (ROOT / "roles" / name / "tasks").glob("*.yml") if acted in (file := load(path))]
    assert last[-1] == acted


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("tandem_*.py")))
def test_a_modules_documentation_is_yaml_and_knows_every_option(name: str) -> None:
    module = importlib.import_module(f"plugins.modules.{name}")
    document = yaml.safe_load(module.DOCUMENTATION)
    assert document["module"] == name
    assert all(isinstance(line, str) for line in document["description"])
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)
    text = (ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8")
    for option in document.get("options", {}):
        assert f'"{option}"' in text, f"{option} is documented and not there"


SHOW = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_vars: {{file: "{role}/defaults/main.yml"}}
    - ansible.builtin.debug: {{msg: "path={{{{ {name} }}}}"}}
  vars: {{role_path: "{role}"}}
"""


def admins(role: Path) -> list[str]:
    """The role's variable with the admin's kubeconfig, if it has one."""
    return [name for name in load(role / "defaults" / "main.yml") if name == f"{role.name}_kubeconfig"]


def test_the_admins_kubeconfig_is_looked_for_in_one_way() -> None:
    texts = {load(role / "defaults" / "main.yml")[name] for role in ROLES for name in admins(role)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, str(ROOT / "build/kubeconfig/tandem/admin.conf")),
        ({"tandem_cluster_name": "lab"}, str(ROOT / "build/kubeconfig/lab/admin.conf")),
        ({"tandem_kubeconfig": "own.conf"}, "{here}/own.conf"),
        ({"tandem_kubeconfig_folder": "own"}, "{here}/own/admin.conf"),
    ],
)
def test_paths_of_kubeconfigs_count_from_where_the_command_is_given(
    given: dict[str, str], path: str, tmp_path: Path
) -> None:
    """A delegated task of a playbook elsewhere would count them from the playbook's folder."""
    role = next(role for role in ROLES if admins(role))
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "show.yml").write_text(SHOW.format(role=role, name=admins(role)[0]))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    argv = [program, "play/show.yml", "--inventory=localhost,", "--extra-vars", json.dumps(given)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert f"path={path.format(here=tmp_path)}\n" in done.stdout, done.stdout + done.stderr
