"""Nodes join by a real run of ansible-playbook and a kubeadm that only writes down what it was asked.

The role is copied with its two paths moved into the test's folder; the machines are this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
KUBEADM = """#!/bin/sh
# Says what it does, in order; fails where a file fail-VERB-HOST asks for it.
case "$1 $2 $3" in
"token create "*) echo "kubeadm join api:6443 --token a.b --discovery-token-ca-cert-hash sha256:c"; exit ;;
"init phase "*) printf 'a line\\nTHE-KEY\\n'; exit ;;
"join phase preflight") verb=preflight ;;
"join "*) verb=join ;;
*) echo "$1" >>"$LOG/calls"; exit ;;
esac
for last; do :; done
host=$(basename "$last" .yaml)
echo "$verb $host" >>"$LOG/calls"
[ $verb = join ] && cp "$last" "$LOG/$host.input" && sleep 0.3
[ -e "$LOG/fail-$verb-$host" ] && echo "no luck with $host" >&2 && exit 1
[ $verb = join ] && touch "$LOG/$host.conf" && echo "joined $host" >>"$LOG/calls"
exit 0
"""


class Site:
    """One first control plane node, and two more and a worker that have not joined."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        role = folder / "roles" / "kubeadm_cluster"
        shutil.copytree(ROOT / "roles" / "kubeadm_cluster", role)
        for path in (role / "tasks").glob("join*.yml"):
            text = path.read_text().replace("/run/tandem-join.yaml", f"'{folder}/{{{{ inventory_hostname }}}}.yaml'")
            text = text.replace("/etc/kubernetes/kubelet.conf", f"'{folder}/{{{{ inventory_hostname }}}}.conf'")
            path.write_text(text)
        program = folder / "bin" / "kubeadm"
        program.parent.mkdir()
        program.write_text(KUBEADM)
        program.chmod(0o755)
        task = {
            "name": "join",
            "ansible.builtin.include_role": {"name": "kubeadm_cluster", "tasks_from": "join"},
        }
        play = {"hosts": "control_plane:workers", "gather_facts": False, "any_errors_fatal": True, "tasks": [task]}
        (folder / "play.yml").write_text(yaml.safe_dump([play]))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        def host(name: str) -> dict[str, object]:
            joined = name == "cp1" or (self.folder / f"{name}.conf").exists()
            return {"tandem_address": "10.0.0.1", "preflight_answer": {"node": {"joined": joined}}}

        groups = {"control_plane": ("cp1", "cp2", "cp3"), "workers": ("w1",)}
        document = {
            "all": {
                "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
                "children": {group: {"hosts": {name: host(name) for name in names}} for group, names in groups.items()},
            }
        }
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(document))
        (self.folder / "calls").write_text("")
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ROLES_PATH": str(self.folder / "roles"),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LOG": str(self.folder),
        }
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", str(self.folder / "hosts.yml")]
        argv += [str(self.folder / "play.yml"), *arguments]
        return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def fail(self, verb: str, host: str) -> None:
        (self.folder / f"fail-{verb}-{host}").touch()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_control_plane_nodes_join_one_after_the_other_and_workers_last(site: Site) -> None:
    done = site.run()
    assert done.returncode == 0, done.stdout
    turns = [f"{verb} {host}" for host in ("cp2", "cp3", "w1") for verb in ("preflight", "join", "joined")]
    assert site.calls() == turns
    asked = yaml.safe_load((site.folder / "cp3.input").read_text())
    assert asked["controlPlane"]["certificateKey"] == "THE-KEY"
    assert asked["patches"]["directory"] == "/etc/kubernetes/patches"
    assert "controlPlane" not in yaml.safe_load((site.folder / "w1.input").read_text())
    assert not list(site.folder.glob("*.yaml")), "no token is left behind"
    again = site.run()
    assert (again.returncode, site.calls()) == (0, [])
    assert "changed=0" in again.stdout
    assert "changed=1" not in again.stdout


def test_a_node_that_joined_half_is_taken_out_and_the_others_do_not_try(site: Site) -> None:
    site.fail("join", "cp2")
    done = site.run()
    assert done.returncode != 0
    assert site.calls() == ["preflight cp2", "join cp2", "reset"]
    assert "cp2 did not join: no luck with cp2 What the join had begun was undone" in done.stdout
    assert not list(site.folder.glob("*.yaml"))


def test_what_kubeadm_finds_on_the_machine_is_not_undone(site: Site) -> None:
    site.fail("preflight", "cp3")
    done = site.run()
    assert done.returncode != 0
    assert site.calls() == ["preflight cp2", "join cp2", "joined cp2", "preflight cp3"]
    assert "cp3 did not join: no luck with cp3 Nothing was changed." in done.stdout


def test_a_check_changes_nothing_and_says_who_would_join(site: Site) -> None:
    before = sorted(path.name for path in site.folder.iterdir())
    done = site.run("--check")
    assert done.returncode == 0, done.stdout
    assert site.calls() == []
    assert sorted(path.name for path in site.folder.iterdir() if path.name not in {"calls", "hosts.yml"}) == before
    recap = [line for line in done.stdout.splitlines() if "changed=" in line]
    assert {line.split()[0] for line in recap if "changed=0" not in line} == {"cp2", "cp3", "w1"}
