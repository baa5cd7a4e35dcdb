"""The lab's apt repositories: upstream's package names and layout, our binaries, signed with a key of this machine.

The roles install from them exactly as from pkgs.k8s.io and download.docker.com; only the address and the key differ.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.build._cache import hash_tree
from lab.build._debian import DebianProgram
from lab.build._go import CNI_PLUGINS, UPGRADE, kubernetes_version, module_version
from lab.build._machine import SUITE
from lab.build._paths import LAB
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner

PACKAGES = LAB / "packages"
_EPOCH = "1700000000"
"""The time stamp inside packages, so that the same input gives the same package."""


@dataclass(frozen=True)
class Deb:
    """One package: its name, where its version comes from, and which programs go where."""

    name: str
    repository: str
    version: str
    programs: Mapping[str, tuple[str, ...]]
    """Recipe to the programs taken from it."""
    folder: str = "usr/bin"


def debs() -> list[Deb]:
    """All packages of the lab's repositories."""
    cni = module_version("cni-plugins", "github.com/containernetworking/plugins").removeprefix("v")
    containerd = module_version("containerd", "github.com/containerd/containerd/v2").removeprefix("v")
    plugins = tuple(name for names in CNI_PLUGINS.values() for name in names)
    return [
        *_kubernetes("kubernetes"),
        Deb("kubernetes-cni", "kubernetes", f"{cni}-1.1", {"go-cni-plugins": plugins}, "opt/cni/bin"),
        Deb(
            "containerd.io",
            "docker",
            f"{containerd}-1",
            {"go-containerd": ("containerd", "containerd-shim-runc-v2", "ctr"), "runc": ("runc",)},
        ),
    ]


def _kubernetes(module: str) -> list[Deb]:
    version = f"{kubernetes_version(module).removeprefix('v')}-1.1"
    return [Deb(name, "kubernetes", version, {f"go-{module}": (name,)}) for name in ("kubelet", "kubeadm", "kubectl")]


class Runc(DebianProgram):
    """runc as Debian builds it; its seccomp needs C libraries that our Go builds do without."""

    name = "runc"
    summary = f"runc of Debian {SUITE}"
    package = "runc"


class SigningKey(Recipe):
    """The key that signs the lab's repositories: made here, kept in the cache, never in the checkout."""

    name = "signing-key"
    summary = "signing key of the package repositories"
    host_tools = ("gpg", "gpgconf")

    def inputs(self) -> Mapping[str, object]:
        """What kind of key it is."""
        return {"algorithm": "ed25519", "user": _USER}

    def build(self, bench: Bench) -> None:
        """Generate the pair."""
        with _gnupg_home(bench.run) as home:
            bench.run(
                "gpg",
                "--homedir",
                home,
                "--batch",
                "--passphrase",
                "",
                "--quick-generate-key",
                _USER,
                "ed25519",
                "sign",
                "never",
            )
            for option, name in (("--export", "key.asc"), ("--export-secret-keys", "secret.asc")):
                bench.run(
                    "gpg",
                    "--homedir",
                    home,
                    "--batch",
                    "--armor",
                    "--output",
                    bench.out / name,
                    option,
                    _USER,
                )
        (bench.out / "secret.asc").chmod(0o600)


class AptRepositories(Recipe):
    """The tree that the lab serves: key.asc, kubernetes/ and docker/."""

    name = "apt"
    summary = "deb packages and signed apt repositories"
    needs: tuple[str, ...] = ("go-kubernetes", "go-cni-plugins", "go-containerd", "runc", "signing-key")
    host_tools = ("dpkg-deb", "apt-ftparchive", "gpg", "gpgconf")

    def debs(self) -> list[Deb]:
        """What is in it."""
        return debs()

    def inputs(self) -> Mapping[str, object]:
        """Our package folders and how they are put together."""
        return {"packages": hash_tree(PACKAGES), "debs": [str(deb) for deb in self.debs()], "epoch": _EPOCH}

    def build(self, bench: Bench) -> None:
        """Make every package, then index and sign each repository."""
        key = bench.needs["signing-key"]
        shutil.copy2(key / "key.asc", bench.out / "key.asc")
        for deb in self.debs():
            self._package(bench, deb)
        with _gnupg_home(bench.run) as home:
            bench.run("gpg", "--homedir", home, "--batch", "--import", key / "secret.asc")
            for repository in sorted({deb.repository for deb in self.debs()}):
                self._index(bench, bench.out / repository, home)

    @staticmethod
    def _package(bench: Bench, deb: Deb) -> None:
        root = bench.scratch / f"{deb.name}-{deb.version}"
        ours = PACKAGES / deb.name
        if (ours / "files").exists():
            shutil.copytree(ours / "files", root)
        for recipe, programs in deb.programs.items():
            for program in programs:
                target = root / deb.folder / program
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(bench.needs[recipe] / program, target)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024
        for path in root.rglob("*"):
            path.chmod(0o755 if path.is_dir() or (os.access(path, os.X_OK) and "bin" in path.parts) else 0o644)
        shutil.copytree(ours / "DEBIAN", root / "DEBIAN")
        control = root / "DEBIAN/control"
        control.write_text(control.read_text().replace("@VERSION@", deb.version).replace("@SIZE@", str(size)))
        for path in (root / "DEBIAN").iterdir():
            path.chmod(0o755 if path.name in ("preinst", "postinst", "prerm", "postrm") else 0o644)
        root.chmod(0o755)
        (root / "DEBIAN").chmod(0o755)
        folder = bench.out / deb.repository
        folder.mkdir(exist_ok=True)
        bench.run(
            "dpkg-deb",
            "--root-owner-group",
            "-Zzstd",
            "-z3",
            "--build",
            root,
            folder / f"{deb.name}_{deb.version}_amd64.deb",
            env={"SOURCE_DATE_EPOCH": _EPOCH},
        )

    @staticmethod
    def _index(bench: Bench, folder: Path, home: Path) -> None:
        listing = bench.run.output("apt-ftparchive", "packages", ".", cwd=folder)
        (folder / "Packages").write_text(listing)
        release = bench.run.output(
            "apt-ftparchive",
            "-o",
            "APT::FTPArchive::Release::Origin=tandem-lab",
            "-o",
            f"APT::FTPArchive::Release::Label={folder.name}",
            "-o",
            "APT::FTPArchive::Release::Architectures=amd64",
            "release",
            ".",
            cwd=folder,
        )
        (folder / "Release").write_text(release)
        for arguments, name in ((("--clearsign",), "InRelease"), (("--armor", "--detach-sign"), "Release.gpg")):
            bench.run(
                "gpg",
                "--homedir",
                home,
                "--batch",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                *arguments,
                "--output",
                folder / name,
                folder / "Release",
            )


class AptUpgrade(AptRepositories):
    """The same with the version to upgrade from beside it."""

    name = "apt-upgrade"
    summary = "apt repositories with two versions of Kubernetes"
    needs = (*AptRepositories.needs, f"go-{UPGRADE}")
    optional = True

    def debs(self) -> list[Deb]:
        """The ordinary packages and those of the other version."""
        return [*debs(), *_kubernetes(UPGRADE)]


_USER = "Tandem lab packages <lab@tandem-ha.io>"


@contextlib.contextmanager
def _gnupg_home(run: Runner) -> Iterator[Path]:
    """A GnuPG folder for one use, in a short path as its agent's socket needs; the agent ends with it."""
    with tempfile.TemporaryDirectory(prefix="tandem-gpg-") as name:
        home = Path(name)
        home.chmod(0o700)
        try:
            yield home
        finally:
            run("gpgconf", "--homedir", home, "--kill", "all")
