"""Training on the whole training set, the part that others are validated on included."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.sizes import Sizes
from shiftbench.leaderboard.store import read
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks:
  cifar10:
    id_val: {holdout: 0.1, withheld_from: selecting}
methods:
  full: {epochs: 1, batch_size: 100, warmup_steps: 0}
  full-best: {method: full, epochs: 1, batch_size: 100, warmup_steps: 0, checkpoint: id-val}
  wise-ft: {alphas: [0, 0.5]}
  wise-ft-best: {method: wise-ft, parent: full-best, alphas: [0, 0.5]}
budget: {evaluation_images: 40}
"""


def test_rows_say_what_was_held_out_and_nothing_is_selected_on_what_was_seen(
    tmp_path: Path, world: Path
) -> None:
    file = tmp_path / "whole.yaml"
    file.write_text(SUITE)
    outcome = launch(Suite.load(file), tmp_path / "r", InProcess(), Console(quiet=True))
    assert outcome.failed == {}
    rows = read(tmp_path / "r").to_pylist()
    of = {row["label"]: row for row in rows}
    assert [(of[label]["held_out"], of[label]["trains_on_id_val"]) for label in of] == [
        (0.0, True) if label in ("full", "wise-ft") else (0.1, False) for label in of
    ]
    n, kept = of["full"]["train_steps"] * 100, of["full-best"]["train_steps"] * 100
    assert n > kept
    runs = {run.label: run for run in outcome.plan.runs.values()}
    sizes = Sizes(str(world))
    whole, rest = (
        sizes.training(runs[label].task, None, runs[label].whole) for label in ("full", "full-best")
    )
    assert whole is not None and rest is not None and rest == whole - round(0.1 * whole)
    selected = {(row["label"], row["selection"]) for row in rows if row["selection"]}
    assert selected == {
        ("full", "fixed"),
        ("wise-ft", "fixed"),
        ("full-best", "fixed"),
        ("wise-ft-best", "fixed"),
        ("wise-ft-best", "id-val"),
    }
    record = next((tmp_path / "r" / "runs" / of["full"]["run_id"]).glob("run.json"))
    assert json.loads(record.read_text())["run"]["whole"] is True
