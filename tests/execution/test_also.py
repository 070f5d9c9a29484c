"""Other tasks' test sets, scored beside: no training again, no other identity, in no mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.special import logsumexp, softmax
from shiftbench.core.errors import InputError
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation import predictions
from shiftbench.execution.cost import plan_state
from shiftbench.execution.finetuned import load
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.bundles.agreement import differences
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import Row, rows
from shiftbench.leaderboard.store import read
from shiftbench.leaderboard.verify import disagreements
from shiftbench.report.forgetting import forgetting
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build
from shiftbench.report.ranking import rank
from shiftbench.report.runs import Runs
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from sklearn.metrics import roc_auc_score

SUITE = """
data: miniature
backbones: [miniature]
tasks:
  cifar10: {}
  fmow: {methods: {full: null, flyp: null, mean: null, cache: null}}
methods:
  zero-shot: {}
  full: {lr: 5e-4, epochs: 1, batch_size: 16, warmup_steps: 0}
  flyp: {lr: 5e-4, epochs: 1, batch_size: 16, warmup_steps: 0}
  mean: {method: output-ensemble, alphas: [0.5]}
  cache: {method: tip-adapter, alpha: 3, beta: 5, choose: none}
shots: [2]
budget: {evaluation_images: 30}
"""
ALSO = "also: [cifar10, fmow]\nood_detection: [fmow]\n"
QUIET = Console(quiet=True)


def suite_of(folder: Path, text: str) -> Suite:
    (folder / "suite.yaml").write_text(text)
    return Suite.load(folder / "suite.yaml")


def test_a_set_more_makes_no_other_runs(tmp_path: Path) -> None:
    plain, more = (Plan.build(suite_of(tmp_path, text)) for text in (SUITE, SUITE + ALSO))
    assert plain.runs.keys() == more.runs.keys()
    of_tasks = {run.task.name: tuple(run.task.also) for run in more.runs.values()}
    assert of_tasks == {"cifar10": ("fmow",), "fmow": ("cifar10",)}
    outliers = {run.task.name: tuple(run.task.outliers) for run in more.runs.values()}
    assert outliers == {"cifar10": ("fmow",), "fmow": ()}
    for key in ("also", "ood_detection"):
        with pytest.raises(InputError, match='"cifar1" is no task'):
            suite_of(tmp_path, SUITE + f"{key}: [cifar1]\n")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """Results of the suite without the sets and then with them; checks what was done again."""
    folder = tmp_path_factory.mktemp("also")
    results = folder / "results"

    def launched(text: str) -> frozenset[str]:
        suite = suite_of(folder, text)
        outcome = launch(suite, results, InProcess(), QUIET, decode=False)
        assert not outcome.failed
        return outcome.executed

    def known() -> dict[tuple[object, ...], tuple[object, ...]]:
        return {
            (row.run_id, *row.key): (row.value, row.low, row.high, row.n, row.task_digest)
            for row in rows(read(results))
            if row.role not in ("also", "outliers")
        }

    assert len(launched(SUITE)) == 6
    trained = {f: f.stat().st_mtime_ns for f in (results / "runs").glob("*/*.safetensors")}
    before = known()
    state = plan_state(Plan.build(suite_of(folder, SUITE + ALSO)), results, None)
    assert {group.left for group in state.groups} == {1}  # to evaluate
    assert len(launched(SUITE + ALSO)) == 6
    assert {f: f.stat().st_mtime_ns for f in (results / "runs").glob("*/*.safetensors")} == trained
    assert len(trained) == 3
    assert known() == before
    assert launched(SUITE + ALSO) == frozenset()
    return results


def of(results: Path, task: str, label: str, name: str) -> Row:
    (row,) = (
        row
        for row in rows(read(results))
        if (row.task, row.label, row.evaluation_set) == (task, label, name) and row.primary
    )
    return row


def test_zero_shot_is_on_another_task_what_it_is_there(results: Path) -> None:
    there, here = (
        of(results, *place)
        for place in (("fmow", "zero-shot", "id-test"), ("cifar10", "zero-shot", "also-fmow"))
    )
    assert (here.role, here.value, here.n) == ("also", there.value, 30)
    assert here.data_fingerprint == there.data_fingerprint
    assert "also-fmow" not in (here.shifts or ())
    kinds = {
        label: of(results, "cifar10", label, "also-fmow").details["other_classes"]
        for label in ("zero-shot", "full", "flyp", "mean", "cache")
    }
    assert kinds == {
        "zero-shot": "pretrained text tower",
        "full": "pretrained text tower",
        "flyp": "own text tower",
        "mean": "outputs of several models",
        "cache": "pretrained model",
    }


def test_a_cache_of_the_tasks_classes_says_nothing_of_others(results: Path) -> None:
    """It changes what is said of the task's images, and nothing of those with other names."""

    def logits(label: str, name: str) -> np.ndarray:
        table = predictions.read(
            RunFolder.of(results, of(results, "cifar10", label, name).run_id).predictions
        )
        kept = [found == name for found in table["set"].to_pylist()]
        told = predictions.examples_of(table.filter(kept)).top_logits
        assert told is not None
        return told

    np.testing.assert_array_equal(logits("cache", "also-fmow"), logits("zero-shot", "also-fmow"))
    own = logits("cache", "id-test"), logits("zero-shot", "id-test")
    assert (own[0].max(1) > own[1].max(1)).all()  # a cache only adds


