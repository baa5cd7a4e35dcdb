#!/usr/bin/python
"""Ansible module: etcd's data folder made anew from a snapshot, for a machine on which no etcd has run yet."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tandem_snapshots import BINARIES, SnapshotError, run

DOCUMENTATION = """
module: tandem_etcd_restore
short_description: Makes etcd's data folder from a snapshot
description:
  - Takes C(etcdutl) out of etcd's image, which containerd has pulled already, so that nothing is installed and the
    version is the one that will run.
  - Revisions are raised and the old ones marked as compacted, so that every client that watches is told to begin anew
    instead of waiting for a revision that never comes.
  - The folder appears whole or not at all. One that is there already is refused. Supports check mode.
options:
  snapshot:
    description: The snapshot.
    type: path
    required: true
  image:
    description: etcd's image. Empty for the C(etcdutl) of the machine.
    type: str
    default: ''
  name:
    description: Name of the member.
    type: str
    required: true
  address:
    description: Its address.
    type: str
    required: true
  bump:
    description: How far revisions are raised.
    type: int
    required: true
  folder:
    description: etcd's data folder.
    type: path
    default: /var/lib/etcd
author: Tandem
"""

EXAMPLES = """
- name: etcd has the backup's content
  tandem_etcd_restore:
    snapshot: /var/lib/tandem/restore/etcd.db
    image: registry.k8s.io/etcd:3.6.8-0
    name: cp1
    address: 10.0.0.10
    bump: 1000000000
"""

RETURN = """
folder:
  description: etcd's data folder.
  returned: always
  type: str
"""

CTR = ("ctr", "--namespace=k8s.io", "images")


@contextlib.contextmanager
def etcdutl(image: str) -> Iterator[str]:
    """Path of etcdutl, out of an image for the time of the block.

    Raises:
        SnapshotError: the image cannot be mounted, or has no such program.
    """
    if not image:
        found = shutil.which("etcdutl")
        if found is None:
            raise SnapshotError("there is no etcdutl on this machine; way out: name etcd's image")
        yield found
        return
    # Not below a folder of which the name changes: containerd calls the mount's snapshot by its path, and one that an
    # earlier run left is taken away first.
    with tempfile.TemporaryDirectory() as copies:
        point = Path("/run/tandem-etcd-image")
        with contextlib.suppress(SnapshotError):
            run(*CTR, "unmount", "--rm", str(point))
        point.mkdir(exist_ok=True)
        run(*CTR, "mount", image, str(point))
        try:
            program = point / BINARIES / "etcdutl"
            if not program.is_file():
                raise SnapshotError(f"{image} has no {BINARIES}/etcdutl")
            yield shutil.copy2(program, copies)
        finally:
            run(*CTR, "unmount", "--rm", str(point))
            point.rmdir()


def restore(parameters: dict[str, Any], program: str) -> None:
    """Make the folder.

    Raises:
        SnapshotError: the snapshot is none, or etcd has content already.
    """
    folder, name = Path(parameters["folder"]), parameters["name"]
    peer = f"https://{parameters['address']}:2380"
    refuse_content(folder)
    partial = folder.with_name(f"{folder.name}.tandem-restore")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        run(
            program,
            *("snapshot", "restore", parameters["snapshot"], f"--data-dir={partial}"),
            *(f"--name={name}", f"--initial-cluster={name}={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--bump-revision={parameters['bump']}", "--mark-compacted"),
        )
        partial.chmod(0o700)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_content(folder: Path) -> None:
    """Refuse a folder with anything in it.

    Raises:
        SnapshotError: there is something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SnapshotError(f"{folder} is not empty; rule: etcd's content is never overwritten; nothing was changed")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "snapshot": {"type": "path", "required": True},
            "image": {"type": "str", "default": ""},
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "bump": {"type": "int", "required": True},
            "folder": {"type": "path", "default": "/var/lib/etcd"},
        },
        supports_check_mode=True,
    )
    try:
        refuse_content(Path(module.params["folder"]))
        if not module.check_mode:
            with etcdutl(module.params["image"]) as program:
                restore(module.params, program)
        module.exit_json(changed=True, folder=module.params["folder"])
    except (SnapshotError, OSError) as error:
        module.fail_json(msg=f"etcd was not restored: {error}")


if __name__ == "__main__":
    main()
