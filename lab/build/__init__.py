"""Building what the lab is made of: kernel, base image, packages, images, tools.

Everything is cached outside the checkout by a key of its inputs (see `lab.build._cache`).
"""

from __future__ import annotations

from lab.build._command import build
from lab.build._errors import BuildError

__all__ = ["BuildError", "build"]
