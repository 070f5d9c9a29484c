"""What is checked before anything is computed, and which runs are done again."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from shiftbench.cli.plan import show_stores
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.data.shards import Form
from shiftbench.data.sources.builtin.parquet import ParquetImages
from shiftbench.data.tasks.definition import whole_set
from shiftbench.data.tasks.opening import open_task
from shiftbench.evaluation.results import Result, Score
from shiftbench.execution import training_stores as module
from shiftbench.execution.checked import SetState, fingerprints_of
from shiftbench.execution.model_checks import check_backbones
from shiftbench.execution.preflight import (
    check_data,
    check_leakage,
    check_schedules,
    outdated,
    preflight,
    problems,
)
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.runinfo import run_info
from shiftbench.execution.setup import Setup
from shiftbench.execution.training_stores import (
    TrainingStore,
    check_training_stores,
    training_stores,
)
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import Fit, RunFolder
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import write_run
from shiftbench.suite.plan import Plan, evaluation_metrics
from shiftbench.suite.suite import Suite

SUITE = """
tasks:
  own:
    classes: [cat, dog]
    train: {kind: parquet, path: train.parquet}
    id_test: {source: {kind: parquet, path: test.parquet}}
    shifts:
      drawn: {source: {kind: parquet, path: drawn.parquet}}
backbones: [miniature]
methods:
  zero-shot: {}
  full: {epochs: 1, batch_size: 12}
"""


def write_images(file: Path, n: int, seed: int = 0, truncated: bool = False) -> None:
    """A Parquet file of small noise images of two classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
        data = stream.getvalue()[:40] if truncated and i == 0 else stream.getvalue()
        rows.append({"image": {"bytes": data, "path": f"{i}.png"}, "label": i % 2})
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train", "test", "drawn")):
        write_images(tmp_path / f"{name}.parquet", 40, seed)
    return tmp_path


def make_plan(root: Path, *overrides: str) -> Plan:
    file = root / "suite.yaml"
    file.write_text(SUITE)
    return Plan.build(Suite.load(file, overrides, str(root)))


def record(plan: Plan, results: Path, states: dict[tuple[str, str], SetState]) -> None:
    """Write rows of every run, as if it had just been done on the given files."""
    for run in plan.runs.values():
        fit = Fit([1.0], {}, 12, 1.0, 0.0, 1, 1, "2026-01-01T00:00:00+00:00", 1, 0.5, {})
        train = states["own", "id-test"].train_fingerprint
        info = run_info("own", run, torch.device("cpu"), fit, None, train)
        rows = [
            Result(
                variant="",
                evaluation_set=name,
                metric=metric,
                primary=True,
                score=Score(0.5, 0.4, 0.6, 40, "by hand"),
                selection="fixed",
                data_fingerprint=states["own", whole_set(name)].fingerprint,
                incomplete_reason=states["own", whole_set(name)].incomplete_reason,
            )
            # A run also has rows of the ID test images that have the classes of a shift.
            for name, metric in {
                **evaluation_metrics(run.task),
                "id-test-on-drawn-classes": "accuracy",
            }.items()
        ]
        write_run(results, run.id, done(info, rows))


def test_runs_on_the_same_files_stay_done(root: Path) -> None:
    plan = make_plan(root)
    states = dict(check_data(plan, str(root), allow_incomplete=False))
    assert set(states) == {("own", name) for name in ("id-val", "id-test", "drawn")}
    record(plan, root / "results", states)
    again = check_data(plan, str(root), allow_incomplete=False)
    assert outdated(plan, root / "results", again) == set()


@pytest.mark.parametrize("name", ["train", "test", "drawn"])
def test_a_replaced_file_makes_its_runs_outdated(root: Path, name: str) -> None:
    plan = make_plan(root)
    record(plan, root / "results", dict(check_data(plan, str(root), False)))
    write_images(root / f"{name}.parquet", 40, seed=9)
    states = check_data(plan, str(root), False)
    assert outdated(plan, root / "results", states) == set(plan.runs)


def test_data_that_were_completed_make_their_runs_outdated(root: Path) -> None:
    plan = make_plan(root)
    states = dict(check_data(plan, str(root), False))
    before = {key: replace_reason(state, "a file was missing") for key, state in states.items()}
    record(plan, root / "results", before)
    assert outdated(plan, root / "results", states) == set(plan.runs)


STORE = ("methods.full.store={side: 32}",)
HELD = 36 * 8 * 8 * 3  # bytes: a tenth of 40 images is for validation, and none has 32 pixels


