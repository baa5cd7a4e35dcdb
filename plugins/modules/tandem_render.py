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
  - Renders kubelet's configuration file in the same way (C(kubeadm init phase kubelet-start --dry-run), from the
    cluster's documents, the node's patches, and what kubeadm finds out on the node. Values of the file that come from
    nowhere else are seen to be lost.
  - Changes nothing.
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
  kubelet_documents:
    description: The ClusterConfiguration and the KubeletConfiguration to render kubelet's file from. Empty for none.
    type: str
    default: ''
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
kubelet:
  description: Kubelet's file as it is (C(before)), as kubeadm would write it (C(after)), and as tuning last left it
    (C(written), empty when it never did).
  returned: with C(kubelet_documents)
  type: dict
"""

MANIFESTS = Path("/etc/kubernetes/manifests")
KUBELET = Path("/var/lib/kubelet/config.yaml")
WRITTEN = Path("/var/lib/kubelet/tandem-written.yaml")
SOCKET = re.compile(r"^containerRuntimeEndpoint:.*\n", re.MULTILINE)
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


def init_input(documents: str, node: str, address: tuple[str, int], patches: Path) -> str:
    """The input of `kubeadm init phase`: this node's own part, then the cluster's documents."""
    init: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address[0], "bindPort": address[1]},
        "nodeRegistration": {"name": node, "criSocket": "unix:///run/containerd/containerd.sock"},
    }
    if patches.is_dir():
        init["patches"] = {"directory": str(patches)}
    return json.dumps(init) + "\n---\n" + documents


def dry_run(given: str, kubeadm: str, phase: list[str], names: tuple[str, ...]) -> dict[str, str]:
    """The named files that a phase of `kubeadm init` would write from an input, by name.

    Raises:
        RenderError: kubeadm refused.
        OSError: there is no kubeadm.
    """
    scratch = Path(tempfile.mkdtemp(prefix="tandem-render-", dir=SCRATCH))
    try:
        source = scratch / "input.yaml"
        source.write_text(given, encoding="utf-8")
        target = scratch / "files"
        target.mkdir()
        environment = {**os.environ, "KUBEADM_INIT_DRYRUN_DIR": str(target), "TMPDIR": str(scratch)}
        command = [kubeadm, "init", "phase", *phase, "--dry-run", "--config", str(source)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise RenderError(f"kubeadm cannot render these settings: {done.stderr.strip() or done.stdout.strip()}")
        return {name: (target / name).read_text(encoding="utf-8") for name in names}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def render(cluster_configuration: str, node: str, manifests: Path, patches: Path, kubeadm: str) -> dict[str, str]:
    """The manifests as kubeadm would write them, by file name.

    Raises:
        RenderError: kubeadm refused.
        OSError: there is no kubeadm, or no manifest to start from.
    """
    address = endpoint((manifests / RENDERED[0]).read_text(encoding="utf-8"))
    return dry_run(
        init_input(cluster_configuration, node, address, patches), kubeadm, ["control-plane", "all"], RENDERED
    )


def render_kubelet(documents: str, current: str, node: str, patches: Path, kubeadm: str) -> str:
    """Kubelet's configuration file as kubeadm would write it on this node.

    The runtime's socket, which kubeadm keeps in a file of the node's own, stays as it is. The address is only for
    kubeadm, which wants one: nothing of it reaches kubelet's file.

    Raises:
        RenderError: kubeadm refused.
        OSError: there is no kubeadm.
    """
    given = init_input(documents, node, ("192.0.2.1", 6443), patches)
    text = dry_run(given, kubeadm, ["kubelet-start"], (KUBELET.name,))[KUBELET.name]
    socket = SOCKET.search(current)
    return SOCKET.sub(socket[0] if socket else "", text)


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
            "kubelet_documents": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    diffs: list[dict[str, str] | None] = []
    result: dict[str, Any] = {}
    kubeadm, patches = module.get_bin_path("kubeadm", required=True), Path(given["patches"])
    try:
        if given["cluster_configuration"]:
            new = render(given["cluster_configuration"], given["node_name"], MANIFESTS, patches, kubeadm)
            diffs += [difference(MANIFESTS / n, (MANIFESTS / n).read_text(encoding="utf-8"), new[n]) for n in RENDERED]
        if given["kubelet_documents"]:
            current = KUBELET.read_text(encoding="utf-8")
            after = render_kubelet(given["kubelet_documents"], current, given["node_name"], patches, kubeadm)
            diffs.append(difference(KUBELET, current, after))
            written = WRITTEN.read_text(encoding="utf-8") if WRITTEN.exists() else ""
            result["kubelet"] = {"before": current, "after": after, "written": written}
    except (OSError, RenderError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"{given['node_name']}: {error}")
    shown = [diff for diff in diffs if diff is not None]
    module.exit_json(changed=bool(shown), paths=[diff["before_header"] for diff in shown], diff=shown, **result)


if __name__ == "__main__":
    main()
