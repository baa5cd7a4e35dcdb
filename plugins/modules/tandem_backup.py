#!/usr/bin/python
"""Ansible module: the tuning's state before a change, kept on a control plane node with date and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_backup
short_description: Keeps, lists and reads states of a cluster's tuning
description:
  - With C(state=present), keeps the given documents and copies of files in a folder of their own, named after the time,
    unless the newest backup holds the same. A backup appears whole or not at all. Older ones than C(keep) are removed,
    but never the newest that was complete, nor the one that C(going_to) of the newest names.
  - With C(state=listed), returns all backups, newest first. With C(state=read), returns one after checking it.
  - Refuses the static pod directory, where kubelet runs whatever it finds, and a disk that is too full.
  - Supports check mode.
options:
  folder:
    description: Folder of the backups.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [present, listed, read]
    default: present
  name:
    description: Which backup to read. Empty for the newest.
    type: str
    default: ''
  files:
    description: Files and folders to copy. Missing ones are left out.
    type: list
    elements: path
    default: []
  documents:
    description: Texts to keep, name to content.
    type: dict
    default: {}
  about:
    description:
      - What else is to be known of the state (cluster, versions, profile). C(whole) says whether it is a finished one;
        null means that only the first backup is. C(going_to) names the backup that is about to be restored.
    type: dict
    default: {}
  keep:
    description: How many backups stay.
    type: int
    default: 10
  min_free_mib:
    description: Free space that must remain on the disk after the backup, in MiB.
    type: int
    default: 64
author: Tandem
"""

EXAMPLES = """
- name: The state before the change is kept
  tandem_backup:
    folder: /var/backups/tandem
    files: [/etc/kubernetes/manifests]
    documents: {kubelet_config: "{{ text }}"}
    about: {profile: balanced, whole: true}
"""

RETURN = """
backups:
  description: All backups, newest first, each with name, date, digest, files and what C(about) said.
  returned: always
  type: list
backup:
  description: The backup made or read, with its C(documents).
  returned: when there is one
  type: dict
"""

FORBIDDEN = "/etc/kubernetes/manifests"
RECORD = "backup.json"
PARTIAL = ".partial-"
MIB = 1024 * 1024


class BackupError(Exception):
    """A backup that cannot be made or read; the message says why, and that nothing was changed."""


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sources(paths: list[str]) -> dict[str, Path]:
    """Every file below the given paths, by the name it gets in the backup."""
    found = {}
    for given in paths:
        path = Path(given)
        candidates = sorted(path.rglob("*")) if path.is_dir() else [path]
        found.update({str(file).lstrip("/"): file for file in candidates if file.is_file()})
    return found


def digest(texts: dict[str, str], files: dict[str, Path]) -> str:
    """One checksum over all that a backup would hold, so that the same state is not kept twice."""
    total = hashlib.sha256()
    for name in sorted(texts):
        total.update(f"{name}\0{texts[name]}\0".encode())
    for name in sorted(files):
        total.update(f"{name}\0{checksum(files[name])}\0".encode())
    return total.hexdigest()


def listed(folder: Path) -> list[dict[str, Any]]:
    """Records of all backups, newest first; a folder without a readable record is no backup."""
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}"), reverse=True):
        if path.parent.name.startswith(PARTIAL):
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("files"), dict):
            found.append({**record, "name": path.parent.name})
    return found


def read(folder: Path, name: str) -> dict[str, Any]:
    """One backup with its documents, its checksums verified.

    Raises:
        BackupError: there is no such backup, or one of its files changed since.
    """
    known = listed(folder)
    names = [record["name"] for record in known]
    if not names:
        raise BackupError(f"{folder} holds no backup")
    if name and name not in names:
        raise BackupError(f"{folder} holds no backup {name!r}; there are: {', '.join(names)}")
    record = known[names.index(name)] if name else known[0]
    place = folder / record["name"]
    for relative, wanted in record["files"].items():
        path = place / relative
        if not path.is_file() or checksum(path) != wanted:
            raise BackupError(
                f"{path} is missing or changed since the backup was made; way out: choose another of {', '.join(names)}"
            )
    documents = {
        Path(relative).stem: (place / relative).read_text(encoding="utf-8")
        for relative in record["files"]
        if relative.startswith("documents/")
    }
    return {**record, "documents": documents}


