"""A store of build results, each in a folder named by a key of everything that went into it.

Three promises hold it together. A result is published by one rename of a finished folder: a reader sees all of it or
nothing. Its manifest records every file, and a result that no longer is what its manifest says counts as absent and is
built again. A lock per result keeps two builds from doing the same work: the second takes what the first made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.build._errors import BuildError

MANIFEST = ".manifest.json"
_FORMAT = 1
_BLOCK = 1 << 20
_SPARSE_FROM = 1 << 30
"""Files of this size and above (disk images) are hashed by their non-zero blocks, so that holes cost nothing."""


def make_key(name: str, inputs: Mapping[str, object]) -> str:
    """The key of a result: 64 hexadecimal digits that change when any of its inputs does."""
    text = json.dumps({"name": name, "format": _FORMAT, "inputs": inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_tree(*roots: Path) -> str:
    """One digest over names and contents below `roots` (files or folders); byte code is left out."""
    digest = hashlib.sha256()
    for root in roots:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" in path.parts:
                continue
            name = path.name if path == root else path.relative_to(root).as_posix()
            digest.update(f"{name}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file; of a very large one, over the offset and content of each 1 MiB block that is not all zeros."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        if size < _SPARSE_FROM:
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest()
        zeros = bytes(_BLOCK)
        position = 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:  # ENXIO: only a hole is left
                break
            block = os.pread(file.fileno(), _BLOCK, position)
            if block != zeros[: len(block)]:
                digest.update(position.to_bytes(8, "big"))
                digest.update(block)
            position += _BLOCK
    return "blocks:" + digest.hexdigest()


@dataclass(frozen=True)
class Result:
    """A published build result."""

    name: str
    key: str
    folder: Path
    seconds: float
    """How long the build of it took."""
    info: Mapping[str, str]
    """What the build learned, such as the version that it took."""


class Store:
    """The cache folder and what is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.work = root / "building"
        self.logs = root / "logs"

    def folder(self, name: str, key: str) -> Path:
        """Where the result of this name and key is or would be published."""
        return self.artifacts / f"{name}-{key[:12]}"

    def log_path(self, name: str) -> Path:
        """The log of the last build of `name`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{name}.log"

    def find(self, name: str, key: str, *, full: bool = False) -> Result | None:
        """The published result, or None when there is none or it is not what its manifest says.

        Sizes and modification times are compared, and with `full` every file is read and its digest compared.
        """
        folder = self.folder(name, key)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            if manifest["format"] != _FORMAT or manifest["key"] != key:
                return None
            recorded: dict[str, dict[str, object]] = manifest["files"]
            if set(recorded) != set(_listing(folder)):
                return None
            for relative, entry in recorded.items():
                if not _matches(folder / relative, entry, full=full):
                    return None
            return Result(name, key, folder, float(manifest["seconds"]), dict(manifest["info"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def publish(self, name: str, key: str, folder: Path, *, seconds: float, info: Mapping[str, str]) -> Result:
        """Write the manifest of a finished `folder` and rename it into place; the caller holds the lock of `name`."""
        files = {relative: _describe(folder / relative) for relative in _listing(folder)}
        if not files:
            raise BuildError(f"{name}: the build finished and left no files")
        manifest = {
            "format": _FORMAT,
            "name": name,
            "key": key,
            "seconds": round(seconds, 1),
            "info": dict(info),
            "files": files,
        }
        with (folder / MANIFEST).open("w") as file:
            json.dump(manifest, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        final = self.folder(name, key)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        if final.exists():
            broken = self.work / f"{name}-broken-{os.getpid()}-{time.monotonic_ns()}"
            final.rename(broken)
            remove_tree(broken)
        folder.rename(final)
        return Result(name, key, final, seconds, dict(info))

    @contextlib.contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """An empty folder to build in, removed at the end; remains of interrupted builds of `name` go first.

        The caller holds the lock of `name`: whatever is there belongs to a build that is no more.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        for old in self.work.glob(f"{name}-*"):
            if old.name.removeprefix(f"{name}-").split("-")[0].isdigit():
                remove_tree(old)
        folder = self.work / f"{name}-{os.getpid()}-{time.monotonic_ns()}"
        folder.mkdir()
        try:
            yield folder
        finally:
            remove_tree(folder)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Hold the lock of `name`; yields True when another process had to be waited for."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{name}.lock").open("w") as file:
            waited = False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            yield waited

    def busy(self, name: str) -> bool:
        """Whether some process is building `name` now."""
        path = self.root / "locks" / f"{name}.lock"
        if not path.exists():
            return False
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def last_seconds(self, name: str) -> float | None:
        """How long the last build of `name` took on this machine, whatever its key."""
        try:
            return float(json.loads((self.root / "times.json").read_text())[name])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def prune(self, keep: Iterable[Path]) -> list[Path]:
        """Remove every published result but those in the folders `keep`; what some process builds now stays too.

        Returns:
            The folders that were removed.
        """
        kept, removed = set(keep), []
        for folder in sorted(self.artifacts.glob("*-*")):
            name = folder.name.rpartition("-")[0]
            if folder in kept or self.busy(name):
                continue
            with self.lock(name):
                remove_tree(folder)
            removed.append(folder)
        return removed

    def remember_seconds(self, name: str, seconds: float) -> None:
        """Record how long a build took, for the next one to show."""
        path = self.root / "times.json"
        with self.lock("times"):
            try:
                times = json.loads(path.read_text())
            except (OSError, ValueError):
                times = {}
            times[name] = round(seconds, 1)
            write_atomically(path, json.dumps(times, indent=1, sort_keys=True) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file by rename, so that a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text)
    fresh.replace(path)


def remove_tree(folder: Path) -> None:
    """Remove a folder; refuses while something is mounted below it, because that would reach into the mount."""
    below = f"{folder.resolve()}/"
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    held = [mount for mount in mounts if mount.startswith(below) or mount == below.rstrip("/")]
    if held:
        raise BuildError(f"{folder}: still mounted: {', '.join(held)}; unmount and run the build again")
    shutil.rmtree(folder, ignore_errors=False) if folder.is_dir() and not folder.is_symlink() else folder.unlink()


def _listing(folder: Path) -> Iterator[str]:
    for top, folders, files in os.walk(folder):
        for entry in [*files, *(each for each in folders if (Path(top) / each).is_symlink())]:
            relative = (Path(top) / entry).relative_to(folder).as_posix()
            if relative != MANIFEST:
                yield relative


def _describe(path: Path) -> dict[str, object]:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return {"link": str(path.readlink())}
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "mode": stat.S_IMODE(status.st_mode),
        "sha256": hash_file(path),
    }


def _matches(path: Path, entry: Mapping[str, object], *, full: bool) -> bool:
    status = path.lstat()
    if "link" in entry:
        return stat.S_ISLNK(status.st_mode) and str(path.readlink()) == entry["link"]
    same = (
        stat.S_ISREG(status.st_mode)
        and status.st_size == entry["size"]
        and status.st_mtime_ns == entry["mtime_ns"]
        and stat.S_IMODE(status.st_mode) == entry["mode"]
    )
    return same and (not full or hash_file(path) == entry["sha256"])
