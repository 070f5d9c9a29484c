"""What else the rows say of trainings and searches, beside the ranking. Pure functions."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from shiftbench.data.tasks.definition import ID_TEST, NEW
from shiftbench.report.ranking import of_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from shiftbench.report.ranking import Ranking

TOP = 3
"""Layers that a movement names."""


@dataclass(frozen=True)
class Movement:
    """How far a method went from the pretrained weights.

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
class SearchLine:
    """A search, and what it cost.

    Attributes:
        search_id: its identity, the name of its folder in the results.
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        n_trials: configurations tried.
        steps: optimizer steps of all trials.
        seconds: time of all trials.
        values: what was found.
    """

    search_id: str
    task: str
    backbone: str
    shots: int | None
    label: str
    n_trials: int
    steps: int
    seconds: float
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BaseToNew:
    """A method on tasks that are split by classes.

    Attributes:
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        selection: how its variants were chosen.
        base: mean over tasks of the score on base classes.
        new: the same of new classes.
        harmonic_mean: of these two averages, as it is published (not the mean of tasks' own).
    """

    backbone: str
    shots: int | None
    label: str
    selection: str
    base: float
    new: float
    harmonic_mean: float


def movements(table: pa.Table) -> list[Movement]:
    """One for every task, backbone, shots and label whose runs trained, by distance."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in of_runs(table).to_pylist():
        if row["status"] == "done" and row["distance"] is not None:
            groups[row["task"], row["backbone"], row["shots"], row["label"]].append(row)
    found = [_movement(key, rows) for key, rows in groups.items()]
    return sorted(found, key=lambda m: (m.task, m.backbone, m.shots or 0, m.distance))


def searches(table: pa.Table) -> list[SearchLine]:
    """Every search once, in the table's order."""
    found: dict[str, SearchLine] = {}
    for row in of_runs(table).to_pylist():
        if row["status"] == "done" and row["search_id"] is not None:
            found.setdefault(
                row["search_id"],
                SearchLine(
                    search_id=row["search_id"],
                    task=row["task"],
                    backbone=row["backbone"],
                    shots=row["shots"],
                    label=row["label"],
                    n_trials=row["search_trials"],
                    steps=row["search_steps"],
                    seconds=row["search_seconds"],
                    values=json.loads(row["searched"]),
                ),
            )
    return list(found.values())


def leaks(table: pa.Table) -> list[tuple[str, str]]:
    """Task and the test images that methods saw, each once."""
    rows = table.select(["task", "leakage"]).filter(table["leakage"].is_valid()).to_pylist()
    return sorted({(row["task"], row["leakage"]) for row in rows})


def base_to_new(rankings: Sequence[Ranking]) -> list[BaseToNew]:
    """The methods that all split tasks of a backbone and number of shots have, best first."""
    split = [r for r in rankings if r.shifts == (NEW,)]
    found = []
    for backbone, shots in dict.fromkeys((r.backbone, r.shots) for r in split):
        tasks = [r for r in split if (r.backbone, r.shots) == (backbone, shots)]
        scores: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for ranking in tasks:
            for line in ranking.lines:
                if line.rank is not None and line.mean_ood is not None:
                    pair = (line.cells[ID_TEST].mean, line.mean_ood.mean)
                    scores[line.label, line.selection].append(pair)
        for (label, selection), pairs in scores.items():
            if len(pairs) == len(tasks):
                base, new = (fmean(of) for of in zip(*pairs, strict=True))
                mean = harmonic_mean(base, new)
                found.append(BaseToNew(backbone, shots, label, selection, base, new, mean))
    return sorted(found, key=lambda m: (m.backbone, m.shots or 0, -m.harmonic_mean, m.label))


def harmonic_mean(base: float, new: float) -> float:
    """2 · base · new / (base + new); 0 when both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


def layer_of(tensor: str) -> str:
    """The layer that a tensor belongs to: its block where it is in one, else its module.

    ``visual.transformer.resblocks.3.attn.in_proj_weight`` is in ``visual block 3``.
    """
    tower, _, rest = tensor.partition(".")
    block = re.search(r"(?:resblocks|blocks|layers?|layer)\.?(\d+)\.", rest)
    if block is not None:
        return f"{tower} block {block[1]}"
    return f"{tower} {rest.partition('.')[0]}"


def _movement(key: tuple[Any, ...], rows: Sequence[Mapping[str, Any]]) -> Movement:
    shares: dict[str, float] = defaultdict(float)
    counts = [json.loads(row["details"]) for row in rows]
    for details in counts:
        for tensor, (selected, _) in details.get("share", {}).items():
            shares[layer_of(tensor)] += selected / details["selected"] / len(rows)
    largest = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    task, backbone, shots, label = key
    return Movement(
        task=task,
        backbone=backbone,
        shots=shots,
        label=label,
        distance=fmean(row["distance"] for row in rows),
        selected=counts[0].get("selected"),
        candidates=counts[0].get("candidates"),
        layers=tuple(largest),
    )
