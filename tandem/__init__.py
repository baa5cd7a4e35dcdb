"""Tandem: a bare-metal Kubernetes cluster with two workers that survives the loss of one, and proves it."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
