"""A stack under the real pulumi CLI on a real API server.

No kubelet and no controller is there, so nothing is awaited; and nobody collects garbage, so that what is deleted in
the foreground, as the provider does, would stay for ever: `collecting` stands in for that.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab.build import BuildError, artifacts
from lab.pulumi.workspace import PROJECT, Workspace, official_tools
from tandem.runtime.testing.localapi import LocalApi, Programs
from tests.pulumi.stack_files import apps_of

ALONE = {"pulumi.com/skipAwait": "true", "pulumi.com/deletionPropagationPolicy": "background"}
SKIP = {"metadata": {"annotations": ALONE}}
CONTROLLER: dict[str, Any] = dict.fromkeys(("Deployment", "ConfigMap"), SKIP)
NEVER_AWAITED: Mapping[str, dict[str, Any]] = {
    "spread": CONTROLLER,
    "single-writer": dict.fromkeys(("Deployment", "PersistentVolumeClaim", "DaemonSet"), SKIP),
    "node-agent": dict.fromkeys(("DaemonSet",), SKIP),
    "stateful": dict.fromkeys(("StatefulSet", "PersistentVolumeClaim"), SKIP),
}
"""Patches that let `pulumi up` not wait, by kind of app; CONTROLLER for all others."""

SECONDS = 500
SCHEMA_TRIES = 10

FOREGROUND = "foregroundDeletion"
COLLECTED = (
    "/api/v1/services",
    "/api/v1/configmaps",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/daemonsets",
    "/apis/apps/v1/statefulsets",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
)
"""What a stack deletes and nothing depends on. Claims, volumes and namespaces are not among it: they are to stay."""

COLLECT_SECONDS = 1.0


def unawaited(stack: str) -> dict[str, Any]:
    """The apps of a committed stack file, none of which is waited for."""
    return {name: {**app, "patch": NEVER_AWAITED.get(app["kind"], CONTROLLER)} for name, app in apps_of(stack).items()}


class Stack:
    """A stack, its settings changed, on one API server.

    Args:
        workspace: holds its state.
        api: the API server.
        name: of the stack file.
        changes: of its settings, by dotted path.
    """

    def __init__(self, workspace: Workspace, api: LocalApi, name: str, changes: Mapping[str, Any]) -> None:
        self.workspace, self.api, self.name, self.changes = workspace, api, name, dict(changes)

    def run(self, verb: str, *options: str, code: int = 0, **changes: Any) -> str:
        """Run pulumi and return what it said, both streams; `changes` of the settings are for this run only."""
        return "".join(self.streams(verb, *options, code=code, **changes))

    def streams(self, verb: str, *options: str, code: int = 0, **changes: Any) -> tuple[str, str]:
        """The same, standard output and error apart."""
        file = self.workspace.write_stack_file(self.name, {**self.changes, **changes})
        if not self.workspace.has_stack(self.name):
            self.workspace.create_stack(self.name)
        return self._pulumi([verb, "--config-file", str(file), *options], PROJECT, code)

    def destroy(self, *options: str, code: int = 0) -> str:
        """Run `pulumi destroy`, which asks no program; returns what it said."""
        return "".join(self._pulumi(["destroy", "--yes", *options], self.workspace.backend, code))

    def export(self) -> dict[str, Any]:
        """The stack's state."""
        state: dict[str, Any] = json.loads(self._pulumi(["stack", "export"], self.workspace.backend, 0)[0])
        return state

    def urns(self) -> list[str]:
        """Of all resources in the state."""
        return [each["urn"] for each in self.export()["deployment"]["resources"]]

    def unprotect(self, which: str) -> None:
        """Take the protection off one resource, or off all of them: `--all`."""
        self._pulumi(["state", "unprotect", which, "--yes"], self.workspace.backend, 0)

    def _pulumi(self, arguments: list[str], folder: Path, code: int) -> tuple[str, str]:
        plain = ["--stack", self.name, "--non-interactive", "--color", "never"]
        env = self.workspace.environment()
        done = subprocess.run(
            ["pulumi", *arguments, *plain],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == code, f"exit code {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr

    def get(self, path: str) -> Any:
        return self.api.request("GET", path)

    def names(self, path: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.get(path)["items"]}


@contextmanager
def collecting(api: LocalApi) -> Iterator[None]:
    """Let go, as the garbage collector would, what is deleted and has nothing left that depends on it."""
    over = threading.Event()

    def collect() -> None:
        while not over.wait(COLLECT_SECONDS):
            # A server that is busy is asked again.
            with suppress(OSError):
                for path in COLLECTED:
                    for each in api.request("GET", path)["items"]:
                        release(api, path, each["metadata"])

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def release(api: LocalApi, path: str, metadata: dict[str, Any]) -> None:
    """Take the finalizer of a foreground deletion off one object."""
    finalizers = metadata.get("finalizers") or []
    if FOREGROUND not in finalizers or "deletionTimestamp" not in metadata:
        return
    group, _, plural = path.rpartition("/")
    inside = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    left = [each for each in finalizers if each != FOREGROUND]
    body = {"metadata": {"finalizers": left, "resourceVersion": metadata["resourceVersion"]}}
    place = f"{group}{inside}/{plural}/{metadata['name']}"
    api.request("PATCH", place, body, content="application/merge-patch+json")


@contextmanager
def local_api() -> Iterator[LocalApi]:
    """An API server of the lab's own build; the test fails when there is none."""
    try:
        built = artifacts.tools()
    except BuildError as error:
        pytest.fail(f"{error}")
    with LocalApi(Programs(built / "etcd", built / "kube-apiserver")) as api:
        reckon_schema(api)
        yield api


def reckon_schema(api: LocalApi) -> None:
    """Have the server make its schema: the first time takes longer, on a busy machine, than the provider waits."""
    for _ in range(SCHEMA_TRIES):
        with suppress(OSError):
            api.request("GET", "/openapi/v2")
            return


def workspace_on(api: LocalApi, folder: Path) -> Workspace:
    """A workspace in `folder` for this API server, on the official tools where they are installed; else the lab's."""
    workspace = Workspace(folder, api.kubeconfig(), None if official_tools() else artifacts.tools())
    workspace.prepare()
    return workspace
