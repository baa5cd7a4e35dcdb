"""Imported before a module of ours, it makes `ansible.module_utils.tandem_*` importable, as on a machine."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

FOLDER = str(Path(__file__).resolve().parents[1] / "plugins" / "module_utils")
if FOLDER not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(FOLDER)
