"""The controllers' image: what it takes of the package is what the auditor imports, and its pins are the checkout's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from lab.build._controllers import PARTS, SCRIPT

ROOT = Path(__file__).parents[3]
IMPORTED = """
import sys
import tandem.controllers.auditor.__main__
for module in list(sys.modules.values()):
    print(module.__name__, getattr(module, "__file__", None) or "-")
"""


def imported() -> dict[str, str]:
    out = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in out.splitlines())


def test_the_image_holds_everything_that_the_auditor_imports() -> None:
    ours = [Path(file).relative_to(ROOT / "tandem") for name, file in imported().items() if re.match(r"tandem\b", name)]
    assert len(ours) > 30
    left_out = [str(file) for file in ours if not any(file.is_relative_to(part) for part in PARTS)]
    assert left_out == []


def test_nothing_heavy_is_imported() -> None:
    """Neither what draws nor what deploys: a controller's memory is paid for on both workers."""
    assert not {"matplotlib", "plotly", "pulumi", "typer", "pydantic"} & set(imported())


def test_script_and_lab_take_the_same_parts() -> None:
    (listed,) = re.findall(r"^parts=\((.*?)\)", SCRIPT.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert sorted(listed.split()) == sorted(PARTS)


def test_pins_are_those_of_the_checkout() -> None:
    script = [sys.executable, "scripts/controllers-requirements.py"]
    made = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "tandem/controllers/requirements.txt").read_text() == made, "run `make upgrade-pins`"
    assert {"kubernetes-asyncio", "prometheus-client", "structlog"} <= set(
        re.findall(r"^([a-z0-9-]+)==", made, re.MULTILINE)
    )
    assert "--hash=sha256:" in made
