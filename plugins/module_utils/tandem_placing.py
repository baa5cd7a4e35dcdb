"""The receiving side of a copied folder: it is made equal to a list, with the files that were packed for it.

Whatever is there already and equal is not touched, so that its times stay and nobody has to read it again. Broken off
at any moment it is done again: a file is put in place by a rename, and what it then is, is read back.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .tandem_copying import (  # relative: machines and the control node import this under two names
    CHUNK,
    DATA,
    DIRECTORY,
    GONE,
    PARTIAL,
    READ,
    SOURCE,
    TARGET,
    CopyError,
    Entries,
    Folder,
    below,
    clear,
    kind_of,
    raw,
    text,
    walk,
    write_json,
    write_sparse,
    xattrs_of,
)


@contextlib.contextmanager
def vanishing() -> Iterator[None]:
    """What vanished at the source while its list was made is left out; the next pass knows, and the comparison."""
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise


class Placed(Folder):
    """The receiving side."""

    def place(self, exchange: Path) -> dict[str, int]:
        """Make the folder equal to the list, and say what it then has.

        Returns:
            `files` that were put in place, `removed` entries.

        Raises:
            CopyError: the list is none, or there is something that cannot be made.
            OSError: something cannot be written.
        """
        given: dict[str, Any] = json.loads((exchange / SOURCE).read_text(encoding="ascii"))
        entries: Entries = given["entries"]
        numbers: dict[str, int] = given["numbers"]
        if not str(given["data"]).startswith(DATA) or "/" in given["data"]:
            raise CopyError(f"{exchange / SOURCE} is no list of ours")
        root = os.open(self._root, DIRECTORY)
        try:
            removed = self._remove(root, entries)
            self._folders(root, entries)
            for path, entry in entries.items():
                self._tick()
                if entry["kind"] != "folder":
                    packed = exchange / given["data"] / str(numbers[path]) if path in numbers else None
                    with vanishing():
                        self._one(root, path, entry, packed)
            # The deepest first: what happens in a folder changes its time.
            for path in sorted((each for each in entries if entries[each]["kind"] == "folder"), reverse=True):
                with vanishing(), below(root, b"" if path == "." else raw(path)) as descriptor:
                    self._adorn(descriptor, path, entries[path])
        finally:
            os.close(root)
        os.sync()
        clear(exchange)
        self.tell(exchange)
        return {"files": len(numbers), "removed": removed}

    def tell(self, exchange: Path) -> int:
        """Say what the folder has; the number of entries."""
        entries = self.scan()
        write_json(exchange / TARGET, entries)
        return len(entries)

    def _remove(self, root: int, entries: Entries) -> int:
        """Remove what the list does not have, or has as something else."""
        extra = [
            (path, kind_of(seen.st_mode))
            for path, _, _, seen in walk(root, self._tick)
            if entries.get(text(path), {}).get("kind") != kind_of(seen.st_mode)
        ]
        for path, kind in sorted(extra, reverse=True):
            folder, _, name = path.rpartition(b"/")
            with below(root, folder) as parent:
                if kind == "folder":
                    os.rmdir(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)
        return len(extra)

    @staticmethod
    def _folders(root: int, entries: Entries) -> None:
        for path in sorted(each for each in entries if entries[each]["kind"] == "folder" and each != "."):
            folder, _, name = raw(path).rpartition(b"/")
            with below(root, folder) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)

    def _one(self, root: int, path: str, entry: dict[str, Any], packed: Path | None) -> None:
        """Put one entry that is no folder in place."""
        folder, _, name = raw(path).rpartition(b"/")
        with below(root, folder) as parent:
            if "same" in entry:
                _link_to(root, raw(entry["same"]), parent, name)
            elif entry["kind"] == "link":
                _symlink(parent, name, entry)
            elif entry["kind"] == "pipe":
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(name, 0o600, dir_fd=parent)
                _own(parent, name, entry)
            else:
                if packed is not None:
                    self._bring(packed, parent, name)
                descriptor = os.open(name, READ, dir_fd=parent)
                try:
                    self._adorn(descriptor, path, entry)
                finally:
                    os.close(descriptor)

    def _bring(self, packed: Path, parent: int, name: bytes) -> None:
        """Move a packed file to its place; where the exchange is another file system, by a copy."""
        try:
            os.rename(os.fsencode(packed), name, dst_dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(PARTIAL, dir_fd=parent)
        descriptor = os.open(PARTIAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        try:
            with packed.open("rb") as stream:
                while block := stream.read(CHUNK):
                    self._tick()
                    write_sparse(descriptor, block)
            os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
        finally:
            os.close(descriptor)
        os.rename(PARTIAL, name, src_dir_fd=parent, dst_dir_fd=parent)

    @staticmethod
    def _adorn(descriptor: int, path: str, entry: dict[str, Any]) -> None:
        """Owner, attributes, mode and times of an open file or folder, each only where it differs."""
        seen = os.fstat(descriptor)
        if (seen.st_uid, seen.st_gid) != (entry["uid"], entry["gid"]):
            os.fchown(descriptor, entry["uid"], entry["gid"])
        wanted, there = entry.get("xattrs", {}), xattrs_of(descriptor)
        try:
            for name in set(there) - set(wanted):
                os.removexattr(descriptor, name)
            for name in wanted:
                if there.get(name) != wanted[name]:
                    os.setxattr(descriptor, name, base64.b64decode(wanted[name]))
        except OSError as error:
            rule = "the file system of the new place keeps the attributes of the old one"
            raise CopyError(f"{path}: {error.strerror}; attributes {sorted(wanted)}; rule: {rule}") from error
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != entry["mode"]:
            os.fchmod(descriptor, entry["mode"])
        if os.fstat(descriptor).st_mtime_ns != entry["mtime"]:
            os.utime(descriptor, ns=(entry["mtime"], entry["mtime"]))


def _own(parent: int, name: bytes, entry: dict[str, Any]) -> None:
    """Owner and mode of what cannot be opened."""
    seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (seen.st_uid, seen.st_gid) != (entry["uid"], entry["gid"]):
        os.chown(name, entry["uid"], entry["gid"], dir_fd=parent, follow_symlinks=False)
    if entry["kind"] == "pipe" and stat.S_IMODE(seen.st_mode) != entry["mode"]:
        os.chmod(name, entry["mode"], dir_fd=parent)


def _symlink(parent: int, name: bytes, entry: dict[str, Any]) -> None:
    """Make a symbolic link, unless it is there."""
    wanted = raw(entry["link"])
    try:
        there = os.readlink(name, dir_fd=parent)
    except FileNotFoundError:
        os.symlink(wanted, name, dir_fd=parent)
    else:
        if there != wanted:
            os.unlink(name, dir_fd=parent)
            os.symlink(wanted, name, dir_fd=parent)
    _own(parent, name, entry)


def _link_to(root: int, first: bytes, parent: int, name: bytes) -> None:
    """Make a hard link to a file of the folder that is in place already, unless it is one."""
    folder, _, base = first.rpartition(b"/")
    with below(root, folder) as other:
        wanted = os.stat(base, dir_fd=other, follow_symlinks=False)
        with contextlib.suppress(FileNotFoundError):
            seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if seen.st_ino == wanted.st_ino:
                return
            os.unlink(name, dir_fd=parent)
        os.link(base, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
