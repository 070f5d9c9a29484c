"""A results folder with all that predictions tell: calibration, OOD detection, corruptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shiftbench.data.sources.corruptions import STANDARD_CORRUPTIONS
from shiftbench.evaluation import predictions
from shiftbench.evaluation.detection import MCM, mcm
from shiftbench.evaluation.examples import of_logits
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import write_run

from tests.leaderboard.records import info, results

SHIFTS = ("imagenet-v2", "imagenet-r", "imagenet-sketch")
OTHERS = ("also-oxford-pets", "also-fgvc-aircraft", "also-eurosat")
OUTLIERS = ("outliers-dtd", "outliers-sun397")
CORRUPTED = [f"also-{name}-{k}" for name in STANDARD_CORRUPTIONS for k in range(1, 6)]
TRAINED = ("full", "lp-ft", "l2-sp", "lora", "flyp", "a-method-with-a-long-name")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
N, CLASSES, SEEDS = 150, 10, (0, 1, 2)
TEMPERATURE = 100.0


@dataclass(frozen=True)
class Skill:
    """How far above zero a method lifts the label's logit, by evaluation set, and its scale."""

    lifts: Mapping[str, float]
    scale: float

    def towards(self, other: Skill, alpha: float) -> Skill:
        """Part of the way to another."""
        lifts = {
            name: (1 - alpha) * lift + alpha * other.lifts[name]
            for name, lift in self.lifts.items()
        }
        return Skill(lifts, (1 - alpha) * self.scale + alpha * other.scale)


def write_measured(folder: Path) -> None:
    """Zero-shot and others of three seeds on the real ImageNet, with every kind of set beside."""
    zero = _skill(np.random.default_rng(0), gained=0.0, lost=0.0, scale=1.0)
    reference = {"seeded": False, "reference": True, "train_seconds": 0.0}
    _write(folder, "zero-shot", 0, {"": zero}, **reference)
    for place, label in enumerate(TRAINED, start=1):
        draw = np.random.default_rng(place)
        skill = _skill(draw, draw.uniform(0.4, 1.2), draw.uniform(-0.1, 0.9), draw.uniform(1, 3))
        cost = float(draw.uniform(60, 4000))
        for seed in SEEDS:
            _write(folder, label, seed, {"": skill}, train_seconds=cost)
            if label == "full":
                parents = [(label, _run_id(label, seed))]
                curve = {f"alpha={alpha}": zero.towards(skill, alpha) for alpha in ALPHAS}
                made: dict[str, Any] = {"parents": parents, "train_seconds": 0.0}
                _write(folder, "wise-ft", seed, curve, "alpha=0.5", **made)
                _write(folder, "model-stock", seed, {"": zero.towards(skill, 0.7)}, **made)


def _skill(draw: np.random.Generator, gained: float, lost: float, scale: float) -> Skill:
    """Of a method that gains in distribution and loses elsewhere."""
    lifts = {"id-test": 3.2 + gained}
    for name in SHIFTS:
        lifts[name] = 2.8 - 0.3 * SHIFTS.index(name) - lost * draw.uniform(0.5, 1)
    for name in OTHERS:
        lifts[name] = 3.0 - 1.5 * lost * draw.uniform(0.5, 1.5)
    for name in CORRUPTED:
        lifts[name] = 3.2 + gained - 0.5 * int(name[-1]) * draw.uniform(0.6, 1.2)
    return Skill(lifts | dict.fromkeys(OUTLIERS, 0.0), scale)


def _run_id(label: str, seed: int) -> str:
    return f"{label}{seed}"


def _write(
    folder: Path,
    label: str,
    seed: int,
    variants: Mapping[str, Skill],
    chosen: str = "",
    **changes: Any,
) -> None:
    run_id, tables, rows = _run_id(label, seed), [], []
    for variant, skill in variants.items():
        scores = {}
        for place, name in enumerate(skill.lifts):
            labels = np.random.default_rng(place).integers(0, CLASSES, N)
            draw = np.random.default_rng([seed, place])
            logits = draw.normal(size=(N, CLASSES))
            logits[np.arange(N), labels] += skill.lifts[name]
            logits = (skill.scale * logits).astype(np.float32)
            examples = of_logits(labels, logits, {MCM: mcm(logits, TEMPERATURE).astype(str)})
            scores[name] = 0.5 if name in OUTLIERS else float(examples.correct.mean())
            if name not in CORRUPTED:
                ids = np.array([f"{name}/{i}" for i in range(N)])
                tables.append(predictions.table_of(name, variant, ids, examples))
        rows += results(scores, variant, "fixed" if variant == chosen else None)
    facts: dict[str, Any] = {"label": label, "method": label, "seed": seed, "shifts": SHIFTS}
    facts["details"] = {"other_classes": "pretrained text tower"}
    write_run(folder, run_id, done(info(run_id, **facts, **changes), rows))
    predictions.write(RunFolder.of(folder, run_id).predictions, predictions.concat(tables))
