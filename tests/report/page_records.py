"""A results folder with something of all that the page shows, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from shiftbench.core.errors import InputError
from shiftbench.evaluation import predictions
from shiftbench.leaderboard.published.schema import PUBLISHED_SCHEMA
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import done, failed
from shiftbench.leaderboard.store import write_run

from tests.leaderboard.records import info, results, run

EVIL = "<script>alert(1)</script>"
SETS = ("id-test", "cifar10.1", "cifar10.2")
N = 60
ALPHAS = (0.0, 0.5, 1.0)
TRIALS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("search_id", "study", "state", "values")),
        *(pa.field(name, pa.int32()) for name in ("number",)),
        *(pa.field(name, pa.int64()) for name in ("seed", "steps", "images")),
        *(pa.field(name, pa.float64()) for name in ("score", "seconds")),
        pa.field("error", pa.string()),
        pa.field("rungs", pa.list_(pa.struct([("steps", pa.int32()), ("score", pa.float64())]))),
        pa.field("started", pa.timestamp("ms")),
    ]
)


def write_results(folder: Path) -> None:
    """Two tasks, one of them real; methods with curves, a mask, a search, gaps and faults."""
    cifar = {"task": "cifar10", "data_kind": "miniature/2", "leakage": None}
    for seed in (0, 1):
        spread = 0.02 * seed
        plain(folder, f"full{seed}", "full", seed, (0.95, 0.7 - spread, 0.6), **cifar)
        plain(folder, f"evil{seed}", EVIL, seed, (0.95, 0.7 - spread, 0.6), **cifar)
        details = {
            "selected": 10,
            "candidates": 200,
            "share": {
                "visual.conv1.weight": [4 + 2 * seed, 50],
                "visual.transformer.resblocks.2.attn.in_proj_weight": [3 - seed, 25],
                "visual.transformer.resblocks.10.mlp.c_fc.bias": [3 - seed, 25],
            },
        }
        mask = {"distance": 1.5 + seed, "details": details, "method": "saft"}
        plain(folder, f"saft{seed}", "saft", seed, (0.9, 0.75, 0.7), **cifar, **mask)
        found = {
            "search_id": "5ea5c4",
            "searched": {"hinge": 0.02, "lr": 3e-4, "seed": seed},
            "search_trials": 4,
            "search_steps": 40,
            "search_images": 400,
            "search_seconds": 30.0,
        }
        plain(
            *(folder, f"auto{seed}", "autoft", seed, (0.93, 0.8, 0.7)),
            **cifar, **found, selection="ood-val",
        )  # fmt: skip
        curve(folder, f"wise{seed}", seed, parent=f"full{seed}", **cifar)
    zero_shot = {**cifar, "seeded": False, "reference": True}
    plain(folder, "zero", "zero-shot", 0, (0.8, 0.9, 0.85), **zero_shot)
    write_run(folder, "dead", failed(info("dead", **cifar, label="lora", seed=1), f"NaN {EVIL}"))
    write_trials(folder, "5ea5c4")
    write_real(folder)


def write_real(folder: Path) -> None:
    """Zero-shot and fine-tuned on the real ImageNet, one set of which is incomplete."""
    accuracies = {"id-test": 0.7, "imagenet-v2": 0.65, "imagenet-r": 0.72}
    of = results(accuracies, data_fingerprint="f")
    write_run(
        folder,
        "real0",
        done(
            info("real0", method="zero-shot", label="zero-shot", seeded=False, reference=True), of
        ),
    )
    rows = [
        *results({"id-test": 0.8, "imagenet-v2": 0.69}, data_fingerprint="f"),
        *results({"imagenet-r": 0.6}, incomplete_reason="29,000 of 30,000 images"),
    ]
    write_run(folder, "real1", done(info("real1", leakage="12 test images of laion"), rows))


def plain(
    folder: Path,
    run_id: str,
    label: str,
    seed: int,
    values: Sequence[float],
    selection: Any = "fixed",
    **changes: Any,
) -> None:
    """A run with one variant, and predictions that have these accuracies."""
    changes = {"label": label, "method": label, "seed": seed, **changes}
    scores = dict(zip(SETS, values, strict=True))
    of = results(scores, selection=selection, data_fingerprint="d")
    write_run(folder, run_id, done(info(run_id, **changes), of))
    write_predictions(folder, run_id, {"": scores})


def curve(folder: Path, run_id: str, seed: int, parent: str, **changes: Any) -> None:
    """A run with a curve of which the middle was configured."""
    changes = {
        **changes,
        "label": "wise-ft",
        "method": "wise-ft",
        "seeded": False,
        "seed": seed,
        "parents": [("full", parent)],
        "train_seconds": 0.0,
    }
    by_variant = {f"alpha={alpha}": curve_values(alpha, seed) for alpha in ALPHAS}
    rows = [
        result
        for alpha, (variant, scores) in zip(ALPHAS, by_variant.items(), strict=True)
        for result in results(
            scores, variant, "fixed" if alpha == 0.5 else None, data_fingerprint="d"
        )
    ]
    write_run(folder, run_id, done(info(run_id, **changes), rows))
    write_predictions(folder, run_id, by_variant)


def curve_values(alpha: float, seed: int) -> dict[str, float]:
    ood = 0.9 - 0.2 * alpha - 0.02 * seed
    return dict(zip(SETS, (0.8 + 0.15 * alpha, ood, ood - 0.05), strict=True))


def write_predictions(
    folder: Path, run_id: str, by_variant: Mapping[str, Mapping[str, float]]
) -> None:
    """The first examples of every set are right."""
    rows = []
    for variant, scores in by_variant.items():
        for name, value in scores.items():
            for i in range(N):
                right = i < round(value * N)
                rows.append(
                    {
                        "set": name,
                        "variant": variant,
                        "id": f"{name}/{i}",
                        "label": i % 10,
                        "prediction": i % 10 if right else (i + 1) % 10,
                        "top_classes": [i % 10],
                        "top_logits": [1.0],
                        "region": None,
                        "location": None,
                    }
                )
    table = pa.Table.from_pylist(rows, schema=predictions.SCHEMA)
    predictions.write(RunFolder.of(folder, run_id).predictions, table)


def write_trials(folder: Path, search_id: str) -> None:
    trial = [
        ("search", 0, "complete", {"hinge": 0.02, "lr": 3e-4}, [(3, 0.5), (9, 0.8)], ""),
        ("search", 1, "stopped", {"hinge": 4.0, "lr": 1e-2}, [(3, 0.3)], ""),
        ("search", 2, "failed", {"hinge": 9.0, "lr": 1.0}, [], f"diverged {EVIL}"),
        ("search", 3, "complete", {"hinge": 0.1, "lr": 1e-4}, [(3, 0.6), (9, 0.7)], ""),
        ("finalists", 0, "complete", {"hinge": 0.02, "lr": 3e-4}, [(9, 0.78)], ""),
    ]
    rows = [
        {
            "search_id": search_id,
            "study": study,
            "number": number,
            "state": state,
            "values": json.dumps(values),
            "seed": 0,
            "score": rungs[-1][1] if rungs else None,
            "rungs": [{"steps": steps, "score": score} for steps, score in rungs],
            "steps": rungs[-1][0] if rungs else 0,
            "images": 10,
            "seconds": 1.0,
            "error": error,
            "started": datetime(2030, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        }
        for study, number, state, values, rungs, error in trial
    ]
    file = SearchFolder.of(folder, search_id).trials
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=TRIALS), file)


def published() -> pa.Table:
    """A testbed of a few models, and what open_clip's table says of our real zero-shot row."""
    shared: dict[str, Any] = dict.fromkeys(PUBLISHED_SCHEMA.names)
    shared |= {"data_kind": "real", "task": "imagenet", "metric": "accuracy", "kind": "original"}
    shared |= {"role": "shift", "line": 1, "column": "x"}
    models = {f"model{i}": 0.6 + 0.03 * i for i in range(8)} | {"resnet50": 0.75}
    rows = []
    for model, accuracy in models.items():
        sets = {"id-test": accuracy, "imagenet-v2": accuracy - 0.1}
        sets |= {
            f"id-test-on-{name}-classes": min(accuracy + 0.16, 0.98)
            for name in ("imagenet-r", "imagenet-a", "objectnet")
        }
        sets |= {"imagenet-r": accuracy / 2, "imagenet-sketch": accuracy / 2.5}
        sets |= {"imagenet-a": accuracy / 5, "objectnet": accuracy / 2}
        for name, value in sets.items():
            row = {"evaluation_set": name, "value": value, "backbone": model, "label": model}
            row |= {"method": "standard", "collection": "imagenet-testbed", "source": "testbed"}
            rows.append(shared | row)
    own = {"evaluation_set": "imagenet-v2", "value": 0.66, "backbone": "miniature"}
    own |= {"method": "zero-shot", "label": "zero-shot", "collection": "papers"}
    rows.append(shared | own | {"source": f"a paper {EVIL}"})
    return pa.Table.from_pylist(rows, schema=PUBLISHED_SCHEMA)


