"""PromptSRC against a reference in float64, and from a suite to predictions of other classes."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.evaluation import predictions
from shiftbench.execution.exporting import export_model
from shiftbench.execution.finetuned import load
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import Row, rows
from shiftbench.leaderboard.store import read
from shiftbench.methods.builtin.prompt_src import PromptSrc, PromptSrcConfig, gaussian_shares
from shiftbench.models.prompted import prompts_of
from shiftbench.models.towers import build_tower
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from shiftbench.testing import toys
from torch.nn.functional import normalize

from tests.methods.settings import make_method
from tests.models.tiny import RESNET

SUITE = """
data: miniature
backbones: [miniature]
tasks:
  cifar10-split: {from: cifar10, templates: simple, class_split: base-to-new}
methods:
  zero-shot: {}
  prompt-src: {lr: 0.02, epochs: 2, batch_size: 16, depth: 3, average: [2, 1]}
  wise-ft: {parent: prompt-src, alphas: [0, 1], alpha: 1}
shots: [4]
budget: {evaluation_images: 40}
"""


def test_shares_make_the_gaussian_average() -> None:
    values = np.random.default_rng(0).standard_normal(20)
    weights = [math.exp(-((epoch - 15) ** 2) / 2) for epoch in range(1, 21)]
    mean = 0.0
    for value, share in zip(values, gaussian_shares(20, 15, 1), strict=True):
        mean += share * (value - mean)
    assert mean == pytest.approx(np.average(values, weights=weights))
    assert gaussian_shares(3, 900, 1)[0] == 1  # as far away as one likes
    assert all(np.isfinite(gaussian_shares(3, 900, 1)))


def test_the_loss_holds_to_what_the_pretrained_model_says() -> None:
    method = make_method("prompt-src", text_strength=7, image_strength=3)
    model = toys.make_model(architecture=method.architecture())
    method.ready(model, toys.make_context(method, model))
    plain = toys.make_model(architecture=method.architecture()).double()
    reference = copy.deepcopy(model).double()
    batch = toys.make_batch()
    images, tokens = batch.inputs.double(), model.prompts[0]  # type: ignore[index]
    found = method.loss(model, batch)

    f, g = reference.features(images), reference.encode_text(tokens)
    f0 = normalize(plain.visual(images), dim=1).detach()
    g0 = normalize(plain.head.weight, dim=1).detach()
    scale = float(plain.text_tower.logit_scale.detach().exp())
    z, z0 = scale * f @ g.T, scale * f0 @ g0.T
    n, classes, width = len(images), toys.CLASSES, 8
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        logs, logs0 = z[i].log_softmax(0), z0[i].log_softmax(0)
        expected = expected - logs[batch.labels[i]] / n
        expected = expected + 3 * (f[i] - f0[i]).abs().sum() / (n * width)
        expected = expected + (logs0.exp() * (logs0 - logs)).sum() / (n * classes)
    expected = expected + 7 * (g - g0).abs().sum() / (classes * width)
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    found["loss"].backward()
    gradients = torch.autograd.grad(expected, [p.vectors for p in prompts_of(reference)])
    for vectors, gradient in zip(method.parameters(model), gradients, strict=True):
        torch.testing.assert_close(vectors.grad.double(), gradient, rtol=1e-3, atol=1e-6)
    assert [p.requires_grad for p in model.parameters()].count(True) == 2


def test_prompts_of_texts_begin_as_words_and_others_at_random() -> None:
    method = make_method("prompt-src")
    model = toys.make_model(architecture=method.architecture())
    words = model.text_tower.get_submodule("token_embedding").weight[[0, 1]].detach().clone()
    with torch.no_grad():
        before = model.encode_text(model.prompts[0])  # type: ignore[index]
    method.ready(model, toys.make_context(method, model))
    of_image, of_text = prompts_of(model)
    assert torch.equal(of_text.vectors[0], words)
    assert 0 < of_image.vectors.std() < 0.06
    with torch.no_grad():  # one block, so texts say what they did
        torch.testing.assert_close(model.encode_text(model.prompts[0]), before)  # type: ignore[index]


def test_weights_are_the_average_over_ends_of_epochs() -> None:
    method = make_method("prompt-src", epochs=5, average=[3, 1])
    model = toys.make_model(architecture=method.architecture())
    method.ready(model, toys.make_context(method, model, steps=10))
    draw, kept = torch.Generator().manual_seed(0), []
    for step in range(1, 11):
        for vectors in method.parameters(model):
            vectors.data.copy_(torch.randn(vectors.shape, generator=draw))
        if step == 1:  # no epoch has ended
            method.after_step(model, step)
            present = method.weights(model)["text.prompts.vectors"]
            assert torch.equal(present, method.parameters(model)[1])
            continue
        method.after_step(model, step)
        if step % 2 == 0:
            kept.append([vectors.detach().double().numpy() for vectors in method.parameters(model)])
    last = [vectors.detach().clone() for vectors in method.parameters(model)]
    weights = method.weights(model)
    gauss = [math.exp(-((epoch - 3) ** 2) / 2) for epoch in range(1, 6)]
    for i, tower in enumerate(("visual", "text")):
        mean = np.average([of[i] for of in kept], axis=0, weights=gauss)
        np.testing.assert_allclose(weights[f"{tower}.prompts.vectors"], mean, rtol=1e-4, atol=1e-5)
        assert torch.equal(method.parameters(model)[i], last[i])  # which train on
    model.load_state_dict(dict(weights))
    rows = model.temperature * model.encode_text(model.prompts[0])  # type: ignore[index]
    torch.testing.assert_close(weights["head.weight"], rows.detach())


def test_resnets_are_refused_before_anything_is_spent() -> None:
    with pytest.raises(RunFailedError, match="takes no prompts"):
        PromptSrc(PromptSrcConfig()).check(lambda: build_tower(24, RESNET, False))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "suite.yaml").write_text(SUITE)
    suite = Suite.load(folder / "suite.yaml")
    outcome = launch(suite, folder / "results", InProcess(), Console(quiet=True), decode=False)
    assert not outcome.failed
    return folder / "results"


def of(results: Path, label: str, name: str, variant: str = "") -> Row:
    row, *_ = (  # a point of a curve has one for each rule that selects it
        row
        for row in rows(read(results))
        if (row.label, row.evaluation_set, row.variant) == (label, name, variant) and row.primary
    )
    return row


def logits(results: Path, row: Row) -> np.ndarray:
    """The highest logits of each example, as they were stored."""
    table = predictions.read(RunFolder.of(results, row.run_id).predictions)
    keys = zip(table["set"].to_pylist(), table["variant"].to_pylist(), strict=True)
    kept = [key == (row.evaluation_set, row.variant) for key in keys]
    told = predictions.examples_of(table.filter(kept)).top_logits
    assert told is not None
    return told


def test_between_prompts_and_the_pretrained_model_there_is_a_curve(results: Path) -> None:
    trained, zero_shot = (of(results, label, "id-test") for label in ("prompt-src", "zero-shot"))
    assert np.abs(logits(results, trained) - logits(results, zero_shot)).max() > 0.1
    pairs = [("alpha=0.0", zero_shot), ("alpha=1.0", trained)]
    pairs += [("alpha=1.0", of(results, "prompt-src", "new"))]
    for variant, other in pairs:
        point = of(results, "wise-ft", other.evaluation_set, variant)
        np.testing.assert_allclose(logits(results, point), logits(results, other), atol=2e-3)


def test_classes_that_were_not_trained_are_named_by_the_prompts(results: Path) -> None:
    row = of(results, "prompt-src", "new")
    plan = Plan.build(Suite.load(results.parent / "suite.yaml"))
    setup = Setup("s", plan.runs, results, "miniature", plan.suite.resources, Remarks())
    workspace, run = Workspace(setup, torch.device("cpu")), plan.runs[row.run_id]
    names, _ = workspace.data(run).vocabularies["new"]
    images = workspace.evaluation_images(run, "new")
    model = load(results, row.run_id)
    with torch.no_grad():
        pixels = torch.stack([model.preprocess(images.images[i]) for i in range(len(images))])
        texts = model.tokenizer([f"a photo of a {name}." for name in names])
        features = model.clip.encode_image(pixels, normalize=True)
        rows = model.clip.logit_scale.exp() * model.clip.encode_text(texts, normalize=True)
    expected = -np.sort(-(features @ rows.T).numpy(), axis=1)
    np.testing.assert_allclose(logits(results, row), expected, atol=2e-3)
    pretrained = logits(results, of(results, "zero-shot", "new"))
    assert np.abs(expected - pretrained).max() > 0.1


def test_a_model_with_prompts_is_no_plain_open_clip_model(results: Path, tmp_path: Path) -> None:
    run_id = of(results, "prompt-src", "id-test").run_id
    model = load(results, run_id)
    assert {"visual.prompts.vectors", "prompts.share"} <= model.clip.state_dict().keys()
    with pytest.raises(InputError, match=r"learned prompts.*shiftbench\.load_model"):
        export_model(results, run_id, tmp_path / "model")
    assert not (tmp_path / "model").exists()
