"""The generated pages of docs/ are those that their sources give."""

from __future__ import annotations

import pytest

from lab.docs import DOCS, PAGES, comments, roles_page


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_every_variable_of_a_role_says_what_it_means() -> None:
    rows = [line for line in roles_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_a_comment_belongs_to_the_first_variable_below_it() -> None:
    text = "---\n# One.\n# More of it.\na: 1\nb:\n  - x: 2\n# Two.\nc: 3\n"
    assert comments(text) == {"a": "One. More of it.", "b": "see `a`", "c": "Two."}
