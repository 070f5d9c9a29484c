"""Workers that share a training: each has the whole model (DDP), or a part of it (FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.course import LOSS
from shiftbench.execution.group_rules import needs_whole_weights
from shiftbench.models.compiling import repeated_blocks

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from shiftbench.methods.base import Batch, TrainedMethod, Weights
    from shiftbench.methods.config import MethodConfig
    from shiftbench.models.classifier import ImageClassifier

_AT_ONCE = {"fused", "foreach"}
"""Settings of PyTorch's optimizers by which they update many parameters in one call."""


class Terms(nn.Module):
    """The terms of a method's loss as a module, so that its wrapper sees one forward pass."""

    def __init__(self, method: TrainedMethod[MethodConfig], model: ImageClassifier) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The scalar loss of a batch, and the method's other terms, detached."""
        terms = self.method.loss(self.model, batch)
        return {key: term if key == LOSS else term.detach() for key, term in terms.items()}


class Shards:
    """A model of which each worker holds a part: of parameters, gradients and moments (FSDP2).

    The parameters of a tower's repeated blocks are put together block by block, while a block is
    computed; all others during the whole of a step. Single numbers, such as the temperature, which
    FSDP2 does not take, each worker has whole. The model is changed in place, and most of its
    parameters are other objects.

    Args:
        terms: whose forward pass is that of a step; all workers have the same weights.
        parameters: of its model, that are trained.
        place: this worker.

    Attributes:
        parameters: this worker's parts of the same.

    Raises:
        RunFailedError: the method would look at whole weights.
    """

    def __init__(
        self, terms: Terms, parameters: Sequence[nn.Parameter], place: WorkerPlace
    ) -> None:
        if not terms.method.shardable:
            raise RunFailedError(needs_whole_weights(terms.method.name))
        self._terms, self._first = terms, place.rank == 0
        model = terms.model
        self._whole = _copy_on_cpu(model) if self._first else None
        name_of = {id(parameter): name for name, parameter in model.named_parameters()}
        names = [name_of[id(parameter)] for parameter in parameters]
        numbers = {parameter for parameter in model.parameters() if not parameter.ndim}
        mesh = init_device_mesh(parameters[0].device.type, (place.size,))
        for block in repeated_blocks(model):
            fully_shard(block, mesh=mesh, ignored_params=numbers)
        fully_shard(terms, mesh=mesh, ignored_params=numbers)
        parts = dict(model.named_parameters())
        self.parameters = [parts[name] for name in names]
        self._numbers = [parameter for parameter in self.parameters if not parameter.ndim]

    def average(self) -> None:
        """Average over workers what FSDP2 leaves alone of a gradient."""
        for number in self._numbers:
            if number.grad is not None:
                dist.all_reduce(number.grad)
                number.grad /= dist.get_world_size()

    def load(self, optimizer: Optimizer, state: dict[str, Any] | None) -> None:
        """Make an optimizer of these parameters ready, with a whole state of it if there is one."""
        if state is not None:
            optimizer.load_state_dict(self._part(state))
        # Parts and single numbers cannot be updated in one call.
        self._at_once = [
            {k: group[k] for k in _AT_ONCE & group.keys()} for group in optimizer.param_groups
        ]
        for group in optimizer.param_groups if self._numbers else ():
            group.update(dict.fromkeys(_AT_ONCE & group.keys(), False))

    def moments(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of an optimizer, as it would be without parts; see ``whole``."""
        state: dict[str, Any] = self.whole(optimizer.state_dict())
        for group, at_once in zip(state["param_groups"], self._at_once, strict=True):
            group.update(at_once)
        return state

    def whole(self, state: Any) -> Any:
        """A state dict with whole tensors on the CPU in place of parts, on the first worker alone.

        All workers must ask at once; the others get ``None`` in place of tensors.
        """
        if isinstance(state, Tensor):
            tensor = state.full_tensor() if isinstance(state, DTensor) else state
            return tensor.detach().cpu() if self._first else None
        if isinstance(state, dict):
            return {key: self.whole(value) for key, value in state.items()}
        if isinstance(state, list | tuple):
            return type(state)(self.whole(value) for value in state)
        return state

    def weights(self) -> Weights:
        """What the method makes of the weights, on the CPU of the first worker; see ``whole``."""
        state = self.whole(dict(self._terms.model.state_dict()))
        if self._whole is None:
            return {}
        self._whole.load_state_dict(state)
        return self._terms.method.weights(self._whole)

    def _part(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's whole state with this worker's parts of its tensors."""

        def cut(tensor: Any, like: nn.Parameter) -> Any:
            if not isinstance(like, DTensor) or getattr(tensor, "shape", None) != like.shape:
                return tensor
            there = tensor.to(like.device)
            return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)

        of_parameters = {
            index: {key: cut(value, self.parameters[index]) for key, value in values.items()}
            for index, values in state["state"].items()
        }
        return {**state, "state": of_parameters}


def clip(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Clip to a global norm in place; the norm before clipping, the same on every worker."""
    gradients = [p for p in parameters if p.grad is not None]
    parts = [p for p in gradients if isinstance(p, DTensor)]
    if not parts:
        plain = _norm(gradients)
        if limit is not None:
            nn.utils.clip_grads_with_norm_(parameters, limit, plain)
        return plain
    numbers = [p for p in gradients if not isinstance(p, DTensor)]
    both = torch.stack([_norm(parts), _norm(numbers).to(parts[0].device)])
    norm: Tensor = torch.linalg.vector_norm(both)
    if limit is not None:
        nn.utils.clip_grads_with_norm_(parts, limit, norm)
        nn.utils.clip_grads_with_norm_(numbers, limit, norm)
    return norm


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of their gradient; of parts, that of the wholes."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    whole: Tensor = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return whole


def _copy_on_cpu(model: ImageClassifier) -> ImageClassifier:
    """A copy that takes no memory of the model's device."""
    tensors = (*model.parameters(), *model.buffers())
    memo: dict[int, Any] = {}
    for tensor in tensors:
        moved = tensor.detach().to("cpu", copy=True)
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if parameter else moved
    return copy.deepcopy(model, memo)
