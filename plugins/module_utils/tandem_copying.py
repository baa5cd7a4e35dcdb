"""A folder of one machine made equal to that of another, by way of a third folder that both see. Standard library only.

Neither machine needs to be root on the other: the one that has the data packs what differs into numbered files and a
list of everything (`source.json`); the other places it, owners and modes included, and says what it then has
(`target.json`). Names are bytes to Linux; in the lists they are UTF-8 with surrogates for what is not.

A pass may run while the data are in use: what changes meanwhile differs in the next pass. What was read once is not
read again while inode, size and both times stay: a write changes the time of change, which nobody can set. So that
this holds for memory that was mapped before, a file is written out before it is read.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Entries = dict[str, dict[str, Any]]

CHUNK = 4 * 1024 * 1024
RACY_NS = 2 * 10**9
"""A file that changed less than so long before it was read is read again: time stamps are coarse."""
SOURCE, TARGET = "source.json", "target.json"
DATA = "data-"
PARTIAL = b".tandem-partial"
COMPARED = ("kind", "mode", "uid", "gid", "size", "sha256", "link", "same", "xattrs")
KEPT_XATTRS = ("system.posix_acl_access", "system.posix_acl_default", "security.capability")
UNSUPPORTED = (errno.ENOTSUP, errno.ENODATA, errno.EOPNOTSUPP)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DELEGATION_SECONDS = 100.0
"""On the NFS server a file that a client writes is the client's by delegation, and the first open asks for it back. A
client that does not answer loses it after the lease time: 90 s where nobody changed it (fs/nfsd/netns.h)."""


class CopyError(Exception):
    """What cannot be copied, and why."""


class LateError(CopyError):
    """The time that was given is over."""


def unhurried() -> None:
    """For those whom nobody waits for."""


def text(name: bytes) -> str:
    """A name as it stands in the lists."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """A name of the lists as Linux has it."""
    return name.encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def below(root: int, path: bytes) -> Iterator[int]:
    """A folder below another one, opened part by part: no link on the way is followed.

    Raises:
        OSError: it is not there, or a part of it is no folder.
    """
    found = os.open(b".", DIRECTORY, dir_fd=root)
    try:
        for part in filter(None, path.split(b"/")):
            deeper = os.open(part, DIRECTORY, dir_fd=found)
            os.close(found)
            found = deeper
        yield found
    finally:
        os.close(found)


def walk(root: int, tick: Callable[[], None] = unhurried) -> Iterator[tuple[bytes, int, bytes, os.stat_result]]:
    """Everything below a folder, in an order that depends on names alone: path, open parent, name, lstat.

    What vanishes meanwhile is left out.

    Raises:
        CopyError: another file system is mounted in it.
    """
    device = os.fstat(root).st_dev
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            with below(root, folder) as parent:
                deeper = []
                for name in sorted(os.fsencode(each) for each in os.listdir(parent)):  # noqa: PTH208  # by descriptor
                    tick()
                    with contextlib.suppress(FileNotFoundError):
                        seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
                        path = folder + b"/" + name if folder else name
                        if seen.st_dev != device:
                            raise CopyError(f"{text(path)}: another file system is mounted there")
                        if stat.S_ISDIR(seen.st_mode):
                            deeper.append(path)
                        yield path, parent, name, seen
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        pending += reversed(deeper)


def kind_of(mode: int) -> str:
    """What an entry is; empty for what cannot be copied (devices), `socket` for what need not."""
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"), (stat.S_ISFIFO, "pipe"))
    found = next((name for holds, name in kinds if holds(mode)), "")
    return found or ("socket" if stat.S_ISSOCK(mode) else "")


def xattrs_of(descriptor: int) -> dict[str, str]:
    """Attributes that belong to the data: users', access lists, capabilities."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return {}
        raise
    found = {}
    for name in sorted(names):
        if name.startswith("user.") or name in KEPT_XATTRS:
            with contextlib.suppress(OSError):
                found[name] = base64.b64encode(os.getxattr(descriptor, name)).decode()
    return found


def measure(root: str, tick: Callable[[], None] = unhurried) -> dict[str, Any]:
    """Size and particulars of a folder.

    Returns:
        `bytes` on the disk, `files` (entries), `owners` (user and group ids), some of the `devices`, and of its file
        system the `free` bytes and `inodes` (-1 where it has no limit).

    Raises:
        CopyError: another file system is mounted in it.
        OSError: it cannot be read.
    """
    descriptor = os.open(root, DIRECTORY)
    try:
        owners, devices, links = set(), [], {}
        size = files = 0
        for path, _, _, seen in walk(descriptor, tick):
            files += 1
            owners |= {seen.st_uid, seen.st_gid}
            if not kind_of(seen.st_mode):
                devices.append(text(path))
            if seen.st_nlink > 1 and stat.S_ISREG(seen.st_mode):
                if seen.st_ino in links:
                    continue
                links[seen.st_ino] = True
            size += seen.st_blocks * 512
        there = os.fstatvfs(descriptor)
        own = os.fstat(descriptor)
        owners |= {own.st_uid, own.st_gid}
    finally:
        os.close(descriptor)
    return {
        "bytes": size,
        "files": files,
        "owners": sorted(owners)[:1000],
        "devices": devices[:5],
        "free": there.f_bavail * there.f_frsize,
        "inodes": there.f_favail if there.f_files else -1,
    }


