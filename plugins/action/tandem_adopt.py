"""Ansible action: a claim moves onto the share, and back. The cluster's side; machines copy by `tandem_copy`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.plugins.action import ActionBase

# The functions live beside this folder; they are found from the project's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils import tandem_adopting as adopting
from plugins.module_utils import tandem_moves as moves
from plugins.module_utils import tandem_rebinding as rebinding
from plugins.module_utils.tandem_claims import CLAIM, Site, World, kind_of, pod_path, spare_of, users
from plugins.module_utils.tandem_kube import KubeError
from plugins.module_utils.tandem_release import refusal

DOCUMENTATION = """
module: tandem_adopt
short_description: Plans a claim's move onto the share or back, and does the cluster's part of it
description:
  - Runs on the control node. C(state=planned) tells what would happen and fails when something forbids it;
    C(state=judged) fails when there is no room for the data. Both change nothing.
  - C(state=prepared) writes the record of the move and has the provisioner make the new volume; C(state=stopped) stops
    the claim's workloads and waits; C(state=resumed) starts them again with the claim as it was;
    C(state=switched) binds the claim to its other volume; C(state=started) starts the workloads and closes the record;
    C(state=aborted) undoes a move whose workloads have not been started on the share.
  - Broken off at any moment, each goes on from there. Supports check mode.
options:
  kubeconfig:
    description: Path of the kubeconfig.
    type: path
    required: true
  claim:
    description: The claim, as NAMESPACE/NAME.
    type: str
    required: true
  state:
    description: What to do.
    type: str
    choices: [planned, judged, prepared, stopped, resumed, switched, started, aborted]
    required: true
  way_back:
    description: Whether the claim goes back to the volume that it came from.
    type: bool
    default: false
  share:
    description: Where workers mount the share.
    type: path
    required: true
  class_name:
    description: Name of the StorageClass on it.
    type: str
    required: true
  label:
    description: Label of nodes that have it mounted, C(key) and C(value).
    type: dict
    required: true
  workers:
    description: The inventory's workers.
    type: list
    elements: str
    required: true
  squash:
    description: What the server makes of root.
    type: str
    default: root_squash
  paused:
    description: Whether somebody said that GitOps tools are paused.
    type: bool
    default: false
  image:
    description: Image of the pod that keeps a Longhorn volume mounted.
    type: str
    default: ''
  source:
    description: The data, as C(tandem_copy) measured them; empty when it could not.
    type: dict
    default: {}
  target:
    description: The file system that takes them, as C(tandem_copy) measured it; empty when it could not.
    type: dict
    default: {}
  stop_seconds:
    description: How long the workloads may take to stop.
    type: int
    default: 300
  ready_seconds:
    description: How long they may take to be Ready again.
    type: int
    default: 300
  bind_seconds:
    description: How long a claim may take to be bound.
    type: int
    default: 120
author: Tandem
"""

RETURN = """
todo:
  description: C(adopt), C(return), C(abort) or C(nothing).
  returned: when planned
  type: str
entry:
  description: The record of the move.
  returned: when planned or prepared
  type: dict
told:
  description: What happens, for people.
  returned: always
  type: list
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "kubeconfig": {"type": "path", "required": True},
    "claim": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["planned", "judged", "prepared", "stopped", "resumed", "switched", "started", "aborted"],
        "required": True,
    },
    "way_back": {"type": "bool", "default": False},
    "share": {"type": "path", "required": True},
    "class_name": {"type": "str", "required": True},
    "label": {"type": "dict", "required": True},
    "workers": {"type": "list", "elements": "str", "required": True},
    "squash": {"type": "str", "default": "root_squash"},
    "paused": {"type": "bool", "default": False},
    "image": {"type": "str", "default": ""},
    "source": {"type": "dict", "default": {}},
    "target": {"type": "dict", "default": {}},
    "stop_seconds": {"type": "int", "default": 300},
    "ready_seconds": {"type": "int", "default": 300},
    "bind_seconds": {"type": "int", "default": 120},
}


def site_of(parameters: dict[str, Any]) -> Site:
    """What the inventory says."""
    return Site(
        share=parameters["share"],
        class_name=parameters["class_name"],
        label=(parameters["label"]["key"], parameters["label"]["value"]),
        workers=parameters["workers"],
        squash=parameters["squash"],
        paused=parameters["paused"],
    )


def measured_path(claim: str, entry: dict[str, Any], world: World) -> str:
    """Where the node of the data has the old volume now; empty when it is not mounted anywhere."""
    if entry["kind"] == "local":
        return str(entry["path"])
    there = [] if entry["direction"] == adopting.BACK else users(claim.partition("/")[2], world)
    for pod in there:
        if pod["spec"].get("nodeName") == entry["node"] and pod["status"].get("phase") == "Running":
            return pod_path(pod, entry["old"])
    return ""


