"""Rows against the predictions that were kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shiftbench.core.errors import InputError
from shiftbench.core.provenance import Provenance, cpu_name, package_versions
from shiftbench.data.images import ImageSet
from shiftbench.evaluation import predictions
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.scoring import Prediction, results_of, selections
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done, failed, rows
from shiftbench.leaderboard.verify import same_numerics, select, verify_run

from tests.leaderboard.records import info

HERE = Provenance("0.1.0", "a" * 40, False, package_versions(), {"cpu": cpu_name(), "gpus": []})
SETS = {
    "id-val": "accuracy",
    "id-test": "accuracy",
    "iwildcam-ood": "macro-f1",
    "fmow": "worst-region",
}
CLASSES = 4
N = 40


def image_set(name: str, n: int = N) -> ImageSet:
    """A set without pixels, whose labels depend on its name only."""
    rng = np.random.default_rng(list(name.encode()))
    metadata: dict[str, np.ndarray] = {}
    if name == "iwildcam-ood":
        metadata["location"] = rng.integers(0, 7, n).astype(str)
    if name == "fmow":
        metadata["region"] = rng.choice(["Africa", "Asia", "Other"], n)
    return ImageSet(
        ids=np.array([f"{name}/{i:03}" for i in range(n)]),
        labels=rng.integers(0, CLASSES, n),
        images=[],
        fingerprint=f"fingerprint of {name}",
        metadata=metadata,
    )


def told(variant: str, name: str, seed: int = 0) -> pa.Table:
    images = image_set(name)
    rng = np.random.default_rng([seed, *variant.encode(), *name.encode()])
    logits = rng.normal(size=(len(images), CLASSES)) + 1.5 * np.eye(CLASSES)[images.labels]
    return predictions.to_table(name, variant, images, logits)


def store_run(
    results: Path,
    run_id: str,
    variants: tuple[str, ...] = ("",),
    sets: Mapping[str, str] = SETS,
    seed: int = 0,
    **changes: Any,
) -> None:
    """Write a run with its predictions, scored as runs are."""
    parts = {(v, name): told(v, name, seed) for v in variants for name in sets}
    scored = {
        (variant, name): results_of(
            Prediction(
                variant=variant,
                evaluation_set=name,
                metric=sets[name],
                table=table,
                seconds=1.0,
                fingerprint=f"fingerprint of {name}",
            )
        )
        for (variant, name), table in parts.items()
    }
    id_val = {v: scored[v, "id-val"][0].score.value for v in variants} if "id-val" in sets else {}
    rows = [
        replace(result, selection=selection)
        for variant, selection in selections(variants, variants[0], id_val, metric("accuracy"))
        for name in sets
        for result in scored[variant, name]
    ]
    shared = info(run_id, **({"provenance": HERE, "seed": seed} | changes))
    predictions.write(RunFolder.of(results, run_id).predictions, predictions.concat(parts.values()))
    store.write_run(results, run_id, done(shared, rows))


def rewrite(results: Path, run_id: str, column: str, change: Any, where: int = 0) -> None:
    """Change one cell of a run's rows: a function of the old value, or a value."""
    table = store.read(results, [run_id])
    values = table[column].to_pylist()
    values[where] = change(values[where]) if callable(change) else change
    position = table.schema.get_field_index(column)
    field = table.schema.field(position)
    store.write_run(
        results, run_id, table.set_column(position, field, pa.array(values, field.type))
    )


# Against predictions


def test_rows_follow_from_their_predictions(tmp_path):
    store_run(tmp_path, "a1", ("0", "0.5", "1"))
    verdict = verify_run(tmp_path, "a1")
    assert verdict.problems == ()
    assert verdict.rows == len(store.read(tmp_path)) == 24
    assert verdict.name == "imagenet, miniature, full, seed 0"


@pytest.mark.parametrize("column", ["value", "low", "high"])
@pytest.mark.parametrize("where", range(6))
def test_the_last_digit_counts(tmp_path, column, where):
    store_run(tmp_path, "a1")
    rewrite(tmp_path, "a1", column, lambda value: float(np.nextafter(value, 0.5)), where)
    (problem,) = verify_run(tmp_path, "a1").problems
    assert f"{column} is 0." in problem


def test_an_interval_made_elsewhere_may_be_rounded_otherwise(tmp_path):
    elsewhere = replace(HERE, versions={**HERE.versions, "scipy": "1.0"})
    store_run(tmp_path, "a1", provenance=elsewhere)
    assert not same_numerics(rows(store.read(tmp_path))[0])
    rewrite(tmp_path, "a1", "low", lambda value: float(np.nextafter(value, 0)))
    assert verify_run(tmp_path, "a1").problems == ()
    rewrite(tmp_path, "a1", "low", lambda value: value - 1e-9)
    (problem,) = verify_run(tmp_path, "a1").problems
    assert "made with" in problem
    assert "scipy 1.0" in problem


