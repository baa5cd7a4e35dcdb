"""`python -m lab.build`, the same as `python -m lab build`."""

from __future__ import annotations

import typer

from lab.build import build

typer.run(build)
