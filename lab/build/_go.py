"""Programs built from the pinned Go modules in lab/tools.

Each folder there is a module whose go.mod names the programs as tools and whose go.sum pins every module by its hash.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.build._cache import hash_tree
from lab.build._errors import BuildError
from lab.build._paths import LAB
from lab.build._recipe import Bench, Recipe

TOOLS = LAB / "tools"
UNLISTED = ("github.com/pulumi/pulumi-kubernetes", "github.com/pulumi/cloud-ready-checks")
"""Modules that the public checksum database does not list; go.sum pins them all the same."""


def environment() -> dict[str, str]:
    """What every go command of ours is run with: no cgo, nothing outside go.mod and go.sum."""
    return {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GONOSUMDB": ",".join(UNLISTED),
        "GOWORK": "off",
        "GOOS": "linux",
        "GOARCH": "amd64",
    }


@functools.cache
def go_version() -> str:
    """The Go tool chain's version, part of every key; "absent" when there is none, which the check of tools reports."""
    try:
        return subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "absent"


def module_version(tool: str, module: str) -> str:
    """The version of `module` that lab/tools/`tool`/go.mod pins, such as v1.36.3.

    Raises:
        BuildError: It is not required there.
    """
    text = (TOOLS / tool / "go.mod").read_text()
    match = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", text, re.MULTILINE)
    if not match:
        raise BuildError(f"lab/tools/{tool}/go.mod does not require {module}")
    return match[1]


@dataclass(frozen=True)
class Stamp:
    """Which variables of the linked program hold its version, and what the program answers when it works."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Variable (import path, dot, name) to value."""
    probe: tuple[str, ...] = ()
    """Program and arguments that print the version."""
    answer: str = ""
    """Text that must be in what the probe prints."""


class GoTools(Recipe):
    """The programs of one module in lab/tools."""

    host_tools = ("go",)

    def __init__(
        self,
        folder: str,
        programs: Mapping[str, str],
        stamp: Stamp,
        *,
        tags: tuple[str, ...] = (),
        summary: str = "",
        optional: bool = False,
    ) -> None:
        """Describe a module.

        Args:
            folder: Its folder below lab/tools; the recipe is called `go-FOLDER`.
            programs: Name of each program to its package.
            stamp: Version variables and the check of the result.
            tags: Build tags.
            summary: What to show while it is built.
            optional: Whether an ordinary build leaves it out.
        """
        self.folder = folder
        self.name = f"go-{folder}"
        self.summary = summary or ", ".join(programs)
        self.programs = programs
        self.stamp = stamp
        self.tags = tags
        self.optional = optional

    def inputs(self) -> Mapping[str, object]:
        """The module's files, the programs, the flags, and the tool chain."""
        return {
            "module": hash_tree(TOOLS / self.folder),
            "programs": dict(self.programs),
            "tags": self.tags,
            "variables": dict(self.stamp.variables),
            "go": go_version(),
        }

    def build(self, bench: Bench) -> None:
        """Build all programs, then ask one of them for its version."""
        compile_programs(bench, TOOLS / self.folder, self.programs, self.stamp, self.tags)


def compile_programs(
    bench: Bench,
    module: Path,
    programs: Mapping[str, str],
    stamp: Stamp,
    tags: tuple[str, ...] = (),
) -> None:
    """Build programs of the module in folder `module` into the bench's result.

    Raises:
        BuildError: The compiler failed, or the program does not answer with its version.
    """
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamp.variables.items())])
    for program, package in programs.items():
        bench.run(
            "go",
            "build",
            "-trimpath",
            "-ldflags",
            flags,
            *(("-tags", ",".join(tags)) if tags else ()),
            "-o",
            bench.out / program,
            package,
            cwd=module,
            env=environment(),
        )
    if stamp.probe:
        said = bench.run.output(bench.out / stamp.probe[0], *stamp.probe[1:], errors_too=True)
        if stamp.answer not in said:
            raise BuildError(f"{stamp.probe[0]} says {said.strip()!r}, wanted {stamp.answer!r} in it")


def kubernetes_version(folder: str = "kubernetes") -> str:
    """Kubernetes' version, with the leading v; of the one to upgrade from with the folder `UPGRADE`."""
    return module_version(folder, "k8s.io/kubernetes")


UPGRADE = "kubernetes-upgrade"
"""The module with the version from which the upgrade's test begins."""