def test_a_value_made_elsewhere_may_not(tmp_path):
    store_run(tmp_path, "a1", provenance=replace(HERE, hardware={"cpu": "abacus"}))
    rewrite(tmp_path, "a1", "value", lambda value: float(np.nextafter(value, 0)))
    assert verify_run(tmp_path, "a1").problems


def test_a_count_and_the_kind_of_interval_count(tmp_path):
    store_run(tmp_path, "a1")
    rewrite(tmp_path, "a1", "n", N + 1)
    rewrite(tmp_path, "a1", "interval", "by hand", 1)
    first, second = verify_run(tmp_path, "a1").problems
    assert "n is 41, its predictions give 40" in first
    assert "interval is 'by hand'" in second


def test_one_changed_prediction_is_found(tmp_path):
    store_run(tmp_path, "a1")
    file = RunFolder.of(tmp_path, "a1").predictions
    table = predictions.read(file)
    answers, labels = table["prediction"].to_pylist(), table["label"].to_pylist()
    right = next(i for i in range(N, 2 * N) if answers[i] == labels[i])  # of id-test
    answers[right] = (answers[right] + 1) % CLASSES
    position = table.schema.get_field_index("prediction")
    changed = table.set_column(
        position, table.schema.field(position), pa.array(answers, pa.int32())
    )
    predictions.write(file, changed)
    problems = verify_run(tmp_path, "a1").problems
    assert len(problems) == 3
    assert all(problem.startswith("id-test, accuracy: ") for problem in problems)


def test_missing_predictions_are_found(tmp_path):
    store_run(tmp_path, "a1", ("x", "y"))
    file = RunFolder.of(tmp_path, "a1").predictions
    table = predictions.read(file)
    predictions.write(file, table.slice(0, 7 * N))
    assert verify_run(tmp_path, "a1").problems == ("y on fmow: no predictions",)
    predictions.write(file, pa.concat_tables([table, table.slice(0, 1)]))
    first, *_ = verify_run(tmp_path, "a1").problems
    assert first == "x on id-val: 1 examples are there twice"
    file.write_bytes(b"PAR1")
    (problem,) = verify_run(tmp_path, "a1").problems
    assert "cannot be read as predictions" in problem
    file.unlink()
    assert verify_run(tmp_path, "a1").problems == ("its predictions are missing",)


def test_a_wrong_choice_on_id_val_is_found(tmp_path):
    store_run(tmp_path, "a1", ("x", "y"))
    rows = store.read(tmp_path).to_pylist()
    value = {r["variant"]: r["value"] for r in rows if r["evaluation_set"] == "id-val"}
    assert value["x"] != value["y"]
    worst = min(value, key=lambda variant: value[variant])
    table = store.read(tmp_path)
    kept = [row for row in rows if row["selection"] != "id-val"]
    chosen = [{**row, "selection": "id-val"} for row in kept if row["variant"] == worst]
    store.write_run(tmp_path, "a1", pa.Table.from_pylist([*kept, *chosen], schema=table.schema))
    (problem,) = verify_run(tmp_path, "a1").problems
    assert problem.startswith(f"{worst}: selected on id-val with ")


def test_an_unknown_metric_is_found(tmp_path):
    store_run(tmp_path, "a1")
    rewrite(tmp_path, "a1", "metric", "beauty")
    (problem,) = verify_run(tmp_path, "a1").problems
    assert 'unknown metric "beauty"' in problem


# Which runs


def test_runs_are_selected_by_ids_and_columns(tmp_path):
    store_run(tmp_path, "a1")
    store_run(tmp_path, "a2", seed=1)
    store_run(tmp_path, "b1", task="cifar10", label="zero-shot")
    store.write_run(tmp_path, "c1", failed(info("c1"), "loss is NaN"))
    table = store.read(tmp_path)
    assert select(table) == ["a1", "a2", "b1"]
    assert select(table, ["b", "a2"]) == ["a2", "b1"]
    assert select(table, ["zero-shot", "full/imagenet/1"]) == ["a2", "b1"]
    assert select(table, task="cifar10") == ["b1"]
    assert select(table, label="full", backbone="miniature") == ["a1", "a2"]
    for wrong, message in {
        "a": r'"a" means 2 runs: full/imagenet/0 \(a1\), full/imagenet/1 \(a2\)',
        "d": '"d" is no run',
        "c1": "has failed .loss is NaN.",
    }.items():
        with pytest.raises(InputError, match=message):
            select(table, [wrong])
    with pytest.raises(InputError, match='no run of the task "cifar"'):
        select(table, task="cifar")
    with pytest.raises(InputError, match="no such run that is done"):
        select(table, ["a1"], task="cifar10")
