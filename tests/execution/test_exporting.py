"""Models that leave: folders of open_clip whose logits are the stored predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from safetensors.torch import load_file
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.roots import resolve
from shiftbench.data.tasks.opening import open_task
from shiftbench.evaluation import predictions
from shiftbench.execution.exporting import export_model
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows
from shiftbench.models.exported import load_exported
from shiftbench.suite.plan import Run

from tests.execution.by_stages import run
from tests.hub import local_hub

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 1e-3, batch_size: 12, warmup_steps: 0}
  flyp: {lr: 1e-3, batch_size: 12, warmup_steps: 0}
  wise-ft: {alphas: [0.5, 1], alpha: 0.5}
  output-ensemble: {alphas: [0.5]}
budget: {steps: 3, evaluation_images: 30}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, world: Path) -> tuple[Path, dict[str, Run]]:
    """The results, and the runs by label."""
    folder = tmp_path_factory.mktemp("exporting")
    plan = run(folder, SUITE)
    return folder / "results", {found.label: found for found in plan.runs.values()}


def stored(results: Path, of: Run, variant: str) -> dict[str, Any]:
    """The predictions on the ID test set by image."""
    table = predictions.read(RunFolder.of(results, of.id).predictions).to_pylist()
    return {
        row["id"]: row for row in table if row["set"] == "id-test" and row["variant"] == variant
    }


def images_of(of: Run, names: list[str]) -> list[Any]:
    images: ImageSet = open_task(of.task, resolve("miniature"), None, 0).evaluation["id-test"][1]
    place = {name: i for i, name in enumerate(images.ids.tolist())}
    return [images.images[place[name]] for name in names]


@pytest.mark.parametrize(
    ("label", "variant"),
    [
        ("zero-shot", ""),
        ("full", ""),
        ("flyp", ""),
        ("wise-ft", "alpha=0.5"),
        ("wise-ft", "alpha=1.0"),
    ],
)
def test_plain_open_clip_gives_the_stored_logits(done, tmp_path, label, variant) -> None:  # type: ignore[no-untyped-def]
    results, runs = done
    to = tmp_path / "model"
    export_model(results, runs[label].id, to, variant)
    # As the model card says.
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{to}")
    head = load_file(to / "classifier.safetensors")
    expected = stored(results, runs[label], variant)
    inputs = torch.stack([preprocess(image) for image in images_of(runs[label], [*expected])])
    with torch.no_grad():
        features = model.eval().encode_image(inputs, normalize=True)
        logits = (features @ head["weight"].T + head["bias"]).numpy()
    assert len(expected) == 30
    for row, own in zip(expected.values(), logits, strict=True):
        np.testing.assert_allclose(own[row["top_classes"]], row["top_logits"], rtol=1e-5, atol=1e-4)
    assert len(json.loads((to / "classes.json").read_text())) == len(head["weight"])


def test_the_text_tower_goes_with_it(done, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from shiftbench.models.backbones import load_backbone

    results, runs = done
    flyp = export_model(results, runs["flyp"].id, tmp_path / "flyp")
    again = load_backbone(str(tmp_path / "flyp"))  # a backbone like any other
    tokens = again.tokenizer(["a photo of a cat."])
    assert torch.equal(tokens, flyp.tokenizer(["a photo of a cat."]))
    assert torch.equal(again.clip.encode_text(tokens), flyp.clip.encode_text(tokens))
    assert again.preprocessing == flyp.preprocessing
    untrained = load_backbone("miniature").clip.encode_text(tokens)
    assert not torch.allclose(again.clip.encode_text(tokens), untrained, atol=1e-4)


def test_an_exported_model_comes_back_as_a_method(done, tmp_path, world) -> None:  # type: ignore[no-untyped-def]
    results, runs = done
    export_model(results, runs["full"].id, tmp_path / "model")
    head, _, _ = SUITE.partition("  zero-shot:")
    text = f"{head}  mine: {{method: from-checkpoint, path: {tmp_path / 'model'}}}\n"
    plan = run(tmp_path, f"{text}budget: {{evaluation_images: 30}}\n")
    (mine,) = plan.runs.values()
    export_model(tmp_path / "results", mine.id, tmp_path / "again")
    card = (tmp_path / "again" / "README.md").read_text()
    assert "what the weights were trained on elsewhere is not known" in card
    assert str(tmp_path.parent) not in card.partition("## Use")[0]
    assert mine.config.head == "linear"  # type: ignore[attr-defined]
    for row, other in zip(
        stored(tmp_path / "results", mine, "").values(),
        stored(results, runs["full"], "").values(),
        strict=True,
    ):
        assert row == other


def test_the_card_has_the_rows_numbers(done, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    results, runs = done
    to = tmp_path / "model"
    export_model(results, runs["wise-ft"].id, to, "alpha=1.0", licence="cc-by-nc-4.0")
    _, front, text = (to / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "cc-by-nc-4.0" and metadata["library_name"] == "open_clip"
    of_run = rows(store.read(results, [runs["wise-ft"].id]))
    mine = [row for row in of_run if row.variant == "alpha=1.0"]
    assert mine
    (index,) = metadata["model-index"]
    said = {
        (result["dataset"]["type"], metric["type"]): metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    assert said == {(row.evaluation_set, row.metric): row.value for row in mine}
    for row in mine:
        line = f"| {row.evaluation_set} | {row.metric} | {row.value:.4f} | {row.low:.4f} – "
        assert line in text
    assert f"full ({runs['full'].id})" in text and "alpha=1.0" in text
    assert str(mine[0].train_fingerprint) in text and "for ID validation" in text
    assert f'create_model_from_pretrained("local-dir:{to}")' in text
    monkeypatch.chdir(tmp_path)  # where a folder may look like a repository of the Hub
    export_model(results, runs["full"].id, Path("other/clip"))
    card = (tmp_path / "other" / "clip" / "README.md").read_text()
    assert "license: other" in card
    assert 'create_model_from_pretrained("local-dir:other/clip")' in card


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(done, tmp_path) -> None:  # type: ignore[no-untyped-def]
    results, runs = done
    with pytest.raises(InputError, match="load its members"):
        export_model(results, runs["output-ensemble"].id, tmp_path / "model")
    with pytest.raises(InputError, match=r'has no variant "alpha=0\.7"'):
        export_model(results, runs["wise-ft"].id, tmp_path / "model", "alpha=0.7")
    assert not list(tmp_path.iterdir())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").touch()
    with pytest.raises(InputError, match="there is something already"):
        export_model(results, runs["full"].id, tmp_path / "model")
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "mine.txt"]


def test_predict_classifies_images_from_the_command_line(done, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    results, runs = done
    to, of = tmp_path / "model", runs["full"]
    words = ["export-model", of.id[:8], "--to", str(to), "--results", str(results)]
    assert main(words) == 0
    expected = stored(results, of, "")
    names = list(expected)[:3]
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images_of(of, names)):
        image.save(tmp_path / "photos" / f"{i}.png")
    capsys.readouterr()
    assert main(["predict", str(to), str(tmp_path / "photos"), "--top", "2"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    classes = load_exported(to).classes
    assert [name for _, name, _ in lines[::2]] == [
        classes[expected[name]["prediction"]] for name in names
    ]
    firsts, seconds = ([float(line[2]) for line in lines[i::2]] for i in (0, 1))
    assert all(first >= second for first, second in zip(firsts, seconds, strict=True))
    (tmp_path / "text.png").write_text("no image")
    assert main(["predict", str(to), str(tmp_path / "text.png")]) == 2
    assert "text.png: not read as an image" in capsys.readouterr().err
    (to / "classes.json").write_text('["one"]')
    assert main(["predict", str(to), str(tmp_path / "photos")]) == 2
    assert "names 1 classes" in capsys.readouterr().err


def test_a_model_is_pushed_to_the_hub(done, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    results, runs = done
    to = tmp_path / "model"
    words = ["export-model", runs["full"].id, "--results", str(results), "--push", "lab/model"]
    monkeypatch.setenv("HF_TOKEN", "secret")
    # The fake stores large files by Git LFS, and not by the service that has come in its place.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with local_hub("secret") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main([*words, "--to", str(to), "--private"]) == 0
        assert hub.url in capsys.readouterr().out
        assert hub.private == {"lab/model": True}
        assert hub.files == {file.name: file.read_bytes() for file in to.iterdir()}
        assert b'create_model_from_pretrained("hf-hub:lab/model")' in hub.files["README.md"]
        monkeypatch.setenv("HF_TOKEN", "another")
        assert main([*words, "--to", str(tmp_path / "again")]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: lab/model: not uploaded: ") and "401" in error
    assert main([*words, "--to", str(tmp_path / "third")]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert main([*words[:-1], "model", "--to", str(tmp_path / "fourth")]) == 2
    assert "must be a repository of the Hub" in capsys.readouterr().err