def nowhere(name: str) -> Path:
    """Finds no suite."""
    raise InputError(f'there is no suite "{name}"')


def of_methods(number: int) -> pa.Table:
    """Zero-shot and other methods on one miniature task with five shifts, of three seeds each."""
    sets = ("id-val", "id-test", *(f"imagenet-{name}" for name in ("v2", "r", "sketch", "a")))
    place = {"data_kind": "miniature/2", "leakage": None}
    draw = np.random.default_rng(number)
    scores = {name: 0.83 - 0.05 * i for i, name in enumerate((*sets, "objectnet"))}
    zero_shot = {"method": "zero-shot", "seeded": False, "reference": True, "train_seconds": 0.0}
    tables = [run("zero", scores, label="zero-shot", **zero_shot, **place)]
    for method in range(number - 1):
        gained, lost = draw.uniform(0.01, 0.14), draw.uniform(-0.06, 0.3)
        cost = draw.uniform(20, 2000)
        for seed in range(3):
            values = {
                name: (value + gained if name.startswith("id") else value - lost)
                + draw.normal(0, 0.006)
                for name, value in scores.items()
            }
            name = f"{('full', 'lora', 'wise-ft', 'soup-of-seeds')[method % 4]}-{method}"
            own = {"label": name, "method": name, "seed": seed, "train_seconds": cost}
            own["parents"] = [("zero-shot", "zero")] if method % 4 > 1 else ()
            tables.append(run(f"m{method}s{seed}", values, **own, **place))
    return pa.concat_tables(tables)
