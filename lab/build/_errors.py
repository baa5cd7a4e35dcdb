"""The one error of the build, worded for the person who typed `python -m lab build`."""

from __future__ import annotations


class BuildError(Exception):
    """Something could not be built: says what, why, and what to do next."""
