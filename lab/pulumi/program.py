"""Run one Pulumi program in this process: what the language host starts for each Run.

Arguments: a JSON document with the run's settings, the program's path (a file, or a folder with `__main__.py`), and the
program's own arguments. The configuration comes in PULUMI_CONFIG, as the SDK defines it. Exit code 32 means that the
engine has already been told of the error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped,unused-ignore]
import pulumi

USER_ALREADY_TOLD = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    settings, path, *arguments = sys.argv[1:] if argv is None else argv
    parallel = configure(json.loads(settings))
    vars(pulumi.runtime.stack)["asyncio"] = PatientAsyncio()
    sys.argv = [path, *arguments]
    # An error in a task that somebody else awaits is reported there; asyncio would print it a second time.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    # Each registration blocks a thread while the engine works on it.
    loop.set_default_executor(ThreadPoolExecutor(max_workers=max(parallel, 1) * 4))
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: run(path)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
    except grpc.RpcError as error:
        # An engine that has gone away is ending the run for a reason that it knows itself.
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            pulumi.log.error(f"the engine refused a call: {error.details()}")
    except Exception:  # noqa: BLE001 - whatever the program raised is told to the user as an error of the program
        pulumi.log.error(f"Program failed with an unhandled exception:\n{traceback.format_exc()}")
    else:
        return 0
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        sys.stdout.flush()
        sys.stderr.flush()
    return USER_ALREADY_TOLD


def configure(run: dict[str, Any]) -> int:
    """Point the SDK at the engine; returns how many operations may run at once."""
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    # 2^31 - 1 is how the CLI writes "without limit".
    parallel = min(int(run["parallel"]), 64)
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            project=run["project"],
            stack=run["stack"],
            organization=run["organization"] or "organization",
            root_directory=run["root_directory"],
            monitor=run["monitor"],
            engine=run["engine"],
            parallel=parallel,
            dry_run=bool(run["dry_run"]),
        )
    )
    return parallel


class PatientAsyncio:
    """asyncio, but `sleep(0)` takes a millisecond.

    While resources are being awaited, the SDK (pulumi/runtime/stack.py, `wait_for_rpcs`) asks after every output in
    turn with `sleep(0)` between, which takes most of a core for as long as a rollout lasts (63 % was seen): on the lab,
    a core that the machines of the rollout need.
    """

    def __getattr__(self, name: str) -> Any:
        """Everything else as it is."""
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        """At least a millisecond."""
        await asyncio.sleep(max(seconds, 0.001))


def run(path: str) -> None:
    """Run the program as the main module."""
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())
