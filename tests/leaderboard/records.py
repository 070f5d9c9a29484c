"""Hand-written runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from shiftbench.core.provenance import Provenance
from shiftbench.evaluation.results import Result, Score, Selection
from shiftbench.leaderboard.schema import Parent, RunInfo, done

PROVENANCE = Provenance("0.1.0", "a" * 40, True, {"torch": "2.15"}, {"cpu": "abacus", "gpus": []})


def info(run_id: str = "f00d", provenance: Provenance = PROVENANCE, **changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "run_id": run_id,
        "suite": "toy",
        "task": "imagenet",
        "task_digest": "0" * 12,
        "data_kind": "real",
        "backbone": "miniature",
        "method": "full",
        "label": "full",
        "origin": "shiftbench 0.1.0",
        "config": {"lr": 1e-5},
        "budget": {"steps": None},
        "parents": (),
        "seed": 0,
        "seeded": True,
        "shots": None,
        "started": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        "finished": datetime(2030, 1, 2, 4, 4, 5, tzinfo=UTC),
        "device": "abacus",
        "train_seconds": 60.0,
        "train_images": 512,
        "train_steps": 4,
        "world_size": 1,
        "precision": "fp32",
        "batch_size": 128,
        "peak_memory_bytes": 2**30,
        "train_fingerprint": "abc",
    }
    values |= vars(provenance) | changes
    values["parents"] = tuple(Parent(*parent) for parent in values["parents"])
    return RunInfo(**values)


def results(
    values: Mapping[str, float],
    variant: str = "",
    selection: Selection | None = "fixed",
    **changes: Any,
) -> list[Result]:
    """Headline results with an accuracy for each evaluation set."""
    return [
        Result(
            variant=variant,
            selection=selection,
            evaluation_set=name,
            metric="accuracy",
            primary=True,
            score=Score(value, max(0, value - 0.01), min(1, value + 0.01), 100, "by hand"),
            evaluation_seconds=2.0,
            **changes,
        )
        for name, value in values.items()
    ]


def run(run_id: str, values: Mapping[str, float], **changes: Any) -> pa.Table:
    return done(info(run_id, **changes), results(values))
