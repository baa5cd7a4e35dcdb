"""What runs on the machines and in the cluster after site.yml, seen from outside Ansible.

The machines are those of the inventory (ansible.cfg's, or ANSIBLE_INVENTORY). Run by molecule's verifier, or by pytest,
which then first makes the cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from plugins.module_utils.tandem_kube import Kube  # noqa: E402

Machine = Any


def pytest_configure(config: pytest.Config) -> None:
    """Names the marker that keeps power cuts out of molecule's verification."""
    config.addinivalue_line("markers", "disruptive: switches a machine off; not part of molecule's verification")


def cluster_is_there_already() -> bool:
    """Molecule makes the cluster before it verifies; TANDEM_TESTINFRA_CLUSTER=ready says that one runs."""
    return "MOLECULE_SCENARIO_NAME" in os.environ or os.environ.get("TANDEM_TESTINFRA_CLUSTER") == "ready"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Plain pytest has molecule make the cluster, whose verifier runs all but the long and disruptive tests."""
    if cluster_is_there_already():
        return
    for item in items:
        ours = Path(__file__).parent in item.path.parents
        if ours and not any(item.get_closest_marker(name) for name in ("disruptive", "long")):
            item.add_marker(
                pytest.mark.skip(reason="molecule's verifier runs it; TANDEM_TESTINFRA_CLUSTER=ready: here")
            )


@pytest.fixture(scope="session", autouse=True)
def _cluster_is_there(request: pytest.FixtureRequest) -> None:
    """Plain pytest asks for a cluster; for molecule it is there."""
    if not cluster_is_there_already():
        request.getfixturevalue("cluster")


@pytest.fixture(scope="session")
def inventory(_cluster_is_there: None) -> dict[str, Any]:
    """The inventory as Ansible sees it."""
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "--list"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout, object_hook=_unwrapped)
    return document


def _unwrapped(value: dict[str, Any]) -> Any:
    """Text that came from an inventory plugin is wrapped, to say that it is no template."""
    return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else value


@pytest.fixture(scope="session")
def machine(inventory: dict[str, Any]) -> Callable[[str], Machine]:
    """A connection to one machine of the inventory, by name."""

    @cache
    def connect(name: str) -> Machine:
        variables = inventory["_meta"]["hostvars"][name]
        arguments = str(variables.get("ansible_ssh_common_args", ""))
        return testinfra.get_host(
            f"ssh://{variables['ansible_user']}@{variables['ansible_host']}", ssh_extra_args=arguments
        )

    return connect


@pytest.fixture(scope="session")
def workers(inventory: dict[str, Any]) -> list[str]:
    """Names of the workers."""
    return list(inventory["workers"]["hosts"])


@pytest.fixture(scope="session")
def control_plane(inventory: dict[str, Any]) -> list[str]:
    """Names of the control plane machines."""
    return list(inventory["control_plane"]["hosts"])


@pytest.fixture(scope="session")
def nodes(control_plane: list[str], workers: list[str]) -> list[str]:
    """Names of all machines that are nodes of the cluster."""
    return control_plane + workers


@pytest.fixture(scope="session")
def kubeconfig_folder(inventory: dict[str, Any], control_plane: list[str]) -> Path:
    """Where site.yml left the kubeconfigs."""
    return ROOT / "build" / "kubeconfig" / str(inventory["_meta"]["hostvars"][control_plane[0]]["tandem_cluster_name"])


@pytest.fixture(scope="session")
def kube(kubeconfig_folder: Path) -> Kube:
    """The cluster's API, as administrator."""
    return Kube(str(kubeconfig_folder / "admin.conf"))


@pytest.fixture(scope="session")
def profile(kube: Kube) -> str:
    """Name of the recovery profile that the cluster says it has."""
    return str(kube.get("/api/v1/namespaces/tandem-system/configmaps/recovery-profile")["data"]["profile"])
