"""One run of the build: recipes in order, each taken from the store or made."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lab.build._cache import Result, Store, make_key, write_atomically
from lab.build._errors import BuildError
from lab.build._recipe import Bench, Recipe
from lab.build._run import Runner


class Progress(Protocol):
    """Who wants to know how a build goes."""

    def started(self, name: str, summary: str, last_seconds: float | None) -> None:
        """`name` is being built now; it took `last_seconds` last time."""

    def waiting(self, name: str) -> None:
        """Another build makes `name` now; its result will be taken."""

    def finished(self, name: str, seconds: float, *, cached: bool) -> None:
        """`name` is there."""


class Session:
    """Knows the recipes, their keys and the store."""

    def __init__(self, recipes: Sequence[Recipe], store: Store) -> None:
        self.recipes = {recipe.name: recipe for recipe in recipes}
        self.store = store
        self._keys: dict[str, str] = {}

    def order(self, names: Iterable[str]) -> list[str]:
        """The names and all that they need, needs first.

        Raises:
            BuildError: A name that no recipe has.
        """
        ordered: list[str] = []

        def visit(name: str) -> None:
            if name not in self.recipes:
                raise BuildError(f"nothing is called {name!r}; there are: {', '.join(self.recipes)}")
            if name in ordered:
                return
            for need in self.recipes[name].needs:
                visit(need)
            ordered.append(name)

        for name in names:
            visit(name)
        return ordered

    def key(self, name: str, pins: Mapping[str, str]) -> str:
        """The key of a recipe's result: its inputs, its pins and the keys of what it needs."""
        recipe = self.recipes[name]
        return make_key(
            name,
            {
                "revision": recipe.revision,
                "inputs": recipe.inputs(),
                "pins": dict(pins),
                "needs": {need: self._keys[need] for need in recipe.needs},
            },
        )

    def find(self, names: Iterable[str], *, full: bool = False) -> dict[str, Result | None]:
        """What the store has of these and of what they need; looks nothing up on the network."""
        found: dict[str, Result | None] = {}
        for name in self.order(names):
            pins = self._read_pins(name)
            if pins is None:
                pins = {}
            self._keys[name] = self.key(name, pins)
            found[name] = self.store.find(name, self._keys[name], full=full)
        return found

    def ensure(
        self,
        names: Iterable[str],
        progress: Progress,
        *,
        full: bool = False,
        refresh: bool = False,
    ) -> dict[str, Result]:
        """Make what is missing or broken; returns all of it.

        Args:
            names: What is wanted; what those need comes along.
            progress: Told of every step.
            full: Read every file of what is there and compare digests, instead of sizes and times.
            refresh: Ask the archives again which versions they have.

        Raises:
            BuildError: Something could not be built.
        """
        names = self.order(names)
        wanting = [self.recipes[name] for name, result in self.find(names).items() if result is None]
        missing = missing_tools(wanting)
        if missing:
            raise BuildError(missing)
        results: dict[str, Result] = {}
        for name in names:
            pins = self._pins(name, refresh=refresh)
            self._keys[name] = self.key(name, pins)
            result = self.store.find(name, self._keys[name], full=full)
            if result is None:
                result = self._make(name, pins, results, progress, full=full)
            else:
                progress.finished(name, result.seconds, cached=True)
            results[name] = result
        return results

    def _make(
        self,
        name: str,
        pins: Mapping[str, str],
        results: Mapping[str, Result],
        progress: Progress,
        *,
        full: bool,
    ) -> Result:
        recipe, key = self.recipes[name], self._keys[name]
        if self.store.busy(name):
            progress.waiting(name)
        with self.store.lock(name):
            there = self.store.find(name, key, full=full)
            if there is not None:
                progress.finished(name, there.seconds, cached=True)
                return there
            progress.started(name, recipe.summary, self.store.last_seconds(name))
            log = self.store.log_path(name)
            log.write_text("")
            begin = time.monotonic()
            with self.store.workspace(name) as folder:
                out, scratch = folder / "out", folder / "scratch"
                out.mkdir()
                scratch.mkdir()
                needs = {need: results[need].folder for need in recipe.needs}
                bench = Bench(out, scratch, Runner(name, log), needs, self.store, pins)
                recipe.build(bench)
                seconds = time.monotonic() - begin
                result = self.store.publish(name, key, out, seconds=seconds, info=bench.info)
            self.store.remember_seconds(name, seconds)
            progress.finished(name, seconds, cached=False)
            return result

    def _pins(self, name: str, *, refresh: bool) -> Mapping[str, str]:
        recipe = self.recipes[name]
        if type(recipe).resolve is Recipe.resolve:
            return {}
        known = None if refresh else self._read_pins(name)
        if known is not None:
            return known
        with self.store.lock(f"{name}.pins"):
            known = None if refresh else self._read_pins(name)
            if known is not None:
                return known
            with self.store.workspace(f"{name}.pins") as scratch:
                pins = recipe.resolve(Runner(name, self.store.log_path(f"{name}.pins")), scratch)
            write_atomically(self._pins_path(name), json.dumps(dict(pins), indent=1, sort_keys=True) + "\n")
            return pins

    def _read_pins(self, name: str) -> Mapping[str, str] | None:
        try:
            pins = json.loads(self._pins_path(name).read_text())
        except (OSError, ValueError):
            return None
        return {str(key): str(value) for key, value in pins.items()} if isinstance(pins, dict) else None

    def _pins_path(self, name: str) -> Path:
        return self.store.root / "pins" / f"{name}.json"


def missing_tools(recipes: Iterable[Recipe]) -> str:
    """One message that names all programs these recipes lack on this host, or an empty one."""
    wanted = sorted({tool for recipe in recipes for tool in recipe.host_tools})
    path = "/usr/local/sbin:/usr/sbin:/sbin"
    absent = [tool for tool in wanted if not shutil.which(tool) and not shutil.which(tool, path=path)]
    if not absent:
        return ""
    go = " (Go 1.26 or newer is not a Debian 12 package: see go.dev)" if "go" in absent else ""
    return (
        f"this host lacks {', '.join(absent)}{go}; run `make setup`, which installs the packages of "
        "lab/build/host-packages.txt"
    )
