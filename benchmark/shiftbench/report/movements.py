"""Distances of trained weights from the pretrained ones, and the layers that masks are in."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from shiftbench.leaderboard.schema import Row
from shiftbench.report.ranking import grouped
from shiftbench.report.runs import asked

TOP = 3
"""Layers that a movement names."""
LAST = ("ln_post", "ln_final", "proj", "text_projection")
"""Modules of a tower that come after its blocks."""


@dataclass(frozen=True)
class Movement:
    """The distance of a method from the pretrained weights.

    Attributes:
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        distance: mean over seeds of ‖θ - θ0‖₂.
        selected: scalars that trained, where a mask says which; ``None`` where all did.
        candidates: scalars that it chose from.
        layers: the layers with the largest share of the mask, each with its share of all that was
            selected, mean over seeds.
    """

    task: str
    backbone: str
    shots: int | None
    label: str
    distance: float
    selected: int | None
    candidates: int | None
    layers: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class LayerShare:
    """The part of a mask that is in one layer.

    Attributes:
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        layer: of ``layer_of``.
        share: of all that was selected, mean over seeds.
        density: of the layer's own scalars, mean over seeds.
    """

    task: str
    backbone: str
    shots: int | None
    label: str
    layer: str
    share: float
    density: float


def movements(runs: Iterable[Row]) -> list[Movement]:
    """One for every task, backbone, shots, label and settings whose runs trained, by distance.

    Args:
        runs: a row of each.
    """
    moved = (run for run in runs if run.distance is not None)
    found = [_movement(key, of) for key, of in grouped(moved, _method_of).items()]
    return sorted(found, key=lambda m: (m.task, m.backbone, m.shots or 0, m.distance))


def layer_shares(runs: Iterable[Row]) -> list[LayerShare]:
    """The layers of every mask, in the order of the network.

    Args:
        runs: a row of each.
    """
    found = []
    masked = (run for run in runs if _is_masked(run))
    for (task, backbone, shots, label, _), of in grouped(masked, _method_of).items():
        by_run = [_by_layer(run) for run in of]
        for layer in sorted({layer for layers in by_run for layer in layers}, key=layer_order):
            pairs = [layers.get(layer, (0.0, 0.0)) for layers in by_run]
            share, density = (fmean(values) for values in zip(*pairs, strict=True))
            found.append(LayerShare(task, backbone, shots, label, layer, share, density))
    return found


def layer_of(tensor: str) -> str:
    """The layer that a tensor belongs to: its block where it is in one, else its module.

    ``visual.transformer.resblocks.3.attn.in_proj_weight`` is in ``visual block 3``.
    """
    tower, _, rest = tensor.partition(".")
    block = re.search(r"(?:resblocks|blocks|layers?|layer)\.?(\d+)\.", rest)
    if block is not None:
        return f"{tower} block {block[1]}"
    return f"{tower} {rest.partition('.')[0]}"


def layer_order(layer: str) -> tuple[str, int, int, str]:
    """A key to sort by: tower by tower, what comes before the blocks, the blocks, what comes after.

    Args:
        layer: of ``layer_of``.
    """
    tower, _, rest = layer.partition(" ")
    if rest.startswith("block "):
        return tower, 1, int(rest.removeprefix("block ")), rest
    return tower, 2 if rest in LAST else 0, 0, rest


def _method_of(run: Row) -> tuple[str, str, int | None, str, str]:
    return run.task, run.backbone, run.shots, run.label, asked(run)


def _movement(key: tuple[Any, ...], runs: Sequence[Row]) -> Movement:
    shares: dict[str, float] = defaultdict(float)
    for run in runs:
        if _is_masked(run):
            for layer, (share, _) in _by_layer(run).items():
                shares[layer] += share / len(runs)
    largest = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    task, backbone, shots, label, _ = key
    mask = runs[0].details if _is_masked(runs[0]) else {}
    return Movement(
        task=task,
        backbone=backbone,
        shots=shots,
        label=label,
        distance=fmean(run.distance for run in runs if run.distance is not None),
        selected=mask.get("selected"),
        candidates=mask.get("candidates"),
        layers=tuple(largest),
    )


def _is_masked(run: Row) -> bool:
    """True if a mask is among a run's details, which may be anything: counts, also by tensor."""
    share = run.details.get("share")
    counts: list[Any] = [run.details.get(name) for name in ("selected", "candidates")]
    for part in share.values() if isinstance(share, dict) else ():
        counts += part if isinstance(part, list) and len(part) == 2 else [None]
    return len(counts) > 2 and all(type(count) is int for count in counts) and counts[0] > 0


def _by_layer(run: Row) -> dict[str, tuple[float, float]]:
    """Of each layer of a run's mask its share of all that was selected, and its density."""
    layers: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for tensor, (selected, size) in run.details["share"].items():
        layers[layer_of(tensor)][0] += selected
        layers[layer_of(tensor)][1] += size
    total = run.details["selected"]
    return {layer: (s / total, s / max(1, size)) for layer, (s, size) in layers.items()}
