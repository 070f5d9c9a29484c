"""The metrics of ``wilds``, of the installed package or of a checkout, against ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.metrics.registry import metric

from tests.parity.comparisons import Difference, difference
from tests.parity.official import load, stand_in

REGIONS = np.array(["Asia", "Europe", "Africa", "Other", "Oceania", "Americas"])
"""The last is drawn for no example."""
_MODULES = [
    "wilds.common.grouper",
    "wilds.common.metrics.all_metrics",
    "wilds.common.metrics.loss",
    "wilds.common.metrics.metric",
    "wilds.common.utils",
    "wilds.datasets.fmow_dataset",
    "wilds.datasets.wilds_dataset",
]

Module = Callable[[str], Any]
"""Gives a module of ``wilds`` by its dotted name."""


def of_checkout(root: Path) -> Module:
    """Modules of a checkout of p-lambda/wilds."""
    return lambda name: load(root, name, _MODULES, packages="wilds")


def wilds_metrics(module: Module = import_module) -> Iterator[Difference]:
    """Accuracy, macro-F1 and worst region of answers with absent classes and regions."""
    with stand_in("torch_scatter", scatter=_scatter):
        metrics = module("wilds.common.metrics.all_metrics")
        found = [_pairs(seed, metrics, module) for seed in range(12)]
    for name in found[0]:
        ours, theirs = zip(*(each[name] for each in found), strict=True)
        yield difference(name, ours, theirs)  # wilds averages in float32


def worst_region(
    labels: np.ndarray, predictions: np.ndarray, regions: np.ndarray, module: Module = import_module
) -> float:
    """``acc_worst_region`` of ``FMoWDataset.eval`` on a data set that has nothing but metadata.

    Args:
        labels: (n,) classes.
        predictions: (n,) classes.
        regions: (n,) positions in ``REGIONS``.
        module: gives the modules of ``wilds``.
    """
    with stand_in("torch_scatter", scatter=_scatter):
        grouper = module("wilds.common.grouper").CombinatorialGrouper
        kind = module("wilds.datasets.fmow_dataset").FMoWDataset
        dataset = kind.__new__(kind)
        dataset._metadata_fields = ["region", "year"]
        dataset._metadata_map = {"region": list(REGIONS), "year": ["2016", "2017"]}
        years = np.arange(len(regions)) % 2
        # One example of the region that is not evaluated makes it known, and thus empty.
        known = np.append(regions, len(REGIONS) - 1)
        dataset._metadata_array = torch.from_numpy(np.stack([known, np.append(years, 0)], axis=1))
        dataset._eval_groupers = {
            name: grouper(dataset=dataset, groupby_fields=[name]) for name in ("region", "year")
        }
        results, _ = dataset.eval(
            torch.from_numpy(predictions), torch.from_numpy(labels), dataset._metadata_array[:-1]
        )
    return float(results["acc_worst_region"])


def _pairs(seed: int, metrics: Any, module: Module) -> dict[str, tuple[float, float]]:
    """Ours and theirs of each metric, on one draw of labels and answers."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(20, 400)), int(rng.integers(2, 40))
    labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.3)))
    guesses = rng.integers(0, classes + 3, size=n)
    predictions = np.where(rng.random(n) < rng.random(), labels, guesses)
    regions = rng.integers(0, 5, size=n)
    examples = Examples(labels, predictions, {"region": REGIONS[regions]})
    answers = torch.from_numpy(predictions), torch.from_numpy(labels)
    f1 = metrics.F1(prediction_fn=None, average="macro").compute(*answers)
    theirs = {
        "accuracy": float(metrics.Accuracy().compute(*answers)["acc_avg"]),
        "macro-f1": float(f1["F1-macro_all"]),
        "worst-region": worst_region(labels, predictions, regions, module),
    }
    return {name: (metric(name).value(examples), value) for name, value in theirs.items()}


def _scatter(src: torch.Tensor, index: torch.Tensor, dim_size: int, reduce: str) -> torch.Tensor:
    """``torch_scatter.scatter``, which needs a compiler to install, as far as ``wilds`` uses it."""
    if reduce != "mean":
        raise ValueError(f"no reduction {reduce}")
    total = torch.zeros(dim_size).index_add(0, index, src)
    return total / torch.bincount(index, minlength=dim_size).clamp(min=1)