def planned(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """What would happen, and what forbids it.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    claim, site = parameters["claim"], site_of(parameters)
    if not CLAIM.fullmatch(claim):
        way_out = "-e tandem_adopt_claim=NAMESPACE/NAME, as `kubectl get pvc --all-namespaces` lists them"
        return {"refusals": [refusal("adopt", "tandem_adopt_claim", claim, "one claim of the cluster", way_out)]}
    world = moves.world(api, claim, site.class_name)
    todo, sentence = adopting.choice(claim, world, site, back=parameters["way_back"])
    if todo == adopting.NOTHING:
        return {"refusals": [], "todo": todo, "told": [sentence], "entry": {}, "path": "", "resumes": False}
    forbidden = adopting.refusals(claim, todo, world, site)
    if forbidden:
        return {"refusals": forbidden}
    before = adopting.entry_of(claim, world)
    entry = dict(before or {}) if todo == adopting.ABORT else adopting.record(claim, todo, world, site)
    return {
        "refusals": [],
        "todo": todo,
        "entry": entry,
        "resumes": before is not None and before["phase"] != adopting.DONE,
        "path": measured_path(claim, entry, world),
        "owners": adopting.owners_map(site.squash, entry),
        "told": adopting.told(claim, todo, entry, parameters["stop_seconds"], parameters["ready_seconds"]),
    }


def judged(parameters: dict[str, Any]) -> dict[str, Any]:
    """Whether there is room for the data."""
    claim, source, target = parameters["claim"], parameters["source"], parameters["target"]
    if not source or not target:
        return {"refusals": [], "told": [f"{claim}: its size is not known before its volume is mounted"]}
    place = "node of the old volume" if parameters["way_back"] else "share"
    told = [f"{adopting.mib(source['bytes'])} in {source['files']} entries; {adopting.mib(target['free'])} free"]
    if adopting.mixed(source) and parameters["squash"] == "root_squash" and not parameters["way_back"]:
        told.append("files of root and of nobody lie side by side: after a way back all of them would be nobody's")
    return {"refusals": adopting.space_refusals(claim, source, target, place), "told": told}


def prepared(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """Write the record down and make what the copy needs.

    Raises:
        KubeError: the API refused or cannot be reached, or something forbids it by now.
        TimeoutError: the new volume is not bound in time, or the pod that mounts the old one does not run.
    """
    plan = planned(api, parameters)
    if plan["refusals"]:
        raise KubeError(" ".join(plan["refusals"]))
    claim, entry, seconds = parameters["claim"], plan["entry"], parameters["bind_seconds"]
    forward = entry["direction"] == adopting.FORWARD
    if parameters["source"] and forward and "mixed" not in entry:
        entry["mixed"] = adopting.mixed(parameters["source"])
    if entry["phase"] in (adopting.COPYING, adopting.STOPPING):
        moves.save(api, claim, entry)
        if forward:
            moves.retain(api, entry["old"], claim)
            entry["share"] = rebinding.spare(api, claim, entry, "", parameters["class_name"], seconds)
            volume = api.get(f"{moves.VOLUMES}/{entry['share']}")
            entry["folder"] = PurePosixPath(kind_of(volume)[1]).name
            moves.save(api, claim, entry)
        if entry["kind"] == "longhorn":
            entry["path"] = _mounted(api, claim, entry, parameters)
    return {"entry": entry, "changed": True, "told": [], "owners": adopting.owners_map(parameters["squash"], entry)}


def _mounted(api: moves.Api, claim: str, entry: dict[str, Any], parameters: dict[str, Any]) -> str:
    """Where the node has the old volume, once our pod mounts it."""
    name, seconds = claim.partition("/")[2], parameters["bind_seconds"]
    if entry["direction"] == adopting.BACK:
        rebinding.spare(api, claim, entry, entry["old"], entry["class"], seconds)
        name = spare_of(claim)
    pod = rebinding.holder(api, claim, name, entry["node"], parameters["image"], seconds)
    return pod_path(pod, entry["old"])


def stopped(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """Stop the workloads and wait until nothing uses the claim.

    Raises:
        KubeError: the API refused or cannot be reached.
        TimeoutError: they do not stop in time.
    """
    claim, entry = parameters["claim"], moves.entry(api, parameters["claim"])
    began = time.time()
    moves.save(api, claim, {**entry, "phase": adopting.STOPPING, "stopped": entry.get("stopped") or began})
    moves.stop(api, claim, entry["owners"], parameters["stop_seconds"])
    took = round(time.time() - began, 1)
    return {"changed": True, "began": began, "told": [f"nothing uses {claim} any more, after {took} s"]}


def resumed(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """Start the workloads again with the claim as it was.

    Raises:
        KubeError: the API refused or cannot be reached.
    """
    claim, entry = parameters["claim"], moves.entry(api, parameters["claim"])
    if entry["phase"] not in (adopting.COPYING, adopting.STOPPING):
        return {"changed": False, "told": ["the claim is being exchanged: the same command finishes it"]}
    try:
        moves.start(api, claim, entry["owners"], parameters["ready_seconds"])
        told = "the workload was started again as it was, and is Ready"
    except moves.StillEndingError as error:
        return {"changed": False, "told": [f"the workload is STOPPED: {error}"]}
    except TimeoutError as error:
        told = f"the workload was started again as it was, but: {error}"
    moves.save(api, claim, {**entry, "phase": adopting.COPYING, "stopped": 0})
    return {"changed": True, "told": [told]}


def switched(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """Bind the claim to its other volume.

    Raises:
        KubeError: the API refused or cannot be reached, or somebody made another claim of this name.
        TimeoutError: a claim does not go, or is not bound in time.
    """
    claim, entry = parameters["claim"], moves.entry(api, parameters["claim"])
    forward = entry["direction"] == adopting.FORWARD
    entry["phase"] = adopting.SWITCHING
    moves.save(api, claim, entry)
    rebinding.remove_holder(api, claim, parameters["bind_seconds"])
    here, there = (entry["old"], entry["share"]) if forward else (entry["share"], entry["old"])
    class_name = parameters["class_name"] if forward else entry["class"]
    for volume in (here, there):
        moves.retain(api, volume, claim)
    rebinding.exchange(api, claim, entry, (here, there), class_name, parameters["bind_seconds"])
    moves.save(api, claim, {**entry, "phase": adopting.STARTING})
    return {"changed": True, "told": [f"{claim} is bound to {there}; {here} stays as it is, with its data"]}


def started(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """Start the workloads, wait until they are Ready, and close the record.

    Raises:
        KubeError: the API refused or cannot be reached.
        TimeoutError: they are not Ready in time.
    """
    claim, entry = parameters["claim"], moves.entry(api, parameters["claim"])
    forward = entry["direction"] == adopting.FORWARD
    moves.start(api, claim, entry["owners"], parameters["ready_seconds"])
    down = round(time.time() - float(entry.get("stopped") or time.time()), 1)
    if forward:
        volume, policy = entry["share"], moves.policy_of(api, parameters["class_name"])
    else:
        volume, policy = entry["old"], entry["policy"]
    moves.set_policy(api, volume, policy)
    moves.save(api, claim, {**entry, "phase": adopting.DONE, "down": down, "stopped": 0} if forward else None)
    left = entry["old"] if forward else entry["share"]
    told = f"{claim} is {'on the share' if forward else 'back on its old volume'}; its workload was away for {down} s"
    return {"changed": True, "down_seconds": down, "told": [told, f"volume {left} is left, Released: it is yours"]}


def aborted(api: moves.Api, parameters: dict[str, Any]) -> dict[str, Any]:
    """Undo a move before the claims were exchanged.

    Raises:
        KubeError: the API refused or cannot be reached.
        TimeoutError: something does not go, or is not Ready in time.
    """
    claim, entry = parameters["claim"], moves.entry(api, parameters["claim"])
    rebinding.remove_holder(api, claim, parameters["bind_seconds"])
    moves.start(api, claim, entry["owners"], parameters["ready_seconds"])
    rebinding.remove_spare(api, claim, parameters["bind_seconds"])
    moves.set_policy(api, entry["old"], entry["policy"])
    moves.save(api, claim, None)
    return {"changed": True, "told": [f"the move of {claim} is undone: it is on {entry['old']}, as it was"]}


CHANGES: dict[str, Callable[[moves.Api, dict[str, Any]], dict[str, Any]]] = {
    "prepared": prepared,
    "stopped": stopped,
    "resumed": resumed,
    "switched": switched,
    "started": started,
    "aborted": aborted,
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the state asks for; a failure says what to do next."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, parameters = self.validate_argument_spec(ARGUMENTS)
        state, claim = parameters["state"], parameters["claim"]
        if state in CHANGES and self._task.check_mode:
            return {**result, "changed": True, "told": []}
        try:
            if state in CHANGES:
                return {**result, **CHANGES[state](moves.Api(str(parameters["kubeconfig"])), parameters)}
            if state == "judged":
                answer = judged(parameters)
            else:
                answer = planned(moves.Api(str(parameters["kubeconfig"])), parameters)
        except TimeoutError as error:
            return {**result, "failed": True, "msg": str(error)}
        except KubeError as error:
            message = f"claim {claim}: {error}; way out: the same command, it goes on from here"
            return {**result, "failed": True, "msg": message}
        if answer["refusals"]:
            lines = ["Nothing has been changed. It is refused:", *answer["refusals"]]
            return {**result, "failed": True, "msg": "\n".join(lines)}
        return {**result, "changed": False, **answer}
