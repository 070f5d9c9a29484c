"""The one training loop: any method, any number of workers, exact resume, no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.course import LOSS, Recent, Trained
from shiftbench.execution.memory import OUT_OF_MEMORY, Memory, moments_to_come
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.watching import DivergedError, Idle, Norms
from shiftbench.methods.base import Batch
from shiftbench.models.batch_norm import GlobalBatchNorm
from shiftbench.models.checkpoints import load_state, save_state
from shiftbench.models.precision import autocast, matrix_precision

if TYPE_CHECKING:
    from shiftbench.methods.base import TrainedMethod
    from shiftbench.methods.config import MethodConfig
    from shiftbench.models.classifier import ImageClassifier


T = TypeVar("T")


class _Terms(nn.Module):
    """The terms of a method's loss as a module, so that DDP sees one forward pass."""

    def __init__(self, method: TrainedMethod[MethodConfig], model: ImageClassifier) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The scalar loss of a batch, and the method's other terms, detached."""
        terms = self._method.loss(self.model, batch)
        return {key: term if key == LOSS else term.detach() for key, term in terms.items()}


class Trainer:
    """Trains ``model`` in place, from the last state saved in ``state_file`` if there is one.

    Every random draw comes from the seed and the step, so a resumed run equals an undisturbed one
    bit for bit. With several workers, ``torch.distributed`` must be initialised; gradients are
    averaged over them, so the result depends on their number only through rounding.

    Where the memory does not hold a step, less of it is held at a time (``execution.memory``). Of
    several workers that is found out before the first step, since they must all do the same.

    No step waits for a GPU: losses are fetched when a state is saved, and a gradient that is not
    finite is noticed some steps later.

    Args:
        model: on its device, already prepared by the method.
        method: gives the loss and the settings.
        schedule: of ``make_schedule``.
        batches: this worker's micro-batches of a range of steps, on the model's device; inputs as
            the method's ``loss`` wants them, ``batch_size / place.size / micro_batch`` a step.
            Called once, for all steps that are left.
        seed: of this run.
        place: this worker among those that share the run.
        state_file: where rank 0 saves, every ``schedule.save_every`` steps, what a resume needs.
        on_step: called with the number of steps done.
        on_save: called with the number of steps done before a state is saved, in eval mode.
        on_course: called with the course of the training before a state of it is saved, and once
            more where it diverges, with the steps that led to that.
        probe: a few examples; parameters that have no part in their loss are frozen. On a GPU,
            it is tried on as many as a step has whether they fit the memory.
        memory: what may be held at a time.

    Attributes:
        done: what was trained so far, up to the last saved state.
        unused: names of the parameters that the probe found to have no part in the loss.
        memory: what is held at a time.
    """

    def __init__(
        self,
        model: ImageClassifier,
        method: TrainedMethod[MethodConfig],
        schedule: Schedule,
        batches: Callable[[range], Iterator[Batch]],
        *,
        seed: int,
        place: WorkerPlace = WorkerPlace(),
        state_file: Path | None = None,
        on_step: Callable[[int], None] = lambda step: None,
        on_save: Callable[[int], None] = lambda step: None,
        on_course: Callable[[Trained], None] = lambda course: None,
        probe: Batch | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._model = model
        self._method = method
        self._schedule = schedule
        self._batches = batches
        self._seed = seed
        self._place = place
        self._state_file = state_file
        self._on_step = on_step
        self._on_save = on_save
        self._on_course = on_course
        self._parameters = method.parameters(model)
        if not self._parameters:
            raise RunFailedError(f"{method.name}: nothing of the model is left to train")
        self._optimizer = method.optimizer(self._parameters)
        model.frozen_statistics = method.training.batch_norm == "frozen"
        self.memory = Memory() if memory is None else memory
        self.done = self._resume()
        self.memory.apply(model)
        follow = not model.frozen_statistics and place.size > 1
        self._statistics = GlobalBatchNorm() if follow else nullcontext()
        self._device = self._parameters[0].device
        self._accumulate = schedule.batch_size // place.size // schedule.micro_batch
        self._seed_of_step = seed
        self._terms: nn.Module = _Terms(method, model)
        self.unused: tuple[str, ...] = ()
        if probe is not None:
            self.unused = self._fitting(partial(freeze_unused, model, method, probe))
            if self._device.type == "cuda" and model.frozen_statistics:
                self.find_room(probe)
        if place.size > 1:
            self._terms = DistributedDataParallel(
                self._terms,
                gradient_as_bucket_view=True,
                # Which no_sync would break.
                static_graph=self._accumulate == 1 and self.memory.micro_batch is None,
            )
        self._stream: Iterator[Batch] | None = None
        self._recent = Recent(place)
        self._norms = Norms()
        self._idle = Idle(self._device)

    def run(self, until: int | None = None) -> Trained:
        """Train up to a number of steps in all; ``None``: to the end.

        Raises:
            DivergedError: a loss or gradient is not finite.
        """
        begin = len(self.done.losses)
        end = self._schedule.steps if until is None else min(until, self._schedule.steps)
        if self._stream is None:
            self._stream = self._batches(range(begin, self._schedule.steps))
        started = time.monotonic()
        self._recent.clear()
        self._model.train()
        with matrix_precision(self._method.training.precision), self._divergence_told():
            for step in range(begin, end):
                self._step(step, self._stream)
                self._on_step(step + 1)
                if (step + 1) % self._schedule.save_every == 0 or step + 1 == end:
                    self._norms.look()
                    self._recent.add_to(self.done, self._norms.take())
                    self.done.images = len(self.done.losses) * self._schedule.batch_size
                    self.done.seconds += time.monotonic() - started
                    self.done.waited += self._idle.seconds()
                    self._model.eval()
                    self._on_save(step + 1)
                    self._on_course(self.done)
                    self._save()
                    self._model.train()
                    started = time.monotonic()
                    self._recent.clear()
        if end == self._schedule.steps:
            self._stream = None  # whatever reads ahead for it can stop
        self._model.eval()
        return self.done

    @contextmanager
    def _divergence_told(self) -> Iterator[None]:
        """Tell the course up to where the training diverged, which all workers see at once."""
        try:
            yield
        except DivergedError:
            course = deepcopy(self.done)
            self._recent.add_to(course, self._norms.take())
            self._on_course(course)
            raise

    def _step(self, step: int, stream: Iterator[Batch]) -> None:
        """One optimizer step."""
        config = self._method.training
        self._seed_of_step = _step_seed(self._seed, step, self._place.rank)
        _seed(self._seed_of_step, self._device)
        rate = self._schedule.learning_rate(step, config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with self._statistics:
            self._recent.terms.append(self._backward(stream))
        self._recent.rates.append(rate)
        self._method.before_step(self._model)
        self._norms.put(step, _clip(self._parameters, config.max_grad_norm))
        self._optimizer.step()
        self._clear_gradients()
        self._method.after_step(self._model, step + 1)
        self._idle.busy()
        self._recent.stepped()

    def _backward(self, stream: Iterator[Batch]) -> dict[str, Tensor]:
        """Accumulate the gradient of one step; this worker's mean of every term, detached, fp32."""
        parts: dict[str, list[Tensor]] = {}
        for part in range(self._accumulate):
            batch = self._idle.until(lambda: next(stream))
            gradient = partial(self._add_gradient, batch, part)
            for name, values in self._fitting(gradient, again=part == 0).items():
                parts.setdefault(name, []).extend(values)
            self._idle.busy()
        return {name: torch.stack(values).sum() for name, values in parts.items()}

    def _fitting(self, attempt: Callable[[], T], *, again: bool = True) -> T:
        """What ``attempt`` returns, with less of a step in memory if it runs out of that.

        Args:
            attempt: computes a loss, and perhaps its gradient.
            again: whether there is no other gradient yet, so that it can be cleared.
        """
        while True:
            try:
                return attempt()
            except torch.OutOfMemoryError as error:
                reason = str(error)
            # Not in the handler, where the error's traceback holds what is to be given back.
            share = self._schedule.batch_size // self._place.size
            together = isinstance(self._terms, DistributedDataParallel)  # all must do the same
            if together or not again or not self.memory.less(self._method, share):
                raise torch.OutOfMemoryError(f"{OUT_OF_MEMORY} ({reason})")
            self._clear_gradients()
            self.memory.apply(self._model)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()  # or what failed would count
            _seed(self._seed_of_step, self._device)

    def _add_gradient(self, batch: Batch, part: int) -> dict[str, list[Tensor]]:
        """Add a batch's part of a step's gradient; its parts of every term, detached, fp32."""
        pieces = self.memory.pieces(batch, self._method)
        parts: dict[str, list[Tensor]] = {}
        for i, piece in enumerate(pieces):
            last = part == self._accumulate - 1 and i == len(pieces) - 1
            local: AbstractContextManager[None] = nullcontext()
            if isinstance(self._terms, DistributedDataParallel) and not last:
                local = self._terms.no_sync()  # averaged over workers once, in the last pass
            with local:
                with autocast(self._method.training.precision, self._device):
                    of_piece = self._terms(piece).items()
                    share = self._accumulate * len(pieces)
                    terms = {name: term / share for name, term in of_piece}
                terms[LOSS].backward()
            for name, term in terms.items():
                parts.setdefault(name, []).append(term.detach().float())
        return parts

    def find_room(self, probe: Batch) -> None:
        """Try a step's forward and backward pass beside what the optimizer has yet to hold.

        All workers then hold what the one with the least room can.
        """
        share = self._schedule.batch_size // self._place.size // self._accumulate
        repeats = math.ceil(share / len(probe.labels))

        def repeated(values: Tensor) -> Tensor:
            return values.repeat(repeats, *[1] * (values.ndim - 1))[:share]

        captions = None if probe.captions is None else repeated(probe.captions)
        batch = Batch(repeated(probe.inputs), repeated(probe.labels), captions, probe.step)
        held = torch.empty(moments_to_come(self._optimizer), dtype=torch.uint8, device=self._device)
        self._model.train()
        with matrix_precision(self._method.training.precision):
            self._fitting(partial(self._add_gradient, batch, 0))
        self._model.eval()
        self._clear_gradients()
        del held
        if self._place.size > 1:
            found = (self.memory.micro_batch or share, self.memory.checkpointing != "on")
            least = torch.tensor(found, dtype=torch.int64, device=self._device)
            dist.all_reduce(least, dist.ReduceOp.MIN)
            micro_batch, kept = (int(value) for value in least)
            self.memory.micro_batch = micro_batch if micro_batch < share else None
            self.memory.checkpointing = self.memory.checkpointing if kept else "on"
            self.memory.apply(self._model)

    def _clear_gradients(self) -> None:
        # The optimizer's parameters may be others than the model's.
        for parameter in (*self._parameters, *self._model.parameters()):
            parameter.grad = None

    def _save(self) -> None:
        if self._state_file is None or self._place.rank > 0:
            return
        state = {
            "model": dict(self._model.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "method": self._method.state(),
            "done": asdict(self.done),
            "memory": self.memory.found(),
        }
        save_state(self._state_file, state)

    def _resume(self) -> Trained:
        if self._state_file is None or not self._state_file.exists():
            return Trained()
        state = load_state(self._state_file)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._method.restore(state["method"])
        self.memory.restore(state.get("memory", {}))
        return Trained(**state["done"])


def freeze_unused(
    model: ImageClassifier, method: TrainedMethod[MethodConfig], probe: Batch
) -> tuple[str, ...]:
    """Freeze the parameters that train but have no part in the loss; their names.

    They never get a gradient, so that no optimizer moves them, but workers that share a training
    would wait for it. An example is SigLIP's ``logit_bias`` under a contrastive loss without bias.

    Args:
        model: prepared by the method.
        method: whose loss is meant.
        probe: examples of which the loss is computed once, in eval mode.
    """
    training = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not training:
        return ()
    mode = model.training
    model.eval()
    # A method may keep what it computes here, so the precision is that of the training.
    precision, device = method.training.precision, next(iter(training.values())).device
    with matrix_precision(precision):
        with autocast(precision, device):
            loss = method.loss(model, probe)[LOSS]
        gradients = torch.autograd.grad(loss, list(training.values()), allow_unused=True)
    model.train(mode)
    unused = tuple(
        name for name, gradient in zip(training, gradients, strict=True) if gradient is None
    )
    for name in unused:
        training[name].requires_grad_(False)
    return unused


def _seed(seed: int, device: torch.device) -> None:
    """Seed what a device and the CPU draw from, as ``torch.manual_seed`` does for all devices.

    That one keeps a note of every call, with a traceback, for each kind of device not yet used.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_000_007 + step) * 65_537 + rank


def _clip(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Clip to a global norm in place; the norm before clipping."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit is not None:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm
