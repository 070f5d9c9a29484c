"""Runs that are looked at: one in this process, and a little of all of a suite."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from shiftbench.cli import main
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.execution import debugging
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.methods.base import Batch
from shiftbench.methods.builtin.full import Full
from shiftbench.models.classifier import ImageClassifier
from shiftbench.suite.naming import Called, meant
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {epochs: 1, batch_size: 24, warmup_steps: 0}
  wise-ft: {alphas: [0.5]}
budget: {steps: 2, evaluation_images: 20}
"""
QUIET = Console(quiet=True)


def suite_of(folder: Path, *overrides: str, text: str = SUITE) -> Suite:
    (folder / "small.yaml").write_text(text)
    return Suite.load(folder / "small.yaml", overrides)


def ids(suite: Suite) -> dict[str, str]:
    return {run.label: run.id for run in Plan.build(suite).runs.values()}


RUNS = (
    Called("aa11", "full", "cifar10", 0),
    Called("aa22", "full", "cifar10", 1),
    Called("bb33", "lora", "cifar10", 0),
    Called("bb33", "also-lora", "cifar10", 0),
    Called("cc44", "aa", "imagenet", 0),
)


@pytest.mark.parametrize(
    ("text", "run_id"),
    [
        *(("aa11", "aa11"), ("bb", "bb33"), ("lora", "bb33"), ("lora/cifar10", "bb33")),
        *(("full/cifar10/1", "aa22"), ("aa", "cc44")),  # a name wins over the beginning of an id
    ],
)
def test_a_run_is_meant_by_its_id_or_its_name(text: str, run_id: str) -> None:
    assert meant(text, RUNS) == run_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full", r'"full" means 2 runs: full/cifar10/0 \(aa11\), full/cifar10/1 \(aa22\)'),
        ("aa1/", r'neither an id nor method/task/seed'),
        ("lorra", r'did you mean "lora"'),
        ("", "is no run"),
    ],
)  # fmt: skip
def test_what_means_no_run_or_several_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        meant(text, RUNS)
    assert "\n" not in str(refused.value)


def test_a_run_that_raises_does_so_here_and_leaves_what_is_recorded(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, results = suite_of(tmp_path), tmp_path / "results"
    wise = ids(suite)["wise-ft"]
    stopped: list[object] = []
    original = Full.loss

    def loss(method: Full, model: ImageClassifier, batch: Batch) -> dict[str, object]:
        if batch.step == 1:
            breakpoint()
            raise KeyError("bug")
        return original(method, model, batch)  # type: ignore[return-value]

    with monkeypatch.context() as patched:
        patched.setattr(sys, "breakpointhook", lambda: stopped.append(sys.stdout))
        patched.setattr(Full, "loss", loss)
        with pytest.raises(KeyError, match="bug") as raised:
            debugging.debug(suite, wise, results, QUIET)
        assert stopped == [sys.stdout]
        assert any(entry.name == "loss" for entry in raised.traceback)
        assert store.statuses(results) == {}
        patched.setattr(Full, "loss", original)

        def refuse(method: Full, *arguments: object) -> None:
            raise InputError("the plugin's own file is not there")

        patched.setattr(Full, "prepare", refuse)
        with pytest.raises(RunFailedError) as failed:  # so that the command line shows where
            debugging.debug(suite, wise, results, QUIET)
        assert isinstance(failed.value.__cause__, InputError)

    # A failure that a launch has recorded stays, too, until the run is done.
    with monkeypatch.context() as patched:
        patched.setattr(Full, "loss", loss)
        patched.setattr(sys, "breakpointhook", lambda: None)
        launch(suite, results, InProcess(), QUIET)
        before = store.read(results)
        with pytest.raises(KeyError):
            debugging.debug(suite, wise, results, QUIET)
        assert store.read(results).equals(before)

    console = Console(file=io.StringIO(), force_terminal=False)
    debugging.debug(suite, wise, results, console)
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert set(store.statuses(results).values()) == {"done"}
    assert not RunFolder.of(results, wise).error.exists()
    with pytest.raises(InputError, match=f"{wise} is done already: shiftbench remove {wise}"):
        debugging.debug(suite, wise, results, QUIET)
    assert launch(suite, results, InProcess(), QUIET).executed == frozenset()


def test_the_command_ends_with_a_traceback(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite_of(tmp_path)

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("in the plugin")

    monkeypatch.setattr(Full, "loss", broken)
    words = ["run", str(tmp_path / "small.yaml"), "--results", str(tmp_path / "r")]
    with pytest.raises(ZeroDivisionError):
        main([*words, "--debug", "full", "--fast-dev-run"])
    assert not (tmp_path / "r").exists()
    assert main([*words, "--debug", "full", "--address", "host:1"]) == 2
    assert main([*words, "--debug", "nothing"]) == 2


def test_a_fast_run_is_of_other_runs_with_few_steps_images_and_trials(tmp_path: Path) -> None:
    more = (
        *("budget.steps=50", "budget.evaluation_images=null"),
        "methods.stored={method: full, store: {side: 32}}",
        "methods.autoft={search: {n_trials: 500}}",
        "methods.longer={method: autoft, search: {n_trials: 900}}",
        "methods.drawn={method: autoft, search: {n_trials: 0}}",
    )
    suite = suite_of(tmp_path, *more)
    small = debugging.fast(suite)
    real, quick = Plan.build(suite), Plan.build(small)
    assert not {*real.runs} & {*quick.runs} and len(real.runs) == len(quick.runs)
    assert (small.budget.steps, small.budget.evaluation_images) == (3, 16)
    (methods,) = small.methods.values()
    config = {label: method.config for label, method in methods.items()}
    trials = {name: config[name].search.n_trials for name in ("autoft", "longer", "drawn")}  # type: ignore[attr-defined]
    assert trials == {"autoft": 2, "longer": 3, "drawn": 0}  # two that differ are still two
    assert config["stored"].store is None  # type: ignore[attr-defined]
    assert config["full"] == suite.methods["cifar10"]["full"].config
    for run in real.runs.values():
        assert quick.runs[debugging.same_place(run, quick)].label == run.label


def test_methods_that_differ_in_their_store_alone_keep_it(tmp_path: Path) -> None:
    plain = "methods.plain={method: full, epochs: 1, batch_size: 24, warmup_steps: 0}"
    suite = suite_of(tmp_path, "methods.full.store={side: 32}", plain)
    (methods,) = debugging.fast(suite).methods.values()
    assert len(Plan.build(debugging.fast(suite)).runs) == 4
    assert methods["full"].config != methods["plain"].config


def test_a_fast_run_keeps_nothing_unless_something_failed(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite_of(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    words = ["run", str(tmp_path / "small.yaml"), "--results", str(tmp_path / "r")]
    words += ["--fast-dev-run", "--executor", "in-process"]
    assert main(words) == 0
    assert "3 runs" in capsys.readouterr().out
    assert not (tmp_path / "r").exists() and not [*(tmp_path / "temporary").iterdir()]

    monkeypatch.setattr(Full, "prepare", lambda *arguments: 1 / 0)
    assert main(words) == 1
    shown = " ".join(capsys.readouterr().out.split())
    (kept,) = (tmp_path / "temporary").iterdir()
    assert "2 of 3 runs" in shown and kept.name in shown.replace(" ", "")
    assert len([*kept.glob("runs/*/error.txt")]) == 1
    assert not (tmp_path / "r").exists()