def kubernetes_tools(folder: str = "kubernetes") -> GoTools:
    """Kubernetes' programs."""
    version = kubernetes_version(folder)
    major, minor = version.removeprefix("v").split(".")[:2]
    return GoTools(
        folder,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES_PROGRAMS},
        Stamp(
            {
                f"{package}.{variable}": value
                for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
                for variable, value in (
                    ("gitVersion", version),
                    ("gitMajor", major),
                    ("gitMinor", minor),
                    ("gitTreeState", "clean"),
                )
            },
            ("kubeadm", "version", "-o", "short"),
            version,
        ),
        summary=f"Kubernetes {version}: servers, kubelet, kubeadm, kubectl",
        optional=folder == UPGRADE,
    )


def tool_recipes() -> list[GoTools]:
    """All modules of lab/tools but Pulumi's, which has a recipe of its own."""
    containerd = module_version("containerd", "github.com/containerd/containerd/v2").removeprefix("v")
    provisioner = module_version("local-path-provisioner", "github.com/rancher/local-path-provisioner")
    etcd = module_version("etcd", "go.etcd.io/etcd/server/v3").removeprefix("v")
    coredns = module_version("coredns", "github.com/coredns/coredns").removeprefix("v")
    plugins = "github.com/containernetworking/plugins"
    cni = module_version("cni-plugins", plugins)
    return [
        kubernetes_tools(),
        kubernetes_tools(UPGRADE),
        GoTools(
            "etcd",
            {"etcd": "go.etcd.io/etcd/server/v3"}
            | {name: f"go.etcd.io/etcd/{name}/v3" for name in ("etcdctl", "etcdutl")},
            Stamp({}, ("etcdctl", "version"), etcd),
            summary=f"etcd {etcd}",
        ),
        GoTools(
            "coredns",
            {"coredns": "github.com/coredns/coredns"},
            Stamp({}, ("coredns", "-version"), coredns),
            summary=f"CoreDNS {coredns}",
        ),
        GoTools(
            "containerd",
            {name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in CONTAINERD_PROGRAMS},
            Stamp(
                {"github.com/containerd/containerd/v2/version.Version": containerd},
                ("containerd", "--version"),
                containerd,
            ),
            tags=("no_btrfs", "no_zfs", "no_aufs", "no_devmapper"),
            summary=f"containerd {containerd}",
        ),
        GoTools(
            "cni-plugins",
            {name: f"{plugins}/plugins/{kind}/{name}" for kind, names in CNI_PLUGINS.items() for name in names},
            Stamp(
                {f"{plugins}/pkg/utils/buildversion.BuildVersion": cni},
                ("bridge",),
                cni,
            ),
            summary=f"CNI plugins {cni}",
        ),
        GoTools(
            "local-path-provisioner",
            {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
            Stamp({"main.VERSION": provisioner}, ("local-path-provisioner", "--version"), provisioner),
            summary=f"local-path-provisioner {provisioner}",
        ),
        GoTools(
            "rules",
            {"check-rules": "."},
            Stamp({}, ("check-rules", "--help"), "usage: check-rules FILE"),
            summary="Prometheus' judge of rules",
        ),
    ]


KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubeadm",
    "kubectl",
)
CONTAINERD_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")
CNI_PLUGINS: Mapping[str, tuple[str, ...]] = {
    "main": ("bridge", "dummy", "host-device", "ipvlan", "loopback", "macvlan", "ptp", "tap", "vlan"),
    "ipam": ("dhcp", "host-local", "static"),
    "meta": ("bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf"),
}


def modules() -> list[str]:
    """The folders of lab/tools that are Go modules."""
    return sorted(path.parent.name for path in TOOLS.glob("*/go.mod"))


def verify(names: list[str] | None = None) -> dict[str, str]:
    """Check Go modules of ours against their go.sum.

    The module graph must be complete as committed (`-mod=readonly` fails when go.mod or go.sum would have to change),
    and what is in the local module cache must have the hashes of go.sum.

    Args:
        names: Folders of lab/tools; all by default.

    Returns:
        What is wrong, by folder; empty when all is well.
    """
    wrong = {}
    for name in names if names is not None else modules():
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / name
            shutil.copytree(TOOLS / name, copy)
            for command in (["go", "list", "-f", "{{.ImportPath}}", "tool"], ["go", "mod", "verify"]):
                done = subprocess.run(
                    command,
                    cwd=copy,
                    check=False,
                    capture_output=True,
                    text=True,
                    env={**_os_environment(), **environment()},
                )
                if done.returncode != 0:
                    wrong[name] = f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}"
                    break
            else:
                changed = [
                    part
                    for part in ("go.mod", "go.sum")
                    if (copy / part).read_bytes() != (TOOLS / name / part).read_bytes()
                ]
                if changed:
                    wrong[name] = f"{' and '.join(changed)} would change"
    return wrong


def _os_environment() -> dict[str, str]:
    return dict(os.environ)
