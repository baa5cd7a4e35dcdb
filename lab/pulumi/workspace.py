"""Where a lab's Pulumi state is, which tools run it, and the environment that both need.

A user's own site needs none of this: there `pulumi up --stack prod` runs with the user's backend and secrets.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import yaml

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
"""The folder of Pulumi.yaml."""

_KEPT: Final = ("encryptionsalt", "secretsprovider", "encryptedkey")
"""What the CLI itself writes into a stack's file, to be carried over into the next copy."""


_ANALYZER: Final = """\
#!/bin/sh
# Pulumi runs this for a policy pack in Python; the official one ships with the official CLI.
exec "${PULUMI_PYTHON_CMD:-python3}" -u -m pulumi.policy "$@"
"""


class WorkspaceError(Exception):
    """The lab stack cannot be run; the message says why and what to do."""


@dataclass(frozen=True)
class Workspace:
    """A file backend with its passphrase and its copies of stack files.

    Args:
        folder: holds all of it; private to the user.
        kubeconfig: of the cluster, or None for a preview without one.
        tools: folder with the lab's own CLI, language host and provider; None: the user's official ones on PATH.
    """

    folder: Path
    kubeconfig: Path | None
    tools: Path | None

    @property
    def backend(self) -> Path:
        """The state's folder. One for each cluster: a new cluster under an old name must not look deployed already."""
        return self.folder / f"state-{cluster_key(self.kubeconfig)}"

    def prepare(self) -> None:
        """Create the folders and, once, the passphrase."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.backend.mkdir(exist_ok=True, mode=0o700)
        if not self._passphrase.exists():
            fresh = self._passphrase.with_suffix(f".{os.getpid()}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(32) + "\n")
            # A link fails if another process was first; then its passphrase counts.
            try:
                os.link(fresh, self._passphrase)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        if self.tools:
            plugin = self._home / "plugins" / f"resource-kubernetes-v{metadata.version('pulumi-kubernetes')}"
            plugin.mkdir(parents=True, exist_ok=True)
            fresh = plugin / f"new-{os.getpid()}"
            fresh.symlink_to(self.tools / "pulumi-resource-kubernetes")
            fresh.replace(plugin / "pulumi-resource-kubernetes")
            analyzer = self._home / "plugins" / f"analyzer-policy-python-v{metadata.version('pulumi')}"
            analyzer.mkdir(parents=True, exist_ok=True)
            launcher = analyzer / f"new-{os.getpid()}"
            launcher.write_text(_ANALYZER)
            launcher.chmod(0o755)
            launcher.replace(analyzer / "pulumi-analyzer-policy-python")

    def settings(self) -> dict[str, str]:
        """The variables that make pulumi use this workspace."""
        variables = {
            "PULUMI_BACKEND_URL": f"file://{self.backend}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self._passphrase),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        if self.kubeconfig:
            variables["KUBECONFIG"] = str(self.kubeconfig)
        if self.tools:
            # Nothing is fetched: what is missing is an error that says so.
            variables["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
            variables["PULUMI_PYTHON_CMD"] = os.environ.get("PULUMI_PYTHON_CMD", sys.executable)
            variables["PULUMI_HOME"] = str(self._home)
            # The provider is where plugins belong; without this the CLI warns that it is on PATH as well.
            variables["PULUMI_IGNORE_AMBIENT_PLUGINS"] = "true"
            variables["PATH"] = f"{self.tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return variables

    def environment(self) -> dict[str, str]:
        """The whole environment of a pulumi process."""
        # A passphrase of the user's own would win over the file.
        inherited = {key: value for key, value in os.environ.items() if key != "PULUMI_CONFIG_PASSPHRASE"}
        return inherited | self.settings()

    def has_stack(self, stack: str) -> bool:
        """Whether the backend knows the stack."""
        return any((self.backend / ".pulumi" / "stacks").glob(f"*/{stack}.json*"))

    def create_stack(self, stack: str) -> None:
        """Make the stack in the backend; its file must have been written.

        `pulumi stack init` takes no --config-file and writes the passphrase's salt into the project's own stack file.
        So it runs in the backend's folder, as a project of the same name whose stack file is the copy.

        Raises:
            WorkspaceError: pulumi refused; the message has its own.
        """
        project = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())
        (self.backend / "Pulumi.yaml").write_text(yaml.safe_dump({"name": project["name"], "runtime": "python"}))
        command = ["pulumi", "stack", "init", stack, "--non-interactive", "--no-select"]
        done = subprocess.run(
            command, cwd=self.backend, env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise WorkspaceError(f"stack {stack} could not be made: {(done.stderr or done.stdout).strip()}")

    def write_stack_file(self, stack: str, changes: Mapping[str, Any]) -> Path:
        """Copy `stacks/Pulumi.<stack>.yaml` into the workspace with `changes`, and return the copy.

        A copy, because the CLI writes the passphrase's salt into the file, and the committed one stays as it is.

        Args:
            stack: its name.
            changes: dotted path below `tandem:` (`profile`, `apps.web.replicas`) to value.

        Raises:
            WorkspaceError: there is no such stack or path.
        """
        original = PROJECT / "stacks" / f"Pulumi.{stack}.yaml"
        if not original.exists():
            known = sorted(file.stem.removeprefix("Pulumi.") for file in original.parent.glob("Pulumi.*.yaml"))
            raise WorkspaceError(f"no stack {stack}: {original} does not exist; known: {', '.join(known)}")
        document = yaml.safe_load(original.read_text())
        for path, value in changes.items():
            _change(document["config"], path, value)
        copy = self.backend / original.name
        if copy.exists():
            before = yaml.safe_load(copy.read_text()) or {}
            document |= {key: before[key] for key in _KEPT if key in before}
        fresh = copy.with_suffix(f".{os.getpid()}")
        fresh.write_text(yaml.dump(document, Dumper=_PlainDumper, sort_keys=False))
        return fresh.replace(copy)

    @property
    def _home(self) -> Path:
        """Plugins of the lab's own tools."""
        return self.folder / "home"

    @property
    def _passphrase(self) -> Path:
        return self.folder / "passphrase"


class _PlainDumper(yaml.SafeDumper):
    """Writes what an anchor stood for."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: the CLI's own reader need not know anchors."""
        return True


def cluster_key(kubeconfig: Path | None) -> str:
    """Twelve digits that differ between clusters, made from the certificate authority of each; `none` without one."""
    if kubeconfig is None:
        return "none"
    document = yaml.safe_load(kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    identity = cluster.get("certificate-authority-data") or cluster["server"]
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def official_tools(path: str | None = None) -> bool:
    """Whether the user has an official pulumi with its Python language host on PATH."""
    return bool(shutil.which("pulumi", path=path) and shutil.which("pulumi-language-python", path=path))


def _change(config: dict[str, Any], path: str, value: Any) -> None:
    first, *rest = path.split(".")
    key, place = f"tandem:{first}", config
    for step in rest:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise WorkspaceError(f"{path}: {key} is a value, not a mapping")
        key = step
    place[key] = value
