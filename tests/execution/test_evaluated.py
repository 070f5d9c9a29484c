"""No pass is made twice with the same weights, and none that is left out changes an answer."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation import inference, predictions
from shiftbench.evaluation.features import versions
from shiftbench.evaluation.inference import head_logits, image_features
from shiftbench.execution.evaluated import Evaluated
from shiftbench.execution.outputs import logits_in_blocks
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.variants import variant_of, weights
from shiftbench.execution.workspace import Workspace
from shiftbench.suite.plan import Plan, evaluation_metrics
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [imagenet]
methods:
  zero-shot: {}
  full: {lr: 1e-3, batch_size: 16, warmup_steps: 0, checkpoint: id-val, epochs: 2}
  linear-probe: {lr: 1e-2, batch_size: 16, warmup_steps: 0}
  curve: {method: wise-ft, alphas: [0, 0.5, 1]}
  head-curve: {method: wise-ft, parent: linear-probe, alphas: [0, 0.5, 1]}
  mean: {method: output-ensemble, alphas: [0.5]}
  soup-of-one: {method: soup, parents: [full, linear-probe], kind: greedy}
shots: [2]
budget: {evaluation_images: 30}
resources: {limits: {features_bytes: LIMIT}}
"""


class World:
    """A suite's runs by label, and how many passes over images were made so far."""

    def __init__(self, folder: Path, limit: int) -> None:
        file = folder / "suite.yaml"
        file.write_text(SUITE.replace("LIMIT", str(limit)))
        self.plan = Plan.build(Suite.load(file))
        self.folder = folder
        self.runs = {run.label: run for run in self.plan.runs.values()}
        self.workspace = self.another_process()

    def another_process(self) -> Workspace:
        resources = self.plan.suite.resources
        setup = Setup("s", self.plan.runs, self.folder, "miniature", resources, Remarks())
        return Workspace(setup, torch.device("cpu"))

    def predict(self, label: str, variant: str = "", sets: tuple[str, ...] = ()) -> None:
        run = self.runs[label]
        for name in sets or evaluation_metrics(run.task):
            predict(self.workspace, run.id, variant, name)


@pytest.fixture(scope="module")
def passes() -> Iterator[list[int]]:
    """The sizes of the sets that went through an image tower."""
    made: list[int] = []

    def counted(model, pixels, *rest):  # type: ignore[no-untyped-def]
        made.append(len(pixels))
        return image_features(model, pixels, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shiftbench.execution.workspace.image_features", counted)
        yield made


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, world: Path, passes: list[int]) -> World:
    """The suite with its parents trained and evaluated, in a cache where nothing was."""
    folder = tmp_path_factory.mktemp("evaluated")
    suite = World(folder, 2**30)
    suite.workspace.features_on_disk.root = folder / "features"
    for label in ("full", "linear-probe"):
        fit(suite.workspace, suite.runs[label].id)
        suite.predict(label)
    return suite


def test_what_has_an_equal_tower_shares_its_passes(suite: World, passes: list[int]) -> None:
    before = len(passes)
    sets = tuple(evaluation_metrics(suite.runs["full"].task))
    suite.predict("zero-shot", "", sets[1:])  # ID validation of all shots has other images
    for variant in ("alpha=0.0", "alpha=0.5", "alpha=1.0"):
        suite.predict("head-curve", variant)
    suite.predict("mean", "alpha=0.5")
    for variant in ("alpha=0.0", "alpha=1.0"):
        suite.predict("curve", variant)
    assert len(passes) == before
    suite.predict("curve", "alpha=0.5")
    assert len(passes) == before + len(sets)
    suite.workspace = suite.another_process()
    suite.workspace.features_on_disk.root = suite.folder / "features"
    for file in suite.folder.rglob("parts/*/*.arrow"):
        file.unlink()
    suite.predict("curve", "alpha=0.5")
    suite.predict("full")
    assert len(passes) == before + len(sets)


def test_the_best_epoch_is_not_evaluated_again(suite: World, passes: list[int]) -> None:
    fresh = World(suite.folder, 2**30)
    fresh.workspace.features_on_disk.root = suite.folder / "other"
    run = fresh.runs["full"]
    fresh.workspace.folder(run).delete()
    before = len(passes)
    fit(fresh.workspace, run.id)
    assert len(passes) == before + 2  # epochs
    predict(fresh.workspace, run.id, "", "id-val")
    assert len(passes) == before + 2


def test_a_soup_scores_its_parents_by_the_passes_that_they_made(
    suite: World, passes: list[int]
) -> None:
    before = len(passes)
    fit(suite.workspace, suite.runs["soup-of-one"].id)
    assert len(passes) <= before + 1  # of the average of both


