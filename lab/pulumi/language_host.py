"""The program that the pulumi CLI starts to run Python programs: `pulumi-language-python`.

The official one comes with the official CLI and is not to be had as a Go module, so the lab, which builds its CLI from
modules, brings its own. It answers what CLI 3.216 asks (proto/pulumi/language.proto) for programs that are already
installed: which plugins they need, and Run. Everything else is UNIMPLEMENTED, which the CLI takes as "not offered".

Called as `pulumi-language-python [--flag...] ENGINE_ADDRESS`. The first line on standard output is the port that it
listens on, on loopback. It ends on SIGINT or SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped,unused-ignore]
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

USER_ALREADY_TOLD: Final = 32
"""Exit code of a program whose error was reported to the engine; the official host's own convention (`bail`)."""

PLUGIN_FILE: Final = "pulumi-plugin.json"

PROGRAM: Final = Path(__file__).with_name("program.py")


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs each program in a child process: its modules, its event loop and its exit are its own.

    Args:
        engine: address of the CLI's engine service; Run does not carry it.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:  # noqa: N802 - the protocol's names
        """The SDK's version. The CLI asks right after the start and gives up on an error."""
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def GetRequiredPackages(  # noqa: N802
        self, request: Any, context: Any
    ) -> language_pb2.GetRequiredPackagesResponse:
        """The resource plugins of the installed distributions, from the file that each SDK carries."""
        return language_pb2.GetRequiredPackagesResponse(packages=list(required_packages()))

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Nothing: the project's own set-up installs them."""
        return iter(())

    def About(self, request: Any, context: Any) -> language_pb2.AboutResponse:  # noqa: N802
        """For `pulumi about`."""
        return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

    def GetProgramDependencies(  # noqa: N802
        self, request: Any, context: Any
    ) -> language_pb2.GetProgramDependenciesResponse:
        """For `pulumi about`: the installed distributions."""
        found = sorted({(each.metadata["Name"], each.version) for each in metadata.distributions()})
        dependencies = [language_pb2.DependencyInfo(name=name, version=version) for name, version in found]
        return language_pb2.GetProgramDependenciesResponse(dependencies=dependencies)

    def Run(self, request: Any, context: Any) -> language_pb2.RunResponse:  # noqa: N802
        """Run a program to its end. `bail`: the user has seen the error; `error`: one that nobody reported."""
        python = interpreter(os.environ, json_options(request), Path(request.info.root_directory or request.pwd))
        try:
            code = self._run([python, "-u", str(PROGRAM), *program_arguments(request, self._engine)], request)
        except OSError as error:
            return language_pb2.RunResponse(error=f"{python} cannot be started: {error}")
        if code == USER_ALREADY_TOLD:
            return language_pb2.RunResponse(bail=True)
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return language_pb2.RunResponse(error=f"the program {how}")
        return language_pb2.RunResponse()

    def stop(self) -> None:
        """Pass the end on to programs that still run."""
        with self._lock:
            self._stopping = True
            for child in self._children:
                child.terminate()

    def _run(self, argv: Sequence[str], request: Any) -> int:
        env = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        with self._lock:
            if self._stopping:
                return -signal.SIGTERM
            child = subprocess.Popen(argv, cwd=request.pwd, env=env, stdin=subprocess.DEVNULL)
            self._children.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._children.discard(child)


def json_options(request: Any) -> dict[str, Any]:
    """The options of `runtime:` in Pulumi.yaml, as plain data."""
    return {key: value.string_value for key, value in request.info.options.fields.items() if value.string_value}


def interpreter(env: Mapping[str, str], options: Mapping[str, Any], root: Path) -> str:
    """Which Python runs the program: PULUMI_PYTHON_CMD, else that of the project's environment, else this one."""
    if command := env.get("PULUMI_PYTHON_CMD"):
        return command
    if name := options.get("virtualenv"):
        python = root / name / "bin" / "python"
        if python.exists():
            return str(python)
    return sys.executable


def program_arguments(request: Any, engine: str) -> list[str]:
    """What `program.py` is told: one JSON document about the run, the program's path, the program's own arguments."""
    about = {
        "project": request.project,
        "stack": request.stack,
        "organization": request.organization,
        "root_directory": request.info.root_directory,
        "monitor": request.monitor_address,
        "engine": engine,
        "parallel": request.parallel,
        "dry_run": request.dryRun,
    }
    entry = request.info.entry_point or "."
    return [json.dumps(about), str(Path(request.info.program_directory or request.pwd) / entry), *request.args]


def required_packages() -> Iterator[plugin_pb2.PackageDependency]:
    """One dependency for each installed distribution whose SDK names a resource plugin."""
    for distribution in metadata.distributions():
        # Some distributions list tens of thousands of files; only a list that has the name is worth parsing.
        if PLUGIN_FILE not in (distribution.read_text("RECORD") or ""):
            continue
        for file in distribution.files or ():
            if file.name != PLUGIN_FILE:
                continue
            plugin = json.loads(Path(str(distribution.locate_file(file))).read_text())
            if plugin.get("resource"):
                name = plugin.get("name") or distribution.metadata["Name"].replace("_", "-").removeprefix("pulumi-")
                yield plugin_pb2.PackageDependency(
                    name=name,
                    kind="resource",
                    version=f"v{plugin.get('version') or distribution.version}",
                    server=plugin.get("server", ""),
                )


def serve(engine: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    # A pipe, not sigwait or an event: threads that gRPC started on import may be the ones that get the signal, and then
    # nothing else would wake this one.
    told, teller = os.pipe()
    os.set_blocking(teller, False)
    signal.set_wakeup_fd(teller)
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, lambda number, frame: None)
    host = LanguageHost(engine)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    os.write(1, f"{port}\n".encode())
    os.read(told, 1)
    host.stop()
    server.stop(grace=2).wait()


def main(argv: Sequence[str] | None = None) -> int:
    """The CLI's flags come first and are not for us; the engine's address is the last argument."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[-1].startswith("-") or ":" not in arguments[-1]:
        sys.stderr.write("usage: pulumi-language-python [--flag...] ENGINE_HOST:PORT (the pulumi CLI starts it)\n")
        return 2
    serve(arguments[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
