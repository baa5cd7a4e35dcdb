"""What every buildable thing has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.build._cache import Store
from lab.build._run import Runner


@dataclass(frozen=True)
class Bench:
    """What a recipe is given to work with."""

    out: Path
    """The folder that will be published: put the results here."""
    scratch: Path
    """A folder for everything else; removed afterwards."""
    run: Runner
    needs: Mapping[str, Path]
    """Published folders of the recipes that this one needs."""
    store: Store
    pins: Mapping[str, str]
    """What `resolve` found; part of the key."""
    info: dict[str, str] = field(default_factory=dict)
    """What is worth recording in the manifest."""


class Recipe(ABC):
    """One thing that the lab is made of: what goes into it and how it is made."""

    name: str
    summary: str
    needs: tuple[str, ...] = ()
    host_tools: tuple[str, ...] = ()
    """Programs that must be on the host."""
    optional: bool = False
    """Made only when it is asked for: an ordinary build does not pay for it."""
    revision: int = 1
    """Raised by hand when the way of building changes in a manner that the inputs do not show."""

    @abstractmethod
    def inputs(self) -> Mapping[str, object]:
        """Everything in the checkout and on the host that shapes the result, as plain values."""

    def resolve(self, run: Runner, scratch: Path) -> Mapping[str, str]:
        """Look up what the network decides, such as a version; asked once, then kept until a refresh."""
        del run, scratch
        return {}

    @abstractmethod
    def build(self, bench: Bench) -> None:
        """Make it. Errors are `BuildError`."""
