"""The machines' root file system: Debian trixie by mmdebstrap, as one sparse ext4 image that nobody writes to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.build._apt import KEYRING, Suite, mirror
from lab.build._cache import hash_tree
from lab.build._paths import LAB
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner

SUITE = "trixie"
MACHINE = LAB / "images/machine"
SIZE = "12G"
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "apt-daily.service",
    "apt-daily-upgrade.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@tty1.service",
    "console-getty.service",
    "systemd-firstboot.service",
    "tmp.mount",
    "systemd-networkd-wait-online.service",
    "nfs-blkmap.service",
    "sshd-keygen.service",
)
"""Units that only cost time or memory here: /tmp as a tmpfs would be the host's memory; lab-identity makes the keys."""
_DISABLED = ("chrony.service", "nfs-server.service", "nfs-kernel-server.service", "ssh.socket", "nftables.service", "keepalived.service")
_ENABLED = ("ssh.service", "lab-identity.service", "lab-network.service", "lab-cpuinfo.service")


def packages(path: Path) -> list[str]:
    """The package names of a list file: one a line, comments with #."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def resolve_suite(run: Runner, scratch: Path) -> Mapping[str, str]:
    """The day of the suite's lists, so that a refresh takes newer packages."""
    suite = Suite(SUITE, scratch, run)
    suite.update()
    [release] = (scratch / "lists").glob("*_InRelease")
    dates = [line for line in release.read_text(errors="replace").splitlines() if line.startswith("Date:")]
    return {"suite": SUITE, "date": dates[0].removeprefix("Date:").strip()}


def bootstrap(bench: Bench, target: Path, include: Sequence[str], *hooks: str) -> None:
    """Run mmdebstrap into `target`, a folder or a tar file."""
    bench.run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(include)}",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *hooks,
        SUITE,
        target,
        f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main",
        env={"TMPDIR": str(bench.scratch)},
    )


class MachineRoot(Recipe):
    """Debian's part of a machine, as a tar."""

    name = "machine-root"
    summary = f"Debian {SUITE} for the machines"
    host_tools = ("mmdebstrap",)

    def inputs(self) -> Mapping[str, object]:
        """The package list."""
        return {"packages": packages(MACHINE / "packages.txt")}

    def resolve(self, run: Runner, scratch: Path) -> Mapping[str, str]:
        """The day of the archive."""
        return resolve_suite(run, scratch)

    def build(self, bench: Bench) -> None:
        """Bootstrap."""
        bootstrap(bench, bench.out / "root.tar", packages(MACHINE / "packages.txt"))


class Machine(Recipe):
    """The base image of every machine."""

    name = "machine"
    summary = "base image of the machines"
    needs = ("kernel", "machine-root")
    host_tools = ("mke2fs", "systemctl", "depmod", "tar")

    def inputs(self) -> Mapping[str, object]:
        """Our files and how they are put together."""
        units = {"masked": _MASKED, "disabled": _DISABLED, "enabled": _ENABLED}
        return {"files": hash_tree(MACHINE / "files"), "units": units, "size": SIZE}

    def build(self, bench: Bench) -> None:
        """Unpack Debian, add our files, choose the units, write the image."""
        root = bench.scratch / "root"
        root.mkdir()
        bench.run(
            "tar",
            "-xpf",
            bench.needs["machine-root"] / "root.tar",
            "-C",
            root,
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--exclude=./dev/*",
        )
        shutil.copytree(MACHINE / "files", root, dirs_exist_ok=True, symlinks=True)
        for folder, _, files in os.walk(MACHINE / "files"):
            for name in files:
                copied = root / Path(folder).relative_to(MACHINE / "files") / name
                os.chown(copied, 0, 0)
                copied.chmod(0o755 if os.access(copied, os.X_OK) else 0o644)
        self._forget(root)
        self._module_index(bench, root)
        for verb, units in (("disable", _DISABLED), ("mask", _MASKED), ("enable", _ENABLED)):
            for unit in units:
                if verb != "disable" or any((root / "usr/lib/systemd/system" / unit).parent.glob(unit)):
                    bench.run("systemctl", f"--root={root}", verb, unit)
        for stamp in ("etc/.updated", "var/.updated"):  # else the first boot rebuilds caches that are fresh
            (root / stamp).touch()
        image = bench.out / "base.img"
        bench.run(
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-d",
            root,
            "-L",
            "lab",
            "-m",
            "1",
            "-N",
            "400000",
            "-J",
            "size=64",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            image,
            SIZE,
        )
        image.chmod(0o444)

    @staticmethod
    def _forget(root: Path) -> None:
        """Take out what must differ between machines, and every way to the outside."""
        (root / "etc/machine-id").write_text("")
        (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
        (root / "etc/hostname").write_text("machine\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/resolv.conf").write_text("")
        for key in (root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        (root / "etc/apt/sources.list").write_text("")
        for path in (root / "etc/apt/sources.list.d").glob("*"):
            path.unlink()
        for folder in ("var/lib/apt/lists", "var/cache/apt", "var/log"):
            for path in (root / folder).rglob("*"):
                if path.is_file():
                    path.unlink()

    @staticmethod
    def _module_index(bench: Bench, root: Path) -> None:
        """Tell modprobe that everything is built in, so that `modprobe overlay` succeeds as on any machine."""
        kernel = bench.needs["kernel"]
        release = (kernel / "release").read_text().strip()
        modules = root / "usr/lib/modules" / release
        modules.mkdir(parents=True, exist_ok=True)
        for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            source = kernel / index
            (modules / index).write_bytes(source.read_bytes() if source.exists() else b"")
        bench.run("depmod", "-b", root, release)