def test_a_training_store_is_estimated_and_limited(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(root / "cache"))
    assert training_stores(make_plan(root), str(root)) == []
    plan = make_plan(root, *STORE)
    (store,) = training_stores(plan, str(root))
    assert store == TrainingStore("own", Form(32), 36, HELD, there=False)
    check_training_stores(
        make_plan(root, *STORE, f"resources.limits.store_bytes={HELD}"), str(root)
    )
    small = make_plan(root, *STORE, f"resources.limits.store_bytes={HELD - 1}")
    message = r"resources\.limits: store_bytes is 6,911, but .* take about 6,912 bytes"
    with pytest.raises(InputError, match=message):
        preflight(small, str(root))
    assert any("store_bytes" in line for line in problems(small, str(root)))
    monkeypatch.setattr(module, "free_bytes", lambda: HELD - 1)
    with pytest.raises(InputError, match=r"0\.0 GiB are free; SHIFTBENCH_CACHE"):
        check_training_stores(plan, str(root))

    (run,) = (run for run in plan.runs.values() if run.label == "full")
    setup = Setup("own", plan.runs, root / "results", str(root), plan.suite.resources, Remarks())
    images = Workspace(setup, torch.device("cpu")).training_images(run, run.create())
    assert len(images) == 36 and np.asarray(images.images[0]).shape == (8, 8, 3)
    assert images.fingerprint != Workspace(setup, torch.device("cpu")).data(run).train.fingerprint
    check_training_stores(plan, str(root))  # it is there, so it needs no room
    shown = Console(record=True, width=200, quiet=False, file=io.StringIO())
    show_stores(shown, plan, str(root))
    assert "own, 36 images, shorter side 32, uint8: about 0.0 MiB, made already." in (
        shown.export_text()
    )


def test_a_training_store_has_no_fewer_pixels_than_the_backbone_takes(root: Path) -> None:
    plan = make_plan(root, "methods.full.store={side: 16}")
    (run,) = (run for run in plan.runs.values() if run.label == "full")
    setup = Setup("own", plan.runs, root / "results", str(root), plan.suite.resources, Remarks())
    with pytest.raises(
        RunFailedError, match=r"store\.side is 16, but miniature takes .* 32 pixels"
    ):
        Workspace(setup, torch.device("cpu")).training_images(run, run.create())


def replace_reason(state: SetState, reason: str) -> SetState:
    return state._replace(incomplete_reason=reason)


def test_broken_images_are_refused_unless_allowed(root: Path) -> None:
    write_images(root / "drawn.parquet", 40, 2, truncated=True)
    plan = make_plan(root)
    with pytest.raises(InputError, match=r"drawn\.parquet.*--allow-incomplete") as error:
        preflight(plan, str(root))
    assert "\n" not in str(error.value)
    states = preflight(plan, str(root), allow_incomplete=True).sets
    assert "drawn.parquet" in str(states["own", "drawn"].incomplete_reason)
    assert states["own", "id-test"].incomplete_reason is None


def test_a_broken_training_set_makes_everything_incomplete(root: Path) -> None:
    write_images(root / "train.parquet", 40, truncated=True)
    states = preflight(make_plan(root), str(root), allow_incomplete=True).sets
    assert all("train.parquet" in str(state.incomplete_reason) for state in states.values())


def test_images_that_cannot_be_decoded_are_left_out_everywhere(root: Path) -> None:
    """Also one that no sample would find; what is held out for validation stays the same."""
    before = open_task(next(iter(make_plan(root).runs.values())).task, str(root), None, 0)
    write_images(root / "train.parquet", 40, truncated=True)
    checked = preflight(make_plan(root), str(root), allow_incomplete=True)
    task = next(iter(checked.sets))[0]
    assert task == "own"
    (ids,) = checked.remarks.unreadable.values()
    assert ids == {"train.parquet/0"}
    run = next(iter(make_plan(root).runs.values()))
    after = open_task(run.task, str(root), None, 0, checked.unreadable)
    left = [i for i in before.train.ids.tolist() if i not in ids]
    assert after.train.ids.tolist() == left
    assert after.id_val.ids.tolist() == [i for i in before.id_val.ids.tolist() if i not in ids]
    for index in range(len(after.train)):
        after.train.images[index].load()


