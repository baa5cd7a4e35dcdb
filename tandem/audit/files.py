"""Objects from rendered YAML or JSON, each with the file and line where it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import yaml

Object = dict[str, Any]

STDIN: Final = "-"
SUFFIXES: Final = (".yaml", ".yml", ".json")

# The compiled loader is ten times as fast; a Python without it reads the same.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SourceError(RuntimeError):
    """A file or the cluster cannot be read; the message names it and says why."""


@dataclass(frozen=True)
class Loaded:
    """What was read: the objects, where each begins (`FILE:LINE` by identity), and how many documents were none."""

    objects: Sequence[Object]
    places: dict[int, str]
    strangers: int

    def source(self, obj: object) -> str:
        """Where an object was read."""
        return self.places.get(id(obj), "")


def read(paths: Iterable[Path], stdin: IO[str]) -> Loaded:
    """Read files, folders (their YAML and JSON files) and standard input (`-`).

    Raises:
        SourceError: a path is missing, unreadable or not YAML.
    """
    objects: list[Object] = []
    places: dict[int, str] = {}
    strangers = 0
    for label, text in _texts(paths, stdin):
        for line, document in _documents(label, text):
            if not _is_object(document):
                strangers += document is not None
                continue
            objects.append(document)
            places[id(document)] = f"{label}:{line}"
    return Loaded(objects, places, strangers)


def _texts(paths: Iterable[Path], stdin: IO[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if str(path) == STDIN:
            yield "stdin", stdin.read()
            continue
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
            if not found:
                raise SourceError(f"{path}: no {' or '.join(SUFFIXES)} file in this folder")
        else:
            found = [path]
        for each in found:
            try:
                yield str(each), each.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SourceError(f"{each}: cannot be read: {error}") from error


def _documents(label: str, text: str) -> Iterator[tuple[int, Any]]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            document = loader.construct_document(node)
            if isinstance(document, dict) and isinstance(document.get("items"), list):
                # The lines of a list's items are known only from the nodes that they are made of.
                sequence = next(value for key, value in node.value if key.value == "items")
                for item, child in zip(document["items"], sequence.value, strict=True):
                    if isinstance(item, dict):
                        item.setdefault("kind", str(document.get("kind") or "").removesuffix("List"))
                    yield child.start_mark.line + 1, item
                continue
            yield node.start_mark.line + 1, document
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SourceError(f"{label}:{line}: not YAML: {error.problem}. Render templates first") from error
    except yaml.YAMLError as error:
        raise SourceError(f"{label}: not YAML: {error}") from error
    finally:
        loader.dispose()


def _is_object(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("kind"), str) and "metadata" in document
