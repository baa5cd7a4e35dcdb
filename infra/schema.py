"""The JSON schema of the stack files, made from the typed settings, so that an editor completes and checks them.

It says what shapes are right. What must hold between values (a grace period that covers the drain, a node port that is
taken once) only the program knows, and refuses before anything is registered.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from infra.apps import KINDS
from infra.settings import GIVEN_BY_STACK, PROJECT, Settings, StackFile
from tandem.recovery import PROFILES

_ARGUMENT: Final = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)

_SECURE: Final = {"type": "object", "required": ["secure"], "properties": {"secure": {"type": "string"}}}
"""A value as `pulumi config set --secret --path` writes it."""


def stack_schema() -> dict[str, Any]:
    """The schema of `stacks/Pulumi.<stack>.yaml`."""
    definitions: dict[str, Any] = {}
    keys = _object(StackFile, definitions)
    keys["properties"]["profile"]["enum"] = list(PROFILES)
    kinds = []
    for kind, made in KINDS.items():
        app = _object(made.args, definitions)
        for name in GIVEN_BY_STACK:
            app["properties"].pop(name, None)
        app["properties"] = {"kind": {"const": kind, "description": _summary(made.component)}} | app["properties"]
        app["required"] = ["kind", *(each for each in app.get("required", []) if each not in GIVEN_BY_STACK)]
        definitions[kind] = app
        # One kind at a time: an editor then tells what is wrong with this one, not why it is none of the others.
        kinds.append({"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": f"#/$defs/{kind}"}})
    keys["properties"]["apps"]["additionalProperties"] = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": kinds,
    }
    known = "|".join(keys["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stack file of Tandem",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "properties": {f"{PROJECT}:{name}": value for name, value in keys["properties"].items()},
                "required": [f"{PROJECT}:{name}" for name in keys["required"]],
                "patternProperties": {f"^{PROJECT}:(?!({known})$)": False},
            }
        },
        "$defs": {name: definitions[name] for name in sorted(_used(kinds, keys, definitions))},
    }


def schema_page() -> str:
    """The schema as the file that the stack files refer to."""
    return json.dumps(stack_schema(), indent=1, ensure_ascii=False) + "\n"


def descriptions(cls: type) -> dict[str, str]:
    """What the docstrings of `cls` and of what it extends say about each argument."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        found |= _arguments(each.__doc__ or "")
    return found


def _arguments(docstring: str) -> dict[str, str]:
    arguments = inspect.cleandoc(docstring).partition("Args:\n")[2]
    return {name: " ".join(said.split()) for name, said in _ARGUMENT.findall(arguments)}


def _object(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one type; those that it refers to go to `definitions`."""
    made = TypeAdapter(cls).json_schema()
    definitions |= made.pop("$defs", {})
    for each in (made, *definitions.values()):
        _tidy(each)
    # The stack's keys are described where the program uses them.
    said = descriptions(Settings if cls is StackFile else cls)
    for name, value in made["properties"].items():
        if name in said:
            value["description"] = said[name]
    made["additionalProperties"] = False
    return made


def _tidy(schema: Any) -> None:
    """Leave out the titles that repeat the keys, refuse unknown keys, and let secrets be as Pulumi encrypts them."""
    if isinstance(schema, list):
        for each in schema:
            _tidy(each)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("title"), str):
        del schema["title"]
    properties: dict[str, Any] = schema.get("properties", {})
    if properties and "description" in schema:
        # A nested type, which pydantic describes by its whole docstring.
        for name, said in _arguments(schema["description"]).items():
            properties[name]["description"] = said
        schema["description"] = schema["description"].partition("\n")[0]
        schema["additionalProperties"] = False
    for name in {"secret_env", "secret_files"} & set(properties):
        properties[name]["additionalProperties"] = {"anyOf": [{"type": "string"}, _SECURE]}
    for value in schema.values():
        _tidy(value)


def _used(*parts: Any) -> set[str]:
    """The definitions that `parts` lead to; the last part has them all."""
    *start, definitions = parts
    used: set[str] = set()
    waiting = list(_references(start))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += _references(definitions[name])
    return used


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _references(each)


def _summary(component: Any) -> str:
    return inspect.cleandoc(component.__doc__).partition("\n\n")[0].replace("\n", " ")
