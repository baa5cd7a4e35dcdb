"""Inventory of the machine lab: asks `python -m lab status --json` which machines run and how to reach them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = """
name: tandem_lab
short_description: Machines of Tandem's lab
description:
  - Reads the state of a running lab and offers its machines in the groups C(control_plane), C(workers), C(nfs_server).
  - When the lab is down the usual four machines are offered with no way to reach them, so that syntax checks work and
    preflight says that they are unreachable.
options:
  plugin:
    description: Marks the file as one for this plugin.
    required: true
    choices: [tandem_lab]
  lab:
    description: Name of the lab. The environment variable TANDEM_LAB wins.
    default: default
    type: str
"""

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"cp": "control_plane", "w": "workers", "nfs": "nfs_server"}
USUAL_MACHINES = {"cp1": "10.77.0.10", "w1": "10.77.0.11", "w2": "10.77.0.12", "nfs1": "10.77.0.20"}
STATUS_TIMEOUT_SECONDS = 30


def group_of(machine: str) -> str:
    """The inventory group of a lab machine: its name without the number says it.

    Raises:
        ValueError: a name that the lab does not use.
    """
    try:
        return GROUPS[machine.rstrip("0123456789")]
    except KeyError:
        raise ValueError(f"lab machine {machine!r} belongs to no group; known prefixes: {', '.join(GROUPS)}") from None


def machines_of(status: dict[str, Any]) -> dict[str, str]:
    """Name to address of the machines in the lab's status document."""
    machines = status.get("machines") or status.get("nodes") or {}
    if isinstance(machines, list):
        machines = {machine["name"]: machine for machine in machines}
    return {name: str(machine["address"]).split("/")[0] for name, machine in machines.items()}


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """Offers the machines of one lab."""

    NAME = "tandem_lab"

    def verify_file(self, path: str) -> bool:
        """Only files named *.tandem_lab.yml are ours."""
        return bool(super().verify_file(path)) and path.endswith(".tandem_lab.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory from the running lab, or with the usual machines when none runs."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        name = os.environ.get("TANDEM_LAB") or self.get_option("lab")
        status = self._status(name)
        machines = machines_of(status) if status else USUAL_MACHINES
        for group in GROUPS.values():
            inventory.add_group(group)
        for machine, address in machines.items():
            inventory.add_host(machine, group=group_of(machine))
            inventory.set_variable(machine, "ansible_host", machine)
            inventory.set_variable(machine, "ansible_user", "root")
            inventory.set_variable(machine, "tandem_address", address)
        if status:
            # In place of ansible.cfg's: the lab's ssh_config keeps connections open, and ends them with a machine.
            inventory.set_variable("all", "ansible_ssh_args", f"-F {status['ssh_config']}")
            inventory.set_variable("all", "ansible_ssh_common_args", f"-F {status['ssh_config']}")
            inventory.set_variable("all", "tandem_kubeconfig_server", status["api_server"])
        inventory.set_variable("all", "tandem_lab_name", name)

    def _status(self, name: str) -> dict[str, Any]:
        """The lab's status document, empty when it is not up."""
        command = [sys.executable, "-m", "lab", "--name", name, "status", "--json"]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=STATUS_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AnsibleParserError(f"`{' '.join(command)}` gave no answer in {STATUS_TIMEOUT_SECONDS} s") from error
        try:
            status = json.loads(done.stdout)
        except ValueError:
            return {}
        return status if isinstance(status, dict) and status.get("ssh_config") and machines_of(status) else {}
