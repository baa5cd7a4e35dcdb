"""`make docs`: make the generated pages from what is committed; `--check` says which are out of date.

- `docs/profiles.md`: the table of profiles and predictions, from `tandem.recovery`, and what drills measured;
- `docs/checklist.md`: every rule of the availability checklist, from `tandem.checklist`;
- `docs/benchmarks.md`: every committed result under `docs/bench/`;
- `docs/everything-lost.md`: recovery after everything was lost at once, from `docs/everything-lost.json`;
- `docs/stack.schema.json`: the shape of the stack files, from `infra.settings` and the components;
- `docs/roles.md`: every variable of every role, from its `meta/argument_specs.yml` and the comments in its defaults.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from infra.schema import schema_page
from lab import lost, timelines
from lab.story import ROOT
from tandem.docs import checklist_page, profiles_page

DOCS = ROOT / "docs"
GENERATED = "<!-- Made by `make docs`; do not edit. -->\n"


def benchmarks_page(folder: Path = DOCS / "bench") -> str:
    """The page of all committed benchmark results, one table each."""
    parts = [
        GENERATED,
        "# Benchmarks\n",
        (
            "Measured on the lab (User Mode Linux machines that share the host's cores), each table in one run. "
            "`make bench BENCH=NAME` repeats one. Times of stages that start something are upper bounds for real "
            "machines; time-outs take as long anywhere.\n"
        ),
    ]
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {result['name']}\n")
        parts.append(f"{result['machine']}; {result['date']}; unit: {result['unit']}.\n")
        if result.get("note"):
            parts.append(f"{result['note']}\n")
        if result.get("table"):
            parts.append("\n".join(_table(result["table"])) + "\n")
            continue
        rows = {result["name"]: result, **result["peers"]}
        parts.append(
            "\n".join(
                [
                    "| what | runs | median | p95 | max |",
                    "|---|---:|---:|---:|---:|",
                    *(
                        f"| {name} | {len(row['samples'])} | "
                        + " | ".join(_figure(row[key]) for key in ("median", "p95", "max"))
                        + " |"
                        for name, row in rows.items()
                    ),
                ]
            )
            + "\n"
        )
    return "\n".join(parts)


def _figure(value: float) -> str:
    """A figure with one decimal, or with as many as its size asks for below 1."""
    return f"{value:.1f}" if value == 0 or abs(value) >= 1 else f"{value:.2g}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of equal columns as a Markdown table."""
    lines = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
    return lines + [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]


def roles_page(folder: Path = ROOT / "roles") -> str:
    """The page of all role variables."""
    parts = [GENERATED, "# Roles and their variables\n"]
    for path in sorted(folder.glob("*/meta/argument_specs.yml")):
        spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]
        defaults_path = path.parent.parent / "defaults" / "main.yml"
        text = defaults_path.read_text(encoding="utf-8") if defaults_path.exists() else ""
        defaults: dict[str, Any] = yaml.safe_load(text) or {}
        told = comments(text)
        parts.append(f"## {path.parent.parent.name}\n")
        parts.append(
            f"{_sentence(spec.get('short_description', ''))} {_text(spec.get('description', ''))}".strip() + "\n"
        )
        options: dict[str, dict[str, Any]] = spec.get("options", {})
        if options:
            rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
            for name, option in options.items():
                default = "required" if option.get("required") else _default(defaults.get(name, option.get("default")))
                meaning = _cell(_text(option.get("description", told.get(name, ""))))
                rows.append(f"| `{name}` | {option.get('type', 'str')} | {default} | {meaning} |")
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def comments(text: str) -> dict[str, str]:
    """What the comments of a role's defaults say of each variable; those that share a comment refer to the first."""
    found: dict[str, str] = {}
    told: list[str] = []
    first = ""
    for line in text.splitlines():
        if line.startswith("# "):
            told = told if not first else []
            told.append(line[2:])
            first = ""
        elif variable := re.match(r"(\w+):", line):
            found[variable[1]] = f"see `{first}`" if first else " ".join(told)
            first = first or variable[1]
    return found


def _text(value: str | list[str]) -> str:
    return " ".join(value) if isinstance(value, list) else value


def _sentence(value: str) -> str:
    return value if not value or value.endswith(".") else f"{value}."


def _cell(value: str) -> str:
    return re.sub(r"\s+", " ", value).replace("|", "\\|").strip()


def _default(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{_cell(text)}`" if text else "empty"


PAGES: dict[str, Callable[[], str]] = {
    "profiles.md": lambda: f"{GENERATED}\n{profiles_page()}\n{timelines.page()}",
    "checklist.md": lambda: f"{GENERATED}\n{checklist_page()}",
    "benchmarks.md": benchmarks_page,
    "everything-lost.md": lambda: f"{GENERATED}\n{lost.page()}",
    "roles.md": roles_page,
    "stack.schema.json": schema_page,
}


def main(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail when a page differs.")] = False,
) -> None:
    """Write the generated pages of docs/."""
    stale = []
    for name, render in PAGES.items():
        path = DOCS / name
        wanted = render()
        if path.exists() and path.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(name)
        if not check:
            path.write_text(wanted, encoding="utf-8")
    if check and stale:
        print(f"docs/ differs from its sources: {', '.join(stale)}. Run `make docs`.", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
