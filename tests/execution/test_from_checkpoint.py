"""Weights that were made elsewhere, as a method and as a parent, on the miniature world."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.data.miniature.definition import backbone_dir
from shiftbench.evaluation import predictions
from shiftbench.execution.model_checks import check_backbones
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows
from shiftbench.methods.builtin.from_checkpoint import CheckpointConfig, FromCheckpoint
from shiftbench.report.model import build
from shiftbench.report.ranking import rank
from shiftbench.suite.file import Resources
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite
from shiftbench.testing.toys import make_derivation

from tests.execution.by_stages import run
from tests.models.tiny import save_backbone

BASE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  full: {lr: 1e-3, batch_size: 12, warmup_steps: 0}
  wise-full: {method: wise-ft, parent: full, alphas: [0.5]}
budget: {steps: 3, evaluation_images: 30}
"""
ADDED = """
  text: {method: from-checkpoint, path: clip/epoch_1.pt}
  linear: {method: from-checkpoint, path: weights.safetensors}
  image: {method: from-checkpoint, path: clip/epoch_1.pt, head: zero-shot}
  wise-linear: {method: wise-ft, parent: linear, alphas: [0.5]}
  wise-text: {method: wise-ft, parent: text, alphas: [0.5]}
  soup: {parents: [linear, image], kind: greedy}
"""


