from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.data import miniature


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole miniature world, drawn once."""
    root = tmp_path_factory.mktemp("data") / "world"
    miniature.generate(root)
    return root
