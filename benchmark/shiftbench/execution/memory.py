"""How much of a step is in memory at a time: all of it, or less where that is too much.

The outcome is the same up to rounding. A loss that is a mean over examples is computed on equal
pieces of a batch, whose gradients add up; one that must see all examples at once encodes them a
piece at a time and computes activations again. Where few examples are left, the towers' blocks are
checkpointed too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shiftbench.methods.base import Batch
from shiftbench.models.recomputing import recompute_blocks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from shiftbench.methods.base import TrainedMethod
    from shiftbench.methods.config import MethodConfig
    from shiftbench.models.classifier import ImageClassifier

OUT_OF_MEMORY = (
    "a step does not fit the memory: set resources.micro_batch lower, more resources.workers, "
    "resources.activation_checkpointing: on, or share the weights by resources.sharding: fsdp2"
)
FEW = 8
"""Examples of which fewer than half keep a GPU busy: from there on, checkpointing costs less."""

Checkpointing = Literal["auto", "on", "off"]


@dataclass
class Memory:
    """What a worker holds of its share of a step.

    Attributes:
        checkpointing: whether blocks may be checkpointed (``auto``), are (``on``), or not.
        given: whether the suite says how many examples are held, so that it is not to be found.
        micro_batch: examples held at a time, where that was found; ``None``: as the schedule says.
    """

    checkpointing: Checkpointing = "auto"
    given: bool = False
    micro_batch: int | None = None

    def apply(self, model: ImageClassifier) -> None:
        """Have a model's towers hold so much; whoever computes a loss asks for ``pieces``."""
        if self.micro_batch is not None:
            model.chunk = self.micro_batch
        if self.checkpointing == "on":
            recompute_blocks(model)

    def pieces(self, batch: Batch, method: TrainedMethod[MethodConfig]) -> list[Batch]:
        """A batch in equal parts, one after the other; in one where the loss must see it whole."""
        n = len(batch.labels)
        if self.micro_batch is None or self.micro_batch >= n or method.whole_batch:
            return [batch]
        size = _largest_divisor(n, self.micro_batch)  # found, perhaps, for batches of another size
        parts = [slice(start, start + size) for start in range(0, n, size)]
        return [
            Batch(
                batch.inputs[part],
                batch.labels[part],
                None if batch.captions is None else batch.captions[part],
                batch.step,
            )
            for part in parts
        ]

    def less(self, method: TrainedMethod[MethodConfig], share: int) -> bool:
        """Hold less; false if there is nothing left to do.

        Args:
            method: that trains. While batch norm follows a batch, it must not be cut or recomputed.
            share: examples of a step that a worker has.
        """
        if method.training.batch_norm == "train":
            return False
        held = min(self.micro_batch or share, share)
        smaller = None if self.given or held == 1 else _largest_divisor(share, held // 2)
        if smaller is not None and held > FEW:
            self.micro_batch = smaller
        elif self.checkpointing == "auto":
            self.checkpointing = "on"
        elif smaller is not None:
            self.micro_batch = smaller
        else:
            return False
        return True

    def found(self) -> dict[str, Any]:
        """What a resumed training has to hold, to cut its steps as before."""
        return {"micro_batch": self.micro_batch, "checkpointing": self.checkpointing}

    def restore(self, found: Mapping[str, Any]) -> None:
        """Hold what ``found`` says, as far as the suite leaves that open."""
        if not self.given:
            self.micro_batch = found.get("micro_batch", self.micro_batch)
        if self.checkpointing == "auto":
            self.checkpointing = found.get("checkpointing", self.checkpointing)

    def details(self) -> dict[str, Any]:
        """What was found or asked for, to be recorded with the run."""
        found: dict[str, Any] = {}
        if self.micro_batch is not None:
            found["micro_batch"] = self.micro_batch
        if self.checkpointing == "on":
            found["activation_checkpointing"] = True
        return found


def moments_to_come(optimizer: Optimizer) -> int:
    """Bytes that AdamW will take at its first step; what a resumed one holds is there already."""
    parameters: Iterator[Tensor] = (p for group in optimizer.param_groups for p in group["params"])
    trained = (p for p in parameters if p.requires_grad and p not in optimizer.state)
    return 2 * sum(p.numel() * p.element_size() for p in trained)


def _largest_divisor(n: int, most: int) -> int:
    """The largest divisor of ``n`` that is at most ``most``."""
    return next(size for size in range(most, 0, -1) if n % size == 0)