def trained_elsewhere(folder: Path) -> dict[str, torch.Tensor]:
    """The shipped backbone with all its weights moved, as a checkpoint of open_clip's training."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(backbone_dir() / "open_clip_model.safetensors").items()
    }
    folder.mkdir()
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"epoch": 1, "state_dict": state}, folder / "epoch_1.pt")
    return weights


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Any:
    """The folder, and the runs by label."""
    folder = tmp_path_factory.mktemp("elsewhere")
    trained_elsewhere(folder / "clip")
    (full,) = (run_ for run_ in run(folder, BASE).runs.values() if run_.label == "full")
    shutil.copy(RunFolder.of(folder / "results", full.id).weights, folder / "weights.safetensors")
    plan = run(folder, BASE.replace("budget:", f"{ADDED.strip(chr(10))}\nbudget:"))
    return folder, {found.label: found for found in plan.runs.values()}


def predicted(folder: Path, of: Run) -> Any:
    """What a run predicts, its variant left out."""
    table = predictions.read(RunFolder.of(folder / "results", of.id).predictions)
    return table.drop_columns(["variant"])


def test_weights_with_a_classifier_predict_as_the_run_that_made_them(done) -> None:  # type: ignore[no-untyped-def]
    folder, runs = done
    assert runs["linear"].config.head == "linear"
    assert predicted(folder, runs["linear"]).equals(predicted(folder, runs["full"]))
    assert predicted(folder, runs["wise-linear"]).equals(predicted(folder, runs["wise-full"]))


def test_weights_of_both_towers_predict_as_that_backbone_without_training(done, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder, runs = done
    assert runs["text"].config.head == "text"
    shutil.copytree(backbone_dir(), tmp_path / "clip")
    state = torch.load(folder / "clip" / "epoch_1.pt", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    save_file(weights, tmp_path / "clip" / "open_clip_model.safetensors")
    head, _, _ = BASE.partition("  full:")
    text = f"{head}  zero-shot: {{}}\nbudget: {{evaluation_images: 30}}\n"
    plan = run(tmp_path, text.replace("backbones: [miniature]", "backbones: [./clip]"))
    (zero_shot,) = plan.runs.values()
    ours = predicted(folder, runs["text"])
    theirs = predicted(tmp_path, zero_shot)
    assert ours["id"].equals(theirs["id"])
    for column in ("label_logit", "log_sum_exp"):
        torch.testing.assert_close(
            torch.tensor(ours[column].to_pylist()), torch.tensor(theirs[column].to_pylist())
        )
    assert not predicted(folder, runs["image"])["label_logit"].equals(ours["label_logit"])


def test_rows_and_printers_say_where_the_weights_are_from(done) -> None:  # type: ignore[no-untyped-def]
    folder, runs = done
    table = store.read(folder / "results")
    by_label = {row.label: row for row in rows(table)}
    row = by_label["text"]
    assert row.origin == "made elsewhere" and row.method == "from-checkpoint"
    assert row.details["files"].keys() == {"epoch_1.pt"}
    for label in ("text", "wise-text", "soup"):
        row = by_label[label]
        assert row.trains_on_id_val is None and row.held_out is None
        assert not row.leakage
    assert by_label["text"].train_seconds is None and by_label["text"].train_steps is None
    assert by_label["text"].distance > 0
    (ranking,) = rank(found for found in rows(table) if found.primary)
    names = {method.name for method in ranking.methods if method.rank is not None}
    assert {"text (made elsewhere)", "linear (made elsewhere)", "wise-text", "full"} <= names
    costs = {method.label: method.cost_seconds for method in ranking.methods}
    assert costs["full"] is not None and costs["wise-text"] is None
    report = build(table, folder / "results")
    assert len(report.imports) == 3
    digest = dict(runs["text"].files)["path"]
    assert any(f"from epoch_1.pt, sha256 {digest}" in str(found) for found in report.imports)


def test_identity_is_of_the_content_and_not_of_the_place(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def planned(path: str) -> Run:
        (tmp_path / "suite.yaml").write_text(
            "data: miniature\nbackbones: [miniature]\ntasks: [cifar10]\nmethods:\n"
            f"  mine: {{method: from-checkpoint, path: {path}}}\n"
        )
        (found,) = Plan.build(Suite.load(tmp_path / "suite.yaml")).runs.values()
        return found

    trained_elsewhere(tmp_path / "clip")
    first = planned("clip/epoch_1.pt")
    (tmp_path / "clip" / "epoch_1.pt").rename(tmp_path / "other.pt")
    assert planned("./other.pt").id == first.id
    with pytest.raises(InputError, match=r"suite\.yaml:5: methods\.mine: .*epoch_1\.pt: cannot be"):
        planned("clip/epoch_1.pt")
    content = torch.load(tmp_path / "other.pt", weights_only=True)
    content["state_dict"]["module.logit_scale"] += 1
    torch.save(content, tmp_path / "other.pt")
    assert planned("./other.pt").id != first.id
    # A file that changes between planning and fitting is not taken for the planned one.
    setup = Setup("s", {first.id: first}, tmp_path, "miniature", Resources(), Remarks())
    moved = replace(first, config=planned("./other.pt").config)
    workspace = Workspace(replace(setup, runs={first.id: moved}), torch.device("cpu"))
    with pytest.raises(RunFailedError, match="mine: its file has changed"):
        fit(workspace, first.id)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tower", r"does not fit the backbone: 'visual\..*' is missing, and \d+ more"),
        ("shape", r"does not fit: 'visual\.proj' has shape \(2, 2\), here \(96, 64\)"),
        ("empty", r"no image tower in it"),
        ("head", r"head: linear, but there is no classifier in it"),
        ("nan", r"NaN or infinite values in 'visual\.proj'"),
    ],
)
def test_files_that_do_not_fit_are_refused_before_anything_runs(tmp_path, name, words) -> None:  # type: ignore[no-untyped-def]
    weights = load_file(backbone_dir() / "open_clip_model.safetensors")
    match name:
        case "tower":
            weights = {"visual.proj": weights["visual.proj"]}
        case "shape":
            weights["visual.proj"] = torch.zeros(2, 2)
        case "empty":
            weights = {"fc.weight": torch.zeros(2, 2)}
        case "nan":
            weights["visual.proj"][0, 0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors")
    head = "linear" if name == "head" else "auto"
    (tmp_path / "suite.yaml").write_text(
        "data: miniature\nbackbones: [miniature]\ntasks: [cifar10]\nmethods:\n"
        f"  mine: {{method: from-checkpoint, path: model.safetensors, head: {head}}}\n"
    )
    with pytest.raises(InputError, match=words) as raised:
        check_backbones(Plan.build(Suite.load(tmp_path / "suite.yaml")))
    assert "\n" not in str(raised.value) and "suite.yaml:5" in str(raised.value)


def test_a_state_dict_of_the_wise_ft_authors_is_sorted_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from shiftbench.models.foreign import read_foreign

    weights = load_file(backbone_dir() / "open_clip_model.safetensors")
    theirs = {f"image_encoder.model.{name}": tensor for name, tensor in weights.items()}
    theirs["classification_head.weight"] = torch.ones(10, 64)
    torch.save(theirs, tmp_path / "theirs.pt")
    found = read_foreign(tmp_path / "theirs.pt")
    assert found.visual.keys() == {name for name in weights if name.startswith("visual.")}
    assert found.head["head.weight"].shape == (10, 64) and not found.head["head.bias"].any()
    assert {f"text.{name}" for name in weights if not name.startswith("visual.")} == set(found.text)


def test_a_classifier_of_other_classes_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    weights = save_backbone(tmp_path)
    head = {"weight": torch.ones(3, 24), "bias": torch.zeros(3)}
    save_file(head, tmp_path / "classifier.safetensors")
    (tmp_path / "classes.json").write_text('["cat", "sea_lion", "dog"]')
    method = FromCheckpoint(CheckpointConfig(path=str(tmp_path)))
    like = {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}
    like |= {f"head.{name}": tensor for name, tensor in head.items()}

    def derived(*classes: str) -> Any:
        return method.derive("", replace(make_derivation(like, {}), classes=classes))

    assert derived("cat", "Sea lion", "dog").keys() == like.keys()
    with pytest.raises(InputError, match=r'classes\.json calls class 1 "sea_lion", the task "dog"'):
        derived("cat", "dog", "sea lion")
    with pytest.raises(InputError, match=r"classes\.json names 3 classes, the task has 2"):
        derived("cat", "sea lion")
