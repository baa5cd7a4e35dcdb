"""Ansible action: one run at a time changes a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# The lock lives beside this folder; it is found from the project's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils import tandem_lock
from plugins.module_utils.tandem_kube import Kube, KubeError

DOCUMENTATION = """
module: tandem_lock
short_description: Holds a lock in the cluster for as long as this run of ansible-playbook lives
description:
  - C(state=held) takes the Lease C(kube-system/tandem-run) and starts a process that renews it. When this run ends,
    even by SIGKILL, that process gives the Lease back; when the control node dies, it expires after 30 seconds.
  - C(state=confirmed) fails when the lock is not this run's any more.
  - Runs on the control node. In check mode, nothing is taken, and a lock of somebody else is only told.
options:
  kubeconfig:
    description: Path of the kubeconfig. When there is none yet, there is no cluster to lock.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [held, confirmed]
    default: held
  identity:
    description: For C(confirmed), what C(held) returned.
    type: str
    default: ''
author: Tandem
"""

RETURN = """
identity:
  description: Who this run is to others; empty when there was no cluster to lock.
  returned: always
  type: str
away:
  description: Whether the API server did not answer, or not yet for good; asking again makes sense.
  returned: when the API refused
  type: bool
"""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take or confirm the lock."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "kubeconfig": {"type": "path", "required": True},
                "state": {"type": "str", "choices": ["held", "confirmed"], "default": "held"},
                "identity": {"type": "str", "default": ""},
            }
        )
        result.update(changed=False, identity=arguments["identity"])
        try:
            if arguments["state"] == "held":
                result.update(self._hold(arguments["kubeconfig"]))
            elif arguments["identity"]:
                tandem_lock.confirm(Kube(arguments["kubeconfig"]), str(arguments["identity"]))
        except tandem_lock.LockError as error:
            result.update(failed=True, msg=str(error))
        except KubeError as error:
            # An API server that starts answers nobody, and then forbids all, before it knows its own rules.
            result.update(failed=True, msg=str(error), away=error.away or error.status == 403)
        return result

    def _hold(self, kubeconfig: str) -> dict[str, Any]:
        """Take the lock, for the process that runs the playbook: the parent of this worker."""
        if not Path(kubeconfig).exists():
            return {"identity": "", "msg": "there is no cluster yet, and so nothing to lock"}
        api = Kube(kubeconfig)
        if self._task.check_mode:
            found = tandem_lock.holder(api.find(f"{tandem_lock.PATH}/{tandem_lock.NAME}"))
            return {"identity": "", "msg": f"check mode takes no lock; it is held by {found or 'nobody'}"}
        return {"identity": tandem_lock.hold(api, kubeconfig, tandem_lock.owner())}