class Memory:
    """What was read before, by path: `[inode, size, mtime, ctime, sha256, xattrs]`.

    Args:
        path: the file that keeps it; one that is not there, or is none of ours, is an empty memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}
        self._new: dict[str, list[Any]] = {}

    @staticmethod
    def _identity(seen: os.stat_result) -> list[int]:
        return [seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]

    def recall(self, path: str, seen: os.stat_result) -> tuple[str, dict[str, str]] | None:
        """Checksum and attributes of a file that is as it was when it was read."""
        known = self._known.get(path)
        if not known or known[:4] != self._identity(seen):
            return None
        self._new[path] = known
        return known[4], known[5]

    def keep(self, path: str, seen: os.stat_result, asked_ns: int, sha256: str, xattrs: dict[str, str]) -> None:
        """Remember a file as it was before it was read, unless it had just changed."""
        if seen.st_ctime_ns + RACY_NS < asked_ns:
            self._new[path] = [*self._identity(seen), sha256, xattrs]

    def save(self) -> None:
        """Keep what was seen in this pass, and nothing older."""
        write_json(self._path, self._new)


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with partial.open("w", encoding="ascii") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def load(path: Path) -> Entries:
    """A list that was written.

    Raises:
        OSError: it is not there.
    """
    found: Entries = json.loads(path.read_text(encoding="ascii"))
    return found


class Folder:
    """One side of a copy.

    Args:
        root: the folder.
        memory: what was read before on this machine.
        owners: user and group ids that become others in the list.
        tick: called often; ends the work by raising.
    """

    def __init__(
        self,
        root: str,
        memory: Memory,
        owners: Mapping[int, int] | None = None,
        tick: Callable[[], None] = unhurried,
    ) -> None:
        self._root, self._memory, self._owners, self._tick = root, memory, dict(owners or {}), tick

    def _meta(self, kind: str, seen: os.stat_result) -> dict[str, Any]:
        return {
            "kind": kind,
            "mode": stat.S_IMODE(seen.st_mode),
            "uid": self._owners.get(seen.st_uid, seen.st_uid),
            "gid": self._owners.get(seen.st_gid, seen.st_gid),
            "mtime": seen.st_mtime_ns,
        }

    def scan(self, read: Callable[[int, str, int], str] | None = None) -> Entries:
        """The list of everything, with checksums.

        Args:
            read: makes the checksum of an open file that nobody remembers (descriptor, path, size).

        Raises:
            CopyError: there is something that cannot be copied, or the time is over.
            OSError: something cannot be read.
        """
        root = os.open(self._root, DIRECTORY)
        found: Entries = {}
        links: dict[int, str] = {}
        try:
            found["."] = {**self._meta("folder", os.fstat(root)), "xattrs": xattrs_of(root)}
            for path, parent, name, seen in walk(root, self._tick):
                entry = self._entry(text(path), parent, name, seen, links, read)
                if entry is not None:
                    found[text(path)] = entry
        finally:
            os.close(root)
        self._memory.save()
        return found

    def _entry(
        self,
        path: str,
        parent: int,
        name: bytes,
        seen: os.stat_result,
        links: dict[int, str],
        read: Callable[[int, str, int], str] | None,
    ) -> dict[str, Any] | None:
        """One line of the list; None for what vanished or need not be copied."""
        kind = kind_of(seen.st_mode)
        if not kind:
            raise CopyError(f"{path} is a device; rule: files, folders, links and pipes are copied")
        try:
            if kind == "file":
                if seen.st_nlink > 1 and seen.st_ino in links:
                    return {"kind": "file", "same": links[seen.st_ino]}
                links[seen.st_ino] = path
                return self._file(path, parent, name, seen, read)
            entry = self._meta(kind, seen)
            if kind == "link":
                return {**entry, "mode": 0, "link": text(os.readlink(name, dir_fd=parent))}
            if kind == "folder":
                with below(parent, name) as descriptor:
                    return {**entry, "xattrs": xattrs_of(descriptor)}
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return entry if kind == "pipe" else None

    def _file(
        self, path: str, parent: int, name: bytes, seen: os.stat_result, read: Callable[[int, str, int], str] | None
    ) -> dict[str, Any]:
        known = self._memory.recall(path, seen)
        if known is None:
            descriptor = self._open(name, parent)
            try:
                asked, seen = time.time_ns(), os.fstat(descriptor)
                os.fsync(descriptor)
                sha256 = (read or self.checksum)(descriptor, path, seen.st_size)
                xattrs = xattrs_of(descriptor)
            finally:
                os.close(descriptor)
            self._memory.keep(path, seen, asked, sha256, xattrs)
        else:
            sha256, xattrs = known
        return {**self._meta("file", seen), "size": seen.st_size, "sha256": sha256, "xattrs": xattrs}

    def _open(self, name: bytes, parent: int) -> int:
        """Open a file for reading; not blocking, for a pipe may have taken its place, and so asked again."""
        end = time.monotonic() + DELEGATION_SECONDS
        while True:
            try:
                return os.open(name, READ, dir_fd=parent)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
            self._tick()
            time.sleep(0.05)

    def checksum(self, descriptor: int, _path: str = "", _size: int = 0) -> str:
        """The sha256 of an open file."""
        digest = hashlib.sha256()
        os.lseek(descriptor, 0, os.SEEK_SET)
        while block := os.read(descriptor, CHUNK):
            self._tick()
            digest.update(block)
        return digest.hexdigest()

    def pack(self, exchange: Path) -> dict[str, int]:
        """Put what the other side lacks into the exchange, and the list of everything.

        Returns:
            `files` and `bytes` that were packed, `entries` of the list.

        Raises:
            CopyError: see `scan`.
            OSError: something cannot be read, or the exchange cannot be written.
        """
        target = load(exchange / TARGET)
        clear(exchange)
        data = f"{DATA}{uuid.uuid4().hex}"
        (exchange / data).mkdir(mode=0o700)
        numbers: dict[str, int] = {}
        packed: dict[str, str] = {}

        def read(descriptor: int, path: str, size: int) -> str:
            there = target.get(path, {})
            if "sha256" in there and there["size"] == size:
                known = self.checksum(descriptor)
                if known == there["sha256"]:
                    return known
            packed[path] = self._pack_file(descriptor, exchange / data / str(len(numbers)))
            numbers[path] = len(numbers)
            return packed[path]

        entries = self.scan(read)
        root = os.open(self._root, DIRECTORY)
        try:
            for path, entry in entries.items():
                # Remembered, but the other side has something else.
                if "sha256" in entry and path not in numbers and target.get(path, {}).get("sha256") != entry["sha256"]:
                    self._pack_known(root, path, entry, exchange / data / str(len(numbers)))
                    numbers[path] = len(numbers)
        finally:
            os.close(root)
        write_json(exchange / SOURCE, {"entries": entries, "data": data, "numbers": numbers})
        size = sum((exchange / data / str(number)).stat().st_size for number in numbers.values())
        return {"files": len(numbers), "bytes": size, "entries": len(entries)}

    def _pack_known(self, root: int, path: str, entry: dict[str, Any], target: Path) -> None:
        """Pack a file whose checksum was remembered; one that changed or went meanwhile differs in the next pass."""
        folder, _, name = raw(path).rpartition(b"/")
        try:
            with below(root, folder) as parent:
                descriptor = self._open(name, parent)
        except OSError as error:
            if error.errno not in GONE:
                raise
            target.touch()
            return
        try:
            entry["sha256"] = self._pack_file(descriptor, target)
        finally:
            os.close(descriptor)

    def _pack_file(self, descriptor: int, target: Path) -> str:
        """Copy an open file into a new one, holes kept; the checksum of what was copied."""
        digest = hashlib.sha256()
        os.lseek(descriptor, 0, os.SEEK_SET)
        with target.open("xb") as stream:
            while block := os.read(descriptor, CHUNK):
                self._tick()
                digest.update(block)
                write_sparse(stream.fileno(), block)
            os.ftruncate(stream.fileno(), os.lseek(stream.fileno(), 0, os.SEEK_CUR))
            os.fsync(stream.fileno())
        return digest.hexdigest()


def write_sparse(descriptor: int, block: bytes) -> None:
    """Write a block at the file's place; zeros become a hole."""
    if block.count(0) == len(block):
        os.lseek(descriptor, len(block), os.SEEK_CUR)
        return
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def clear(exchange: Path) -> None:
    """Remove what an earlier pass packed."""
    for each in exchange.glob(f"{DATA}*"):
        shutil.rmtree(each, ignore_errors=True)


def differences(source: Entries, target: Entries) -> list[str]:
    """What two lists differ in, path by path; times do not count."""
    found = []
    for path in sorted(set(source) | set(target)):
        here, there = source.get(path), target.get(path)
        if here is None or there is None:
            found.append(f"{path}: only at the {'old' if there is None else 'new'} place")
            continue
        found += [
            f"{path}: {key} {here.get(key)!r} became {there.get(key)!r}"
            for key in COMPARED
            if here.get(key) != there.get(key)
        ]
    return [line.encode("utf-8", "backslashreplace").decode() for line in found]
