"""A program that is taken from a Debian package as it is, without the package's installation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from lab.build._apt import Suite
from lab.build._machine import SUITE
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner


class DebianProgram(Recipe):
    """Downloads `package` (its signature checked by apt) and keeps the program called `name`."""

    package: ClassVar[str]
    host_tools = ("dpkg-deb",)

    def inputs(self) -> Mapping[str, object]:
        """The suite; the version is a pin."""
        return {"suite": SUITE}

    def resolve(self, run: Runner, scratch: Path) -> Mapping[str, str]:
        """The version that the suite has."""
        suite = Suite(SUITE, scratch, run)
        suite.update()
        return {"version": dict(suite.versions(f"^{re.escape(self.package)}$"))[self.package]}

    def build(self, bench: Bench) -> None:
        """Download, unpack, keep the program."""
        suite = Suite(SUITE, bench.scratch / "apt", bench.run)
        suite.update()
        root = bench.scratch / "root"
        bench.run("dpkg-deb", "-x", suite.download(self.package, bench.scratch), root)
        programs = (path for path in root.rglob(self.name) if path.parent.name in {"bin", "sbin"})
        [program] = [path for path in programs if path.is_file() and not path.is_symlink()]
        shutil.copy2(program, bench.out / self.name)
        bench.info["version"] = bench.pins["version"]
