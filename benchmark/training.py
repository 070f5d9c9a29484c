"""The one training loop: any method, any number of workers, exact resume, no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmark.data.batches import World
from benchmark.errors import RunFailedError
from benchmark.models.checkpoints import load_state, save_state
from benchmark.schedule import Schedule, learning_rate

if TYPE_CHECKING:
    from benchmark.methods.base import Method, TrainingConfig
    from benchmark.models.classifier import ImageClassifier

Batch = tuple[Tensor, Tensor]


@dataclass
class Trained:
    """What a training run did.

    Attributes:
        losses: mean loss over the global batch, of every step.
        images: examples seen, repetitions included.
        seconds: wall time in the loop, interrupted attempts included up to their last saved state.
    """

    losses: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0


class Objective(nn.Module):
    """A method's loss as a module, so that DDP sees one forward pass."""

    def __init__(self, method: Method[TrainingConfig], model: ImageClassifier) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss of a batch."""
        return self._method.loss(self.model, inputs, labels)["loss"]


def train(
    model: ImageClassifier,
    method: Method[TrainingConfig],
    schedule: Schedule,
    batches: Callable[[range], Iterator[Batch]],
    *,
    seed: int,
    world: World = World(),
    state_file: Path | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Trained:
    """Train ``model`` in place, from the last state saved in ``state_file`` if there is one.

    Every random draw comes from the seed and the step, so a resumed run equals an undisturbed one
    bit for bit. With several workers, ``torch.distributed`` must be initialised; gradients are
    averaged over them, so the result depends on their number only through rounding.

    Args:
        model: on its device, already prepared by the method.
        method: gives the loss and the settings.
        schedule: of ``make_schedule``.
        batches: this worker's micro-batches of a range of steps, on the model's device; inputs as
            the method's ``loss`` wants them, ``batch_size / world.size / micro_batch`` a step.
        seed: of this run.
        world: this worker among those that share the run.
        state_file: where rank 0 saves, every ``schedule.save_every`` steps, what a resume needs.
        on_step: called with the number of steps done.

    Raises:
        RunFailedError: when a loss or gradient is not finite.
    """
    config = method.config
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    done = _resume(state_file, model, optimizer)
    objective: nn.Module = Objective(method, model)
    if world.size > 1:
        objective = DistributedDataParallel(objective)
    device = parameters[0].device
    accumulate = schedule.batch_size // world.size // schedule.micro_batch
    steps = range(len(done.losses), schedule.steps)
    pending: list[Tensor] = []
    started = time.monotonic()

    stream = batches(steps)
    model.train()
    for step in steps:
        torch.manual_seed(_step_seed(seed, step, world.rank))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, schedule.steps, config.lr, config.warmup_steps)
        pending.append(_backward(objective, stream, accumulate, device.type, config.precision))
        norm = _clip(parameters, config.clip)
        saving = (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps
        # Looking at a value on a GPU waits for it, so there not at every step.
        looking = saving or device.type == "cpu" or step % 50 == 0
        if looking and not torch.isfinite(norm):
            raise RunFailedError(f"the loss or its gradient is not finite at step {step + 1}")
        optimizer.step()
        optimizer.zero_grad()
        on_step(step + 1)

        if saving:
            done.losses += _mean_over_workers(pending, world)
            done.images = len(done.losses) * schedule.batch_size
            done.seconds += time.monotonic() - started
            pending, started = [], time.monotonic()
            if state_file is not None and world.rank == 0:
                _save(state_file, model, optimizer, done)
    model.eval()
    return done


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_000_007 + step) * 65_537 + rank


def _backward(
    objective: nn.Module, stream: Iterator[Batch], accumulate: int, device: str, precision: str
) -> Tensor:
    """Accumulate the gradient of one step; this worker's mean loss, detached."""
    losses: list[Tensor] = []
    for part in range(accumulate):
        inputs, labels = next(stream)
        local: AbstractContextManager[None] = nullcontext()
        if isinstance(objective, DistributedDataParallel) and part < accumulate - 1:
            local = objective.no_sync()  # averaged over workers once, in the last backward pass
        with local:
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                loss = objective(inputs, labels) / accumulate
            loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _clip(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Clip to a global norm in place; the norm before clipping."""
    return nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)


def _mean_over_workers(losses: list[Tensor], world: World) -> list[float]:
    stacked = torch.stack(losses)
    if world.size > 1:
        dist.all_reduce(stacked)
        stacked /= world.size
    return [float(loss) for loss in stacked]


def _save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, done: Trained) -> None:
    state = {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "done": asdict(done),
    }
    save_state(file, state)


def _resume(file: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> Trained:
    if file is None or not file.exists():
        return Trained()
    state = load_state(file)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Trained(**state["done"])
