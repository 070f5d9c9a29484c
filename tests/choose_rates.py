"""Choose the learning rates and strengths of ``suites/miniature.yaml`` on ID validation data.

Every method of ``GRID`` is tried at three settings: its rate times three factors or, if it has a
strength, that times three factors at the rate that full fine-tuning was given. Of rates the best on
ID validation is chosen, as papers do. Of strengths, and of rates that say how far weights may go,
within one standard error of the best, the one whose weights moved least is: what holds weights most
and costs nothing on ID validation. No shift is looked at.

Rates of all weights end at 2e-4: 5e-4 gains full fine-tuning one image of 378 on ID validation
(``full-high`` of the suite, three seeds), and papers give one rate to all methods that they
compare. Strengths are about those that cost ID validation something: published ones hold nothing
here (car-ft, ldifs) or too much (static-sd, tracer), or are on the grid or near it.

    python -m tests.choose_rates --results /tmp/rates --to results/example/rates.csv
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from shiftbench import Leaderboard, Suite, run
from shiftbench.core.files import written_atomically

MINIATURE = Path("suites/miniature.yaml")
TASK = "imagenet"
"""The task whose order of methods is compared with the published one."""
RATES = (0.25, 0.5, 1.0)
STRENGTHS = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Tried:
    """What is tried of a method: ``rate`` or ``strength`` times the factors.

    Attributes:
        rate: the largest learning rate, or the only one of a method with a strength.
        strength: of the field called ``field``; 0 if there is none.
        field: what the strength is a value of, if anything.
        holds: its rate says how far weights may go, so it is chosen as a strength is.
    """

    rate: float
    strength: float = 0.0
    field: str = ""
    holds: bool = False

    def settings(self) -> Iterator[dict[str, float]]:
        """All settings, each with its fields' values."""
        if not self.field:
            yield from ({"lr": _short(self.rate * factor)} for factor in RATES)
            return
        for factor in STRENGTHS:
            yield {"lr": self.rate, self.field: _short(self.strength * factor)}


GRID = {
    "full": Tried(2e-4),  # ema, swa and full-frozen-head have its rate
    "linear-probe": Tried(1e-1),
    "lp-ft": Tried(2e-4),
    "l2-sp": Tried(2e-4, 0.03, "strength"),
    "lora": Tried(4e-3),
    "bitfit": Tried(4e-3),
    "freeze-embedding": Tried(4e-2),
    "saft": Tried(2e-3),
    "random-mask": Tried(2e-2),
    "flyp": Tried(2e-4),
    "ftp": Tried(2e-4),
    "spd": Tried(2e-4, 3, "strength"),
    "feature-distillation": Tried(2e-4, 1, "strength"),
    "mask-fill": Tried(2e-4, 1, "strength"),
    "ldifs": Tried(2e-4, 300, "strength"),
    "car-ft": Tried(2e-4, 100, "strength"),
    "lipsum-ft": Tried(2e-4, 1, "strength"),
    "carot": Tried(2e-4),
    "tracer": Tried(2e-4, 0.1, "distillation"),
    "static-sd": Tried(2e-4, 0.1, "distillation"),
    "clipood": Tried(2e-4),
    "r-adapter": Tried(4e-3),
    "clip-lora": Tried(1e-2),
    "tpgm": Tried(4e-4, holds=True),
}


def main() -> None:
    """Try all settings of the methods that are asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsItIs)
    parser.add_argument("--results", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--to", type=Path, required=True, help="CSV file of the table")
    parser.add_argument("--method", action="append", choices=GRID, help="one of them; else all")
    asked = parser.parse_args()
    labels = asked.method or list(GRID)
    asked.results.mkdir(parents=True, exist_ok=True)
    file = asked.results / "rates.yaml"
    file.write_text(yaml.safe_dump(suite(labels)), encoding="utf-8")
    run(Suite.load(file), results=asked.results, executor="ray")
    rows = [row for label in labels for row in table(label, asked.results)]
    with written_atomically(asked.to) as temporary, temporary.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if row["chosen"]:
            print(row)


def suite(labels: list[str]) -> dict[str, Any]:
    """The suite of all settings of methods, and of the parents that they need as they are."""
    of = yaml.safe_load(MINIATURE.read_text(encoding="utf-8"))
    methods = {}
    for label in labels:
        entry = of["methods"][label] or {}
        parent = entry.get("parent")
        if parent is not None:
            methods[parent] = of["methods"][parent]
        for changed in GRID[label].settings():
            methods[_name(label, changed)] = {"method": label} | entry | changed
    kept = {"data": of["data"], "backbones": of["backbones"], "tasks": [TASK]}
    return kept | {"methods": methods, "seeds": [0], "budget": {"evaluation_images": 130}}


def table(label: str, results: Path) -> list[dict[str, Any]]:
    """A row for each setting of a method: its ID validation score, its distance, if chosen."""
    board = Leaderboard(results)
    scores, distances = {}, {}
    settings = {_name(label, changed): changed for changed in GRID[label].settings()}
    for name in settings:
        of = [
            row
            for row in board.records()
            if name in (row.label, *(row.also_called or ()))
            and row.evaluation_set == "id-val"
            and row.primary
        ]
        scores[name] = np.array([[row.value, row.n] for row in sorted(of, key=lambda r: r.task)])
        distances[name] = float(np.mean([row.distance or 0.0 for row in of]))
    tried = GRID[label]
    chosen = (strongest if tried.field or tried.holds else best)(scores, distances)
    return [
        {
            "method": label,
            "lr": changed["lr"],
            "field": tried.field,
            "strength": changed.get(tried.field, ""),
            "id_val": round(float(scores[name][:, 0].mean()), 4),
            "distance": round(distances[name], 4),
            "chosen": "yes" if name == chosen else "",
        }
        for name, changed in settings.items()
    ]


Scores = Mapping[str, np.ndarray[Any, Any]]
"""For each setting an array (tasks, 2) of an accuracy and its number of examples."""


def best(scores: Scores, distances: Mapping[str, float]) -> str:
    """The setting with the best mean score; of several, the one that moved least.

    Args:
        scores: of each setting.
        distances: of the weights from the pretrained ones, for each setting.
    """
    mean = {name: values[:, 0].mean() for name, values in scores.items()}
    return max(mean, key=lambda name: (mean[name], -distances[name]))


def strongest(scores: Scores, distances: Mapping[str, float]) -> str:
    """The setting that moved least of those within one standard error of the best.

    Args:
        scores: of each setting.
        distances: of the weights from the pretrained ones, for each setting.
    """
    mean = {name: values[:, 0].mean() for name, values in scores.items()}
    top = best(scores, distances)
    error = np.sqrt(_variance_of_mean(scores[top]))
    near = [name for name in mean if mean[top] - mean[name] <= error]
    return min(near, key=lambda name: distances[name])


def _variance_of_mean(values: np.ndarray[Any, Any]) -> float:
    """Of the mean of accuracies; one more right and one more wrong keep it from 0 (Agresti)."""
    accuracy, n = values.T
    smoothed = (accuracy * n + 1) / (n + 2)
    return float((smoothed * (1 - smoothed) / (n + 2)).sum() / len(n) ** 2)


def _name(label: str, changed: Mapping[str, float]) -> str:
    return "-".join([label, *(f"{value:g}".replace("+", "") for value in changed.values())])


def _short(value: float) -> float:
    return float(f"{value:.2g}")


class _AsItIs(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


if __name__ == "__main__":
    main()
