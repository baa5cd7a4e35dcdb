"""What a controller knows of the cluster: the objects of one resource, as its reflector last saw them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from tandem.runtime.resources import Key, Object, Resource, key_of, version_of

Indexer = Callable[[Object], Iterable[str]]
"""Values under which an object is to be found."""


class Listener(Protocol):
    """Is told of each change, in order. `old` is None for a new object, `new` for one that is gone."""

    def __call__(self, old: Object | None, new: Object | None) -> None:
        """One change."""


class Cache:
    """Objects by key, with indexes. Only a reflector changes it; a reader must copy what it wants to change.

    Args:
        resource: what it holds; lists omit kind and apiVersion of their items, the cache puts them back.
        indexers: name of an index and the values under which it files an object.
        keep_managed_fields: keep `metadata.managedFields`, often the larger half of an object. A replace without them
            is understood by the server as "no change to them".
    """

    def __init__(
        self,
        resource: Resource,
        *,
        indexers: Mapping[str, Indexer] | None = None,
        keep_managed_fields: bool = False,
    ) -> None:
        self.resource = resource
        self._keep = keep_managed_fields
        self._objects: dict[Key, Object] = {}
        self._indexers = dict(indexers or {})
        self._indexes: dict[str, dict[str, set[Key]]] = {name: {} for name in self._indexers}
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._objects

    def get(self, key: Key) -> Object | None:
        """The object, or None where there is none."""
        return self._objects.get(key)

    def keys(self) -> list[Key]:
        """All keys."""
        return list(self._objects)

    def in_namespace(self, namespace: str) -> list[Object]:
        """All objects of one namespace."""
        return [obj for key, obj in self._objects.items() if key.namespace == namespace]

    def by_index(self, index: str, value: str) -> list[Object]:
        """The objects that an index files under a value.

        Raises:
            KeyError: there is no such index.
        """
        return [self._objects[key] for key in sorted(self._indexes[index].get(value, ()))]

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of every change from now on."""
        self._listeners.append(listener)

    def put(self, obj: Object) -> None:
        """Take in one new or changed object (the reflector's)."""
        metadata = obj["metadata"]
        if not self._keep:
            metadata.pop("managedFields", None)
        obj.setdefault("apiVersion", self.resource.api_version)
        obj.setdefault("kind", self.resource.kind)
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None:
            if version_of(old) == version_of(obj):
                return  # seen again after a resumed watch or a new list
            self._unfile(key, old)
        self._objects[key] = obj
        for name, indexer in self._indexers.items():
            for value in indexer(obj):
                self._indexes[name].setdefault(value, set()).add(key)
        self._tell(old, obj)

    def drop(self, key: Key) -> None:
        """Take out one object (the reflector's). Does nothing where there is none."""
        old = self._objects.pop(key, None)
        if old is not None:
            self._unfile(key, old)
            self._tell(old, None)

    def retain(self, present: set[Key], namespace: str | None) -> None:
        """Drop all that a complete list did not show: deletions that no watch told of.

        Args:
            present: the keys of the list.
            namespace: the list was of this namespace only; None for all.
        """
        for key in [k for k in self._objects if (namespace is None or k.namespace == namespace) and k not in present]:
            self.drop(key)

    def _unfile(self, key: Key, old: Object) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            for value in indexer(old):
                if keys := index.get(value):
                    keys.discard(key)
                    if not keys:
                        del index[value]

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for listener in self._listeners:
            listener(old, new)
