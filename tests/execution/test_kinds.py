"""The stages of a run for methods of every kind, on the miniature world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax
from shiftbench.evaluation import predictions
from shiftbench.execution.outputs import logits_in_blocks
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.stages.score import score
from shiftbench.execution.variants import derivation, weights
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.methods.beta_mixture import fit_mixture
from shiftbench.methods.builtin.dawin import shares
from shiftbench.suite.plan import Plan, Run, evaluation_metrics
from shiftbench.suite.suite import Suite

from tests.methods.contract import PLUGINS

SUITE = """
data: miniature
backbones: [miniature]
tasks: [imagenet]
methods:
  zero-shot: {}
  full: {method: terms, lr: 1e-3, batch_size: 12, warmup_steps: 0, train_head: false}
  stock: {method: model-stock, parents: [full], over_seeds: [0, 3]}
  soup: {parents: [full], over_seeds: [0, 3], kind: uniform}
  descent: {rate: 0.01, epochs: 1, batch_size: 16}
  nearness: {}
  vrf: {}
  dawin: {groups: 2, temperatures: [1, 1]}
  logits: {method: output-ensemble, alphas: [0.5]}
  probabilities: {method: output-ensemble, alphas: [0.5], space: probabilities}
budget: {steps: 3, evaluation_images: 30}
"""
SETS = ("id-val", "id-test", "imagenet-r")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Any:
    """Every run of the suite, done; the workspace, and the runs by label and seed."""
    folder = tmp_path_factory.mktemp("kinds")
    file = folder / "suite.yaml"
    file.write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIFTBENCH_PLUGINS", PLUGINS)
        plan = Plan.build(Suite.load(file))
        setup = Setup("s", plan.runs, folder, "miniature", plan.suite.resources, Remarks())
        workspace = Workspace(setup, torch.device("cpu"))
        for run in plan.runs.values():
            method = run.create()
            if method.kept:
                fit(workspace, run.id)
            for variant in method.variants():
                for name in evaluation_metrics(run.task):
                    predict(workspace, run.id, variant, name)
            if run.label != "probabilities":  # whose parts a test looks at
                score(workspace, run.id)
        yield workspace, {(run.label, run.seed): run for run in plan.runs.values()}


def logits(workspace: Workspace, run: Run, name: str, variant: str = "") -> np.ndarray:
    """Of the classes of an evaluation set, (n, classes) float64."""
    images = workspace.evaluation_images(run, name)
    project = images.projection or (lambda own: own)
    found = [
        said(slice(None), project) for _, said in logits_in_blocks(workspace, run, variant, name)
    ]
    return np.concatenate(found).astype(np.float64)


def test_parents_of_other_seeds_are_runs_too(done) -> None:  # type: ignore[no-untyped-def]
    _, runs = done
    assert {key for key in runs if key[0] == "full"} == {("full", 0), ("full", 3)}
    expected = [runs["full", 0].id, runs["full", 3].id]
    for label in ("stock", "soup"):
        assert [run_id for _, run_id in runs[label, 0].parents] == expected


def test_every_term_of_a_loss_is_recorded(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    record = workspace.folder(runs["full", 0]).read_fit()
    assert record.terms.keys() == {"labels", "twice", "even"}
    assert record.terms["twice"] == pytest.approx([2 * loss for loss in record.losses])
    assert [value is None for value in record.terms["even"]] == [False, True, False]


def test_a_head_that_is_not_to_train_is_the_zero_shot_one(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    start, theta = (workspace.start(runs["full", 0]), weights(workspace, runs["full", 0], ""))
    for name, theta0 in start.items():
        assert torch.equal(theta[name], theta0) == name.startswith("head."), name


def test_derived_weights_that_are_kept_are_stored_once(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    start = workspace.start(runs["full", 0])
    thetas = [weights(workspace, runs["full", seed], "") for seed in (0, 3)]
    soup = weights(workspace, runs["soup", 0], "")
    stock = weights(workspace, runs["stock", 0], "")
    for name, theta0 in start.items():
        mean = sum(theta[name].double() for theta in thetas) / 2
        torch.testing.assert_close(soup[name].double(), mean, rtol=1e-6, atol=1e-7)
        toward = (stock[name] - theta0).double().norm(), (mean - theta0.double()).norm()
        assert toward[0] <= toward[1] * (1 + 1e-4) + 1e-6
    record = workspace.folder(runs["stock", 0]).read_fit()
    assert record.distance > 0
    assert record.losses == []


def test_a_derived_method_sees_labelled_id_validation(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    run = runs["descent", 0]
    given = derivation(workspace, run)
    batches = list(given.id_val_batches(16, 5))
    images = workspace.evaluation_images(run, "id-val")
    labels = torch.cat([batch.labels for batch in batches])
    assert sorted(labels.tolist()) == sorted(images.labels.tolist())
    assert max(len(batch.labels) for batch in batches) == 16
    again = torch.cat([batch.labels for batch in given.id_val_batches(16, 5)])
    assert torch.equal(labels, again)
    model = given.model(given.zero_shot)
    assert not model.training
    with torch.no_grad():
        answers = torch.cat([model(batch.inputs).argmax(1) for batch in batches])
    accuracy = float((answers == labels).double().mean())
    assert given.id_val(given.zero_shot) == pytest.approx(accuracy)
    start, theta = workspace.start(run), weights(workspace, runs["full", 0], "")
    name = "visual.proj"
    share = (weights(workspace, run, "")[name] - start[name]) / (theta[name] - start[name])
    assert share.median() != pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", SETS)
def test_logits_are_averaged_before_projection_and_probabilities_after(done, name) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    both = [logits(workspace, runs[label, 0], name) for label in ("zero-shot", "full")]
    of_logits = logits(workspace, runs["logits", 0], name, "alpha=0.5")
    np.testing.assert_allclose(of_logits, (both[0] + both[1]) / 2, rtol=1e-5, atol=1e-4)
    mean = (softmax(both[0], axis=1) + softmax(both[1], axis=1)) / 2
    of_probabilities = logits(workspace, runs["probabilities", 0], name, "alpha=0.5")
    np.testing.assert_allclose(softmax(of_probabilities, axis=1), mean, atol=1e-5)


def test_probabilities_of_a_part_are_of_its_classes(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    run = runs["probabilities", 0]
    images = workspace.evaluation_images(run, "id-test")
    both = [logits(workspace, runs[label, 0], "id-test") for label in ("zero-shot", "full")]
    parts = workspace.data(run).on_classes_of_shifts(images)
    assert parts
    for name, (_, rows, part) in parts.items():
        project = part.projection or (lambda own: own)
        mean = sum(softmax(project(own[rows].astype(np.float32)), axis=1) for own in both) / 2
        table = predictions.read_part(workspace.folder(run).part("alpha=0.5", name))
        assert table["prediction"].to_pylist() == mean.argmax(1).tolist()


def test_what_an_ensemble_fits_is_kept_with_the_run(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    run = runs["nearness", 0]
    folder: RunFolder = workspace.folder(run)
    assert folder.ensemble.exists()
    assert not folder.weights.exists()
    record = folder.read_fit()
    assert record.distance is None
    changed = folder.ensemble.stat().st_mtime_ns
    fit(workspace, run.id)
    assert folder.ensemble.stat().st_mtime_ns == changed
    assert not workspace.folder(runs["logits", 0]).fitted


@pytest.mark.parametrize("name", SETS)
def test_groups_of_a_set_are_answered_by_merged_weights(done, name) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    run, full = runs["dawin", 0], runs["full", 0]
    images = workspace.evaluation_images(run, name)
    both = [logits(workspace, runs[label, 0], name) for label in ("zero-shot", "full")]
    entropies = [scipy.stats.entropy(softmax(own, axis=1), axis=1) for own in both]
    means, group = fit_mixture(shares(*entropies, offset=True), 2)
    assert len(np.unique(group)) == 2
    start, theta = workspace.start(full), weights(workspace, full, "")
    expected = np.empty_like(both[0])
    for i, alpha in enumerate(means):
        point = {k: (1 - alpha) * v + alpha * theta[k] for k, v in start.items()}
        model = workspace.loaded(full, point)
        pixels = workspace.store.evaluation(images, workspace.backbone(run).preprocessing)
        features = workspace.features(full, model, pixels)
        own = model.head(torch.from_numpy(features)).detach().numpy()
        project = images.projection or (lambda whole: whole)
        expected[group == i] = project(own)[group == i]
    np.testing.assert_allclose(logits(workspace, run, name), expected, rtol=1e-4, atol=1e-4)


def test_rows_say_what_looked_at_all_images_of_a_set(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    table = store.read(workspace.setup.results, [runs[label, 0].id for label in ("dawin", "vrf")])
    marked = zip(table["label"].to_pylist(), table["transductive"].to_pylist(), strict=True)
    assert {*marked} == {("dawin", True), ("vrf", None)}


def test_rows_say_how_many_trainings_they_took(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    expected = {"zero-shot": 0, "full": 1, "vrf": 1, "soup": 2}
    ids = [runs[label, 0].id for label in expected]
    table = store.read(workspace.setup.results, ids)
    found = dict(zip(table["label"].to_pylist(), table["trainings"].to_pylist(), strict=True))
    assert found == expected


def test_every_run_has_rows_and_one_of_them_is_the_reference(done) -> None:  # type: ignore[no-untyped-def]
    workspace, runs = done
    ids = [run.id for run in runs.values() if run.label != "probabilities"]
    table = store.read(workspace.setup.results, ids)
    assert set(table["status"].to_pylist()) == {"done"}
    assert set(table["run_id"].to_pylist()) == set(ids)
    marked = zip(table["label"].to_pylist(), table["reference"].to_pylist(), strict=True)
    assert {label for label, reference in marked if reference} == {"zero-shot"}
