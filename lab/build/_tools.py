"""The tool folder: what the control node needs for the lab and cannot get as a package here.

A user with the official pulumi, provider and language host on PATH uses those; this folder serves the lab.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.build._cache import hash_tree
from lab.build._go import TOOLS, Stamp, compile_programs, environment, go_version, module_version
from lab.build._recipe import Bench, Recipe

PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4"
PROVIDER_RELEASES = {"v4.0.0-20260115033456-f47bc2d6f199": "4.25.0"}
"""The provider's tags do not follow Go's rules for a module in a folder, so go.mod pins the tagged commit."""
_EMBEDDED = ("schema.json", "terraform-mapping.json")
_LAUNCHER = """\
#!/bin/sh
# Pulumi runs this for programs in Python; the stand-in for the official language host is part of the lab.
exec "${PULUMI_PYTHON_CMD:-python3}" -P -u -m lab.pulumi.language_host "$@"
"""


class Pulumi(Recipe):
    """The pulumi CLI and its Kubernetes provider."""

    name = "go-pulumi"
    summary = "pulumi and its Kubernetes provider"
    host_tools = ("go",)

    def inputs(self) -> Mapping[str, object]:
        """The module, our main package of the provider, the tool chain."""
        return {"module": hash_tree(TOOLS / "pulumi"), "go": go_version(), "releases": PROVIDER_RELEASES}

    def build(self, bench: Bench) -> None:
        """Build the CLI from the module, and the provider from a copy that has the files it embeds."""
        module = bench.scratch / "module"
        shutil.copytree(TOOLS / "pulumi", module)
        cli = module_version("pulumi", "github.com/pulumi/pulumi/pkg/v3")
        release = PROVIDER_RELEASES[module_version("pulumi", PROVIDER)]
        compile_programs(
            bench,
            module,
            {"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
            Stamp({"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": cli}, ("pulumi", "version"), cli),
        )
        # `go list` names no folder for a module that nothing was compiled from yet; a download does, and checks go.sum.
        said = bench.run.output("go", "mod", "download", "-json", PROVIDER, cwd=module, env=environment())
        source = Path(json.loads(said)["Dir"])
        for name in _EMBEDDED:
            # as the module's own generator does: compact, the schema with its version
            content = json.loads((source / "cmd/pulumi-resource-kubernetes" / name).read_text())
            if name == "schema.json":
                content["version"] = release
            (module / "provider" / name).write_text(json.dumps(content, separators=(",", ":")))
        compile_programs(
            bench,
            module,
            {"pulumi-resource-kubernetes": "./provider"},
            Stamp({f"{PROVIDER}/pkg/version.Version": release}),
        )
        bench.info.update(pulumi=cli, provider=release)


class Tools(Recipe):
    """One folder for PATH: kubectl, kubeadm, etcdctl, pulumi, its provider and its language host, check-rules."""

    name = "tools"
    summary = "tool folder"
    needs = ("go-kubernetes", "go-etcd", "go-pulumi", "go-rules")

    def inputs(self) -> Mapping[str, object]:
        """The launcher's text and the list of programs."""
        return {"launcher": _LAUNCHER, "programs": _PROGRAMS}

    def build(self, bench: Bench) -> None:
        """Link the programs into one folder (copy where links are not to be had)."""
        for recipe, programs in _PROGRAMS.items():
            for program in programs:
                source = bench.needs[recipe] / program
                try:
                    os.link(source, bench.out / program)
                except OSError:
                    shutil.copy2(source, bench.out / program)
        launcher = bench.out / "pulumi-language-python"
        launcher.write_text(_LAUNCHER)
        launcher.chmod(0o755)


_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "go-kubernetes": ("kubectl", "kubeadm", "kube-apiserver"),
    "go-etcd": ("etcd", "etcdctl", "etcdutl"),
    "go-pulumi": ("pulumi", "pulumi-resource-kubernetes"),
    "go-rules": ("check-rules",),
}
