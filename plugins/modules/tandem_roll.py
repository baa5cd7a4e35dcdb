#!/usr/bin/python
"""Ansible module: workloads make their pods anew, one workload at a time, as `kubectl rollout restart` does."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_kube import MERGE, Kube, KubeError
from ansible.module_utils.tandem_selectors import selects

DOCUMENTATION = """
module: tandem_roll
short_description: Restarts workloads one after the other and waits for each
description:
  - Writes the annotation that C(kubectl rollout restart) writes, and waits until all pods are new and available before
    the next workload. A workload whose PodDisruptionBudget allows no disruption is waited for, and left alone when that
    does not change. Supports check mode.
options:
  kubeconfig:
    description: Path of the kubeconfig.
    type: path
    required: true
  workloads:
    description: The workloads, each with C(namespace), C(kind) (Deployment or StatefulSet) and C(name).
    type: list
    elements: dict
    required: true
  timeout_seconds:
    description: How long one workload may take.
    type: int
    default: 300
author: Tandem
"""

EXAMPLES = """
- name: Old pods are replaced
  tandem_roll:
    kubeconfig: admin.conf
    workloads: [{namespace: default, kind: Deployment, name: web}]
"""

RETURN = """
rolled:
  description: Workloads that made their pods anew.
  returned: always
  type: list
"""

PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets"}
POLL_SECONDS = 1.0
ANNOTATION = "kubectl.kubernetes.io/restartedAt"


def rolled(item: dict[str, Any]) -> bool:
    """Whether all pods of a workload are of its newest template and available."""
    status, wanted = item.get("status", {}), item["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < item["metadata"]["generation"]:
        return False
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return all(count == wanted for count in counts)


def blocked(budgets: list[dict[str, Any]], labels: dict[str, str]) -> str:
    """Name of a budget that covers pods with these labels and allows no disruption now; empty when there is none."""
    for budget in budgets:
        covers = selects(budget["spec"].get("selector"), labels)
        if covers and budget.get("status", {}).get("disruptionsAllowed", 0) < 1:
            return str(budget["metadata"]["name"])
    return ""


def roll(api: Kube, workload: dict[str, Any], timeout_seconds: float) -> None:
    """Restart one workload and wait for it.

    Raises:
        TimeoutError: it was not done in time; the message says what held it back.
        KubeError: the API refused.
    """
    namespace, path = workload["namespace"], ""
    path = f"/apis/apps/v1/namespaces/{namespace}/{PLURALS[workload['kind']]}/{workload['name']}"
    deadline, reason = time.monotonic() + timeout_seconds, "it was not available before"
    started = False
    while time.monotonic() < deadline:
        item = api.get(path)
        if started and rolled(item):
            return
        if not started and rolled(item):
            labels = item["spec"]["template"]["metadata"].get("labels", {})
            budgets = api.get(f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets")["items"]
            holder = blocked(budgets, labels)
            if not holder:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                body = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: stamp}}}}}
                api.request("PATCH", path, body=body, headers=MERGE)
                started, reason = True, "its new pods are not available"
            else:
                reason = f"PodDisruptionBudget {holder} allows no disruption"
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"{namespace}/{workload['kind']}/{workload['name']}: {reason} after {timeout_seconds:g} s")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "workloads": {"type": "list", "elements": "dict", "required": True},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    names = [f"{w['namespace']}/{w['kind']}/{w['name']}" for w in module.params["workloads"]]
    if module.check_mode or not names:
        module.exit_json(changed=bool(names), rolled=names)
    done: list[str] = []
    try:
        api = Kube(module.params["kubeconfig"])
        for name, workload in zip(names, module.params["workloads"], strict=True):
            roll(api, workload, module.params["timeout_seconds"])
            done.append(name)
    except (TimeoutError, KubeError) as error:
        module.fail_json(
            msg=f"{error}; rolled so far: {', '.join(done) or 'none'}; the rest was left alone", rolled=done
        )
    module.exit_json(changed=True, rolled=done)


if __name__ == "__main__":
    main()
