#!/usr/bin/python
"""Ansible module: what kubeadm would write on this node, shown as a diff and left nowhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_render
short_description: Shows what kubeadm would write on a node, without writing it
description:
  - Renders the control plane's manifests from a ClusterConfiguration that is not in the cluster yet, by C(kubeadm init
    phase control-plane --dry-run) into a folder under C(/run), which goes again. C(kubeadm upgrade node --dry-run)
    would show the old document's flags and write under C(/etc/kubernetes/tmp).
  - Shows kubelet's configuration file with the fields replaced that would change.
  - Changes nothing; meant for check mode.
options:
  cluster_configuration:
    description: The ClusterConfiguration that would be in the cluster. Empty on nodes without a control plane.
    type: str
    default: ''
  node_name:
    description: Name of the node.
    type: str
    required: true
  patches:
    description: Folder of kubeadm patches, used when it exists.
    type: path
    default: /etc/kubernetes/patches
  kubelet_changes:
    description: Fields of KubeletConfiguration that would change, each as YAML text; an empty one goes.
    type: dict
    default: {}
author: Tandem
"""

EXAMPLES = """
- name: What would be written is shown
  tandem_render:
    node_name: cp1
    cluster_configuration: "{{ merged }}"
  when: ansible_check_mode
"""

RETURN = """
paths:
  description: Files that would change.
  returned: always
  type: list
"""

MANIFESTS = Path("/etc/kubernetes/manifests")
KUBELET = Path("/var/lib/kubelet/config.yaml")
SCRATCH = "/run"
RENDERED = ("kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")
ADDRESS = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"


class RenderError(Exception):
    """kubeadm refused to render; the message holds its words."""


def endpoint(manifest: str) -> tuple[str, int]:
    """Address and port of this node's API server, from the annotation that kubeadm itself keeps them in.

    Raises:
        RenderError: the manifest has no such annotation.
    """
    found = re.search(rf"^\s*{re.escape(ADDRESS)}:\s*\"?(\S+):(\d+)\"?\s*$", manifest, re.MULTILINE)
    if found is None:
        raise RenderError(f"{MANIFESTS / RENDERED[0]} has no annotation {ADDRESS}: kubeadm did not write it")
    return found[1], int(found[2])


def init_input(cluster_configuration: str, node: str, address: tuple[str, int], patches: Path) -> str:
    """The input of `kubeadm init phase`: this node's own part, then the cluster's document."""
    init: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address[0], "bindPort": address[1]},
        "nodeRegistration": {"name": node, "criSocket": "unix:///run/containerd/containerd.sock"},
    }
    if patches.is_dir():
        init["patches"] = {"directory": str(patches)}
    return json.dumps(init) + "\n---\n" + cluster_configuration


def render(cluster_configuration: str, node: str, manifests: Path, patches: Path, kubeadm: str) -> dict[str, str]:
    """The manifests as kubeadm would write them, by file name.

    Raises:
        RenderError: kubeadm refused.
        OSError: there is no kubeadm, or no manifest to start from.
    """
    address = endpoint((manifests / RENDERED[0]).read_text(encoding="utf-8"))
    scratch = Path(tempfile.mkdtemp(prefix="tandem-render-", dir=SCRATCH))
    try:
        source = scratch / "input.yaml"
        source.write_text(init_input(cluster_configuration, node, address, patches), encoding="utf-8")
        target = scratch / "manifests"
        target.mkdir()
        environment = {**os.environ, "KUBEADM_INIT_DRYRUN_DIR": str(target), "TMPDIR": str(scratch)}
        command = [kubeadm, "init", "phase", "control-plane", "all", "--dry-run", "--config", str(source)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise RenderError(f"kubeadm cannot render these settings: {done.stderr.strip() or done.stdout.strip()}")
        return {name: (target / name).read_text(encoding="utf-8") for name in RENDERED}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def kubelet_text(current: str, changes: dict[str, str]) -> str:
    """Kubelet's configuration file with top-level fields replaced, added in order, or removed.

    The file has fields of its own (kubeadm's patches, what it finds out on the node), so it is not the cluster's
    document.
    """
    blocks: dict[str, str] = {}
    name = ""
    for line in current.splitlines(keepends=True):
        if re.match(r"[A-Za-z]", line):
            name = line.partition(":")[0]
        blocks[name] = blocks.get(name, "") + line
    for field, text in changes.items():
        blocks.pop(field, None)
        if text:
            blocks[field] = text if text.endswith("\n") else f"{text}\n"
    return "".join(blocks[field] for field in sorted(blocks))


def difference(path: Path, before: str, after: str) -> dict[str, str] | None:
    """One file's diff; None when it would stay."""
    if before == after:
        return None
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster_configuration": {"type": "str", "default": ""},
            "node_name": {"type": "str", "required": True},
            "patches": {"type": "path", "default": "/etc/kubernetes/patches"},
            "kubelet_changes": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    diffs = []
    try:
        if given["cluster_configuration"]:
            kubeadm = module.get_bin_path("kubeadm", required=True)
            patches = Path(given["patches"])
            new = render(given["cluster_configuration"], given["node_name"], MANIFESTS, patches, kubeadm)
            diffs += [difference(MANIFESTS / n, (MANIFESTS / n).read_text(encoding="utf-8"), new[n]) for n in RENDERED]
        if given["kubelet_changes"]:
            current = KUBELET.read_text(encoding="utf-8")
            diffs.append(difference(KUBELET, current, kubelet_text(current, given["kubelet_changes"])))
    except (OSError, RenderError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"{given['node_name']}: {error}")
    shown = [diff for diff in diffs if diff is not None]
    module.exit_json(changed=bool(shown), paths=[diff["before_header"] for diff in shown], diff=shown)


if __name__ == "__main__":
    main()
