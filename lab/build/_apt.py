"""Other Debian suites than the host's, through a private apt configuration.

The mirror's address comes from the host's own apt configuration at run time, so a site with a mirror of its own is
served by it and no address stands in a file. The host's package lists and state are neither read nor written.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.build._errors import BuildError
from lab.build._run import Runner

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FORMAT = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"


def choose_mirror(index_targets: str) -> str:
    """The Debian archive's address out of `apt-get indextargets` lines (see `_FORMAT`).

    A security archive or another vendor's repository holds other suites than ours, so it is passed over: the line
    must be of component `main`, and either say origin Debian or, where apt never updated, end in `/debian/`.

    Raises:
        BuildError: No line qualifies.
    """
    for line in index_targets.splitlines():
        uri, release, component, origin = ([*line.split("|"), "", "", ""])[:4]
        if component != "main" or "security" in release or "security" in uri:
            continue
        if origin == "Debian" or (origin in ("", "$(ORIGIN)") and re.search(r"/debian/?$", uri)):
            return uri
    raise BuildError(
        "no Debian archive in this host's apt sources; set TANDEM_LAB_MIRROR to the address of a Debian mirror"
    )


def mirror() -> str:
    """The mirror that this host uses for Debian packages; `TANDEM_LAB_MIRROR` overrides.

    Raises:
        BuildError: The host has no apt or no Debian archive among its sources.
    """
    named = os.environ.get("TANDEM_LAB_MIRROR")
    if named:
        return named
    try:
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"cannot ask apt for its sources: {error}; the lab is built on Debian 12 or newer") from error
    return choose_mirror(listed)


class Suite:
    """One Debian suite seen through apt, with lists and cache in a folder of ours."""

    def __init__(self, name: str, folder: Path, run: Runner) -> None:
        self.name = name
        self._folder = folder
        self._run = run

    def update(self) -> None:
        """Fetch the suite's lists, signatures checked with Debian's keyring.

        A host older than the suite's keys takes the newer keyring from a package of its own archive first.
        """
        (self._folder / "lists/partial").mkdir(parents=True, exist_ok=True)
        (self._folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        self._write_sources(KEYRING)
        try:
            self._apt("update")
        except BuildError:
            keyring = self._newer_keyring()
            self._write_sources(keyring)
            self._apt("update")

    def versions(self, pattern: str) -> list[tuple[str, str]]:
        """Package names that match a regular expression, each with its candidate version."""
        found = []
        for line in self._query("search", "--names-only", pattern).splitlines():
            name = line.split(" ")[0]
            policy = self._query("policy", name)
            candidate = re.search(r"Candidate: (\S+)", policy)
            if candidate and candidate[1] != "(none)":
                found.append((name, candidate[1]))
        return found

    def download(self, package: str, folder: Path) -> Path:
        """Fetch a package (`name` or `name=version`), checked by apt against the signed lists; returns the file."""
        folder.mkdir(parents=True, exist_ok=True)
        before = set(folder.glob("*.deb"))
        self._run("apt-get", *self._options(), "download", package, cwd=folder)
        fresh = set(folder.glob("*.deb")) - before
        if len(fresh) != 1:
            raise BuildError(f"apt-get download {package} left {len(fresh)} files instead of one")
        return fresh.pop()

    def _newer_keyring(self) -> Path:
        host = self._folder / "host-keyring"
        host.mkdir(exist_ok=True)
        self._run("apt-get", "-o", "APT::Sandbox::User=root", "download", "debian-archive-keyring", cwd=host)
        for package in host.glob("*.deb"):
            self._run("dpkg-deb", "-x", package, host / "root")
        return host / "root/usr/share/keyrings/debian-archive-keyring.gpg"

    def _write_sources(self, keyring: Path) -> None:
        (self._folder / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror()} {self.name} main\n")

    def _options(self) -> Sequence[str]:
        settings = {
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._folder / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Update::Error-Mode": "any",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def _apt(self, *words: str) -> None:
        self._run("apt-get", *self._options(), *words)

    def _query(self, *words: str) -> str:
        return self._run.output("apt-cache", *self._options(), *words)
