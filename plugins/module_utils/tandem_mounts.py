"""Mounts of a machine, read without touching one of them, and folders removed without ever crossing one.

Whoever cleans a machine of the cluster works beside the data of all its users: pods' folders are bind mounts of the
share below kubelet's own folder. So nothing here follows a link, looks at a path on a share (which may hang), or
removes across the border of a file system.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

NETWORK: Final = re.compile(r"^(nfs\d?|cifs|ceph|glusterfs|fuse\..*|9p)$")


class Mount(NamedTuple):
    """One line of /proc/PID/mountinfo."""

    point: str
    kind: str
    source: str


class CrossingError(Exception):
    """A folder that is to go reaches into another file system; the message names where."""


def parse(text: str) -> list[Mount]:
    """The mounts of a mountinfo text, in the order in which they were made."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 5 or len(rest) < 2:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        found.append(Mount(point, rest[0], rest[1]))
    return found


def inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it, by their texts."""
    return PurePosixPath(path).is_relative_to(folder)


def below(mounts: Iterable[Mount], folders: Sequence[str]) -> list[Mount]:
    """Mounts strictly below one of the folders, the last made first: the order in which they can be undone."""
    found = [each for each in mounts if any(inside(each.point, folder) and each.point != folder for folder in folders)]
    return found[::-1]


def of_share(mounts: Iterable[Mount], share: str) -> list[Mount]:
    """The share's mount, and every other mount that shows it: bind mounts have its source too. The last made first."""
    known = list(mounts)
    sources = {each.source for each in known if each.point == share and NETWORK.match(each.kind)}
    return [each for each in known if each.point == share or (each.source in sources and NETWORK.match(each.kind))][
        ::-1
    ]


def links(path: str) -> str:
    """The first component of a path that is a link, which is not followed; empty when there is none.

    Nothing but the folders above a path is looked at, from the root on; none of them may be a mount that hangs, so
    callers judge mounts first.
    """
    folders = [*reversed(Path(path).parents), Path(path)]
    return next((str(folder) for folder in folders if folder.is_symlink()), "")


def busy(share: str, proc: Path = Path("/proc"), ours: Sequence[str] = ("kubepods", "containerd")) -> list[str]:
    """Processes that are on the share and in no pod, as `PID (name)`. Only the texts of links are read.

    Args:
        share: where it is mounted.
        proc: of the kernel.
        ours: words in the control groups of those that go with the cluster anyway.
    """
    found = []
    for folder in sorted(proc.iterdir(), key=lambda each: (len(each.name), each.name)):
        if not folder.name.isdigit():
            continue
        try:
            group = (folder / "cgroup").read_text(encoding="utf-8")
            name = (folder / "comm").read_text(encoding="utf-8").strip()
            descriptors = list((folder / "fd").iterdir())
        except OSError:
            continue  # it ended between the two looks
        if any(word in group for word in ours):
            continue
        if any(inside(target, share) for target in map(_target, [folder / "cwd", folder / "root", *descriptors])):
            found.append(f"{folder.name} ({name})")
    return found


def _target(link: Path) -> str:
    """Where a link leads, by its text; empty when it went."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def present(path: str) -> bool:
    """Whether there is something to remove; a file system of its own at this very folder stays, and counts if full."""
    top = Path(path)
    return os.path.lexists(top) and not (top.is_mount() and not any(top.iterdir()))


def remove_tree(path: str) -> bool:
    """Remove a file or a folder with all that is in it, within its own file system; whether it was there.

    Raises:
        CrossingError: something in it is of another file system; what was removed before is gone, that is not touched.
        OSError: something cannot be removed.
    """
    top = Path(path)
    if not os.path.lexists(top):
        return False
    parent = os.open(top.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove(parent, top.name, path, top.lstat().st_dev)
    except OSError as error:
        # A file system of its own at this very folder: it stays, and is empty now.
        if error.errno != errno.EBUSY or any(top.iterdir()):
            raise
    finally:
        os.close(parent)
    return True


def _remove(parent: int, name: str, told: str, device: int) -> None:
    """Remove an entry of an open folder. Opened without following links, and judged by what was opened.

    What is gone already was removed by a run that was killed, and whose last step goes on.
    """
    with contextlib.suppress(FileNotFoundError):
        _remove_there(parent, name, told, device)


def _remove_there(parent: int, name: str, told: str, device: int) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if status.st_dev != device:
        raise CrossingError(f"{told} is of another file system")
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if os.fstat(folder).st_dev != device:
            raise CrossingError(f"{told} is of another file system")
        for entry in os.listdir(folder):  # noqa: PTH208  # of what was opened, not of a path
            _remove(folder, entry, f"{told}/{entry}", device)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)
