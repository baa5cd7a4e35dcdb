#!/usr/bin/python3
"""Snapshots of a share's volumes, and one volume brought back from a snapshot or from the trash.

Each snapshot is a folder that looks like a full copy. Where the file system can share blocks (XFS, Btrfs) files are
reflinked. Elsewhere a file that did not change since the snapshot before is a hard link to that snapshot's copy, never
to the live file, so that a program that writes in place does not write into the past.

A snapshot is not of one instant: a file may change while another is copied. A database wants its own dump as well.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

STAMP = "%Y%m%dT%H%M%SZ"
PARTIAL = ".partial-"
FICLONE = 0x40049409
"""ioctl of Linux that shares the blocks of a whole file (include/uapi/linux/fs.h)."""


class SnapshotError(Exception):
    """What cannot be done, why, and what to do; nothing that was there has been changed."""


def clone(source: Path, target: Path) -> bool:
    """Copy a file by sharing its blocks; False where the file system cannot."""
    try:
        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new, FICLONE, old.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL):
            return False
        raise
    return True


def can_clone(share: Path, store: Path) -> bool:
    """Whether files of the share can be reflinked into the store. Leaves nothing behind."""
    probe, copy = share / ".tandem-probe", store / ".tandem-probe"
    try:
        probe.write_bytes(b"x" * 4096)
        return clone(probe, copy)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)


def keep_attributes(source: Path, target: Path, seen: os.stat_result) -> None:
    """Owner, mode and times of a copy."""
    if os.geteuid() == 0:
        os.chown(target, seen.st_uid, seen.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(seen.st_mode):
        target.chmod(stat.S_IMODE(seen.st_mode))
        os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def unchanged(seen: os.stat_result, before: Path) -> bool:
    """Whether the snapshot before holds this file as it is now, by size, time, mode and owner."""
    try:
        old = before.lstat()
    except OSError:
        return False
    same = ("st_size", "st_mtime_ns", "st_mode", "st_uid", "st_gid")
    return stat.S_ISREG(old.st_mode) and all(getattr(old, name) == getattr(seen, name) for name in same)


def copy_tree(source: Path, target: Path, before: Path | None, *, reflink: bool) -> int:
    """Copy a folder; files that vanish meanwhile are left out. Returns how many files were linked, not copied."""
    linked = 0
    target.mkdir()
    for entry in sorted(source.iterdir()):
        new, old = target / entry.name, before / entry.name if before else None
        try:
            seen = entry.lstat()
            if stat.S_ISDIR(seen.st_mode):
                linked += copy_tree(entry, new, old, reflink=reflink)
            elif stat.S_ISLNK(seen.st_mode):
                new.symlink_to(entry.readlink())
            elif not stat.S_ISREG(seen.st_mode):
                continue  # sockets and pipes hold no data
            elif not reflink and old is not None and unchanged(seen, old):
                os.link(old, new)
                linked += 1
                continue
            elif not (reflink and clone(entry, new)):
                shutil.copyfile(entry, new)
            keep_attributes(entry, new, seen)
        except FileNotFoundError:
            continue
    keep_attributes(source, target, source.lstat())
    return linked


def snapshots(store: Path) -> list[str]:
    """Names of finished snapshots, oldest first."""
    return sorted(entry.name for entry in store.iterdir() if re.fullmatch(r"\d{8}T\d{6}Z", entry.name))


def volumes(share: Path) -> list[Path]:
    """Folders of the share that are volumes: all but hidden ones."""
    return sorted(entry for entry in share.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def make(share: Path, store: Path, keep: int, sentinel: str, target: str) -> dict[str, object]:
    """Take a snapshot, remove old ones, and copy the store to the off-host target when there is one.

    Raises:
        SnapshotError: the share is not there, the store lies inside it, or the target cannot be written.
    """
    if not (share / sentinel).is_file():
        raise SnapshotError(f"{share} is not the share: it has no {sentinel}; nothing was removed")
    if store.resolve().is_relative_to(share.resolve()):
        raise SnapshotError(f"{store} lies inside {share}, where every volume could reach it; choose another folder")
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in store.glob(f"{PARTIAL}*"):
        shutil.rmtree(left)
    known, name = snapshots(store), time.strftime(STAMP, time.gmtime())
    if name in known:
        raise SnapshotError(f"{store / name} exists already")
    before = store / known[-1] if known else None
    reflink = can_clone(share, store)
    partial = store / f"{PARTIAL}{name}"
    partial.mkdir(mode=0o700)
    linked = sum(
        copy_tree(volume, partial / volume.name, before / volume.name if before else None, reflink=reflink)
        for volume in volumes(share)
    )
    partial.rename(store / name)
    gone = [*known, name][:-keep]
    for old in gone:
        shutil.rmtree(store / old)
    if target:
        copy_off(store, name, target)
    return {"name": name, "reflink": reflink, "linked": linked, "removed": gone, "target": target}


def copy_off(store: Path, name: str, target: str) -> None:
    """Make the off-host target hold the same snapshots as the store.

    Raises:
        SnapshotError: it does not; the snapshot that was just taken stays here all the same.
    """
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=30"
    command = ["rsync", "--archive", "--hard-links", "--delete", f"--rsh={ssh}", f"{store}/", target]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=24 * 3600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError(f"{store / name} was taken, but is not on {target}: {error}") from error
    if done.returncode != 0:
        raise SnapshotError(f"{store / name} was taken, but is not on {target}: rsync says {done.stderr.strip()}")


def find(share: Path, store: Path, trash: str, volume: str, source: str) -> Path:
    """Where a volume's data are to come from: a snapshot by name, `trash`, or empty for the newest of both.

    Raises:
        SnapshotError: nowhere; the message lists where it could be had.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", volume):
        raise SnapshotError(f"{volume!r} is not the name of a volume's folder")
    found: dict[str, Path] = {}
    if store.is_dir():
        found = {name: store / name / volume for name in snapshots(store) if (store / name / volume).is_dir()}
    thrown = sorted((share / trash).glob(f"{volume}.*"), key=lambda path: path.name) if (share / trash).is_dir() else []
    if thrown:
        found["trash"] = thrown[-1]
    if source and source in found:
        return found[source]
    if not source and found:
        return found["trash"] if "trash" in found else found[max(found)]
    raise SnapshotError(
        f"{volume} is not to be had{f' from {source}' if source else ''}; it is in: {', '.join(found) or 'nothing'}"
    )


