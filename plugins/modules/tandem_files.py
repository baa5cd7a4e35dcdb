#!/usr/bin/python
"""Ansible module: a set of small files, written in one go."""

from __future__ import annotations

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tandem_files
short_description: Writes, edits or removes a set of small files in one call
description:
  - One call in place of one C(copy) a file, for machines on which each call costs a second.
  - Files are replaced atomically. Supports check mode and diff. Refuses to touch the static pod directory, where kubelet
    would run whatever it finds.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
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
author: Tandem
"""

EXAMPLES = """
- name: Host names are known
  tandem_files:
    files:
      - {path: /etc/hosts, block: tandem, content: "10.0.0.10 cp1\\n", topic: hosts}
"""

RETURN = """
paths:
  description: Files that changed.
  returned: always
  type: list
topics:
  description: Topics of the files that changed, each once.
  returned: always
  type: list
"""

FORBIDDEN = "/etc/kubernetes/manifests"


def read(path):
    """Content of a file, None when it does not exist."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def with_block(text, name, content):
    """A text with the named block replaced, appended when new, removed when `content` is None."""
    begin, end = f"# BEGIN {name}", f"# END {name}"
    lines, kept, inside = (text or "").splitlines(keepends=True), [], False
    position = None
    for line in lines:
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


def wanted_text(item, current):
    """What a file is to hold, None when it is to be absent."""
    absent = item["state"] == "absent"
    if not item["block"]:
        return None if absent else item["content"]
    if absent and current is None:
        return None
    return with_block(current, item["block"], None if absent else item["content"])


def write(path, text, mode):
    """Replace a file atomically; parents are created 0755."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".tandem-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        try:
            os.replace(temporary, path)
        except OSError:
            # A bind-mounted file (/etc/hosts in a container) cannot be replaced, only written.
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.unlink(temporary)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def apply(item, check_mode):
    """Bring one file to its wanted state; returns a diff, or None when nothing had to change."""
    path, mode = item["path"], int(item["mode"], 8)
    if os.path.realpath(path).startswith(FORBIDDEN):
        raise ValueError(f"{path} lies in the static pod directory, which only kubeadm may write to")
    current = read(path)
    wanted = wanted_text(item, current)
    current_mode = os.stat(path).st_mode & 0o7777 if current is not None else None
    keeps_mode = bool(item["block"]) and current is not None
    if wanted == current and (wanted is None or keeps_mode or current_mode == mode):
        return None
    if not check_mode:
        if wanted is None:
            os.unlink(path)
        else:
            write(path, wanted, current_mode if keeps_mode else mode)
    return {"before_header": path, "after_header": path, "before": current or "", "after": wanted or ""}


def main():
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "default": ""},
                    "block": {"type": "str", "default": ""},
                    "mode": {"type": "str", "default": "0644"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "topic": {"type": "str", "default": ""},
                },
            }
        },
        supports_check_mode=True,
    )
    diffs, paths, topics = [], [], []
    for item in module.params["files"]:
        try:
            diff = apply(item, module.check_mode)
        except (OSError, ValueError) as error:
            module.fail_json(msg=f"{item['path']}: {error}", paths=paths, topics=topics)
        if diff is not None:
            diffs.append(diff)
            paths.append(item["path"])
            topics += [item["topic"]] if item["topic"] and item["topic"] not in topics else []
    module.exit_json(changed=bool(paths), paths=paths, topics=topics, diff=diffs)


if __name__ == "__main__":
    main()
