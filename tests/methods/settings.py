"""One small setting for every built-in method; the generic tests run over all of them."""

from __future__ import annotations

from typing import Any

TRAINING: dict[str, Any] = {"lr": 1e-2, "epochs": 4, "batch_size": 12, "warmup_steps": 2}

SETTINGS: dict[str, dict[str, Any]] = {
    "zero-shot": {},
    "linear-probe": {**TRAINING, "lr": 0.1},
    "full": TRAINING,
    "lp-ft": {**TRAINING, "parent": "linear-probe"},
    "l2-sp": {**TRAINING, "strength": 1e-3},
    "wise-ft": {"parent": "full", "alphas": [0, 0.3, 0.5, 1], "alpha": 0.5},
}