def restore(share: Path, store: Path, trash: str, volume: str, source: str, *, replace: bool) -> dict[str, object]:
    """Bring one volume back. What is there moves to the trash, and only when `replace` says so.

    Raises:
        SnapshotError: the volume is there already, or cannot be had.
    """
    origin, target = find(share, store, trash, volume, source), share / volume
    if target.exists():
        if not replace:
            raise SnapshotError(f"{target} is there already; to put it aside first: tandem_restore_replace=true")
        if origin.parent == share / trash:
            raise SnapshotError(f"{target} is there already, and {origin} is older; name a snapshot")
    partial = share / f".{volume}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    copy_tree(origin, partial, None, reflink=can_clone(share, origin.parent))
    if target.exists():
        (share / trash).mkdir(exist_ok=True)
        target.rename(share / trash / f"{volume}.{int(time.time())}")
    partial.rename(target)
    return {"volume": volume, "from": str(origin)}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["make", "list", "restore"])
    parser.add_argument("--share", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--keep", type=int, default=14)
    parser.add_argument("--sentinel", default=".tandem-share")
    parser.add_argument("--trash", default=".trash")
    parser.add_argument("--target", default="")
    parser.add_argument("--volume", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--replace", action="store_true")
    given = parser.parse_args()
    try:
        if given.action == "make":
            result: object = make(given.share, given.store, max(1, given.keep), given.sentinel, given.target)
        elif given.action == "list":
            found = snapshots(given.store) if given.store.is_dir() else []
            result = {name: [entry.name for entry in volumes(given.store / name)] for name in found}
        else:
            result = restore(given.share, given.store, given.trash, given.volume, given.source, replace=given.replace)
    except SnapshotError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
