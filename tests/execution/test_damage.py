"""Files that are cut short: seen, set aside with a line that says so, and made again."""

from __future__ import annotations

import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from shiftbench.execution.damage import set_damaged_aside
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.stages import fit as fitting
from shiftbench.execution.stages import score as scoring
from shiftbench.leaderboard.leases import Leases
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.suite.suite import Suite

from tests.methods.contract import PLUGINS
from tests.test_end_to_end import values

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  full: {lr: 5e-4, epochs: 3, batch_size: 32, warmup_steps: 2, checkpoint: id-val}
shots: [8]
budget: {evaluation_images: 40}
"""


OF_ENSEMBLE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  full: {lr: 5e-4, batch_size: 32, warmup_steps: 0}
  nearness: {}
budget: {steps: 1, evaluation_images: 20}
"""


def run(results: Path, suite: str = SUITE) -> str:
    """Run a suite in this process; what it showed, on one line."""
    file = results.parent / "small.yaml"
    file.write_text(suite)
    shown = StringIO()
    outcome = launch(Suite.load(file), results, InProcess(), Console(file=shown, width=400))
    assert outcome.failed == {}
    return " ".join(shown.getvalue().split())


def cut(file: Path) -> None:
    """Cut a file in half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def only_run(results: Path) -> RunFolder:
    (path,) = (results / "runs").iterdir()
    return RunFolder(path)


def interrupted_in(stage: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until a stage ends its work, and no further."""

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if stage == "fit":
            patched.setattr(fitting, "_save_weights", stop)
        else:
            patched.setattr(scoring, "results_of", stop)
        with pytest.raises(KeyboardInterrupt):
            run(results)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    run(results)
    return results


@pytest.mark.parametrize("name", ["state", "best"])
def test_a_training_whose_state_is_cut_short_starts_again(
    name: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    interrupted_in("fit", results, monkeypatch)
    cut(only_run(results).path / f"{name}.safetensors")
    shown = run(results)
    assert re.search(rf"{name}\.safetensors: damaged .*\.damaged, the training starts again", shown)
    assert values(results) == values(undisturbed)
    losses = (only_run(folder).read_fit().losses for folder in (results, undisturbed))
    assert len(set(map(tuple, losses))) == 1


@pytest.mark.parametrize("name", ["weights", "part", "part of id-test"])
def test_a_run_whose_weights_or_predictions_are_cut_short_is_completed(
    name: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    interrupted_in("score", results, monkeypatch)
    folder = only_run(results)
    part = folder.part("", "cifar10.1" if name == "part" else "id-test")
    cut(folder.weights if name == "weights" else part)
    assert "damaged or cut short; set aside as" in run(results)
    assert values(results) == values(undisturbed)
    assert folder.predictions.exists()


def test_a_done_run_whose_predictions_are_cut_short_is_predicted_and_scored_again(
    undisturbed: Path,
) -> None:
    before, folder = values(undisturbed), only_run(undisturbed)
    cut(folder.predictions)
    with Leases.of(undisturbed) as leases:
        assert not set_damaged_aside(undisturbed, [], print, leases)
    shown = run(undisturbed)
    assert "predictions.parquet.damaged, predicted again" in shown and "1 to do" in shown
    assert folder.predictions.exists() and values(undisturbed) == before
    assert "0 to do" in run(undisturbed)  # what was set aside is not looked at again


def test_an_ensemble_that_is_cut_short_with_its_predictions_is_made_again(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", PLUGINS)
    results = tmp_path / "results"
    run(results, OF_ENSEMBLE)
    before = values(results)
    (file,) = results.glob("runs/*/ensemble.safetensors")
    folder = RunFolder(file.parent)
    for damaged in (folder.ensemble, folder.predictions):
        cut(damaged)
    shown = run(results, OF_ENSEMBLE)
    assert "ensemble.safetensors.damaged, made again when it is needed" in shown
    assert "predictions.parquet.damaged, predicted again" in shown and "1 to do" in shown
    assert folder.ensemble.exists() and values(results) == before


def test_files_of_a_run_that_another_process_does_are_left_to_it(
    undisturbed: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(undisturbed, results)
    folder = only_run(results)
    cut(folder.predictions)
    with Leases.of(results) as other, Leases.of(results) as leases:
        other.take(folder.path.name)
        assert not set_damaged_aside(results, [folder.path.name], print, leases)
        assert folder.predictions.exists()
        other.end(folder.path.name, "released")
        assert set_damaged_aside(results, [folder.path.name], print, leases)
    assert not folder.predictions.exists()
