"""Container images by buildah, without a daemon, and the registry that serves them in the lab.

Every image has a folder with a Containerfile; its build context gets the programs that the image is made of. The result
of each is an OCI layout; the registry's storage is filled from all of them through a registry on loopback.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.build._cache import hash_tree
from lab.build._debian import DebianProgram
from lab.build._errors import BuildError
from lab.build._go import UPGRADE, kubernetes_version, module_version
from lab.build._machine import SUITE, bootstrap, packages, resolve_suite
from lab.build._paths import LAB, PROJECT
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner

IMAGES = LAB / "images"
_STEP_LIMIT_SECONDS = 20


@dataclass(frozen=True)
class ImageSpec:
    """One image: where its Containerfile is, under which name it is pulled, and what goes into its context."""

    name: str
    reference: str
    """Repository and tag below the registry's address."""
    folder: Path
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Recipe to the programs and folders copied into the context."""
    on_base: bool = False
    """Whether the Containerfile takes the build argument BASE, our Debian base image."""


def specs() -> list[ImageSpec]:
    """All images of the lab. Tags of Kubernetes' own are what kubeadm asks for; the build compares them with it."""
    provisioner = module_version("local-path-provisioner", "github.com/rancher/local-path-provisioner")
    servers = _servers("kubernetes", "")
    ours = [
        ImageSpec("demo", "tandem-ha.io/demo:0.1.0", PROJECT / "tandem/drill/demo", {}, on_base=True),
        ImageSpec(
            "controllers",
            "tandem-ha.io/controllers:0.1.0",
            PROJECT / "tandem/controllers",
            {"controllers-site": ("site",)},
            on_base=True,
        ),
    ]
    return [
        *servers,
        ImageSpec("etcd", "etcd:3.6.8-0", IMAGES / "etcd", {"go-etcd": ("etcd", "etcdctl", "etcdutl")}),
        ImageSpec("coredns", "coredns/coredns:v1.14.2", IMAGES / "coredns", {"go-coredns": ("coredns",)}),
        ImageSpec("pause", "pause:3.10.2", IMAGES / "pause", {"pause": ("pause",)}),
        ImageSpec(
            "local-path-provisioner",
            f"rancher/local-path-provisioner:{provisioner}",
            IMAGES / "local-path-provisioner",
            {"go-local-path-provisioner": ("local-path-provisioner",)},
        ),
        ImageSpec("busybox", "library/busybox:1.37", IMAGES / "busybox", {"busybox": ("busybox",)}),
        *(spec for spec in ours if (spec.folder / "Containerfile").exists()),
    ]


def _servers(module: str, suffix: str) -> list[ImageSpec]:
    version = kubernetes_version(module)
    return [
        ImageSpec(
            f"{name}{suffix}", f"{name}:{version}", IMAGES / name, {f"go-{module}": (name,)}, name == "kube-proxy"
        )
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    ]


UPGRADE_TAGS: Mapping[str, str] = {
    "etcd": "etcd:3.6.6-0",
    "coredns": "coredns/coredns:v1.13.1",
    "pause": "pause:3.10.1",
}
"""What kubeadm of the version to upgrade from asks for; the lab has the programs of one version under both tags."""


def upgrade_servers() -> list[ImageSpec]:
    """Images that only the version to upgrade from needs."""
    return _servers(UPGRADE, "-upgrade")


def upgrade_specs() -> list[ImageSpec]:
    """All images of the lab, and those of the version to upgrade from."""
    present = specs()
    again = [replace(spec, reference=UPGRADE_TAGS[spec.name]) for spec in present if spec.name in UPGRADE_TAGS]
    return [*present, *upgrade_servers(), *again]


