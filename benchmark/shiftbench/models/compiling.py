"""Compiled blocks of a tower, where compiling them takes less time than it saves.

A transformer repeats one block, so ``torch.compile`` is asked for the block and not for the tower:
it compiles once and all blocks share the result, in seconds instead of a minute, and what is around
the blocks stays as it is. Compiled or not, the same is computed up to rounding; in bf16 with fewer
roundings, because what is fused is kept in fp32 in between.
"""

from __future__ import annotations

import importlib.util
import shutil

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 15.0
"""What compiling a block forward and backward takes; measured on an H200's machine: 11 s."""
SAVED = 1.2e-15
"""Seconds that it saves for each floating-point operation on a GPU: of a ViT-B/16 in bf16 on an
H200, 65 of 200 ms of a training step of 512 images, 21 of 65 ms of their evaluation."""
VERSIONS = 64
"""Compiled versions of a block that a process keeps; PyTorch's own limit is 8."""
MOST_KINDS = 3
"""Blocks that differ in what is trained are compiled one by one; more kinds do not pay."""


def compile_blocks(model: nn.Module) -> int:
    """Compile the repeated blocks of a model in place, and normalisations around them.

    Returns how many blocks there are; without any, nothing is compiled. Weights, names and whatever
    else is done with the modules stay as they are; a copy of the model is not compiled.
    """
    blocks = repeated_blocks(model)
    # Of one block for every use of it: trained, evaluated, frozen in part, of another backbone.
    torch._dynamo.config.recompile_limit = max(VERSIONS, torch._dynamo.config.recompile_limit)
    inside = {module for block in blocks for module in block.modules()}
    around = [m for m in model.modules() if isinstance(m, nn.LayerNorm) and m not in inside]
    for module in (*blocks, *(around if blocks else ())):
        module.compile(dynamic=False)
    return len(blocks)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The modules of every sequence in the model that repeats one class with parts of its own."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module in inside or not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        parts = list(module)
        if len(parts) > 1 and len({type(part) for part in parts}) == 1 and any(parts[0].children()):
            found += parts
            inside.update(inner for part in parts for inner in part.modules())
    return found


def compiling_pays(model: nn.Module, operations: float) -> bool:
    """Whether compiling the model's blocks for a GPU saves more time than it takes.

    The time saved is in proportion to the arithmetic, as measured (``docs/performance.md``).

    Args:
        model: as it will be trained or evaluated, frozen parts included.
        operations: floating-point operations of all that will go through it.
    """
    kinds = {
        (type(block), tuple(p.requires_grad for p in block.parameters()))
        for block in repeated_blocks(model)
    }
    if not 0 < len(kinds) <= MOST_KINDS or not _can_compile():
        return False
    return operations * SAVED > len(kinds) * SECONDS


def forward_operations(tower: nn.Module, size: int) -> float:
    """Floating-point operations of a tower on one image of ``size`` pixels a side."""
    image = torch.zeros(1, 3, size, size, device=next(tower.parameters()).device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tower(image)
    return float(counter.get_total_flops())


def _can_compile() -> bool:
    """Whether what ``torch.compile`` needs on a GPU is installed: Triton, and a C compiler."""
    compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return compiler and importlib.util.find_spec("triton") is not None
