"""The Python API, on a small suite that is run in this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shiftbench
import torch
from shiftbench import api
from shiftbench.data.roots import resolve
from shiftbench.data.tasks.opening import open_task
from shiftbench.leaderboard.runfolder import RunFolder

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: &short {lr: 5e-4, epochs: 1, batch_size: 48, warmup_steps: 1}
  linear-probe: {<<: *short, lr: 1e-2}
  flyp: *short
  wise-ft: {alphas: [0, 0.5, 1]}
  output-ensemble: {alphas: [0.5]}
budget: {steps: 3, evaluation_images: 40}
"""
TUNED = "{of: full, settings: {lr: 1e-3}, search: {n_trials: 2}}"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, world: Path) -> shiftbench.Leaderboard:
    """The leaderboard of the suite, which is run here, without Ray."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "small.yaml").write_text(SUITE)
    return shiftbench.run(folder / "small.yaml", folder / "results", executor="in-process")


def id_of(board: shiftbench.Leaderboard, label: str) -> str:
    return next(row.run_id for row in board.records() if row.label == label)


# Importing


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, shiftbench\n"
        "heavy = {'pydantic', 'torch', 'ray', 'numpy', 'pyarrow', 'yaml', 'open_clip', 'typer'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "assert set(shiftbench.__all__) <= set(dir(shiftbench))\n"
        "shiftbench.Suite, shiftbench.Plan, shiftbench.Leaderboard, shiftbench.InputError\n"
        "shiftbench.Method, shiftbench.TrainingConfig, shiftbench.Task\n"
        "heavy = {'torch', 'ray', 'open_clip', 'scipy', 'pandas'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_documented():
    for name in shiftbench.__all__:
        value = getattr(shiftbench, name)
        assert name == "__version__" or value.__doc__, name
    assert {*shiftbench._HOMES, "__version__"} == {*shiftbench.__all__}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        shiftbench.nothing  # noqa: B018


# What has been run


def test_a_suite_runs_here_and_its_rows_are_there(board):
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert board.title == "Leaderboard: small"
    labels = {row.label for row in board.records()}
    assert labels == {
        "zero-shot", "full", "linear-probe", "flyp", "wise-ft", "output-ensemble",
    }  # fmt: skip
    assert board.failures() == []
    table = board.rows("cifar10")
    assert table.num_rows == board.rows().num_rows == len(board.records())
    assert b"description" in table.schema.field("value").metadata
    with pytest.raises(shiftbench.InputError, match=r'no run of a task "cifar1" .*cifar10'):
        board.rows("cifar1")


@pytest.mark.parametrize(
    ("overrides", "environment", "address", "name"),
    [
        ((), {}, None, "in-process"),
        ((), {}, "auto", "ray"),
        ((), {"RAY_ADDRESS": "10.0.0.1:6379"}, None, "ray"),
        (("resources.workers=2",), {}, None, "ray"),
        (("methods.full={resources: {workers: 2}}",), {}, None, "ray"),
        (("seeds=[0, 1, 2, 3]",), {}, None, "ray"),
        (
            ("methods.tuned={of: full, settings: {lr: 1e-3}, search: {n_trials: 2}}",),
            {},
            None,
            "ray",
        ),
    ],
)
def test_small_suites_without_searches_run_in_this_process(
    tmp_path, monkeypatch, overrides, environment, address, name
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "small.yaml").write_text(SUITE)
    suite = shiftbench.Suite.load(tmp_path / "small.yaml", overrides)
    assert api._fitting(suite, address) == name


def test_an_address_is_of_a_ray_cluster(tmp_path):
    with pytest.raises(shiftbench.InputError, match="goes with the executor ray"):
        api.executor_of("in-process", "10.0.0.1:6379")


def test_rankings_and_ties(board):
    ranking = board.ranking("cifar10")
    assert (ranking,) == tuple(board.rankings())
    assert {method.label for method in ranking.methods} >= {"zero-shot", "full"}
    assert board.ties("cifar10").letters.keys() == {
        method.name for method in ranking.methods if method.rank is not None
    }
    with pytest.raises(shiftbench.InputError, match=r"no such ranking.*cifar10 · miniature"):
        board.ranking("cifar10", backbone="other")


def test_several_rankings_must_be_told_apart(board):
    more = shiftbench.Suite.load(
        board.results.parent / "small.yaml", ["shots=[1, 2]", "methods=[zero-shot, full]"]
    )
    found = shiftbench.run(more, board.results.parent / "more", executor="in-process")
    with pytest.raises(shiftbench.InputError, match=r"several rankings are meant.* 1 shots"):
        found.ranking("cifar10")
    assert found.ranking("cifar10", shots=2).shots == 2


def test_a_report_is_built_and_written(board, tmp_path):
    report = board.report(markdown=tmp_path / "a.md", html=tmp_path / "b.html")
    assert report.title == "Leaderboard: small"
    assert (tmp_path / "a.md").read_text().startswith("# Leaderboard: small")
    assert "</html>" in (tmp_path / "b.html").read_text()


def test_results_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(shiftbench.InputError, match="there are no results"):
        shiftbench.Leaderboard(tmp_path / "nothing")


# Predictions and models


@pytest.mark.parametrize(
    ("label", "variant"),
    [
        ("zero-shot", ""),
        ("full", ""),
        ("linear-probe", ""),
        ("flyp", ""),
        ("wise-ft", "alpha=0.5"),
        ("wise-ft", "alpha=1.0"),
    ],
)
def test_a_loaded_model_has_the_logits_of_the_stored_predictions(board, label, variant):
    run_id = id_of(board, label)
    tuned = shiftbench.load_model(board.results, run_id[:8], variant)
    table = board.predictions(run_id).to_pylist()
    rows = {
        row["id"]: row for row in table if row["set"] == "id-test" and row["variant"] == variant
    }
    images = open_task(board.plan.runs[run_id].task, resolve("miniature"), None, 0).evaluation[
        "id-test"
    ][1]
    position = {name: i for i, name in enumerate(images.ids.tolist())}
    inputs = torch.stack([tuned.preprocess(images.images[position[name]]) for name in rows])
    logits = tuned.logits(inputs)
    assert logits.shape == (len(rows), len(tuned.classes))
    for row, own in zip(rows.values(), logits.numpy(), strict=True):
        best = row["top_classes"]
        np.testing.assert_allclose(own[best], row["top_logits"], rtol=1e-5, atol=1e-4)
        assert own.argmax() == row["prediction"]
    shown = [images.images[position[name]] for name in list(rows)[:3]]
    predicted = [tuned.classes[row["prediction"]] for row in list(rows.values())[:3]]
    assert tuned.predict(shown) == predicted


def test_a_loaded_model_is_a_plain_open_clip_model(board):
    import open_clip

    zero_shot = board.load_model(id_of(board, "zero-shot"))
    flyp = board.load_model(id_of(board, "flyp"))
    assert isinstance(flyp.clip, open_clip.CLIP)
    assert flyp.clip.state_dict().keys() == zero_shot.clip.state_dict().keys()
    tokens = flyp.tokenizer([f"a photo of a {name}." for name in flyp.classes])
    text = flyp.clip.encode_text(tokens)
    assert not torch.allclose(text, zero_shot.clip.encode_text(tokens))  # it trains this tower too
    assert not any(parameter.requires_grad for parameter in flyp.clip.parameters())


def test_what_cannot_be_loaded_is_refused_in_one_line(board):
    def refused(label, variant=None):
        with pytest.raises(shiftbench.InputError) as caught:
            board.load_model(id_of(board, label), variant)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert 'has no variant "alpha=0.7"' in refused("wise-ft", "alpha=0.7")
    assert f"load its members: {id_of(board, 'full')}" in refused("output-ensemble")
    with pytest.raises(shiftbench.InputError, match='"nothing" is no run'):
        board.load_model("nothing")
    folder = RunFolder.of(board.results, id_of(board, "linear-probe"))
    folder.weights.rename(folder.path / "moved")
    try:
        assert "weights.safetensors" in refused("linear-probe")
    finally:
        (folder.path / "moved").rename(folder.weights)
