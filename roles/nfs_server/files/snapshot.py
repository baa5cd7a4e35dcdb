#!/usr/bin/python3
"""Snapshots of a share's volumes, and one volume brought back from a snapshot or from the trash.

Each snapshot is a folder that looks like a full copy. Where the file system can share blocks (XFS, Btrfs) files are
reflinked. Elsewhere a file that did not change since the snapshot before is a hard link to that snapshot's copy, never
to the live file, so that a program that writes in place does not write into the past.

A snapshot is not of one instant: a file may change while another is copied. A database wants its own dump as well.
"""

from __future__ import annotations

import argparse
import calendar
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

STAMP = "%Y%m%dT%H%M%SZ"
NAME = re.compile(r"\d{8}T\d{6}Z")
PARTIAL = ".partial-"
REPLACED = ".replaced"
"""How the name in the trash ends of what a restore put aside: it was found wrong, and never comes back unnamed."""
LOCK_SECONDS = 600
"""How long one run waits for another; a snapshot of many files takes minutes."""
BLOCK = 4096
"""Bytes in which file systems give space away, and about what a folder takes."""
MARK = ".store-"
"""How the name of a file begins that a store and its off-host target share, so that no other store takes the target for
its own. It holds the name of the newest snapshot that is whole at the target."""
FICLONE = 0x40049409
"""ioctl of Linux that shares the blocks of a whole file (include/uapi/linux/fs.h)."""


class SnapshotError(Exception):
    """What cannot be done, why, and what to do; nothing that was there has been changed."""


