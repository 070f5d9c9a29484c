"""Each check finds the fault that it is for, and says what differs."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ConfigDict
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import Source
from shiftbench.evaluation.metrics.base import MeanMetric, Metric
from shiftbench.methods.base import DerivedMethod, EnsembleMethod, Method, Parent
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.testing import ContractError, check_metric
from shiftbench.testing.checks import demand, outcomes
from shiftbench.testing.methods import Subject, checks_of
from shiftbench.testing.metrics import CHECKS
from shiftbench.testing.sources import SOURCES, Placed

RESUMES = "goes on bit for bit after an interruption"
ACCUMULATES = "accumulates micro-batches"
PLAIN = "ends with the weights of a plain model"


class Good(Full):
    """Full fine-tuning."""

    name = "good"


class Undocumented(Full):
    name = "undocumented"


class OpenConfig(TrainingConfig):
    model_config = ConfigDict(extra="ignore")


class Open(Good):
    """Takes settings that there are not."""

    Config = OpenConfig


class Forgetful(Good):
    """Counts its steps, and forgets them when it is interrupted."""

    steps = 0

    def loss(self, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        loss = super().loss(model, batch)["loss"]
        return {"loss": loss * (1 + 0.1 * self.steps)}

    def after_step(self, model: Any, step: int) -> None:
        self.steps += 1


class Careless(Good):
    """Begins at a place that no seed says."""

    def prepare(self, model: Any, context: Any) -> None:
        with torch.no_grad():
            model.head.bias += torch.randn(3)


class Summing(Good):
    """Has a loss that grows with the batch."""

    def loss(self, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        return {"loss": super().loss(model, batch)["loss"] * len(batch.labels) / 12}


class Wrapped(Good):
    """Leaves what it added among its weights."""

    def weights(self, model: Any) -> dict[str, torch.Tensor]:
        return {**model.state_dict(), "adapter": torch.zeros(1)}


class Still(Good):
    """Trains nothing that is kept."""

    def weights(self, model: Any) -> dict[str, torch.Tensor]:
        from shiftbench.testing.toys import make_model

        return make_model().state_dict()


class Uphill(Good):
    """Climbs."""

    def loss(self, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        loss = super().loss(model, batch)["loss"]
        return {"loss": 2 * loss.detach() - loss}


class Random(Good):
    """Leaves features out at random."""

    def loss(self, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        features = torch.nn.functional.dropout(model.features(batch.inputs), 0.5, model.training)
        logits = model.classify(features)
        return {"loss": torch.nn.functional.cross_entropy(logits, batch.labels)}


class Crashing(Good):
    """Has a bug."""

    def loss(self, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        raise KeyError("no such layer")


class GrabbingConfig(MethodConfig):
    parent: str = "full"


class Grabbing(DerivedMethod[GrabbingConfig]):
    """Adds to the weights that it was given."""

    name = "grabbing"
    Config = GrabbingConfig

    def parents(self) -> tuple[Parent, ...]:
        return (Parent("full"),)

    def derive(self, variant: str, derivation: Any) -> Any:
        (weights,) = derivation.parents.values()
        weights["head.bias"] += 1
        return weights


class Centring(EnsembleMethod[GrabbingConfig]):
    """Takes the mean over examples away, which depends on who else is there."""

    name = "centring"
    Config = GrabbingConfig

    def parents(self) -> tuple[Parent, ...]:
        return (Parent("full"),)

    def combine(self, variant: str, members: Any, fitted: Any) -> Any:
        (outputs,) = members.parents.values()
        return outputs.logits - outputs.logits.mean(axis=0)


@pytest.mark.parametrize(
    ("kind", "checks", "difference"),
    [
        (Good, set(), ""),
        (Undocumented, {"has a docstring"}, "Undocumented has no docstring"),
        (Open, {"settings survive JSON and are closed"}, "unknown setting is accepted"),
        (Forgetful, {RESUMES}, "the loss is"),
        (Careless, {RESUMES, ACCUMULATES}, "step 1: the loss is"),
        (Summing, {ACCUMULATES}, "in micro-batches, "),
        (Wrapped, {PLAIN}, "other names than a plain model: adapter"),
        (Still, {PLAIN}, "all weights are what they were before"),
        (Uphill, {"lowers the loss"}, "the mean loss of 3 steps goes from"),
        (Random, set(), ""),
        (Grabbing, {"derives weights that fit the model"}, "head.bias differs by up to 1"),
        (Centring, {"gives logits example by example"}, "half of the examples"),
    ],
)
def test_each_fault_of_a_method_is_found(
    kind: type[Method[Any]], checks: set[str], difference: str
) -> None:
    subject = Subject.of(kind, {})
    found = [*outcomes("it", checks_of(subject), subject)]
    failed = [outcome for outcome in found if outcome.status == "failed"]
    if kind in (Wrapped, Still):  # what cannot be stored fails in more than one check
        failed = [outcome for outcome in failed if outcome.check == PLAIN]
    assert {outcome.check for outcome in failed} == checks
    assert all(difference in outcome.detail for outcome in failed[:1])
    skipped = {outcome.check for outcome in found if outcome.status == "skipped"}
    assert skipped == ({ACCUMULATES} if kind is Random else set())


def test_an_error_of_a_plugin_names_its_line_and_is_the_cause() -> None:
    subject = Subject.of(Crashing, {})
    with pytest.raises(ContractError) as caught:
        demand(outcomes("method crashing", checks_of(subject), subject))
    assert "method crashing: lowers the loss: KeyError: 'no such layer'" in str(caught.value)
    assert f"({Path(__file__).name}:" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_settings_that_it_does_not_take_are_one_line() -> None:
    with pytest.raises(InputError, match=r'good: unknown key "lrr" \(did you mean "lr"\?\)'):
        Subject.of(Good, {"lrr": 1})


# Metrics


class Share(MeanMetric):
    """The share of right answers."""

    name = title = "share"

    def per_example(self, examples: Any) -> Any:
        return examples.correct


class Large(Share):
    """A share in percent that says it is none."""

    def per_example(self, examples: Any) -> Any:
        return 100.0 * examples.correct


class Reversed(Share):
    """Ranks the wrong way round."""

    higher_is_better = False


class Greedy(Share):
    """Looks at what it does not say it needs."""

    def per_example(self, examples: Any) -> Any:
        return examples.confidence


class Serial(Share):
    """Counts examples by where they stand."""

    def per_example(self, examples: Any) -> Any:
        return examples.correct * np.linspace(0, 1, len(examples))


class Unweighted(Metric):
    """Does not look at the weights."""

    name = title = "unweighted"

    def values(self, examples: Any, weights: Any) -> Any:
        return np.full(len(weights), examples.correct.mean())


@pytest.mark.parametrize(
    ("metric", "check", "difference"),
    [
        (Share(), None, ""),
        (Large(), "has an interval around its value", "range, interval and value are"),
        (Reversed(), "ranks right over wrong", "1.0 where all is right, 0.0 where all is wrong"),
        (Greedy(), "says what it needs", "ValueError: class-only predictions have no confidence"),
        (Serial(), "does not depend on the order", "in another order"),
        (Unweighted(), "takes weights for repetitions", "by weights"),
    ],
)
def test_each_fault_of_a_metric_is_found(
    metric: Metric, check: str | None, difference: str
) -> None:
    found = [*outcomes("it", CHECKS, metric)]
    failed = {outcome.check: outcome.detail for outcome in found if outcome.status == "failed"}
    if check is None:
        assert failed == {}
        check_metric(metric)
    else:
        assert difference in failed[check]
        with pytest.raises(ContractError):
            check_metric(metric)


# Sources


class Squares:
    """Images of one colour each."""

    def __init__(self, n: int, mode: str = "RGB", ballast: int = 0) -> None:
        self.n, self.mode, self.ballast = n, mode, bytes(ballast)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Image.Image:
        return Image.new("RGB", (12, 12), (index, 0, 0)).convert(self.mode)


_CALLS = count()


class Drawn(Source):
    """Squares of two classes."""

    kind: Literal["drawn"] = "drawn"
    mode: str = "RGB"
    ballast: int = 0
    names: int = 2
    ids: Literal["fixed", "other", "double"] = "fixed"

    def read(self, root: str) -> ImageSet:
        step = 2 if self.ids == "double" else 1
        first = next(_CALLS) if self.ids == "other" else 0
        ids = np.array([str(first + i // step) for i in range(8)])
        labels = np.arange(8) % 2
        return ImageSet(ids, labels, Squares(8, self.mode, self.ballast), "fingerprint")

    def label_names(self, root: str) -> tuple[str, ...]:
        return ("odd", "even")[: self.names]


@pytest.mark.parametrize(
    ("settings", "check", "difference"),
    [
        ({}, None, ""),
        ({"mode": "L"}, "decodes to the same RGB images", "its mode is L, not RGB"),
        ({"ballast": 20_000}, "travels to other processes without pixels", "go to each process"),
        ({"names": 1}, "counts what there is", "a label 1, and label_names() has 1 names"),
        ({"ids": "other"}, "reads the same every time", "ids differ"),
        ({"ids": "double"}, "reads a well-formed set", "the same id twice"),
    ],
)
def test_each_fault_of_a_source_is_found(
    settings: dict[str, Any], check: str | None, difference: str, tmp_path: Path
) -> None:
    found = [*outcomes("it", SOURCES, Placed(Drawn(**settings), str(tmp_path)))]
    failed = {outcome.check: outcome.detail for outcome in found if outcome.status == "failed"}
    assert (failed == {}) if check is None else (difference in failed[check]), failed
