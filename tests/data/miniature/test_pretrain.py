"""Pretraining: the objective, and tiny runs of both corpora."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from shiftbench.data.miniature import pretrain
from shiftbench.data.miniature.captions import (
    caption,
    colour_name,
    fmow_captions,
    iwildcam_captions,
)
from torch.nn.functional import normalize

SMALL = ["--epochs", "1", "--batch", "16", "--width", "32", "--layers", "1"]


def test_loss_is_info_nce_when_all_concepts_differ() -> None:
    torch.manual_seed(0)
    image, text = (normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    scale = torch.tensor(7.0)
    logits = scale * image @ text.T
    own = torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, own)
        + torch.nn.functional.cross_entropy(logits.T, own)
    ) / 2
    found = pretrain.contrastive_loss(image, text, scale, torch.eye(5, dtype=torch.bool))
    assert torch.allclose(found, expected)


def test_loss_does_not_push_captions_of_one_concept_apart() -> None:
    image = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    aligned = pretrain.contrastive_loss(image, image, torch.tensor(100.0), same)
    assert aligned == pytest.approx(2 / 3 * np.log(2), abs=1e-4)


def test_few_per_concept_covers_all() -> None:
    concept = torch.tensor([3, 3, 3, 1, 1, 7])
    rows = pretrain.few_per_concept(concept, torch.Generator().manual_seed(0))
    assert sorted(concept[rows].tolist()) == [1, 1, 3, 3, 7]
    assert len(set(rows.tolist())) == len(rows)


def test_world_run_is_reproducible_and_loads(tmp_path: Path) -> None:
    for name in "ab":
        pretrain.main(["--out", str(tmp_path / name), "--images", "60", *SMALL])
    weights = [(tmp_path / name / "open_clip_model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    model = open_clip.create_model(f"local-dir:{tmp_path / 'a'}")
    assert model.encode_image(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
    recipe = json.loads((tmp_path / "a/recipe.json").read_text())
    assert (recipe["images"], recipe["width"]) == (60, 32)


def _parquet(path: Path, metadata: bool) -> None:
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(60):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "label": [i % 2 for i in range(60)]})
    if metadata:
        names = {"info": {"features": {"label": {"names": ["tabby, cat", "dog"]}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(table, path)


@pytest.mark.parametrize("metadata", [True, False])
def test_parquet_run(tmp_path: Path, metadata: bool) -> None:
    _parquet(tmp_path / "data.parquet", metadata)
    names = [] if metadata else ["--label-names", "tabby", "dog"]
    out = tmp_path / "out"
    pretrain.main(["--data", str(tmp_path / "data.parquet"), "--out", str(out), *names, *SMALL])
    config = json.loads((out / "open_clip_config.json").read_text())["model_cfg"]
    assert config["vision_cfg"]["image_size"] == 24
    tokenizer = pretrain.CompactTokenizer.load(out)
    assert not (tokenizer("a photo of a tabby.") == 1).any()


def test_prompts_of_the_wilds_tasks() -> None:
    assert len(set(fmow_captions("crop_field"))) == 16
    assert "aerial photo of a crop field." in fmow_captions("crop_field")
    assert "satellite photo of an airport." in fmow_captions("airport")
    assert "aerial photo of a crop_field in the americas." in fmow_captions("crop_field")
    assert iwildcam_captions("hare") == ["a photo of hare.", "hare in the wild."]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((1, 0, 0), "red"), ((0, 0, 1), "blue"), ((0, 0.8, 0.1), "green"), ((1, 1, 1), "white")],
)
def test_colour_names(rgb: tuple[float, float, float], name: str) -> None:
    assert colour_name(rgb) == name


def test_captions_name_the_class() -> None:
    rng = np.random.default_rng(0)
    said = {caption(rng, "fmow", "wind_farm", "aerial") for _ in range(200)}
    assert all("wind_farm" in text or "wind farm" in text for text in said)
    assert len(said) > 15
