"""A lock in the cluster against a second run: a Lease that a keeper process renews for as long as its owner lives.

The keeper is a child of nobody: it watches the `ansible-playbook` process by its pid file descriptor. When that process
ends, by whatever cause, the keeper gives the Lease back at once; when the whole control node dies, the Lease expires.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import json
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils.tandem_kube import Kube, KubeError

NAMESPACE: Final = "kube-system"
NAME: Final = "tandem-run"
PATH: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
DURATION_SECONDS: Final = 30
"""A Lease that nobody renewed for so long is free."""
RENEW_SECONDS: Final = 5.0
RELEASE_SECONDS: Final = 60.0
"""How long the keeper tries to give the Lease back, for its owner may end while the API server restarts."""
CLEARLY_EXPIRED_SECONDS: Final = 600.0
"""Beyond this age two operators' clocks cannot be the reason, and nobody needs to watch the Lease first."""


class LockError(Exception):
    """The lock is held by somebody else, or cannot be taken; the message says by whom, and what to do."""


class Api(Protocol):
    """What is needed of the API client."""

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The decoded answer; raises KubeError."""

    def find(self, path: str) -> dict[str, Any] | None:
        """One object, None when it does not exist; raises KubeError."""


@dataclass(frozen=True)
class Clock:
    """Time and waiting, so that tests need neither."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def stamp(seconds: float) -> str:
    """A moment as a Lease holds it (microseconds, UTC)."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def age(lease: dict[str, Any], now: float) -> float:
    """How long ago a Lease was renewed, by our clock; infinite when it never was."""
    text = lease["spec"].get("renewTime")
    if not text:
        return float("inf")
    return now - datetime.datetime.fromisoformat(text).timestamp()


def holder(lease: dict[str, Any] | None) -> str:
    """Who holds a Lease; empty when nobody does."""
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def acquire(api: Api, identity: str, clock: Clock = Clock()) -> None:
    """Take the lock.

    A Lease that somebody holds is watched for as long as it lasts: when it is renewed meanwhile its holder lives, and
    we are refused; when it is not, its holder is gone. Two operators' clocks are never compared, but for very old ones.

    Raises:
        LockError: somebody else holds it, or took it in the same moment.
        KubeError: the API refused or cannot be reached.
    """
    found = api.find(f"{PATH}/{NAME}")
    if holder(found) not in ("", identity) and found is not None and age(found, clock.wall()) < CLEARLY_EXPIRED_SECONDS:
        found = _outlived(api, found, clock)
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION_SECONDS,
        "acquireTime": stamp(clock.wall()),
        "renewTime": stamp(clock.wall()),
        "leaseTransitions": int((found or {}).get("spec", {}).get("leaseTransitions") or 0) + 1,
    }
    body: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "tandem"}},
        "spec": spec,
    }
    try:
        if found is None:
            api.request("POST", PATH, body=body)
        else:
            body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            api.request("PUT", f"{PATH}/{NAME}", body=body)
    except KubeError as error:
        if error.status == 409:
            raise LockError(_refusal(api.find(f"{PATH}/{NAME}"))) from error
        raise


def _outlived(api: Api, seen: dict[str, Any], clock: Clock) -> dict[str, Any] | None:
    """The Lease once it has not been renewed for its whole duration.

    Whoever takes it meanwhile is watched in its turn: that may be a task of a run that was killed, too.

    Raises:
        LockError: its holder lives.
    """
    until = _expires(seen, clock)
    while clock.monotonic() < until:
        clock.sleep(1.0)
        now = api.find(f"{PATH}/{NAME}")
        if now is None or not holder(now):
            return now
        if holder(now) != holder(seen):
            seen, until = now, _expires(now, clock)
        elif now["spec"].get("renewTime") != seen["spec"].get("renewTime"):
            raise LockError(_refusal(now))
    return seen


def _expires(lease: dict[str, Any], clock: Clock) -> float:
    return clock.monotonic() + float(lease["spec"].get("leaseDurationSeconds") or DURATION_SECONDS)


def _refusal(lease: dict[str, Any] | None) -> str:
    since = (lease or {}).get("spec", {}).get("acquireTime", "an unknown moment")
    return (
        f"another run changes this cluster: {holder(lease) or 'unknown'} since {since} (Lease {NAMESPACE}/{NAME}); "
        "rule: one run at a time; nothing has been changed; way out: wait until it ends. The lock does not outlive it"
    )


def confirm(api: Api, identity: str) -> None:
    """Make sure that the lock is still ours.

    Raises:
        LockError: it is not: this run was held up for longer than the lock lasts.
        KubeError: the API refused or cannot be reached.
    """
    found = api.find(f"{PATH}/{NAME}")
    if holder(found) != identity:
        raise LockError(
            f"the lock on this cluster is held by {holder(found) or 'nobody'}, not by this run ({identity}) any more; "
            "rule: one run at a time; way out: run again, it resumes"
        )


def renew(api: Api, identity: str, clock: Clock = Clock()) -> bool:
    """Renew the lock; False when it is not ours any more.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    return _write(api, identity, {"renewTime": stamp(clock.wall())})


