"""The machines' kernel: User Mode Linux from Debian's kernel source package.

Debian's ready-made user-mode-linux lacks the netfilter parts that kube-proxy needs, so we build our own, everything in
and no modules. Its fast mode (seccomp) came with 6.16.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.build._apt import Suite
from lab.build._cache import hash_tree
from lab.build._errors import BuildError
from lab.build._paths import LAB
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner

SUITE = "trixie-backports"
OLDEST = (6, 16)
"""Before this a UML machine runs in ptrace mode, 2.3 times slower at everything."""
TESTED = ((7, 2),)
"""Series known to carry a cluster, best first; taken when the suite has one, else the newest that it has."""
_ON = ("DEBUG_INFO_NONE", "CC_OPTIMIZE_FOR_PERFORMANCE")
"""Members of choices: no debug information (half of the compiler's work), and -O2."""
_OFF = ("MODULES", "WERROR", "XFS_ONLINE_SCRUB", "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT", "CC_OPTIMIZE_FOR_SIZE")
_UNUSED = (
    *(
        f"{folder}/*.[chS]"
        for folder in (
            "drivers/gpu",
            "drivers/media",
            "drivers/staging",
            "drivers/infiniband",
            "drivers/scsi",
            "drivers/iio",
            "drivers/usb",
            "drivers/net/ethernet",
            "drivers/net/wireless",
            "drivers/clk",
            "drivers/pinctrl",
            "drivers/hwmon",
            "sound",
            "tools/testing",
            "samples",
        )
    ),
    *(
        f"arch/{name}/*.[chS]"
        for name in (
            "alpha",
            "arc",
            "arm",
            "arm64",
            "csky",
            "hexagon",
            "loongarch",
            "m68k",
            "microblaze",
            "mips",
            "nios2",
            "openrisc",
            "parisc",
            "powerpc",
            "riscv",
            "s390",
            "sh",
            "sparc",
            "xtensa",
        )
    ),
    "Documentation/*.rst",
    "Documentation/*.yaml",
    "*/dts/*.dts*",
    "tools/perf/*.[ch]",
)
"""Left in the archive: two thirds of its 90 000 files are for hardware that a UML machine cannot have."""
_MUST_HOLD = (
    "UML_NET_VECTOR",
    "BLK_DEV_UBD",
    "EXT4_FS",
    "OVERLAY_FS",
    "MEMCG",
    "CGROUP_PIDS",
    "CFS_BANDWIDTH",
    "BPF_SYSCALL",
    "VETH",
    "BRIDGE",
    "BRIDGE_NETFILTER",
    "NF_TABLES_IPV4",
    "NF_TABLES_INET",
    "NFT_NUMGEN",
    "NFT_FIB_INET",
    "IP_NF_NAT",
    "NFSD_V4",
    "NFS_V4_2",
    "NET_SCH_NETEM",
    "IFB",
    "SOFT_WATCHDOG",
    "NETFILTER_XT_MATCH_STATISTIC",
)
"""What the lab cannot do without: a series that renames one of these must fail here and not in a machine."""


def choose_source(found: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Pick the kernel source package out of (name, version) pairs.

    Raises:
        BuildError: None is new enough.
    """
    series: dict[tuple[int, int], tuple[str, str]] = {}
    for name, version in found:
        match = re.fullmatch(r"linux-source-(\d+)\.(\d+)", name)
        if match:
            series[int(match[1]), int(match[2])] = (name, version)
    usable = {number: package for number, package in series.items() if number >= OLDEST}
    if not usable:
        names = ", ".join(name for name, _ in found) or "none"
        raise BuildError(f"{SUITE} has no linux-source of {OLDEST[0]}.{OLDEST[1]} or newer (found: {names})")
    for number in TESTED:
        if number in usable:
            return usable[number]
    return usable[max(usable)]


def options() -> list[str]:
    """The kernel options that are switched on, as in lab/kernel/options.txt."""
    return (LAB / "kernel/options.txt").read_text().split()


def _gcc_version() -> str:
    try:
        return subprocess.run(["gcc", "-dumpfullversion"], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "absent"  # the check of host tools names it


class Kernel(Recipe):
    """The `linux` program that is a machine."""

    name = "kernel"
    summary = "User Mode Linux from Debian's linux-source"
    host_tools = ("gcc", "make", "bc", "bison", "flex", "xz", "tar", "strip")

    def inputs(self) -> Mapping[str, object]:
        """The options, what is off, and the compiler."""
        options = hash_tree(LAB / "kernel/options.txt")
        return {"options": options, "on": _ON, "off": _OFF, "gcc": _gcc_version(), "tested": TESTED}

    def resolve(self, run: Runner, scratch: Path) -> Mapping[str, str]:
        """Which source package the suite has to offer."""
        suite = Suite(SUITE, scratch, run)
        suite.update()
        package, version = choose_source(suite.versions("^linux-source-"))
        return {"package": package, "version": version}

    def build(self, bench: Bench) -> None:
        """Unpack, configure, compile, strip, and check that the options really hold."""
        run, pins = bench.run, bench.pins
        suite = Suite(SUITE, bench.scratch / "apt", run)
        suite.update()
        package = suite.download(f"{pins['package']}={pins['version']}", bench.scratch)
        run("dpkg-deb", "-x", package, bench.scratch / "deb")
        package.unlink()
        [archive] = (bench.scratch / "deb/usr/src").glob("linux-source-*.tar.xz")
        run("tar", "-xJf", archive, "-C", bench.scratch, "--wildcards", *(f"--exclude=*/{path}" for path in _UNUSED))
        archive.unlink()
        [source] = bench.scratch.glob("linux-source-*")
        jobs = str(os.cpu_count() or 1)
        run("make", "ARCH=um", "x86_64_defconfig", cwd=source)
        run(
            source / "scripts/config",
            *(word for option in (*options(), *_ON) for word in ("-e", option)),
            *(word for option in _OFF for word in ("-d", option)),
            cwd=source,
        )
        run("make", "ARCH=um", "olddefconfig", cwd=source)
        config = (source / ".config").read_text()
        missing = [option for option in (*_MUST_HOLD, *_ON) if f"CONFIG_{option}=y\n" not in config]
        if missing:
            raise BuildError(f"kernel {pins['version']} did not take the options {', '.join(missing)}")
        run("make", "ARCH=um", f"-j{jobs}", "linux", cwd=source, env={"KBUILD_BUILD_TIMESTAMP": "1970-01-01"})
        run("strip", "-o", bench.out / "linux", source / "linux")
        (bench.out / "config").write_text(config)
        for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            # modprobe in the machines must know that what it is asked for is built in
            if (source / index).exists():
                shutil.copyfile(source / index, bench.out / index)
        release = (source / "include/config/kernel.release").read_text().strip()
        (bench.out / "release").write_text(release + "\n")
        bench.info.update(package=pins["package"], version=pins["version"], release=release)
