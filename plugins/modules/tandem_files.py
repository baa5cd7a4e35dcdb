#!/usr/bin/python
"""Ansible module: a set of small files, written in one go."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_files
short_description: Writes, edits or removes a set of small files in one call
description:
  - One call in place of one C(copy) a file, for machines on which each call costs a second.
  - Files are replaced atomically. Supports check mode and diff. Refuses to touch the static pod directory, where
    kubelet would run whatever it finds.
  - With C(remember) a run that ends between a file and what has to follow it is made up for. A mark is left before the
    first file of a topic is written, the topic is returned as long as the mark is there, and C(acted) takes it away.
options:
  files:
    description: The files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The whole content, or the content of the block when C(block) is set.
        type: str
        default: ''
      block:
        description: Name of a block to keep inside a file that others own, between marker lines.
        type: str
        default: ''
      mode:
        description: File mode, octal as a string.
        type: str
        default: '0644'
      state:
        description: Whether the file (or the block) exists.
        type: str
        choices: [present, absent]
        default: present
      topic:
        description: Returned in C(topics) when the file changed, so that a handler knows what to restart.
        type: str
        default: ''
  remember:
    description: Whose topics these are, a role's name; empty when nobody has to act on them.
    type: str
    default: ''
  acted:
    description: Topics that have been acted on.
    type: list
    elements: str
    default: []
author: Tandem
"""

EXAMPLES = """
- name: Host names are known
  tandem_files:
    files:
      - {path: /etc/hosts, block: tandem, content: "10.0.0.10 cp1\\n", topic: hosts}
    remember: some_role
  register: files

- name: What follows from changed files is done
  tandem_files: {remember: some_role, acted: "{{ files.topics }}"}
  when: files.topics | length > 0
"""

RETURN = """
paths:
  description: Files that changed.
  returned: always
  type: list
topics:
  description: Topics of the files that changed, and those that wait since an earlier run, each once.
  returned: always
  type: list
"""

FORBIDDEN = "/etc/kubernetes/manifests"
PENDING = Path("/var/lib/tandem/pending")
"""Where marks lie: topics whose files were written and on which nobody has acted yet."""


def read(path: Path) -> str | None:
    """Content of a file, None when it does not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def with_block(text: str | None, name: str, content: str | None) -> str:
    """A text with the named block replaced, appended when new, removed when `content` is None.

    Raises:
        ValueError: the block begins but does not end.
    """
    begin, end = f"# BEGIN {name}", f"# END {name}"
    kept: list[str] = []
    inside, position = False, None
    for line in (text or "").splitlines(keepends=True):
        if line.strip() == begin:
            inside, position = True, len(kept)
        elif line.strip() == end and inside:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"block {name!r} begins but does not end")
    if content is None:
        return "".join(kept)
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    position = len(kept) if position is None else position
    block = f"{begin}\n{content.rstrip(chr(10))}\n{end}\n"
    return "".join([*kept[:position], block, *kept[position:]])


def wanted_text(item: dict[str, Any], current: str | None) -> str | None:
    """What a file is to hold, None when it is to be absent."""
    absent = item["state"] == "absent"
    if not item["block"]:
        return None if absent else str(item["content"])
    if absent and current is None:
        return None
    return with_block(current, item["block"], None if absent else item["content"])


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file atomically; missing parents are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tandem-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        try:
            temporary.replace(path)
        except OSError:
            # A bind-mounted file (/etc/hosts in a container) cannot be replaced, only written.
            path.write_text(text, encoding="utf-8")
    finally:
        temporary.unlink(missing_ok=True)


def apply(item: dict[str, Any], check_mode: bool) -> dict[str, str] | None:
    """Bring one file to its wanted state; returns a diff, or None when nothing had to change.

    Raises:
        ValueError: the path lies in the static pod directory, or a block is broken.
        OSError: the file cannot be read or written.
    """
    path, mode = Path(item["path"]), int(item["mode"], 8)
    if path.resolve().is_relative_to(FORBIDDEN):
        raise ValueError(f"{path} lies in the static pod directory, which only kubeadm may write to")
    current = read(path)
    wanted = wanted_text(item, current)
    current_mode = stat.S_IMODE(path.stat().st_mode) if current is not None else mode
    keeps_mode = bool(item["block"])
    if wanted == current and (keeps_mode or current_mode == mode):
        return None
    if not check_mode:
        if wanted is None:
            path.unlink()
        else:
            write(path, wanted, current_mode if keeps_mode else mode)
    return {"before_header": str(path), "after_header": str(path), "before": current or "", "after": wanted or ""}


def mark(role: str, topic: str) -> Path:
    """The mark of a role's topic."""
    return PENDING / f"{role}.{topic}"


def bring(item: dict[str, Any], role: str, check_mode: bool) -> dict[str, str] | None:
    """Bring one file to its wanted state as `apply` does, its topic's mark before it."""
    diff = apply(item, True)
    if diff is None or check_mode:
        return diff
    if role and item["topic"]:
        path = mark(role, item["topic"])
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.touch()
        # The file must not be on the disk without its mark.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return apply(item, False)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "default": ""},
                    "block": {"type": "str", "default": ""},
                    "mode": {"type": "str", "default": "0644"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "topic": {"type": "str", "default": ""},
                },
            },
            "remember": {"type": "str", "default": ""},
            "acted": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    role = module.params["remember"]
    for topic in [] if module.check_mode else module.params["acted"]:
        mark(role, topic).unlink(missing_ok=True)
    diffs: list[dict[str, str]] = []
    paths: list[str] = []
    topics: list[str] = []
    for item in module.params["files"]:
        topic = item["topic"]
        try:
            diff = bring(item, role, module.check_mode)
        except (OSError, ValueError) as error:
            module.fail_json(msg=f"{item['path']}: {error}", paths=paths, topics=topics)
        if diff is not None:
            diffs.append(diff)
            paths.append(item["path"])
        waits = diff is not None or (role and mark(role, topic).exists())
        topics += [topic] if topic and waits and topic not in topics else []
    module.exit_json(changed=bool(paths), paths=paths, topics=topics, diff=diffs)


if __name__ == "__main__":
    main()
