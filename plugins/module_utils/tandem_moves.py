"""What a claim's move changes in the cluster: each step finds out by itself whether it was done before."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .tandem_adopting import MOVED
from .tandem_claims import OTHERS, World, key_of, users
from .tandem_kube import MERGE, Kube, KubeError
from .tandem_lock import owner

RECORD: Final = "/api/v1/namespaces/kube-system/configmaps"
RECORD_NAME: Final = "tandem-adopt"
"""Beside the Lease of the run: one key for each claim that was moved."""
VOLUMES: Final = "/api/v1/persistentvolumes"
PLURALS: Final = {"Deployment": "deployments", "StatefulSet": "statefulsets"}
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
"""How long an API server that does not answer is asked again: a stopped workload waits for us."""


class Api(Kube):
    """The API, asked again while it does not answer: each request of ours may be sent twice.

    A task outlives a playbook that is killed, and another run may have begun by then: it asks for nothing more.
    """

    def __init__(self, kubeconfig: str) -> None:
        super().__init__(kubeconfig)
        self._owner = owner()

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The decoded answer.

        Raises:
            KubeError: no answer for a minute, or one other than 2xx; or the playbook has ended.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            if os.getppid() != self._owner:
                raise KubeError("ansible-playbook has ended, and its tasks with it")
            try:
                return super().request(method, path, body, headers)
            except KubeError as error:
                if not error.away or time.monotonic() > until:
                    raise
            time.sleep(POLL_SECONDS)


def until(holds: Callable[[], str], seconds: float, what: str, way_out: str) -> None:
    """Wait until nothing is missing.

    Args:
        holds: what is missing, in words; empty when nothing is.
        seconds: how long.
        what: what does not happen in time.
        way_out: what to do then.

    Raises:
        TimeoutError: it does not happen in time.
    """
    end = time.monotonic() + seconds
    while missing := holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s ({missing}); way out: {way_out}")
        time.sleep(POLL_SECONDS)


def claims_path(claim: str) -> str:
    """Where the claims of a claim's namespace are."""
    return f"/api/v1/namespaces/{claim.partition('/')[0]}/persistentvolumeclaims"


def pods_path(claim: str) -> str:
    """Where the pods of a claim's namespace are."""
    return f"/api/v1/namespaces/{claim.partition('/')[0]}/pods"


def _owner(claim: str, owner: Mapping[str, Any]) -> str:
    return f"/apis/apps/v1/namespaces/{claim.partition('/')[0]}/{PLURALS[owner['kind']]}/{owner['name']}"


