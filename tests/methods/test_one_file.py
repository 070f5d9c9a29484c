"""A method is one file: dropped among the built-in ones, it is there for suites and editors."""

from __future__ import annotations

from pathlib import Path

import pytest
from shiftbench.methods import builtin
from shiftbench.methods.registry import METHODS
from shiftbench.suite.json_schema import json_schema
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

FILE = '''
"""Nudge: a small step."""

from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import TrainingConfig


class NudgeConfig(TrainingConfig):
    """Full fine-tuning's settings."""

    lr: float = 1e-7


class Nudge(Full):
    """Full fine-tuning, hardly."""

    name = "small-nudge"
    Config = NudgeConfig
'''
SUITE = """
backbones: [miniature]
tasks: [cifar10]
methods:
  small-nudge: {epochs: 1}
  searched: {method: tuned, of: small-nudge}
"""


def test_a_file_is_all_that_a_method_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = METHODS.entries().keys()
    folder = tmp_path / "builtin"
    folder.mkdir()
    (folder / "small_nudge.py").write_text(FILE)
    monkeypatch.setattr(builtin, "__path__", [*builtin.__path__, str(folder)])
    monkeypatch.setattr(builtin.__spec__, "submodule_search_locations", builtin.__path__)

    assert METHODS.entries().keys() - before == {"small-nudge"}
    assert METHODS.entry("small-nudge").builtin
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    runs = Plan.build(Suite.load(suite)).runs.values()
    assert [run.create().name for run in runs] == ["small-nudge", "tuned"]
    assert "method small-nudge" in json_schema()["$defs"]
