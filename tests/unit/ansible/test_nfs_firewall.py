"""The firewall for the share: in a network of its own, a real kernel lets workers in and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "roles/nfs_server/templates/firewall.nft.j2"
NETWORK = """
import socket, subprocess, sys
def reaches(source, port=2049, target="10.9.0.20"):
    try:
        socket.create_connection((target, port), timeout=0.5, source_address=(source, 0)).close()
    except TimeoutError:
        return False
    return True
servers = [socket.create_server((host, port)) for host, port in (("10.9.0.20", 2049), ("10.9.0.20", 22))]
sources = ["10.9.0.11", "10.9.0.12", "10.9.1.7", "10.9.0.13"]
before = [reaches(source) for source in sources]
for _ in range(2):  # loaded again, it is the same
    subprocess.run(["nft", "-f", sys.argv[1]], check=True)
after = [reaches(source) for source in sources]
print(before, after, reaches("10.9.0.13", 22))
subprocess.run(["nft", "add table inet tandem_nfs; delete table inet tandem_nfs"], check=True)
print([reaches(source) for source in sources])
"""


def ruleset(sources: list[str], *, own_interface: str = "lo") -> str:
    """The file as the role writes it; the test's machines are all behind `lo`, so that another is the machine's own."""
    template = jinja2.Environment(trim_blocks=True, autoescape=False).from_string(TEMPLATE.read_text())  # noqa: S701
    text = template.render(nfs_server_firewall_rules=[{"protocol": "tcp", "port": 2049, "sources": sources}])
    return text.replace('iifname "lo"', f'iifname "{own_interface}"')


def reached(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "rules.nft"
    path.write_text(text)
    hosts = ("10.9.0.11", "10.9.0.12", "10.9.1.7", "10.9.0.13", "10.9.0.20")
    addresses = "".join(f"ip address add {host}/32 dev lo; " for host in hosts)
    script = f'set -e; ip link set lo up; {addresses}exec "$@"'
    argv = ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", NETWORK, str(path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
def test_workers_and_whom_the_site_names_are_let_in_and_nobody_else(tmp_path: Path) -> None:
    said = reached(tmp_path, ruleset(["10.9.0.11", "10.9.0.12", "10.9.1.0/24"], own_interface="other"))
    assert said == [
        "[True, True, True, True] [True, True, True, False] True",
        "[True, True, True, True]",
    ], "every source before; not the stranger; another port stays open; the table goes without a trace"


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
def test_the_machine_itself_is_never_refused(tmp_path: Path) -> None:
    assert reached(tmp_path, ruleset(["10.9.0.11"]))[0].endswith("[True, True, True, True] True")
