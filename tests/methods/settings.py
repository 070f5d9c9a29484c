"""One small setting for every built-in method; the generic tests run over all of them."""

from __future__ import annotations

from typing import Any

from shiftbench.methods.base import Method, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.registry import METHODS

TRAINING: dict[str, Any] = {"lr": 1e-2, "epochs": 4, "batch_size": 12, "warmup_steps": 2}
OBJECTIVE: dict[str, Any] = {
    "dcm": 0.1,
    "entropy": 0.05,
    "flyp": 0.1,
    "hinge": 0.02,
    "l1_init": 0.3,
    "l1_zero": 0.2,
    "l2_init": 0.1,
    "l2_zero": 0.2,
    "lr": 1e-2,
    "weight_decay": 0.1,
}

SETTINGS: dict[str, dict[str, Any]] = {
    "zero-shot": {},
    "linear-probe": {**TRAINING, "lr": 0.1},
    "full": TRAINING,
    "lp-ft": {**TRAINING, "parent": "linear-probe"},
    "l2-sp": {**TRAINING, "strength": 1e-3},
    "wise-ft": {"parent": "full", "alphas": [0, 0.3, 0.5, 1], "alpha": 0.5},
    "output-ensemble": {"parent": "full", "alphas": [0, 0.3, 0.5, 1], "alpha": 0.5},
    "vrf": {"parent": "full", "midpoints": [0.3, 1.5], "widths": [0.3]},
    "dawin": {"parent": "full", "groups": 2},
    "clap": {**TRAINING, "lr": 10, "warmup_steps": 0, "strength": 0.01},
    "lp-plus-plus": {**TRAINING, "lr": 0.3, "warmup_steps": 0},
    "tip-adapter": {"betas": 3, "alphas": 3},
    "coop": {**TRAINING, "lr": 5, "context": 1, "by_class": True},
    "prompt-src": {**TRAINING, "lr": 0.5, "image_prompts": 2, "average": [3, 1]},
    "soup": {"parents": ["full", "lp-ft"], "kind": "greedy"},
    "model-stock": {"parents": ["full"], "over_seeds": [0, 1]},
    "task-arithmetic": {"parents": ["full", "lp-ft"]},
    "ties": {"parents": ["full", "lp-ft"]},
    "dare": {"parents": ["full", "lp-ft"]},
    "lines": {"parent": "full", "alphas": [0, 0.3, 0.5, 1], "alpha": 0.5},
    "tpgm": {"parent": "full", "iterations": 5, "batch_size": 12},
    "ema": {**TRAINING, "decay": 0.8},
    "swa": {**TRAINING, "start": 0.5},
    "bitfit": TRAINING,
    "lora": {**TRAINING, "lr": 0.05, "rank": 2, "alpha": 2},
    "freeze-embedding": {**TRAINING, "lr": 0.1},
    "saft": {**TRAINING, "density": 0.1},
    "flyp": TRAINING,
    "carot": {**TRAINING, "distillation": 0.2, "teacher_every": 3, "momentum_rise": 0.5},
    "tracer": {**TRAINING, "distillation": 0.2, "features": 10},
    "static-sd": {**TRAINING, "distillation": 0.2, "features": 10},
    "clipood": TRAINING,
    "r-adapter": {
        **TRAINING,
        "targets": ["attn"],
        "text_targets": ["attn"],
        "drop": 0,  # random numbers of workers and micro-batches are their own
        "decay": 0.5,
        "temperature": 0.2,
    },
    "clip-lora": {**TRAINING, "lr": 0.05, "dropout": 0},
    "ftp": {**TRAINING, "kappa": 0.5},
    "spd": TRAINING,
    "car-ft": TRAINING,
    "lipsum-ft": {**TRAINING, "texts": 5, "length": 1, "strength": 0.1},
    "ldifs": {**TRAINING, "layers": ["block.ln", "block"]},
    "feature-distillation": {**TRAINING, "strength": 0.3},
    "mask-fill": {**TRAINING, "strength": 0.3, "mask": "random"},
    "autoft": {"epochs": 4, "batch_size": 12, "warmup_steps": 2, "objective": OBJECTIVE},
    "tuned": {"of": "full", "settings": TRAINING},
}


def make_any(name: str, **changes: object) -> Method[MethodConfig]:
    """A method with its setting of the table."""
    cls = METHODS.load(name)
    return cls(cls.Config(**{**SETTINGS[name], **changes}))


def make_method(name: str, **changes: object) -> TrainedMethod[TrainingConfig]:
    """A trained method with its setting of the table."""
    method = make_any(name, **changes)
    assert isinstance(method, TrainedMethod)
    return method
