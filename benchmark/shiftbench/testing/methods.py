"""What must hold for every method, on a toy model and on the miniature world.

The toy has the layers of open_clip's towers and a training takes milliseconds. Its attention has no
biases: the gradient of a key's bias is nothing but rounding, which Adam would blow up.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from shiftbench.core.document import Place, tree
from shiftbench.core.validation import validate
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.course import Trained
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import (
    DerivedMethod,
    EnsembleMethod,
    Method,
    TrainedMethod,
)
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.members import Labelled
from shiftbench.models.checkpoints import load, save
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import apply_sparse_delta, sparse_delta
from shiftbench.suite.file import Sharding
from shiftbench.testing import toys
from shiftbench.testing.checks import Check, NotCheckedError, require
from shiftbench.testing.weights import require_close, require_equal

TRAINING: Mapping[str, Any] = {"lr": 1e-2, "epochs": 4, "batch_size": 12, "warmup_steps": 2}
"""Settings of a training of the toy, where nothing else is said: 10 steps."""

_CALLS = count()


@dataclass(frozen=True)
class Subject:
    """A method with settings, of which each check makes a new one.

    Attributes:
        kind: the method's class.
        config: its settings.
    """

    kind: type[Method[MethodConfig]]
    config: MethodConfig

    @classmethod
    def of(cls, kind: type[Method[MethodConfig]], settings: Mapping[str, Any]) -> Subject:
        """A method with some settings, and the others such that the toy is soon trained.

        Raises:
            InputError: they are none that the method takes; one line with key and what is accepted.
        """
        usual = {
            name: value for name, value in TRAINING.items() if name in kind.Config.model_fields
        }
        node = tree({**usual, **settings}, Place(kind.name, None, Path()))
        return cls(kind, validate(kind.Config, node))

    def create(self) -> Method[MethodConfig]:
        """The method."""
        return self.kind(self.config)

    def trained(self) -> TrainedMethod[TrainingConfig]:
        """The method, which trains.

        Raises:
            NotCheckedError: it has to search for its settings first.
        """
        method = self.create()
        if not isinstance(method, TrainedMethod):
            raise TypeError(f"{method.name} does not train")
        if method.search() is not None:
            raise NotCheckedError("it searches for its settings; give some with which it does not")
        return method


class StoppedError(Exception):
    """A training was interrupted on purpose."""


def fit(
    subject: Subject,
    place: WorkerPlace = WorkerPlace(),
    state_file: Path | None = None,
    stop_after: int | None = None,
    micro_batch: int | None = None,
) -> tuple[ImageClassifier, Trained, TrainedMethod[TrainingConfig]]:
    """Train the toy with a method, in this process.

    Raises:
        StoppedError: after ``stop_after`` steps.
    """
    model, trainer, method = ready(subject, place, state_file, stop_after, micro_batch)
    return model, trainer.run(), method


def ready(
    subject: Subject,
    place: WorkerPlace = WorkerPlace(),
    state_file: Path | None = None,
    stop_after: int | None = None,
    micro_batch: int | None = None,
    sharding: Sharding = "ddp",
) -> tuple[ImageClassifier, Trainer, TrainedMethod[TrainingConfig]]:
    """The toy, what trains it with a method, and that method."""
    method = subject.trained()
    model = toys.make_model(architecture=method.architecture())
    start = copy.deepcopy(model)
    torch.manual_seed(next(_CALLS))  # what a method draws, it draws from seeds that it is given
    method.ready(model, toys.make_context(method, model, place))
    if method.whole_batch:
        model.chunk, micro_batch = micro_batch, None
    schedule = make_schedule(toys.EXAMPLES, method.training, place.size, micro_batch)
    batches = toys.make_batches(method, start, schedule, place)

    def interrupt(step: int) -> None:
        if step == stop_after:
            raise StoppedError

    trainer = Trainer(
        model,
        method,
        replace(schedule, save_every=2),
        batches,
        seed=3,
        place=place,
        state_file=state_file,
        on_step=interrupt,
        sharding=sharding,
    )
    return model, trainer, method


def final(model: ImageClassifier, method: TrainedMethod[TrainingConfig]) -> dict[str, Tensor]:
    """The weights that a training ended with."""
    return {name: tensor.detach() for name, tensor in method.weights(model).items()}


# Every method


def has_a_docstring(subject: Subject) -> None:
    """Its class says in a line what it is, which ``shiftbench list`` shows."""
    first = (subject.kind.__doc__ or "").strip().partition("\n")[0]
    require(first != "", f"{subject.kind.__name__} has no docstring")


def settings_survive_json(subject: Subject) -> None:
    """Settings are JSON, read back equal, and closed."""
    config, fields = subject.config, type(subject.config).model_fields
    text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
    again = type(config).model_validate_json(text, strict=True)
    for name in fields:
        one, two = getattr(config, name), getattr(again, name)
        require(one == two, f"{name}: {one!r} is read back as {two!r}")
    unknown = "no-such-setting"
    try:
        type(config).model_validate_json(json.dumps({**json.loads(text), unknown: 1}))
    except ValidationError:
        return
    require(False, "an unknown setting is accepted; keep MethodConfig's model_config")


def says_what_it_yields(subject: Subject) -> None:
    """One kind, variants that differ, and a fixed one among them."""
    method = subject.create()
    kinds = [kind for kind in (TrainedMethod, DerivedMethod, EnsembleMethod)
             if isinstance(method, kind)]  # fmt: skip
    require(len(kinds) == 1, f"it is of {len(kinds)} kinds: {[kind.__name__ for kind in kinds]}")
    variants, parents = method.variants(), method.parents()
    fixed = method.fixed_variant()
    require(fixed in variants, f"fixed_variant() {fixed!r} is not among variants() {variants}")
    require(len(set(variants)) == len(variants), f"variants() are the same twice: {variants}")
    require(len(set(parents)) == len(parents), f"parents() are the same twice: {parents}")
    if isinstance(method, TrainedMethod):
        require(method.kept, "kept is False, but its weights cannot be computed again")
    if isinstance(method, TrainedMethod) or (isinstance(method, DerivedMethod) and method.kept):
        require(len(variants) == 1, f"its weights are kept, but it has the variants {variants}")


# Trained ones


def lowers_the_loss(subject: Subject) -> None:
    """At its learning rate, or one ten times as high or as low."""
    config = subject.trained().training
    found = []
    for factor in (1, 10, 0.1):
        lr = config.lr * factor
        at = config if factor == 1 else config.model_copy(update={"lr": lr})
        losses = fit(replace(subject, config=at))[1].losses
        first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
        if last < 0.95 * first:
            return
        found.append(f"from {first:.4g} to {last:.4g} at lr {lr:g}")
    require(False, f"the mean loss of 3 steps goes {', '.join(found)}; give it another lr")


def ends_with_a_plain_model(subject: Subject) -> None:
    """What ``weights`` gives has the names of a plain model, and is not where it began."""
    model, _, method = fit(subject)
    plain = toys.make_model(architecture=method.architecture()).state_dict()
    weights = method.weights(model)
    odd = sorted(weights.keys() ^ plain.keys())
    require(not odd, f"weights() has other names than a plain model: {', '.join(odd[:3])}")
    for name, tensor in plain.items():
        found = weights[name]
        require(found.shape == tensor.shape, f"{name} has the shape {tuple(found.shape)}")
        require(found.dtype == tensor.dtype, f"{name} is {found.dtype}, not {tensor.dtype}")
        require(bool(found.isfinite().all()), f"{name} is not finite")
    moved = any(not torch.equal(plain[name], tensor) for name, tensor in weights.items())
    require(moved, "after the training all weights are what they were before")


def keeps_plain_weights(subject: Subject) -> None:
    """Stored as safetensors, whole or as what changed, they are the same when read."""
    model, _, method = fit(subject)
    weights = final(model, method)
    start = toys.make_model(architecture=method.architecture()).state_dict()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save(file, sparse_delta(start, weights), {})
        require_equal(apply_sparse_delta(start, load(file)[0]), weights, "stored as changes")
        save(file, weights, {})
        require_equal(load(file)[0], weights, "stored whole")


def resumes_bit_for_bit(subject: Subject) -> None:
    """A training that was interrupted ends as one that was not."""
    undisturbed, expected, method = fit(subject)
    with TemporaryDirectory() as folder:
        state = Path(folder) / "state.safetensors"
        with suppress(StoppedError):
            fit(subject, state_file=state, stop_after=5)
        resumed, trained, again = fit(subject, state_file=state)
    for step, (one, two) in enumerate(zip(expected.losses, trained.losses, strict=True), 1):
        require(one == two, f"step {step}: the loss is {two!r} after a resume, {one!r} without")
    require(trained.terms == expected.terms, "another term than the loss differs after a resume")
    require_equal(final(resumed, again), final(undisturbed, method), "after a resume")


def accumulates(subject: Subject) -> None:
    """Gradients of micro-batches add up to that of the whole batch."""
    refuse_random(subject)
    whole, trained, method = fit(subject)
    pieces, again, other = fit(subject, micro_batch=4)
    for step, (one, two) in enumerate(zip(trained.losses, again.losses, strict=True), 1):
        close = math.isclose(one, two, rel_tol=1e-4)
        require(close, f"step {step}: the loss is {two:.7g} in micro-batches, {one:.7g} without")
    require_close(
        final(pieces, other), final(whole, method), "in micro-batches", rtol=1e-4, atol=1e-6
    )


# Derived ones and ensembles


def derives_weights_of_the_model(subject: Subject) -> None:
    """Of every variant: the model's names and formats, twice the same, the parents left alone."""
    method = subject.create()
    if not isinstance(method, DerivedMethod):
        raise TypeError(f"{method.name} derives nothing")
    weights = toys.make_model().state_dict()
    parents = {p: toys.make_model(5 + i).state_dict() for i, p in enumerate(method.parents())}
    given = copy.deepcopy((weights, parents))
    for variant in method.variants():
        derived = method.derive(variant, toys.make_derivation(weights, parents))
        odd = sorted(derived.keys() ^ weights.keys())
        require(not odd, f"variant {variant!r} has other names: {', '.join(odd[:3])}")
        for name, tensor in weights.items():
            found = derived[name]
            same = found.shape == tensor.shape and found.dtype == tensor.dtype
            require(same, f"variant {variant!r}: {name} is {found.dtype} {tuple(found.shape)}")
        again = subject.create()
        if isinstance(again, DerivedMethod):
            derivation = toys.make_derivation(*copy.deepcopy(given))
            require_equal(
                again.derive(variant, derivation), derived, f"variant {variant!r}, derived again"
            )
    require_equal(weights, given[0], "the pretrained weights, which derive was given")
    for parent, of in parents.items():
        require_equal(of, given[1][parent], f"the parent {parent.label}, which derive was given")


