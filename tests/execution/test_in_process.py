"""A suite in this process: what is refused, and what interrupts and kills leave."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from shiftbench.core.errors import InputError
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.display import Display
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import Outcome, launch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.search.serial import Rungs, run_trials
from shiftbench.execution.search.study import Study, open_journal
from shiftbench.execution.search.trial import Trials
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import Found, RunFolder, SearchFolder
from shiftbench.leaderboard.schema import failures, rows
from shiftbench.leaderboard.store import read
from shiftbench.methods.base import Batch, Context
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.search import SearchConfig
from shiftbench.models.classifier import ImageClassifier
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.test_end_to_end import command, values

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 5e-4, epochs: 3, batch_size: 32, warmup_steps: 2}
  wise-ft: {alphas: [0.5]}
shots: [8]
budget: {evaluation_images: 40}
"""
QUIET = Console(quiet=True)


def load(folder: Path, *overrides: str, text: str = SUITE) -> Suite:
    file = folder / "small.yaml"
    file.write_text(text)
    return Suite.load(file, overrides)


def run(folder: Path, results: Path) -> Outcome:
    return launch(load(folder), results, InProcess(), QUIET)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """The results of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = run(folder, folder / "results")
    assert (len(outcome.executed), outcome.failed) == (3, {})
    return folder / "results"


def full(results: Path) -> RunFolder:
    """The folder of the run that trains."""
    (folder,) = (path for path in (results / "runs").iterdir() if (path / "fit.json").exists())
    return RunFolder(folder)


def test_nothing_is_left_to_do_afterwards(undisturbed: Path, tmp_path: Path) -> None:
    assert run(tmp_path, undisturbed).executed == frozenset()


def test_an_interrupted_training_goes_on_where_it_was(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    total = len(full(undisturbed).read_fit().losses)

    def steps(display: Display, steps: Mapping[str, tuple[int, int]]) -> None:
        shown.extend(step for step, _ in steps.values())
        if shown == list(range(total)):
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "steps", steps)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tmp_path / "results")
    assert all(row["label"] != "full" for row in read(tmp_path / "results").to_pylist())
    assert len(list(tmp_path.rglob("state.safetensors"))) == 1
    shown.clear()
    assert run(tmp_path, tmp_path / "results").failed == {}
    assert 1 not in shown  # it went on with the last epoch
    assert shown[-1] == total
    assert full(tmp_path / "results").read_fit().losses == full(undisturbed).read_fit().losses
    assert values(tmp_path / "results") == values(undisturbed)


@pytest.mark.parametrize(("override", "most"), [((), 32), (("resources.micro_batch=8",), 8)])
def test_preparing_is_shown_and_counted_and_holds_no_more_than_a_batch(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    override: tuple[str, ...],
    most: int,
) -> None:
    shown: list[str] = []
    sizes: list[int] = []
    original = Display.steps

    def steps(display: Display, steps: Mapping[str, tuple[int, int]]) -> None:
        original(display, steps)
        shown.extend(f"{of.name} {of.done or of.state}" for of in display._trainings())

    def prepare(method: Full, model: object, context: Context) -> None:
        time.sleep(2)
        sizes.extend(len(batch.labels) for batch in context.examples())

    monkeypatch.setattr(Display, "steps", steps)
    monkeypatch.setattr(Full, "prepare", prepare)
    suite = load(tmp_path, "methods.wise-ft=null", "methods.full.epochs=1", *override)
    assert launch(suite, tmp_path / "results", InProcess(), QUIET).failed == {}
    assert full(tmp_path / "results").read_fit().seconds > 2
    assert max(sizes) == most
    assert shown[0].endswith("full · 8-shot · seed 0 preparing")
    assert shown[1].endswith("full · 8-shot · seed 0 1")


def test_a_run_that_does_not_fit_the_memory_says_what_it_held(
    undisturbed: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    original = Full.loss

    def prepare(method: Full, model: object, context: Context) -> None:
        prepared.append(len(next(context.examples()).labels))
        if prepared[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def loss(method: Full, model: ImageClassifier, batch: Batch) -> dict[str, torch.Tensor]:
        if len(batch.labels) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(method, model, batch)

    monkeypatch.setattr(Full, "prepare", prepare)
    monkeypatch.setattr(Full, "loss", loss)
    suite = load(tmp_path, "methods.wise-ft=null", "methods.zero-shot=null")
    assert launch(suite, tmp_path / "results", InProcess(), QUIET).failed == {}
    assert prepared == [32, 16]
    details = {row.details["micro_batch"] for row in rows(read(tmp_path / "results"))}
    assert details == {8}
    found, expected = (
        full(results).read_fit().losses for results in (tmp_path / "results", undisturbed)
    )
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_killed_process_goes_on_to_the_same_rows(undisturbed: Path, tmp_path: Path) -> None:
    load(tmp_path)
    results = tmp_path / "results"
    arguments = command(
        "run", tmp_path / "small.yaml", "--results", results, "--executor", "in-process"
    )
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(results.rglob("weights.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline, "nothing was ever trained"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(read(results)) < len(read(undisturbed))
    assert run(tmp_path, results).failed == {}
    assert values(results) == values(undisturbed)
    assert not list(results.rglob("*.tmp"))


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path, world: Path) -> None:
    ruinous = ("methods.full.lr=1e30", "methods.full.max_grad_norm=null")
    outcome = launch(load(tmp_path, *ruinous), tmp_path / "results", InProcess(), QUIET)
    reasons = {outcome.plan.runs[run_id].label: why for run_id, why in outcome.failed.items()}
    assert reasons.keys() == {"full", "wise-ft"}
    assert "not finite" in reasons["full"]
    results = tmp_path / "results"
    assert [row.label for row in rows(read(results))][:1] == ["zero-shot"]
    failed = {run.label: run for run in failures(read(results))}
    assert failed.keys() == {"full", "wise-ft"}
    full = failed["full"]
    assert full.error == reasons["full"]
    assert full.error_file == failed["wise-ft"].error_file == f"runs/{full.run_id}/error.txt"
    text = (results / full.error_file).read_text()
    assert text.startswith("Traceback (most recent call last):") and "training.py" in text
    assert text.rstrip().endswith(f"DivergedError: {full.error}")


def test_the_error_of_a_run_goes_when_the_run_is_done(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    suite = load(tmp_path, "methods.full=null", "methods.wise-ft=null")

    def lost(*arguments: object) -> None:
        raise OSError("no such disk")

    with monkeypatch.context() as patched:
        patched.setattr("shiftbench.execution.doing.score", lost)
        launch(suite, results, InProcess(), QUIET)
    (failed,) = failures(read(results))
    assert failed.error == "OSError: no such disk" and failed.error_file is not None
    assert (results / failed.error_file).exists()

    assert launch(suite, results, InProcess(), QUIET).failed == {}
    assert not failures(read(results)) and not (results / failed.error_file).exists()


def test_a_search_by_trials_needs_no_ray(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "n_trials: 3, inner_steps: 3, rungs: 2, finalists: 2, repeats: 1, n_startup_trials: 2"
    tuned = f"of: full, settings: {{batch_size: 24}}, search: {{{few}}}"
    suite = load(
        tmp_path,
        f"methods={{tuned: {{{tuned}}}}}",
        *("methods.full=null", "methods.wise-ft=null", "budget.steps=2"),
    )
    original, begun = Trials.start, []

    def start(trials: Trials, values: dict[str, object], seed: int) -> None:
        begun.append(dict(values))
        if len(begun) == 2:
            raise KeyError("bug")
        original(trials, values, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Trials, "start", start)
    outcome = launch(suite, tmp_path / "results", InProcess(), QUIET)
    assert outcome.failed == {}
    run = next(run for run in outcome.plan.runs.values() if run.label == "tuned")
    assert run.search is not None
    folder = SearchFolder.of(tmp_path / "results", run.search.id)
    found = folder.read_found()
    trials = pq.read_table(folder.trials).to_pylist()
    assert [trial["study"] for trial in trials] == ["search"] * 3 + ["finalists"] * 2
    assert [trial["state"] for trial in trials].count("failed") == 1
    assert "KeyError: 'bug'" in trials[1]["error"]
    assert found.n_trials == 3 and dict(found.values) in begun
    assert found.steps == sum(trial["steps"] for trial in trials)

    study = Study(open_journal(tmp_path / "j", 5), "search", {}, metric("accuracy"), 3, 0)
    setup = Setup("s", outcome.plan.runs, tmp_path, "miniature", suite.resources, Remarks())
    begun[:] = [{}]
    with pytest.raises(KeyError, match="bug"):
        run_trials(Workspace(setup, torch.device("cpu")), run, study, raising=True)


def test_a_rung_keeps_the_best_of_those_that_were_there() -> None:
    rungs = Rungs(SearchConfig(reduction_factor=2), metric("accuracy"))
    scores = (0.5, 0.4, 0.6, 0.45, 0.55)
    assert [rungs.passes(1, score) for score in scores] == [True, False, True, False, True]
    lower = Rungs(SearchConfig(reduction_factor=2), metric("nll"))
    assert [lower.passes(1, score) for score in scores] == [True, True, False, True, False]


def test_settings_that_are_drawn_and_not_tried_need_no_ray(tmp_path: Path, world: Path) -> None:
    drawn = "methods={autoft: {lr: 1e-4, batch_size: 24, search: {n_trials: 0}}}"
    suite = load(tmp_path, "methods.full=null", "methods.wise-ft=null", drawn, "budget.steps=1")
    (run,) = (run for run in Plan.build(suite).runs.values() if run.label == "autoft")
    assert run.search is not None
    folder = SearchFolder.of(tmp_path / "results", run.search.id)
    folder.write_found(Found({}, None, 9, 0, 0, 0.0))  # on other data files
    outcome = launch(suite, tmp_path / "results", InProcess(), QUIET)
    assert outcome.failed == {}
    assert folder.read_found().n_trials == 0


def test_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    suite = load(tmp_path, "resources.gpus_per_worker=1")
    with pytest.raises(InputError, match=r"asks for a GPU, and PyTorch finds none"):
        launch(suite, tmp_path / "results", InProcess(), QUIET)


def test_the_callers_threads_and_random_numbers_are_left_alone(tmp_path: Path, world: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    small = ("methods.wise-ft=null", "budget.steps=1", "budget.evaluation_images=4")
    suite = load(tmp_path, *small, "resources.cpus_per_worker=2")
    launch(suite, tmp_path / "results", InProcess(), QUIET)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
