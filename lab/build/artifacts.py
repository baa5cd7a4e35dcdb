"""What the rest of the lab asks for: where the kernel, the base image, the repositories and the tools are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.build._cache import Result
from lab.build._errors import BuildError
from lab.build._progress import default_progress
from lab.build._registry import session
from lab.build._session import Progress

_BOOT = ("kernel", "machine", "apt", "registry")
"""What a lab needs to come up; the tools are for the control node and are asked for apart."""


_SECOND = ("apt-upgrade", "registry-upgrade")


@dataclass(frozen=True)
class Artifacts:
    """Paths of everything that a lab is made of. Nobody may write below them."""

    kernel: Path
    """The `linux` program that is a machine."""
    base_image: Path
    """ext4, the machines' copy-on-write files lie over it."""
    apt_root: Path
    """Static tree for HTTP: key.asc, kubernetes/, docker/."""
    registry_root: Path
    """Storage of a docker-registry (filesystem driver); to be served read-only."""

    @property
    def tools(self) -> Path:
        """Folder for PATH: kubectl, kubeadm, etcdctl, pulumi with what it needs, check-rules; else `BuildError`."""
        return tools()


def ensure(*, progress: Progress | None = None) -> Artifacts:
    """Build what is missing; a second call takes seconds.

    Args:
        progress: Told of every step; by default a live table on a terminal, else lines, on standard error.

    Raises:
        BuildError: Something could not be built; says what, with the end of its log.
    """
    results = session().ensure((*_BOOT, "tools"), progress if progress is not None else default_progress())
    return _paths({name: result.folder for name, result in results.items()})


def require() -> Artifacts:
    """The artifacts that machines are made of, as they are; builds and downloads nothing.

    Raises:
        BuildError: Something is missing or broken; names it and says what to do.
    """
    return _paths(_found(_BOOT) | _second_version())


def tools() -> Path:
    """The tool folder alone, as `require` does."""
    return _found(("tools",))["tools"]


def image(name: str) -> Path:
    """The OCI layout of one of the lab's images, as `require` does."""
    return _found((f"image-{name}",))[f"image-{name}"] / "oci"


def _second_version() -> dict[str, Path]:
    """Repositories with the version to upgrade from, where somebody has built them: they hold the ordinary ones too."""
    there = session().find(_SECOND)
    if any(there[name] is None for name in _SECOND):
        return {}
    return {
        plain: result.folder
        for plain, name in zip(("apt", "registry"), _SECOND, strict=True)
        if (result := there[name])
    }


def _found(names: tuple[str, ...]) -> dict[str, Path]:
    there: dict[str, Result | None] = session().find(names)
    missing = [name for name in names if there[name] is None]
    if missing:
        raise BuildError(f"the lab's {', '.join(missing)} is not built or not whole; run `python -m lab build`")
    return {name: result.folder for name, result in there.items() if result is not None}


def _paths(folders: dict[str, Path]) -> Artifacts:
    return Artifacts(
        kernel=folders["kernel"] / "linux",
        base_image=folders["machine"] / "base.img",
        apt_root=folders["apt"],
        registry_root=folders["registry"],
    )