def world(api: Kube, claim: str, class_name: str) -> World:
    """What the API has.

    Raises:
        KubeError: it refused or cannot be reached.
    """
    namespace, _, name = claim.partition("/")

    def items(group: str, plural: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.get(f"/{group}/namespaces/{namespace}/{plural}")["items"]
        return found

    there = api.find(f"{claims_path(claim)}/{name}")
    bound = (there or {}).get("spec", {}).get("volumeName")
    known = records(api)
    old = known.get(key_of(claim), {}).get("old")
    return World(
        claim=there,
        volume=api.find(f"{VOLUMES}/{bound}") if bound else None,
        old=api.find(f"{VOLUMES}/{old}") if old else None,
        storage_class=api.find(f"/apis/storage.k8s.io/v1/storageclasses/{class_name}"),
        nodes=api.get("/api/v1/nodes")["items"],
        pods=items("api/v1", "pods"),
        deployments=items("apis/apps/v1", "deployments"),
        statefulsets=items("apis/apps/v1", "statefulsets"),
        others={
            kind: items("apis/batch/v1" if "Job" in kind else "apis/apps/v1", plural) for kind, plural in OTHERS.items()
        },
        autoscalers=items("apis/autoscaling/v2", "horizontalpodautoscalers"),
        records=known,
    )


def records(api: Kube) -> dict[str, dict[str, Any]]:
    """The records of all moves.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    found = api.find(f"{RECORD}/{RECORD_NAME}") or {}
    return {key: json.loads(value) for key, value in (found.get("data") or {}).items()}


def entry(api: Kube, claim: str) -> dict[str, Any]:
    """The record of a claim's move.

    Raises:
        KubeError: there is none, or the API refused.
    """
    found = records(api).get(key_of(claim))
    if found is None:
        raise KubeError(f"no record of a move in ConfigMap kube-system/{RECORD_NAME}")
    return found


def save(api: Kube, claim: str, content: Mapping[str, Any] | None) -> None:
    """Write a record, or remove it (None).

    Raises:
        KubeError: the API refused.
    """
    text = None if content is None else json.dumps(content, sort_keys=True)
    body: dict[str, Any] = {"data": {key_of(claim): text}}
    if api.find(f"{RECORD}/{RECORD_NAME}") is None:
        meta = {"name": RECORD_NAME, "labels": {"app.kubernetes.io/managed-by": "tandem"}}
        post(api, RECORD, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    # One key alone is written, and one run at a time writes: there is nothing to compare with.
    api.request("PATCH", f"{RECORD}/{RECORD_NAME}", body=body, headers=MERGE)


def post(api: Kube, path: str, body: Mapping[str, Any]) -> None:
    """Create an object; one that is there stays.

    Raises:
        KubeError: the API refused.
    """
    try:
        api.request("POST", path, body=body)
    except KubeError as error:
        if error.status != 409:
            raise


def retain(api: Kube, volume: str, claim: str) -> None:
    """A volume stays whatever happens to its claim, and says whose data it has.

    Raises:
        KubeError: the API refused.
    """
    there = api.get(f"{VOLUMES}/{volume}")
    marked = (there["metadata"].get("annotations") or {}).get(MOVED) == claim
    if marked and there["spec"].get("persistentVolumeReclaimPolicy") == "Retain":
        return
    body = {"metadata": {"annotations": {MOVED: claim}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    api.request("PATCH", f"{VOLUMES}/{volume}", body=body, headers=MERGE)


def set_policy(api: Kube, volume: str, policy: str) -> None:
    """What happens to a volume when its claim is deleted.

    Raises:
        KubeError: the API refused.
    """
    body = {"spec": {"persistentVolumeReclaimPolicy": policy}}
    api.request("PATCH", f"{VOLUMES}/{volume}", body=body, headers=MERGE)


def policy_of(api: Kube, class_name: str) -> str:
    """What a class says of its volumes.

    Raises:
        KubeError: there is no such class.
    """
    return str(api.get(f"/apis/storage.k8s.io/v1/storageclasses/{class_name}").get("reclaimPolicy", "Delete"))


def stop(api: Kube, claim: str, owners: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """The workloads stop, and no pod uses the claim any more.

    Raises:
        KubeError: the API refused.
        TimeoutError: they do not stop in time.
    """
    for each in owners:
        _scale(api, _owner(claim, each), 0)
    until(
        lambda: _using(api, claim),
        seconds,
        f"claim {claim} is free",
        "shorten the pod's grace period, or -e tandem_adopt_stop_seconds=N",
    )


def _scale(api: Kube, path: str, replicas: int) -> None:
    there = api.find(path)
    if there is not None and there["spec"].get("replicas", 1) != replicas:
        api.request("PATCH", path, body={"spec": {"replicas": replicas}}, headers=MERGE)


def _pods(api: Kube, claim: str) -> list[Mapping[str, Any]]:
    return users(claim.partition("/")[2], World(pods=api.get(pods_path(claim))["items"]))


def _using(api: Kube, claim: str) -> str:
    return ", ".join(pod["metadata"]["name"] for pod in _pods(api, claim))


class StillEndingError(TimeoutError):
    """The workload's old pods do not end, and it was not started beside them."""


def ended(api: Kube, claim: str) -> None:
    """Wait until the claim's pods have ended: a Deployment that is scaled up starts new ones beside those that end.

    Pods that nobody has told to end for all that time (the controller-manager is away) are kept when it is scaled up.

    Raises:
        KubeError: the API refused.
        StillEndingError: one was told to end, and is there for a minute longer than it may take.
    """
    pods = _pods(api, claim)
    grace = max((pod["spec"].get("terminationGracePeriodSeconds", 30) for pod in pods), default=0)
    try:
        until(
            lambda: _using(api, claim),
            grace + PATIENCE_SECONDS,
            f"the pods of {claim} end",
            "two at once would write, so it stays stopped: make sure that the pod's node is off or that its process "
            "has ended, delete the pod, then the same command",
        )
    except TimeoutError as error:
        if any("deletionTimestamp" in pod["metadata"] for pod in _pods(api, claim)):
            raise StillEndingError(str(error)) from None


def start(api: Kube, claim: str, owners: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """The workloads have as many replicas as before, all Ready. One that somebody scaled meanwhile is left as it is.

    Raises:
        KubeError: the API refused.
        StillEndingError: pods of before the stop do not end; nothing was started.
        TimeoutError: they are not Ready in time.
    """
    stopped = [there for each in owners if (there := api.find(_owner(claim, each))) is not None]
    if any(there["spec"].get("replicas", 1) == 0 for there in stopped):
        ended(api, claim)
    for each in owners:
        there = api.find(_owner(claim, each))
        if there is not None and there["spec"].get("replicas", 1) == 0:
            _scale(api, _owner(claim, each), each["replicas"])
    until(
        lambda: "; ".join(filter(None, (_unready(api.find(_owner(claim, each)), each) for each in owners))),
        seconds,
        f"the workload of {claim} is Ready",
        "see `kubectl describe pods`; the same command waits again, and -e tandem_adopt_way_back=true goes back",
    )


def _unready(there: Mapping[str, Any] | None, owner: Mapping[str, Any]) -> str:
    if there is None:
        return ""  # somebody deleted it
    wanted = int(there["spec"].get("replicas", 1))
    status = there.get("status", {})
    ready = int(status.get("readyReplicas") or 0)
    seen = int(status.get("observedGeneration") or 0) >= int(there["metadata"].get("generation") or 0)
    return "" if seen and ready >= wanted else f"{owner['kind']} {owner['name']}: {ready} of {wanted} Ready"