class Pause(Recipe):
    """The program that holds a pod's namespaces, from 20 lines of C, linked statically."""

    name = "pause"
    summary = "pause, the holder of a pod's namespaces"
    host_tools = ("gcc", "strip")

    def inputs(self) -> Mapping[str, object]:
        """The source."""
        return {"source": hash_tree(IMAGES / "pause/pause.c")}

    def build(self, bench: Bench) -> None:
        """Compile."""
        bench.run("gcc", "-static", "-Os", "-Wall", "-Werror", "-o", bench.out / "pause", IMAGES / "pause/pause.c")
        bench.run("strip", bench.out / "pause")


class Busybox(DebianProgram):
    """busybox as Debian builds it."""

    name = "busybox"
    summary = f"busybox of Debian {SUITE}"
    package = "busybox-static"


class BaseImage(Recipe):
    """Debian with python3 and the packet filters' tools: the base of kube-proxy and of images of our own."""

    name = "image-base"
    summary = f"base image, Debian {SUITE} with python3"
    host_tools = ("mmdebstrap", "buildah")

    def inputs(self) -> Mapping[str, object]:
        """The package list."""
        return {"files": hash_tree(IMAGES / "base"), "suite": SUITE}

    def resolve(self, run: Runner, scratch: Path) -> Mapping[str, str]:
        """The day of the archive."""
        return resolve_suite(run, scratch)

    def build(self, bench: Bench) -> None:
        """Bootstrap into a tar, then one layer of it."""
        context = bench.scratch / "context"
        shutil.copytree(IMAGES / "base", context)
        bootstrap(
            bench, context / "root.tar", packages(IMAGES / "base/packages.txt"), "--customize-hook=rm -rf $1/boot/*"
        )
        _Buildah(bench).image(context, "base:1")


class Image(Recipe):
    """One image as an OCI layout."""

    host_tools = ("buildah", "skopeo")

    def __init__(self, spec: ImageSpec, *, optional: bool = False) -> None:
        self.spec = spec
        self.optional = optional
        self.name = f"image-{spec.name}"
        self.summary = f"image {spec.reference}"
        self.needs = (*spec.programs, *(("image-base",) if spec.on_base else ()))

    def inputs(self) -> Mapping[str, object]:
        """The Containerfile and what lies beside it."""
        return {"files": hash_tree(self.spec.folder), "reference": self.spec.reference}

    def build(self, bench: Bench) -> None:
        """Lay out the context and build."""
        context = bench.scratch / "context"
        shutil.copytree(self.spec.folder, context, ignore=shutil.ignore_patterns("__pycache__"))
        for recipe, programs in self.spec.programs.items():
            for program in programs:
                made = bench.needs[recipe] / program
                if made.is_dir():
                    shutil.copytree(made, context / program)
                else:
                    shutil.copy2(made, context / program)
        buildah = _Buildah(bench)
        base = buildah.load(bench.needs["image-base"]) if self.spec.on_base else None
        buildah.image(context, self.spec.reference, base=base)


class Registry(Recipe):
    """The storage of a docker-registry that holds all images."""

    name = "registry"
    summary = "image registry"
    host_tools = ("skopeo", "docker-registry")

    modules: tuple[str, ...] = ("kubernetes",)

    def __init__(self) -> None:
        self.specs = self.wanted()
        images = dict.fromkeys(f"image-{spec.name}" for spec in self.specs)
        self.needs = (*images, *(f"go-{module}" for module in self.modules))

    def wanted(self) -> list[ImageSpec]:
        """What is in it."""
        return specs()

    def inputs(self) -> Mapping[str, object]:
        """The names under which images are pulled."""
        return {"references": [spec.reference for spec in self.specs], "mirrors": 2}

    def build(self, bench: Bench) -> None:
        """Push every image, then ask kubeadm whether all that it wants is there."""
        said = "".join(
            bench.run.output(
                bench.needs[f"go-{module}"] / "kubeadm",
                "config",
                "images",
                "list",
                "--kubernetes-version",
                kubernetes_version(module),
            )
            for module in self.modules
        )
        wanted = {line.strip().removeprefix("registry.k8s.io/") for line in said.splitlines() if "/" in line}
        missing = wanted - {spec.reference for spec in self.specs}
        if missing:
            raise BuildError(f"kubeadm wants images that the lab does not build: {', '.join(sorted(missing))}")
        with _registry_on_loopback(bench) as address:
            for spec in self.specs:
                # a mirror is asked for the path without the registry's name
                bench.run(
                    "skopeo",
                    "--insecure-policy",
                    "copy",
                    "--dest-tls-verify=false",
                    f"oci:{bench.needs[f'image-{spec.name}']}/oci",
                    f"docker://{address}/{mirrored(spec.reference)}",
                )
        bench.info.update({mirrored(spec.reference): spec.reference for spec in self.specs})