def refuse_full_disk(folder: Path, size: int, min_free_mib: int) -> None:
    """Refuse when the disk would be left with too little space, or has no inode left.

    Raises:
        BackupError: it would.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    usage = os.statvfs(existing)
    free, wanted = usage.f_bavail * usage.f_frsize, size + min_free_mib * MIB
    if free < wanted:
        raise BackupError(
            f"the disk of {folder} has {free / MIB:.0f} MiB free, the backup needs {wanted / MIB:.0f} MiB (of which "
            f"{min_free_mib} MiB stay free); nothing has been changed; way out: free some space"
        )
    if usage.f_files and usage.f_favail == 0:
        raise BackupError(f"the disk of {folder} has no inode left; nothing has been changed; way out: remove files")


def write(path: Path, data: bytes) -> None:
    """A private file, on disk for certain."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("wb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def make(folder: Path, record: dict[str, Any], texts: dict[str, str], files: dict[str, Path]) -> str:
    """Write a backup whole or not at all; its name.

    Raises:
        OSError: it could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=PARTIAL))
    try:
        for name, text in texts.items():
            write(partial / f"documents/{name}.yaml", text.encode())
        for name, source in files.items():
            write(partial / f"files/{name}", source.read_bytes())
        checksums = {str(p.relative_to(partial)): checksum(p) for p in sorted(partial.rglob("*")) if p.is_file()}
        write(partial / RECORD, json.dumps({**record, "files": checksums}, indent=2, sort_keys=True).encode())
        name = time.strftime("%Y%m%dT%H%M%SZ", time.strptime(record["date"], "%Y-%m-%dT%H:%M:%SZ"))
        name = f"{name}-{record['digest'][:8]}"
        partial.rename(folder / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return name


def prune(folder: Path, keep: int) -> list[str]:
    """Remove what is older than the newest `keep`, left-overs of broken attempts too; the names removed.

    The newest backup of a complete state stays, however many half-done ones followed it, and so does the one that is
    being restored: a rollback that is killed needs it again.
    """
    known = listed(folder)
    complete = [record["name"] for record in known if record.get("whole")]
    going_to = {record.get("going_to") for record in known[:1]}
    stay = {record["name"] for record in known[: max(1, keep)]} | set(complete[:1]) | going_to
    gone = [record["name"] for record in known if record["name"] not in stay]
    for name in [*gone, *(path.name for path in folder.glob(f"{PARTIAL}*"))]:
        shutil.rmtree(folder / name, ignore_errors=True)
    return gone


def present(parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Keep a state, unless the newest backup holds the same.

    Raises:
        BackupError: the disk is too full.
        OSError: it could not be written.
    """
    folder = Path(parameters["folder"])
    texts = {name: str(text) for name, text in parameters["documents"].items()}
    files = sources(parameters["files"])
    known, mark = listed(folder), digest(texts, files)
    # What is about to be done to this state belongs to it: a rollback that is killed goes on by it.
    kept = bool(known) and (known[0].get("digest"), known[0].get("going_to") or "") == (
        mark,
        parameters["about"].get("going_to") or "",
    )
    size = sum(len(text.encode()) for text in texts.values()) + sum(path.stat().st_size for path in files.values())
    # The change that is to follow fills the disk too: a full one is refused even with a backup of this state kept.
    refuse_full_disk(folder, 0 if kept else size, parameters["min_free_mib"])
    if kept:
        return {"changed": False, "backups": known, "backup": {**known[0], "documents": texts}}
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {**parameters["about"], "date": date, "digest": mark}
    if record.get("whole") is None:
        record["whole"] = not known  # never recorded: the first one is how the cluster was found
    if check_mode:
        return {"changed": True, "backups": known, "backup": {**record, "name": "", "documents": texts}}
    name = make(folder, record, texts, files)
    removed = prune(folder, parameters["keep"])
    result = listed(folder)
    mine = next(entry for entry in result if entry["name"] == name)
    return {"changed": True, "backups": result, "removed": removed, "backup": {**mine, "documents": texts}}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "listed", "read"], "default": "present"},
            "name": {"type": "str", "default": ""},
            "files": {"type": "list", "elements": "path", "default": []},
            "documents": {"type": "dict", "default": {}},
            "about": {"type": "dict", "default": {}},
            "keep": {"type": "int", "default": 10},
            "min_free_mib": {"type": "int", "default": 64},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["folder"])
    if folder.resolve().is_relative_to(FORBIDDEN):
        module.fail_json(msg=f"{folder} lies in the static pod directory, where kubelet runs whatever it finds")
    try:
        if module.params["state"] == "present":
            result = present(module.params, check_mode=module.check_mode)
        elif module.params["state"] == "read":
            result = {"changed": False, "backups": listed(folder), "backup": read(folder, module.params["name"])}
        else:
            result = {"changed": False, "backups": listed(folder)}
    except BackupError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{folder}: the backup failed, nothing has been changed: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