@pytest.mark.parametrize(
    ("label", "variant"),
    [("zero-shot", ""), ("linear-probe", ""), ("curve", "alpha=0.5"), ("curve", "alpha=1.0")],
)
@pytest.mark.parametrize("name", ["id-val", "imagenet-r"])
def test_logits_equal_those_of_a_fresh_model_bit_for_bit(
    suite: World, label: str, variant: str, name: str
) -> None:
    workspace, run = suite.workspace, suite.runs[label]
    found = [
        said(slice(None), lambda own: own)
        for _, said in logits_in_blocks(workspace, run, variant, name)
    ]
    model = workspace.loaded(run, weights(workspace, run, variant))
    preprocessing = workspace.backbone(run).preprocessing
    pixels = workspace.store.evaluation(workspace.evaluation_images(run, name), preprocessing)
    features = image_features(model, pixels, preprocessing, workspace.device)
    expected = head_logits(model.head, features, workspace.device)
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_a_variant_has_its_weights_after_others_took_their_place(suite: World) -> None:
    workspace, run = suite.workspace, suite.runs["curve"]
    half, other = (variant_of(workspace, run, f"alpha={alpha}") for alpha in (0.5, 1.0))
    before = half.model.state_dict()["visual.proj"].clone()
    assert other.model is half._slot.model
    assert not torch.equal(other.model.state_dict()["visual.proj"], before)
    assert torch.equal(half.model.state_dict()["visual.proj"], before)
    torch.testing.assert_close(before, weights(workspace, run, "alpha=0.5")["visual.proj"])


@pytest.mark.parametrize(
    ("label", "variant"), [("curve", "alpha=0.5"), ("mean", "alpha=0.5"), ("full", "")]
)
def test_blocks_change_no_prediction(
    suite: World, label: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few images at a time, as many do with thousands; batches stay whole."""
    workspace, run = suite.workspace, suite.runs[label]
    folder = workspace.folder(run)
    monkeypatch.setattr(inference, "BATCH", 4)
    sizes: list[int] = []
    tables = []
    for block in (4096, 8):
        monkeypatch.setattr(inference, "BLOCK", block)
        for file in folder.parts():
            file.unlink()
        suite.predict(label, variant, ("id-test",))
        tables.append({file.name: predictions.read_part(file) for file in folder.parts()})
        blocks = logits_in_blocks(workspace, run, variant, "id-test")
        sizes.append(max(part.stop - part.start for part, _ in blocks))
    assert sizes == [30, 8]
    assert len(tables[0]) > 1  # those of the shifts' classes are among them
    assert tables[0].keys() == tables[1].keys()
    assert all(tables[1][name].equals(table) for name, table in tables[0].items())


def key_of_features(preprocessing: Preprocessing) -> str:
    backbone = SimpleNamespace(identity="b", preprocessing=preprocessing)
    found = Evaluated.__new__(Evaluated)
    found._workspace = SimpleNamespace(device=torch.device("cpu"), backbone=lambda run: backbone)
    found._run = SimpleNamespace(budget=SimpleNamespace(evaluation_precision="fp32"))
    found._compiled, found._tower = False, "t"
    return found._key(SimpleNamespace(fingerprint="f", ids=np.array(["a"])))


def key_of_head() -> str:
    """Of a classifier, at whose key all stops."""

    def get(key: str, compute: object) -> None:
        raise LookupError(key)

    backbone = SimpleNamespace(identity="b")
    workspace = SimpleNamespace(
        backbone=lambda run: backbone, features_on_disk=SimpleNamespace(get=get)
    )
    with pytest.raises(LookupError) as raised:
        Workspace._zero_shot_classifier(workspace, None, (("a cat",),), text=False)
    return str(raised.value.args[0])


def test_what_computes_features_and_what_they_are_of_is_in_their_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = {key_of_features(Preprocessing(16)), key_of_features(Preprocessing(16))}
    heads = {key_of_head(), key_of_head()}
    assert len(features) == len(heads) == 1
    features.add(key_of_features(Preprocessing(16, mean=(0.0, 0.0, 0.0))))
    features.add(key_of_features(Preprocessing(16, std=(1.0, 1.0, 1.0))))
    with monkeypatch.context() as patch:
        patch.setattr("shiftbench.execution.evaluated.made_by", lambda: {"pillow": "1"})
        features.add(key_of_features(Preprocessing(16)))
    assert len(features) == 4
    real = metadata.version
    for i, package in enumerate(("open_clip_torch", "timm", "transformers"), start=1):

        def other(name: str, package: str = package) -> str:
            return "0" if name == package else real(name)

        with monkeypatch.context() as patch:
            patch.setattr("importlib.metadata.version", other)
            versions.cache_clear()
            features.add(key_of_features(Preprocessing(16)))
            heads.add(key_of_head())
        assert len(heads) == 1 + i
    versions.cache_clear()
    assert len(features) == 6  # a tokenizer has no part in them
    assert versions("no-such-package") == ""