@contextlib.contextmanager
def alone(store: Path) -> Iterator[None]:
    """One snapshot or restore at a time; the removal of old trash holds the same lock, by flock(1).

    Raises:
        SnapshotError: another one takes too long.
    """
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock, until = os.open(store, os.O_RDONLY), time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise SnapshotError(
                        f"a snapshot, a restore or the removal of old trash has held {store} for {LOCK_SECONDS} s; "
                        "nothing was changed; way out: wait for its end, and run this again"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(lock)


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


def copy_tree(source: Path, target: Path, before: Path | None, *, reflink: bool, whole: bool = False) -> int:
    """Copy a folder. Returns how many files were linked, not copied.

    Args:
        source: the folder.
        target: where the copy is made; it must not exist.
        before: an earlier copy whose files are linked where they did not change.
        reflink: whether blocks can be shared.
        whole: whether a file that vanishes meanwhile is an error; else it is left out.

    Raises:
        OSError: something cannot be read or written; FileNotFoundError for a folder that vanished.
    """
    linked = 0
    target.mkdir()
    for entry in sorted(source.iterdir()):
        new, old = target / entry.name, before / entry.name if before else None
        try:
            seen = entry.lstat()
            if stat.S_ISDIR(seen.st_mode):
                linked += copy_tree(entry, new, old, reflink=reflink, whole=whole)
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
            if whole:
                raise
    keep_attributes(source, target, source.lstat())
    return linked


def snapshots(store: Path) -> list[str]:
    """Names of finished snapshots, oldest first."""
    return sorted(entry.name for entry in store.iterdir() if NAME.fullmatch(entry.name))


def volumes(share: Path) -> list[Path]:
    """Folders of the share that are volumes: all but hidden ones."""
    return sorted(entry for entry in share.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def bytes_of(source: Path, before: Path | None) -> int:
    """How much space a copy of a folder takes where blocks cannot be shared: all that is not in the snapshot before."""
    total = BLOCK
    try:
        for entry in source.iterdir():
            old, seen = before / entry.name if before else None, entry.lstat()
            if stat.S_ISDIR(seen.st_mode):
                total += bytes_of(entry, old)
            elif old is None or not unchanged(seen, old):
                total += -(-seen.st_size // BLOCK) * BLOCK
    except FileNotFoundError:
        pass  # it goes while it is looked at
    return total


def is_short(store: Path, needed: int, min_free_percent: int) -> bool:
    """Whether so many bytes more would leave less of the disk free than it must keep: the share lies there too."""
    disk = os.statvfs(store)
    return (disk.f_bavail * disk.f_frsize - needed) * 100 < disk.f_blocks * disk.f_frsize * min_free_percent


def make_room(store: Path, known: list[str], keep: int, needed: int, min_free_percent: int) -> list[str]:
    """Remove before a snapshot what would go after it, where space is short; the newest stays in any case.

    Returns:
        What was removed.

    Raises:
        SnapshotError: there is no room all the same.
    """
    if not is_short(store, needed, min_free_percent):
        return []
    gone = known[: -max(1, keep - 1)]
    for old in gone:
        shutil.rmtree(store / old)
    if is_short(store, needed, min_free_percent):
        raise SnapshotError(
            f"no snapshot was taken: it needs {-(-needed // 2**20)} MiB, and {min_free_percent} % of the disk of "
            f"{store} must stay free for the share; removed to make room: {', '.join(gone) or 'nothing'}; way out: a "
            "larger disk, a disk of their own for the snapshots (tandem_snapshot_folder), fewer of them "
            "(tandem_snapshot_keep), or none (tandem_snapshots: false)"
        )
    return gone


def fill(share: Path, partial: Path, before: Path | None, *, reflink: bool) -> int:
    """Copy the volumes; one that is deleted meanwhile is left out whole. Returns how many files were linked."""
    linked = 0
    partial.mkdir(mode=0o700)
    for volume in volumes(share):
        try:
            old = before / volume.name if before else None
            linked += copy_tree(volume, partial / volume.name, old, reflink=reflink)
        except FileNotFoundError:
            shutil.rmtree(partial / volume.name)
    return linked


def take(share: Path, store: Path, keep: int, min_free_percent: int) -> dict[str, object]:
    """Take a snapshot and remove old ones.

    Raises:
        SnapshotError: there is no room for it, or it failed half-way.
    """
    for left in store.glob(f"{PARTIAL}*"):
        shutil.rmtree(left)
    known, name = snapshots(store), time.strftime(STAMP, time.gmtime())
    if name in known:
        raise SnapshotError(f"{store / name} exists already")
    before = store / known[-1] if known else None
    reflink = can_clone(share, store)
    partial = store / f"{PARTIAL}{name}"
    needed = (
        0 if reflink else sum(bytes_of(volume, before / volume.name if before else None) for volume in volumes(share))
    )
    gone = make_room(store, known, keep, needed, min_free_percent)
    try:
        linked = fill(share, partial, before, reflink=reflink)
        partial.rename(store / name)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SnapshotError(f"{store / name} was not taken, and nothing of it is left: {error}") from error
    old_ones = [old for old in [*known, name][:-keep] if old not in gone]
    for old in old_ones:
        shutil.rmtree(store / old)
    gone += old_ones
    return {"name": name, "reflink": reflink, "linked": linked, "removed": gone}


def make(
    share: Path,
    store: Path,
    keep: int,
    sentinel: str,
    target: str = "",
    target_keep: int = 14,
    min_free_percent: int = 0,
) -> dict[str, object]:
    """Take a snapshot, remove old ones, and copy what is new to the off-host target when there is one.

    Raises:
        SnapshotError: the share is not there, the store lies inside it, there is no room for a snapshot, or the target
            cannot be written or is not ours.
    """
    if not (share / sentinel).is_file():
        raise SnapshotError(f"{share} is not the share: it has no {sentinel}; nothing was removed")
    if store.resolve().is_relative_to(share.resolve()):
        raise SnapshotError(f"{store} lies inside {share}, where every volume could reach it; choose another folder")
    with alone(store):
        known = snapshots(store)
        result = take(share, store, keep, min_free_percent)
    if target:
        try:
            result["target"] = target
            result["target_removed"] = copy_off(store, known, keep, target.rstrip("/"), target_keep)
        except SnapshotError as error:
            raise SnapshotError(f"{store}/{result['name']} was taken, but is not on {target}: {error}") from error
    return result


def rsync(*arguments: str) -> str:
    """What rsync prints.

    Raises:
        SnapshotError: it failed.
    """
    command = ["rsync", "--rsh=ssh -o BatchMode=yes -o ConnectTimeout=30", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=24 * 3600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError(str(error)) from error
    if done.returncode != 0:
        raise SnapshotError(f"rsync says {done.stderr.strip()}")
    return done.stdout


def common_mark(store: Path, known: list[str], target: str, there: list[str]) -> Path:
    """The file that says that the target is this store's. A target without any is taken if it holds nothing else.

    A store that was made anew (another disk, another folder, a mount that did not come up) knows nothing of what the
    target holds, and must not have it removed by age.

    Raises:
        SnapshotError: the target is another store's.
    """
    ours = sorted(entry.name for entry in store.glob(f"{MARK}*"))
    marks = [name for name in there if name.startswith(MARK)]
    both = [name for name in ours if name in marks]
    held = [name for name in there if NAME.fullmatch(name)]
    if (marks and not both) or (not marks and held and not set(held) & set(known)):
        raise SnapshotError(
            f"it holds {len(held)} snapshots (up to {max(held, default='none')}) of another store than {store}, "
            "which is new or was put in that one's place; nothing was copied or removed there; way out: bring them "
            f"back (rsync --archive --hard-links {target}/ {store}/), then both are one; or choose another target"
        )
    mark = store / (both or ours or [f"{MARK}{uuid.uuid4().hex}"])[0]
    if mark.name in marks:
        rsync("--archive", "--ignore-times", f"{target}/{mark.name}", f"{store}/")
    else:
        mark.write_text("")
        rsync("--archive", "--ignore-times", str(mark), f"{target}/")
    return mark


def copy_off(store: Path, known: list[str], keep: int, target: str, target_keep: int) -> list[str]:
    """Copy to the off-host target what it does not hold yet; then the oldest go there by a count of their own.

    Args:
        store: the snapshots of this machine.
        known: those that it held before this run.
        keep: how many it is to hold; while it holds fewer, it is young or was cleared, and nothing is removed there.
        target: for rsync, without a slash at the end.
        target_keep: how many snapshots stay there.

    Returns:
        What was removed at the target.

    Raises:
        SnapshotError: it cannot be reached or written, or it is another store's.
    """
    rsync("--dirs", "--exclude=*", f"{store}/", f"{target}/")
    there = [line.split()[-1] for line in rsync("--list-only", f"{target}/").splitlines() if line]
    mark = common_mark(store, known, target, there)
    here, held, whole = snapshots(store), sorted(name for name in there if NAME.fullmatch(name)), mark.read_text()
    # What came after the last whole one was cut short. What is here is copied again, what is not can never be whole.
    torn = [name for name in held if whole and name > whole and name not in here]
    done = [name for name in held if name not in torn]
    wanted = sorted({*here, *done})[-target_keep:]
    for name in here:
        if name in wanted and (name not in held or name > whole):
            before = max((other for other in done if other < name), default="")
            link = [f"--link-dest=../{before}"] if before else []
            rsync("--archive", "--hard-links", "--delete", *link, f"{store / name}/", f"{target}/{name}/")
            done.append(name)
    mark.write_text(here[-1])
    rsync("--archive", "--ignore-times", str(mark), f"{target}/")
    gone = sorted({*done} - {*wanted} | {*torn})
    if not gone or len(here) < keep:
        return []
    with tempfile.TemporaryDirectory() as empty:
        those = [f"--include=/{name}/***" for name in gone]
        rsync("--recursive", "--delete", *those, "--exclude=*", f"{empty}/", f"{target}/")
    return gone


def thrown(share: Path, trash: str, volume: str, end: str) -> dict[int, Path]:
    """What the trash holds of a volume whose names end so, by the second since the epoch at which it went there."""
    form = re.compile(rf"{re.escape(volume)}\.(\d+){re.escape(end)}")
    folder = share / trash
    names = [form.fullmatch(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    return {int(name[1]): folder / name[0] for name in names if name}


def find(share: Path, store: Path, trash: str, volume: str, source: str) -> Path:
    """Where a volume's data are to come from.

    Args:
        share: the share.
        store: its snapshots.
        trash: name of the folder in the share that takes deleted volumes.
        volume: the volume's folder.
        source: a snapshot by name, `trash` for what was deleted last, `replaced` for what a restore put aside last, or
            empty for the later of the newest snapshot and `trash`.

    Raises:
        SnapshotError: nowhere; the message lists where it could be had.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", volume):
        raise SnapshotError(f"{volume!r} is not the name of a volume's folder")
    found: dict[str, Path] = {}
    if store.is_dir():
        found = {name: store / name / volume for name in snapshots(store) if (store / name / volume).is_dir()}
    ages = {name: calendar.timegm(time.strptime(name, STAMP)) for name in found}
    for name, end in (("trash", ""), ("replaced", REPLACED)):
        held = thrown(share, trash, volume, end)
        if held:
            found[name], ages[name] = held[max(held)], max(held)
    if source in found:
        return found[source]
    unnamed = [name for name in found if name != "replaced"]
    if not source and unnamed:
        return found[max(unnamed, key=lambda name: (ages[name], name == "trash"))]
    raise SnapshotError(
        f"{volume} is not to be had{f' from {source}' if source else ''}; it is in: {', '.join(found) or 'nothing'}"
    )


def restore(share: Path, store: Path, trash: str, volume: str, source: str, *, replace: bool) -> dict[str, object]:
    """Bring one volume back. What is there moves to the trash, and only when `replace` says so.

    Raises:
        SnapshotError: the volume is there already, or cannot be had or copied whole.
    """
    with alone(store):
        origin, target = find(share, store, trash, volume, source), share / volume
        if target.exists():
            if not replace:
                raise SnapshotError(f"{target} is there already; to put it aside first: tandem_restore_replace=true")
            if origin.parent == share / trash and not origin.name.endswith(REPLACED):
                raise SnapshotError(f"{target} is there already, and {origin} is older; name a snapshot")
        partial = share / f".{volume}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            copy_tree(origin, partial, None, reflink=can_clone(share, origin.parent), whole=True)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise SnapshotError(f"{origin} could not be copied whole, and nothing has been changed: {error}") from error
        if target.exists():
            (share / trash).mkdir(exist_ok=True)
            second = max([int(time.time()), *(one + 1 for one in thrown(share, trash, volume, REPLACED))])
            target.rename(share / trash / f"{volume}.{second}{REPLACED}")
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
    parser.add_argument("--target-keep", type=int, default=14)
    parser.add_argument("--min-free-percent", type=int, default=10)
    parser.add_argument("--volume", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--replace", action="store_true")
    given = parser.parse_args()
    try:
        if given.action == "make":
            counts = max(1, given.keep), given.sentinel, given.target, max(1, given.target_keep), given.min_free_percent
            result: object = make(given.share, given.store, *counts)
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
