"""The one training loop: any method, any number of workers, exact resume, no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shiftbench.core import notices
from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.course import LOSS, Recent, Trained
from shiftbench.execution.memory import OUT_OF_MEMORY, Memory, moments_to_come
from shiftbench.execution.saving import Saving
from shiftbench.execution.schedule import Schedule
from shiftbench.execution.together import Shards, Terms, clip
from shiftbench.execution.unused import freeze_unused
from shiftbench.execution.watching import DivergedError, Idle, Norms, all_agree
from shiftbench.methods.base import Batch
from shiftbench.models.batch_norm import GlobalBatchNorm
from shiftbench.models.checkpoints import load_state, save_state
from shiftbench.models.precision import autocast, matrix_precision

if TYPE_CHECKING:
    from shiftbench.methods.base import TrainedMethod, Weights
    from shiftbench.methods.config import MethodConfig
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.suite.file import Sharding


T = TypeVar("T")


class Trainer:
    """Trains ``model`` in place, from the last state saved in ``state_file`` if there is one.

    Every random draw comes from the seed and the step, so a resumed run equals an undisturbed one
    bit for bit. With several workers, ``torch.distributed`` must be initialised; gradients are
    averaged over them, so the result depends on their number only through rounding. With the
    sharding ``fsdp2`` each of them holds a part of weights, gradients and moments; what is saved
    is whole, so that it does not matter who goes on with it.

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
        state_file: where rank 0 saves what a resume needs: at the end, and whenever ``saving``
            says so, which is asked after every step.
        on_step: called with the number of steps done.
        on_epoch: called with the number of steps done every ``schedule.save_every`` steps and at
            the end, in eval mode, before a state is saved.
        on_save: called before any state is saved.
        on_course: called with the course of the training before a state of it is saved, and once
            more where it diverges, with the steps that led to that.
        probe: a few examples; parameters that have no part in their loss are frozen. On a GPU,
            it is tried on as many as a step has whether they fit the memory.
        memory: what may be held at a time.
        sharding: whether workers that share the training hold all of the model or a part of it.
        saving: says when a state is saved; ``None``: every ``schedule.save_every`` steps.

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
        on_epoch: Callable[[int], None] = lambda step: None,
        on_save: Callable[[], None] = lambda: None,
        on_course: Callable[[Trained], None] = lambda course: None,
        probe: Batch | None = None,
        memory: Memory | None = None,
        sharding: Sharding = "ddp",
        saving: Saving | None = None,
    ) -> None:
        self._model = model
        self._method = method
        self._schedule = schedule
        self._batches = batches
        self._seed = seed
        self._place = place
        self._state_file = state_file
        self._saving = saving
        self._on_step = on_step
        self._on_epoch = on_epoch
        self._on_save = on_save
        self._on_course = on_course
        self._parameters = method.parameters(model)
        if not self._parameters:
            raise RunFailedError(f"{method.name}: nothing of the model is left to train")
        self._device = self._parameters[0].device
        model.frozen_statistics = method.training.batch_norm == "frozen"
        self.memory = Memory() if memory is None else memory
        state = self._restore()
        self.memory.apply(model)
        follow = not model.frozen_statistics and place.size > 1
        self._statistics = GlobalBatchNorm() if follow else nullcontext()
        self._accumulate = schedule.batch_size // place.size // schedule.micro_batch
        self._seed_of_step = seed
        self._terms: nn.Module = Terms(method, model)
        self._together = False  # whether workers wait for each other in the pass of a step
        self.unused: tuple[str, ...] = ()
        if probe is not None:
            self.unused = self._fitting(partial(freeze_unused, model, method, probe))
        self._shards: Shards | None = None
        if place.size > 1 and sharding == "fsdp2":
            self._shards = Shards(self._terms, self._parameters, place)
            self._parameters = self._shards.parameters
            self._together = True
        self._optimizer = method.optimizer(self._parameters)
        if self._shards is not None:
            self._shards.load(self._optimizer, state)
        elif state is not None:
            self._optimizer.load_state_dict(state)
        searched = self._device.type == "cuda" and model.frozen_statistics
        if probe is not None and searched and self._shards is None:
            self.find_room(probe)
        if place.size > 1 and self._shards is None:
            self._terms = DistributedDataParallel(
                self._terms,
                gradient_as_bucket_view=True,
                # Which no_sync would break.
                static_graph=self._accumulate == 1 and self.memory.micro_batch is None,
            )
            self._together = True
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
        if self._saving is not None:
            self._saving.begin(begin)
        self._model.train()
        with (
            matrix_precision(self._method.training.precision),
            self._divergence_told(),
            notices.listening() if self._saving else nullcontext(),
        ):
            for step in range(begin, end):
                self._step(step, self._stream)
                self._on_step(step + 1)
                ends = step + 1 == end
                over = (step + 1) % self._schedule.save_every == 0 or ends
                due = over if self._saving is None else self._saving.due(step + 1, over)
                if over or due:
                    self._norms.look()
                    self._recent.add_to(self.done, self._norms.take())
                    self.done.images = len(self.done.losses) * self._schedule.batch_size
                    self.done.seconds += time.monotonic() - started
                    self.done.waited += self._idle.seconds()
                    self._model.eval()
                    if over:
                        self._on_epoch(step + 1)
                    if due or ends:
                        self._on_save()
                        self._on_course(self.done)
                        self._save()
                    self._model.train()
                    started = time.monotonic()
                    self._recent.clear()
        if end == self._schedule.steps:
            self._stream = None  # whatever reads ahead for it can stop
        self._model.eval()
        return self.done

    def weights(self) -> Weights:
        """What the method makes of the weights as they are; whole, on the first worker alone.

        All workers must ask at once.
        """
        if self._shards is not None:
            return self._shards.weights()
        return self._method.weights(self._model) if self._place.rank == 0 else {}

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
        if self._shards is not None:
            self._shards.average()
        self._method.before_step(self._model)
        self._norms.put(step, clip(self._parameters, config.max_grad_norm))
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
            if self._together or not again or not self.memory.less(self._method, share):
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
        if self._state_file is None:
            return
        started = time.monotonic()
        weights = dict(self._model.state_dict())
        if self._shards is None:
            moments = self._optimizer.state_dict()
        else:
            weights, moments = self._shards.whole(weights), self._shards.moments(self._optimizer)
        state = {
            "model": weights,
            "optimizer": moments,
            "method": self._method.state(),
            "done": asdict(self.done),
            "memory": self.memory.found(),
            "workers": self._place.size,
        }

        def write(file: Path = self._state_file) -> None:
            if self._place.rank == 0:
                save_state(file, state)

        all_agree(write, self._place.size, self._device)
        if self._saving is not None:
            last = len(self.done.losses) == self._schedule.steps
            self._saving.saved(time.monotonic() - started, last)

    def _restore(self) -> dict[str, Any] | None:
        """Go on from the saved state, if there is one; the optimizer's part of it."""
        self.done = Trained()
        if self._state_file is None or not self._state_file.exists():
            return None
        state = load_state(self._state_file)
        self._model.load_state_dict(state["model"])
        self._method.restore(state["method"])
        self.memory.restore(state.get("memory", {}))
        self.done = Trained(**state["done"])
        share = state.get("workers", self._place.size) / self._place.size
        self.done.seconds *= share
        self.done.waited *= share
        moments: dict[str, Any] = state["optimizer"]
        return moments


def _seed(seed: int, device: torch.device) -> None:
    """Seed what a device and the CPU draw from, as ``torch.manual_seed`` does for all devices.

    That one keeps a note of every call, with a traceback, for each kind of device not yet used.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step on a worker: of 64 bits, as many as a generator takes."""
    return ((seed * 1_000_000_007 + step) * 65_537 + rank) % 2**64