class RegistryUpgrade(Registry):
    """The same with the images of the version to upgrade from."""

    name = "registry-upgrade"
    summary = "image registry with two versions of Kubernetes"
    modules = ("kubernetes", UPGRADE)
    optional = True

    def wanted(self) -> list[ImageSpec]:
        """The ordinary images and those of the other version."""
        return upgrade_specs()


def mirrored(reference: str) -> str:
    """The repository and tag under which a mirror is asked for an image: the name without our registry's host."""
    return reference.removeprefix("tandem-ha.io/")


class _Buildah:
    """buildah with a storage of this build's own, that is gone with it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._storage = bench.scratch / "storage"
        self._environment = {
            "STORAGE_DRIVER": "vfs",
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(bench.scratch),
            "XDG_RUNTIME_DIR": str(bench.scratch / "run"),
            "REGISTRY_AUTH_FILE": str(bench.scratch / "auth.json"),
        }
        (bench.scratch / "run").mkdir(exist_ok=True)
        (bench.scratch / "auth.json").write_text("{}\n")  # nobody's credentials are read or needed
        self._policy = bench.scratch / "policy.json"
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')

    def load(self, result: Path) -> str:
        """Take an image that another recipe made; returns the name for a FROM line."""
        root, run_root = self._storage / "root", self._storage / "run"
        self._bench.run(
            "skopeo",
            "--insecure-policy",
            "copy",
            f"oci:{result}/oci",
            f"containers-storage:[vfs@{root}+{run_root}]localhost/base:1",
            env=self._environment,
        )
        return "localhost/base:1"

    def image(self, context: Path, tag: str, *, base: str | None = None) -> None:
        """Build the Containerfile in `context` and write the result as an OCI layout."""
        arguments = ["--build-arg", f"BASE={base}"] if base else []
        self._buildah(
            "build",
            "--pull-never",
            "--layers=false",
            "--timestamp=0",
            "--network=none",
            "--signature-policy",
            self._policy,
            *arguments,
            "-f",
            context / "Containerfile",
            "-t",
            "localhost/result:1",
            context,
        )
        self._buildah(
            "push",
            "--signature-policy",
            self._policy,
            "localhost/result:1",
            f"oci:{self._bench.out}/oci:{tag}",
        )

    def _roots(self) -> tuple[str, ...]:
        return (
            "--storage-driver",
            "vfs",
            "--root",
            str(self._storage / "root"),
            "--runroot",
            str(self._storage / "run"),
        )

    def _buildah(self, *words: str | Path) -> None:
        self._bench.run("buildah", *self._roots(), *words, env=self._environment)


@contextlib.contextmanager
def _registry_on_loopback(bench: Bench) -> Iterator[str]:
    """docker-registry over the result folder for the time of the block; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = bench.scratch / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {bench.out}}}}}\n"
        f"http: {{addr: {address}}}\n"
    )
    with bench.run.log.open("a") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "docker-registry", "serve", configuration],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(f"http://{address}/v2/", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=_STEP_LIMIT_SECONDS)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STEP_LIMIT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 (an http address that we made)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise BuildError("docker-registry did not start on loopback; its log has the reason")
