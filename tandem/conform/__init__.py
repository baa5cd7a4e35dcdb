"""What no manifest shows about a controller, found out by running it: see docs/conform.md."""

from __future__ import annotations
