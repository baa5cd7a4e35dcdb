"""The Go modules are what their go.sum says."""

from __future__ import annotations

import pytest

from lab.build._go import UPGRADE, modules, verify


@pytest.mark.parametrize("module", [name for name in modules() if name != UPGRADE])
def test_module_matches_its_hashes(module: str) -> None:
    assert verify([module]) == {}
