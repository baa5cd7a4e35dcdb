"""The stand-in language host, spoken to as the CLI does; what it does under the real CLI is in test_preview.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc  # type: ignore[import-untyped,unused-ignore]
import pytest
from google.protobuf import empty_pb2  # type: ignore[import-untyped,unused-ignore]
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from lab.pulumi.language_host import interpreter, main, program_arguments
from tests.pulumi.stack_files import ROOT

NO_ENGINE = "127.0.0.1:1"


@dataclass
class Host:
    process: subprocess.Popen[bytes]
    stub: language_pb2_grpc.LanguageRuntimeStub
    channel: grpc.Channel


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host for all tests that leave it running."""
    with running_host({}) as started:
        yield started


@contextmanager
def running_host(more: dict[str, str]) -> Iterator[Host]:
    """A host with these environment variables added."""
    env = os.environ | more
    argv = [sys.executable, "-P", "-u", "-m", "lab.pulumi.language_host", "--logtostderr", "-v=9", NO_ENGINE]
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Host(process, language_pb2_grpc.LanguageRuntimeStub(channel), channel)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_first_line_is_the_port_and_the_plugin_info_the_sdks_version(host: Host) -> None:
    assert host.stub.GetPluginInfo(empty_pb2.Empty(), timeout=10).version == "3.216.0"


def test_required_packages_are_the_installed_providers(host: Host) -> None:
    answer = host.stub.GetRequiredPackages(language_pb2.GetRequiredPackagesRequest(), timeout=10)
    assert ("kubernetes", "v4.25.0", "resource") in {(each.name, each.version, each.kind) for each in answer.packages}


def test_dependencies_are_taken_as_installed(host: Host) -> None:
    assert list(host.stub.InstallDependencies(language_pb2.InstallDependenciesRequest(), timeout=10)) == []


def test_about(host: Host) -> None:
    assert host.stub.About(language_pb2.AboutRequest(), timeout=10).executable == sys.executable


@pytest.mark.parametrize(
    "method", ["/pulumirpc.LanguageRuntime/Pack", "/pulumirpc.LanguageRuntime/Handshake", "/no.Service/None"]
)
def test_anything_else_is_unimplemented(host: Host, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        host.channel.unary_unary(method)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ends_when_told(end: signal.Signals) -> None:
    with running_host({}) as host:
        host.process.send_signal(end)
        assert host.process.wait(timeout=10) == 0


def run_request(folder: Path, **info: str) -> language_pb2.RunRequest:
    about = language_pb2.ProgramInfo(root_directory=str(folder), program_directory=str(folder), entry_point=".", **info)
    return language_pb2.RunRequest(
        project="p", stack="s", pwd=str(folder), info=about, config={"p:key": "value"}, monitor_address=NO_ENGINE
    )


@pytest.mark.parametrize(
    ("python", "error"),
    [("/nowhere/python", "/nowhere/python cannot be started"), ("false", "ended with exit code 1")],
)
def test_a_program_that_cannot_run_is_an_error(python: str, error: str, tmp_path: Path) -> None:
    with running_host({"PULUMI_PYTHON_CMD": python}) as host:
        answer = host.stub.Run(run_request(tmp_path), timeout=30)
    assert error in answer.error
    assert not answer.bail


def test_two_programs_share_nothing(host: Host, tmp_path: Path) -> None:
    """Each Run is a process of its own: a module left in memory by one is not seen by the next."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$$ $PULUMI_CONFIG" >> {tmp_path}/runs\n')
    script.chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script.rename(tmp_path / ".venv" / "bin" / "python")
    for _ in range(2):
        request = run_request(tmp_path)
        request.info.options.update({"virtualenv": ".venv"})
        assert host.stub.Run(request, timeout=30) == language_pb2.RunResponse()
    (first, config), (second, _) = [line.split(" ", 1) for line in (tmp_path / "runs").read_text().splitlines()]
    assert first != second
    assert json.loads(config) == {"p:key": "value"}


@pytest.mark.parametrize("arguments", [[], ["--logtostderr"], ["no-port"]])
def test_wrong_call_says_how(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "ENGINE_HOST:PORT" in capsys.readouterr().err


def test_interpreter(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    assert interpreter({}, {}, tmp_path) == sys.executable
    assert interpreter({}, {"virtualenv": ".venv"}, tmp_path) == sys.executable
    python.touch()
    assert interpreter({}, {"virtualenv": ".venv"}, tmp_path) == str(python)
    assert interpreter({"PULUMI_PYTHON_CMD": "py"}, {"virtualenv": ".venv"}, tmp_path) == "py"


def test_program_arguments(tmp_path: Path) -> None:
    request = run_request(tmp_path)
    request.args.append("--flag")
    request.dryRun = True
    settings, path, *rest = program_arguments(request, "engine:1")
    assert json.loads(settings) == {
        "project": "p",
        "stack": "s",
        "organization": "",
        "root_directory": str(tmp_path),
        "monitor": NO_ENGINE,
        "engine": "engine:1",
        "parallel": 0,
        "dry_run": True,
    }
    assert Path(path) == tmp_path
    assert rest == ["--flag"]