def release(api: Api, identity: str) -> bool:
    """Give the lock back; False when it was not ours any more.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    return _write(api, identity, {"holderIdentity": "", "leaseDurationSeconds": 1})


def _write(api: Api, identity: str, changes: dict[str, Any]) -> bool:
    found = api.find(f"{PATH}/{NAME}")
    if found is None or holder(found) != identity:
        return False
    try:
        api.request("PUT", f"{PATH}/{NAME}", body={**found, "spec": {**found["spec"], **changes}})
    except KubeError as error:
        if error.status == 409:
            return True  # somebody wrote in between; the next look tells who
        raise
    return True


def keep(api: Api, identity: str, owner_ended: Callable[[float], bool], clock: Clock = Clock()) -> None:
    """Renew until the owner ends or the lock is lost, then give it back.

    Args:
        api: the cluster.
        identity: ours.
        owner_ended: waits up to so many seconds for the owner's end; whether it came.
        clock: time.
    """
    while not owner_ended(RENEW_SECONDS):
        try:
            if not renew(api, identity, clock):
                return
        except KubeError:
            continue  # the API server restarts during a run; the Lease outlasts that
    until = clock.monotonic() + RELEASE_SECONDS
    while clock.monotonic() < until:
        try:
            release(api, identity)
        except KubeError:
            clock.sleep(1.0)
        else:
            return


def owner() -> int:
    """The process that runs the playbook: the parent of the process that runs a task.

    As it was when the task began: a task outlives a playbook that is killed, and is then init's child. A lock kept for
    init would be held for ever.
    """
    parent = multiprocessing.parent_process()
    return os.getppid() if parent is None or parent.pid is None else parent.pid


def hold(api: Api, kubeconfig: str, owner: int) -> str:
    """Take the lock for a process, and have it kept for as long as that lives; who we are to others.

    Raises:
        LockError: somebody else holds it, or the keeper did not start.
        KubeError: the API refused or cannot be reached.
    """
    identity = f"{getpass.getuser()}@{socket.gethostname()}, process {owner}"
    acquire(api, identity)
    try:
        start_keeper(kubeconfig, identity, owner)
    except LockError:
        # The owner was killed while its task waited for the lock, most likely: nobody would give it back.
        with contextlib.suppress(KubeError):
            release(api, identity)
        raise
    return identity


def start_keeper(kubeconfig: str, identity: str, owner: int) -> int:
    """Start the keeper in a session of its own; its process id. Returns when it watches the owner.

    Raises:
        LockError: it did not start.
    """
    keeper = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert keeper.stdin is not None  # noqa: S101
    assert keeper.stdout is not None  # noqa: S101
    keeper.stdin.write(json.dumps({"kubeconfig": kubeconfig, "identity": identity, "owner": owner}))
    keeper.stdin.close()
    answer = keeper.stdout.readline().strip()
    keeper.stdout.close()
    if answer != "watching":
        raise LockError(f"the process that keeps the lock did not start: {answer or 'no word'}")
    return keeper.pid


def watcher(owner: int) -> Callable[[float], bool]:
    """Waits for the end of a process; race-free where the kernel has pid file descriptors (Linux 5.3).

    Raises:
        OSError: no such process.
    """
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(owner)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return lambda seconds: bool(poll.poll(seconds * 1000))

    def ended(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.5)
        return False

    os.kill(owner, 0)
    return ended


def main() -> None:
    """The keeper: reads what to keep from standard input, says `watching`, and stays until its owner ends."""
    given = json.loads(sys.stdin.read())
    ended = watcher(given["owner"])
    api = Kube(given["kubeconfig"])
    print("watching", flush=True)  # noqa: T201
    # Nobody reads on; a descriptor that was inherited must not keep anybody waiting either.
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    keep(api, given["identity"], ended)


if __name__ == "__main__":
    main()
