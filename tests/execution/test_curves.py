"""The curve of a training: what is kept of every step, and what an interruption leaves of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.course import Trained
from shiftbench.execution.curve_keeper import CurveKeeper
from shiftbench.execution.schedule import learning_rate, make_schedule
from shiftbench.execution.training import Trainer
from shiftbench.leaderboard.training_curve import TrainingCurve, thinned
from shiftbench.methods.base import Batch
from shiftbench.methods.config import TrainingConfig
from shiftbench.testing.toys import EXAMPLES, make_batches, make_examples, make_model

from tests.methods.contract import Terms
from tests.methods.settings import TRAINING, make_method


def trainer(state: Path | None = None, file: Path | None = None, lr: float = 0.01) -> Trainer:
    """Of a toy method with terms, which saves a state every few steps."""
    method, model = Terms(TrainingConfig(**{**TRAINING, "lr": lr})), make_model()
    schedule = make_schedule(EXAMPLES, method.config)
    batches = make_batches(method, model, schedule, WorkerPlace())
    take = (lambda course: None) if file is None else CurveKeeper(file, schedule.batch_size).take
    return Trainer(model, method, schedule, batches, seed=0, state_file=state, on_course=take)


def read(file: Path) -> TrainingCurve:
    curve = TrainingCurve.read(file)
    assert curve is not None
    return curve


def without_speed(curve: TrainingCurve) -> dict[str, list[float | None]]:
    return {n: list(of) for n, of in curve.columns.items() if n != "images_per_second"}


def test_every_step_is_there_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    of = trainer(file=tmp_path / "metrics.parquet")
    done, schedule = of.run(), of._schedule
    curve = read(tmp_path / "metrics.parquet")
    steps = schedule.steps
    assert [*curve.columns] == [
        *("step", "loss", "term_labels", "term_twice", "term_even"),
        *("learning_rate", "gradient_norm", "images_per_second", "id_val"),
    ]
    assert curve.columns["step"] == [*range(1, steps + 1)]
    assert curve.columns["loss"] == done.losses
    assert curve.columns["term_even"] == done.terms["even"]
    warmup = TRAINING["warmup_steps"]
    rates = [learning_rate(step, steps, 0.01, warmup) for step in range(steps)]
    assert curve.columns["learning_rate"] == rates
    assert all(speed and speed > 0 for speed in curve.columns["images_per_second"])
    assert curve.columns["id_val"] == [None] * steps
    assert "id_val" not in curve.drawn and "gradient_norm" in curve.drawn


def test_the_norm_is_the_global_one_before_clipping(tmp_path: Path) -> None:
    of = trainer(file=tmp_path / "m.parquet")
    model = make_model()
    images, labels, *_ = next(of._batches(range(1)))
    loss = of._method.loss(model, Batch(images, labels))["loss"]
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    squares = sum(float((g.double() ** 2).sum()) for g in gradients if g is not None)
    of.run()
    (first, *_) = read(tmp_path / "m.parquet").columns["gradient_norm"]
    assert first == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.parametrize("when", ["before the state is saved", "after it"])
def test_a_killed_training_leaves_a_curve_that_goes_on_without_gap_or_repetition(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(file=tmp_path / "whole.parquet").run()
    expected = without_speed(read(tmp_path / "whole.parquet"))

    class Killed(BaseException):
        """As SIGKILL: nothing of the process runs after it."""

    state, file = tmp_path / "state", tmp_path / "m.parquet"
    save = Trainer._save
    saves: list[int] = []

    def killed(self: Trainer) -> None:
        saves.append(len(self.done.losses))
        if when == "after it" or len(saves) < 2:
            save(self)
        if len(saves) == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save", killed)
        with pytest.raises(Killed):
            trainer(state, file).run()
    assert len(read(file)) == saves[-1] < len(expected["step"])
    again = trainer(state, file)
    assert len(again.done.losses) == saves[0 if when.startswith("before") else 1]
    again.run()
    assert without_speed(read(file)) == expected


def test_a_state_that_was_saved_before_there_were_curves_goes_on_with_gaps() -> None:
    course = Trained(losses=[3.0, 2.0], terms={"hinge": [1.0, None]})
    course.add([{"loss": 1.0, "hinge": 0.5, "new": 4.0}], {"learning_rate": [0.1]})
    course.note("id_val", 0.75)
    curve = course.curve(8)
    assert curve.columns["term_hinge"] == [1.0, None, 0.5]
    assert curve.columns["term_new"] == [None, None, 4.0]
    assert curve.columns["learning_rate"] == [None, None, 0.1]
    assert curve.columns["id_val"] == [None, None, 0.75]
    assert curve.columns["images_per_second"] == [None] * 3


def test_what_led_to_a_divergence_is_kept(tmp_path: Path) -> None:
    method, model = make_method("full"), make_model()
    schedule = make_schedule(EXAMPLES, method.config)
    images, labels = make_examples()

    def batches(steps: range) -> Iterator[Batch]:
        for step in steps:
            yield Batch(images * (float("nan") if step == 3 else 1), labels)

    keeper = CurveKeeper(tmp_path / "m.parquet", schedule.batch_size)
    of = Trainer(model, method, schedule, batches, seed=0, on_course=keeper.take)
    with pytest.raises(RunFailedError, match="not finite at step 4"):
        of.run()
    losses = read(tmp_path / "m.parquet").columns["loss"]
    assert len(losses) == 4 and losses[3] != losses[3]
    assert len(of.done.losses) < 4  # a training goes on from what was saved


def test_a_curve_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    assert TrainingCurve.read(tmp_path / "none.parquet") is None
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"broken\.parquet: the curve cannot be read"):
        TrainingCurve.read(tmp_path / "broken.parquet")


def test_thinned_curves_are_means_of_equal_pieces() -> None:
    values = [1.0, 3.0, None, float("nan"), 5.0, 7.0, float("inf"), 100.0]
    assert thinned(range(8), values, 2) == [(1, 2.0), (7, pytest.approx(112 / 3))]
    assert thinned(range(8), values, 99) == [(0, 1.0), (1, 3.0), (4, 5.0), (5, 7.0), (7, 100.0)]
    assert thinned([], [], 5) == []