def test_the_plan_names_what_run_refuses_and_decodes_no_image(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ParquetImages, "__getitem__", lambda *_: pytest.fail("decoded an image"))
    plan = make_plan(root)
    assert problems(plan, str(root)) == []
    logged = replace(plan, suite=replace(plan.suite, loggers=("nope",)))
    (line,) = problems(logged, str(root))
    assert 'unknown logger "nope"' in line
    unknown = replace(plan, suite=replace(plan.suite, backbones=("openai/ViT-B-99",)))
    write_images(root / "drawn.parquet", 2)
    table = pq.read_table(root / "drawn.parquet")
    labels = pa.array([0, 7])
    pq.write_table(table.set_column(1, "label", labels), root / "drawn.parquet")
    backbone, labels_line = problems(unknown, str(root))
    assert "unknown backbone 'openai/ViT-B-99'" in backbone
    assert "drawn: parquet drawn.parquet has label 7" in labels_line
    assert problems(unknown, None) == [backbone]
    (root / "drawn.parquet").unlink()
    assert any("drawn.parquet" in line for line in problems(plan, str(root)))


def test_absent_data_are_always_refused(root: Path) -> None:
    (root / "drawn.parquet").unlink()
    with pytest.raises(InputError, match=r"task own: .*drawn\.parquet"):
        check_data(make_plan(root), str(root), allow_incomplete=True)


def test_a_batch_that_cannot_be_divided_is_refused(root: Path) -> None:
    check_schedules(make_plan(root), str(root))
    check_schedules(make_plan(root, "resources.workers=3"), str(root))
    with pytest.raises(InputError, match=r"full on own: a global batch of 12.*5 workers"):
        check_schedules(make_plan(root, "resources.workers=5"), str(root))
    twice = ("resources.activation_checkpointing=on", "methods.full.batch_norm=train")
    with pytest.raises(InputError, match="statistics would follow every batch twice"):
        check_schedules(make_plan(root, *twice), str(root))
    with pytest.raises(InputError, match="micro_batch 5 does not divide"):
        check_schedules(make_plan(root, "resources.micro_batch=5"), str(root))
    twelve = ("methods.full.resources.workers=12", "methods.full.batch_size=48")  # it has 36 images
    check_schedules(make_plan(root, *twelve), str(root))
    with pytest.raises(InputError, match=r"full on own: a global batch of 36.*8 workers"):
        check_schedules(make_plan(root, *twelve, "methods.full.resources.min_workers=8"), str(root))
    parts = ("resources.workers=3", "resources.sharding=fsdp2")
    check_schedules(make_plan(root, *parts), str(root))
    with pytest.raises(InputError, match=r"sharding.* and ema looks at whole ones; set ddp"):
        check_schedules(make_plan(root, *parts, "methods.ema={batch_size: 12}"), str(root))


def test_an_unknown_backbone_is_refused(root: Path) -> None:
    check_backbones(make_plan(root))
    plan = make_plan(root)
    suite = replace(plan.suite, backbones=("openai/ViT-B-99",))
    with pytest.raises(InputError, match="unknown backbone 'openai/ViT-B-99'"):
        check_backbones(replace(plan, suite=suite))


def test_what_was_begun_on_other_files_is_forgotten(root: Path) -> None:
    plan = make_plan(root)
    run = next(iter(plan.runs.values()))
    folder = RunFolder.of(root / "results", run.id)
    before = fingerprints_of(run.task, check_data(plan, str(root), False))
    assert set(before) == {"train", "id-val", "id-test", "drawn"}
    folder.claim(before)
    folder.weights.write_bytes(b"half a training")
    folder.claim(before)
    assert folder.weights.exists()
    write_images(root / "train.parquet", 40, seed=9)
    folder.claim(fingerprints_of(run.task, check_data(plan, str(root), False)))
    assert not folder.weights.exists()


def test_test_images_that_a_method_sees_are_refused_or_labelled(root: Path) -> None:
    """Also under another name, in another file: what counts is the content."""
    images = pq.read_table(root / "train.parquet").slice(3, 2)
    drawn = pq.read_table(root / "drawn.parquet")
    pq.write_table(pa.concat_tables([drawn, images]), root / "drawn.parquet")
    with pytest.raises(InputError, match="drawn has 2 images of") as refused:
        check_leakage(make_plan(root), str(root))
    assert "overlap: label" in str(refused.value)
    labelled = check_leakage(make_plan(root, "tasks.own.overlap=label"), str(root))
    ((key, text),) = labelled.items()
    assert key == ("own", False)
    assert "drawn has 2 images of" in text


def test_images_that_only_a_search_sees_concern_only_what_searches(root: Path) -> None:
    searched = (
        "tasks.own.overlap=label",
        "tasks.own.ood_val={source: {kind: parquet, path: drawn.parquet}}",
        "methods.tuned={method: tuned, of: full}",
    )
    labelled = check_leakage(make_plan(root, *searched), str(root))
    assert labelled.keys() == {("own", True)}
    assert "of ood-val" in labelled["own", True]
