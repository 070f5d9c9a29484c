"""Loggers: what they are told, what an interruption leaves, and that none fails a training."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from shiftbench.core.errors import InputError
from shiftbench.execution.course import Trained
from shiftbench.execution.curve_keeper import CurveKeeper, logged
from shiftbench.execution.loggers.base import Logged, Logger, Step
from shiftbench.execution.loggers.registry import check_loggers
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods: {full: {}}
shots: [4]
"""


class Noted(Logger):
    """Keeps what it is told in this process."""

    name = "noted"
    package = "json"
    install = "nothing"
    told: list[Any] = []  # noqa: RUF012

    def __init__(self, training: Logged) -> None:
        self.told.append(training.done)

    def log(self, steps: Sequence[Step]) -> None:
        self.told.append(steps)

    def close(self) -> None:
        self.told.append("closed")


class Broken(Noted):
    """Fails whenever it is told something."""

    name = "broken"

    def log(self, steps: Sequence[Step]) -> None:
        raise ConnectionError("no route to host")


class Missing(Noted):
    """Needs a package that nobody has."""

    name = "missing"
    package = "no_such_package_anywhere"
    install = "pip install 'shiftbench[missing]'"


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("Noted", "Broken", "Missing")
    targets = (f"loggers/{name.lower()}=tests.execution.test_loggers:{name}" for name in names)
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", ",".join(targets))
    Noted.told = []


def training(folder: Path, done: int = 0) -> Logged:
    return Logged("0123456789abcdef", "small", "cifar10-full-seed0", folder, {"lr": 0.1}, done)


def course(steps: int) -> Trained:
    """A training of so many steps whose loss falls."""
    found = Trained()
    for step in range(steps):
        terms = {"loss": 1 / (step + 1), "hinge": float("nan") if step == 1 else 2.0}
        found.add([terms], {"learning_rate": [0.1], "gradient_norm": [1.0], "seconds": [0.5]})
    return found


def run_through(folder: Path, name: str, *lengths: int, done: int = 0) -> None:
    """Tell a logger of a training that saves states after so many steps."""
    keeper = CurveKeeper(folder / "metrics.parquet", 8)
    with keeper.shown([name], training(folder, done)):
        for length in lengths:
            keeper.take(course(length))


def test_each_step_is_told_once_with_the_values_that_it_has(tmp_path: Path) -> None:
    run_through(tmp_path, "noted", 2, 2, 3)
    done, first, second, closed = Noted.told
    assert (done, closed) == (0, "closed")
    values = {"learning_rate": 0.1, "gradient_norm": 1.0, "images_per_second": 16.0}
    assert first == [
        (1, {"loss": 1.0, "term_hinge": 2.0, **values}),
        (2, {"loss": 0.5, **values}),
    ]
    assert [step for step, _ in second] == [3]


def test_a_training_that_goes_on_is_told_from_where_it_was(tmp_path: Path) -> None:
    run_through(tmp_path, "noted", 4, done=2)
    assert Noted.told[0] == 2
    assert [step for step, _ in Noted.told[1]] == [3, 4]


def test_a_logger_that_fails_costs_a_warning(tmp_path: Path) -> None:
    keeper = CurveKeeper(tmp_path / "metrics.parquet", 8)
    with (
        pytest.warns(UserWarning, match=r"logger broken: ConnectionError: no route to host"),
        keeper.shown(["broken", "noted"], training(tmp_path)),
    ):
        keeper.take(course(1))
        keeper.take(course(2))
    assert [step for told in Noted.told[2:4] for step, _ in told] == [1, 2]
    assert (tmp_path / "metrics.parquet").exists()


def test_a_missing_package_is_one_line_that_says_the_extra() -> None:
    check_loggers(["noted"])
    with pytest.raises(InputError, match=r"logger missing: .* pip install 'shiftbench\[missing\]'"):
        check_loggers(["noted", "missing"])
    with pytest.raises(InputError, match=r'unknown logger "tensorbord".*"tensorboard"'):
        check_loggers(["tensorbord"])


def test_loggers_are_no_part_of_a_runs_identity(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SUITE)
    plain = Plan.build(Suite.load(tmp_path / "small.yaml"))
    with_logger = Plan.build(Suite.load(tmp_path / "small.yaml", ["loggers=[noted]"]))
    assert with_logger.suite.loggers == ("noted",) and {*plain.runs} == {*with_logger.runs}
    ((run_id, run),) = plain.runs.items()
    setup = Setup("small", plain.runs, tmp_path, "miniature", plain.suite.resources, Remarks())
    told = logged(setup, run, 7)
    assert told.name == f"cifar10-miniature-full-4shot-seed0-{run_id[:8]}" and told.done == 7
    assert told.settings["config.lr"] == 3e-5 and told.settings["shots"] == 4


needs = {
    name: pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed")
    for name in ("tensorboard", "wandb", "mlflow")
}


@needs["tensorboard"]
def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_through(tmp_path, "tensorboard", 2, 5)  # of which only two steps were saved
    run_through(tmp_path, "tensorboard", 4, 6, done=2)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "cifar10-full-seed0"))
    events.Reload()
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert losses[3].value == pytest.approx(0.25)
    assert [event.step for event in events.Scalars("term_hinge")] == [1, 3, 4, 5, 6]
    assert "settings/text_summary" in events.Tags()["tensors"]


@needs["mlflow"]
def test_mlflow_has_each_step_once_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    run_through(tmp_path, "mlflow", 2, 5)
    run_through(tmp_path, "mlflow", 4, 6, done=2)
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params["lr"]) == ("FINISHED", "0.1")
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [*range(1, 7)]
    run_through(tmp_path, "mlflow", 3)  # from the start: none of the steps of before is its own
    (anew,) = client.search_runs([experiment.experiment_id])
    assert anew.info.run_id != run.info.run_id and anew.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(anew.info.run_id, "loss")] == [1, 2, 3]


@needs["wandb"]
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("sys.argv", ["server", "--password", "do-not-tell"])
    run_through(tmp_path, "wandb", 2, 4)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-0123456789abcdef")
    (file,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 20  # a process of its own writes the file
    while b"gradient_norm" not in file.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not any(
        b"do-not-tell" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    )