@pytest.mark.parametrize("label", ["flyp", "full"])
def test_classes_are_named_by_the_trained_text_tower_or_the_frozen_one(
    results: Path, label: str
) -> None:
    run_id = of(results, "cifar10", label, "also-fmow").run_id
    plan = Plan.build(suite_of(results.parent, SUITE + ALSO))
    setup = Setup("s", plan.runs, results, "miniature", plan.suite.resources, Remarks())
    workspace = Workspace(setup, torch.device("cpu"))
    run = plan.runs[run_id]
    names, prompts = workspace.data(run).vocabularies["also-fmow"]
    images = workspace.evaluation_images(run, "also-fmow")
    model = load(results, run_id)
    texts = model.clip if label == "flyp" else workspace.backbone(run).clip
    heads = []
    with torch.inference_mode():
        for of_class in prompts:
            each = texts.encode_text(model.tokenizer(list(of_class))).double()
            mean = torch.nn.functional.normalize(each, dim=-1).mean(0)
            heads.append(mean / mean.norm())
        scale = texts.logit_scale.double().exp()
        pixels = torch.stack([model.preprocess(images.images[i]) for i in range(len(images))])
        features = torch.nn.functional.normalize(model.clip.encode_image(pixels).double(), dim=-1)
    logits = (scale * features @ torch.stack(heads).T).numpy()
    table = predictions.read(RunFolder.of(results, run_id).predictions)
    told = predictions.examples_of(
        table.filter([name == "also-fmow" for name in table["set"].to_pylist()])
    )
    assert len(names) == logits.shape[1]
    highest = np.sort(logits, axis=1)[:, ::-1][:, : told.top_logits.shape[1]]  # type: ignore[union-attr]
    np.testing.assert_allclose(told.top_logits, highest, atol=2e-3)
    assert isinstance(model.preprocessing, Preprocessing)


def test_the_report_sets_zero_shot_beside_and_counts_the_sets_in_no_mean(results: Path) -> None:
    everything = rows(read(results))
    (ranking,) = (r for r in rank(everything) if r.task == "cifar10")
    assert ranking.shifts == ("cifar10.1", "cifar10.2")
    found = forgetting(ranking, Runs(everything))
    assert found.tasks == ("fmow",)
    zero_shot = of(results, "cifar10", "zero-shot", "also-fmow").value
    for method in ranking.methods:
        own = of(results, "cifar10", method.label, "also-fmow").value
        change = found.methods[method.name].change
        assert change is not None
        assert change.value == pytest.approx(own - zero_shot)
        shifts = [of(results, "cifar10", method.label, s).value for s in ranking.shifts]
        assert method.scores.mean_ood is not None
        assert method.scores.mean_ood.mean == pytest.approx(np.mean(shifts))


def test_others_images_are_told_from_the_tasks_own(results: Path) -> None:
    """AUROC and FPR95 of each score, from the logits of all classes."""
    report = build(read(results), results)
    (of_ranking,) = (r for r in report.rankings if r.ranking.task == "cifar10")
    row = of(results, "cifar10", "full", "outliers-fmow")
    assert (row.role, row.metric, row.n) == ("outliers", "ece:1", 30)
    plan = Plan.build(suite_of(results.parent, SUITE + ALSO))
    setup = Setup("s", plan.runs, results, "miniature", plan.suite.resources, Remarks())
    workspace = Workspace(setup, torch.device("cpu"))
    run, model = plan.runs[row.run_id], load(results, row.run_id)
    logits = {}
    for name in ("id-test", "outliers-fmow"):
        images = workspace.evaluation_images(run, name)
        pixels = torch.stack([model.preprocess(images.images[i]) for i in range(len(images))])
        logits[name] = model.logits(pixels).double().numpy()
    temperature = float(workspace.backbone(run).clip.logit_scale.detach().double().exp())
    scored = {
        "msp": lambda z: softmax(z, axis=1).max(1),
        "energy": lambda z: logsumexp(z, axis=1),
        "mcm": lambda z: softmax(z / temperature, axis=1).max(1),
    }
    assert row.value == pytest.approx(scored["msp"](logits["outliers-fmow"]).mean(), abs=1e-4)
    for name, score in scored.items():
        inside, outside = score(logits["id-test"]), score(logits["outliers-fmow"])
        labels = np.repeat([1, 0], [len(inside), len(outside)])
        expected = roc_auc_score(labels, np.concatenate([inside, outside]))
        found = of_ranking.measures.get("full", "outliers-fmow", f"auroc:{name}")
        assert found is not None
        assert found.mean == pytest.approx(expected, abs=2.5 / 30**2)  # the order of two or less
        threshold = np.sort(inside)[1]  # 29 of 30 are accepted, 28 would be too few
        found = of_ranking.measures.get("full", "outliers-fmow", f"fpr95:{name}")
        assert found is not None
        assert found.mean == pytest.approx((outside >= threshold).mean(), abs=1.01 / 30)
    assert "outliers-fmow" not in of_ranking.measures.single_sets
    assert "| full | fmow |" in to_markdown(report)


def test_rows_follow_from_the_predictions(results: Path) -> None:
    """What was recorded follows from the predictions, also of images without a class."""
    row = of(results, "cifar10", "full", "outliers-fmow")
    told = predictions.read(RunFolder.of(results, row.run_id).predictions)
    everything = rows(read(results, [row.run_id]))
    assert disagreements(everything, told) == []
    fewer = [row for row in everything if row.role not in ("also", "outliers")]
    assert differences(everything, fewer) == []  # the same run, whichever sets it has more
