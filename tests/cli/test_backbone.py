"""``shiftbench backbone``: what it prints, and what it refuses."""

from __future__ import annotations

import pytest
from shiftbench.cli import main
from shiftbench.models.examination import examine

from tests.hub import local_hub
from tests.models.tiny import save_backbone


def test_a_backbone_is_checked_by_using_it(tmp_path, capsys):
    save_backbone(tmp_path / "clip")
    assert main(["backbone", "check", str(tmp_path / "clip"), "miniature"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "image tower: ViT, 2 layers of width 32, patches of 8 pixels",
        "activation: GELU",
        "16×16 pixels, shortest, bilinear, mean 0.4/0.5/0.6",
        "tokenizer: SimpleTokenizer, 16 tokens",
        "embeddings of width 24, temperature 14.29",
        "tokenizer: CompactTokenizer",
    ):
        assert words in shown
    assert examine(str(tmp_path / "clip")).identity in shown


def test_a_backbone_that_sees_no_difference_is_refused(tmp_path, capsys):
    from safetensors.torch import save_file

    weights = save_backbone(tmp_path)
    weights["visual.conv1.weight"].zero_()
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    assert main(["backbone", "check", str(tmp_path)]) == 2
    assert "two different images have the same embedding" in capsys.readouterr().err


def test_fetching_without_a_network_ends_at_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("openai/ViT-L-14", "hf-hub:lab/clip"):
        assert main(["backbone", "fetch", name]) == 2
        error = capsys.readouterr().err
        assert "HF_HUB_OFFLINE is set" in error and error.count("\n") == 2
    assert main(["backbone", "fetch", "ViT-L-14/openai"]) == 2
    assert "did you mean openai/ViT-L-14?" in capsys.readouterr().err


def test_the_list_says_what_is_here(capsys):
    assert main(["backbone", "list", "openai/ViT-B"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("openai/ViT-B-16"))
    assert line.split() == ["openai/ViT-B-16", "yes", "timm/vit_base_patch16_clip_224.openai"]
    assert main(["backbone", "list", "openai/RN101"]) == 0
    assert "yes" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["clip", "./nothing.pt", "./nothing.pt/ViT-B-16"])
def test_what_is_not_there_is_named(name, capsys):
    assert main(["backbone", "check", name]) == 2
    error = capsys.readouterr().err
    assert repr(name) in error and error.count("\n") == 1


def test_a_repository_is_fetched_once_and_without_what_is_not_needed(tmp_path, monkeypatch, capsys):
    save_backbone(tmp_path / "clip")
    with local_hub("secret") as hub:
        hub.files = {file.name: file.read_bytes() for file in (tmp_path / "clip").iterdir()}
        hub.files |= {"open_clip_pytorch_model.bin": b"the same again", "images.png": b"large"}
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        assert main(["backbone", "fetch", "hf-hub:lab/model"]) == 0
        assert "identity: hf-hub@1111111111111111" in capsys.readouterr().out
        fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
        assert fetched == {"open_clip_config.json", "open_clip_model.safetensors"}
    # And from now on without a network.
    assert main(["backbone", "check", "hf-hub:lab/model"]) == 0
