"""Stand-ins for our modules in real runs of ansible-playbook whose machines are this one, which nothing may change."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULES = Path(__file__).resolve().parents[1] / "plugins" / "modules"
PROGRAM = """#!{python}
# WANT_JSON
import json, sys
with open(sys.argv[1]) as given, open({log!r}, "a") as log:
    log.write({name!r} + " " + str(json.load(given).get("state")) + "\\n")
print(json.dumps({answer!r}))
"""


def install(folder: Path, answers: Mapping[str, Mapping[str, Any]]) -> Path:
    """Make a library with every module of ours as a stand-in, to be given as `ANSIBLE_LIBRARY`.

    Args:
        folder: where the library goes.
        answers: what modules answer; one that is not named fails.

    Returns:
        A file that gets a line for every module that was asked: its name and the state.
    """
    log, library = folder / "log", folder / "library"
    library.mkdir()
    log.touch()
    for path in MODULES.glob("*.py"):
        answer = answers.get(path.stem, {"failed": True, "msg": "nobody should have asked this"})
        text = PROGRAM.format(python=sys.executable, log=str(log), name=path.stem, answer=dict(answer))
        (library / path.name).write_text(text)
    return log