def combines_example_by_example(subject: Subject) -> None:
    """Finite fp32 logits of every example, the same whatever other examples are there.

    Of a transductive method: whatever the order of the others.
    """
    method = subject.create()
    if not isinstance(method, EnsembleMethod):
        raise TypeError(f"{method.name} combines nothing")
    zero_shot = toys.make_model()
    parents = {parent: toys.make_model(5 + i) for i, parent in enumerate(method.parents())}
    members = toys.make_members(zero_shot, parents)
    labels = toys.make_examples()[1].numpy()
    fitted = method.fit(*[lambda: Labelled(members, labels)] * 2)
    kept = "True" if method.kept else "False"
    require(bool(fitted) == method.kept, f"kept is {kept}, and fit gives {[*fitted]}")
    rows = np.arange(toys.EXAMPLES)[::-1].copy()
    where = "in another order"
    if not method.transductive:
        rows, where = rows[: toys.EXAMPLES // 2], "where half of the examples are there"
    others = toys.make_members(zero_shot, parents, rows)
    for variant in method.variants():
        logits = method.combine(variant, members, fitted)
        shape = members.zero_shot.logits.shape
        require(logits.shape == shape, f"variant {variant!r}: logits {logits.shape}, not {shape}")
        require(logits.dtype == np.float32, f"variant {variant!r}: logits are {logits.dtype}")
        require(np.isfinite(logits).all(), f"variant {variant!r}: logits are not finite")
        part = method.combine(variant, others, fitted)
        close = np.allclose(part, logits[rows], rtol=1e-4, atol=1e-5)
        require(close, f"variant {variant!r}: other logits {where}")


# Comparisons


def draws_at_random(subject: Subject) -> bool:
    """True if the loss of the same batch depends on the state of torch's random generator."""
    method = subject.trained()
    model = toys.make_model(architecture=method.architecture())
    method.ready(model, toys.make_context(method, model))
    model.train()
    batch = toys.make_batch(model if method.inputs == "features" else None)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(method.loss(model, batch)["loss"].item())
    return found[0] != found[1]


def refuse_random(subject: Subject) -> None:
    """Let a check that compares sums of other parts of a batch say nothing of random losses.

    Raises:
        NotCheckedError: the loss draws at random.
    """
    if draws_at_random(subject):
        raise NotCheckedError("its loss draws at random, each worker and micro-batch for itself")


COMMON: Mapping[str, Check[Subject]] = {
    "has a docstring": has_a_docstring,
    "settings survive JSON and are closed": settings_survive_json,
    "says what it yields": says_what_it_yields,
}
TRAINED: Mapping[str, Check[Subject]] = {
    "lowers the loss": lowers_the_loss,
    "ends with the weights of a plain model": ends_with_a_plain_model,
    "keeps plain weights, which reload exactly": keeps_plain_weights,
    "goes on bit for bit after an interruption": resumes_bit_for_bit,
    "accumulates micro-batches": accumulates,
}
DERIVED: Mapping[str, Check[Subject]] = {
    "derives weights that fit the model": derives_weights_of_the_model,
}
ENSEMBLES: Mapping[str, Check[Subject]] = {
    "gives logits example by example": combines_example_by_example,
}


def checks_of(subject: Subject) -> Mapping[str, Check[Subject]]:
    """The checks of this process alone that are for a method of its kind."""
    method = subject.create()
    if isinstance(method, TrainedMethod):
        return {**COMMON, **TRAINED}
    return {**COMMON, **(DERIVED if isinstance(method, DerivedMethod) else ENSEMBLES)}
