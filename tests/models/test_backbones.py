from __future__ import annotations

import json
import subprocess
import sys
import types

import open_clip
import pytest
import torch
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.models import backbones
from shiftbench.models.backbones import (
    backbone_identity,
    check_backbone,
    find_pretrained,
    load_backbone,
    names_in_table,
)

from tests.models.tiny import RESNET, config, save_backbone


@pytest.fixture
def directory(tmp_path):
    save_backbone(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("vision", [{}, RESNET], ids=["vit", "resnet"])
def test_a_directory_loads_as_fp32_in_eval_mode(tmp_path, vision, dtype):
    weights = save_backbone(tmp_path, config(**vision), dtype=dtype)
    backbone = load_backbone(str(tmp_path))
    state = backbone.clip.state_dict()
    assert state.keys() == weights.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, weights[name].to(tensor.dtype))
        assert tensor.dtype in (torch.float32, torch.int64)
    assert not any(module.training for module in backbone.clip.modules())
    assert all(p.requires_grad for p in backbone.clip.visual.parameters())
    size = vision.get("image_size", 16)
    assert backbone.preprocessing == Preprocessing(size, (0.4, 0.5, 0.6), (0.3,) * 3, "bilinear")
    assert backbone.name == str(tmp_path)
    pixels = backbone.preprocessing.pixels(Image.new("RGB", (50, 40)))
    images = backbone.preprocessing.normalise(torch.from_numpy(pixels)[None])
    assert backbone.clip.encode_image(images).shape == (1, 24)
    assert backbone.clip.encode_text(backbone.tokenizer(["a cat", "a dog"])).shape == (2, 24)


def test_identity_is_of_the_content_not_the_place(tmp_path, directory):
    identity = backbone_identity(str(directory))
    assert identity.startswith("local@") and len(identity) == 6 + 16
    assert identity == load_backbone(str(directory)).identity
    moved = directory.rename(tmp_path / "moved")
    assert backbone_identity(str(moved)) == identity
    identities = {identity}
    (moved / "vocabulary.json").write_text("[1, 2]")
    identities.add(backbone_identity(str(moved)))
    save_backbone(moved, seed=1)
    identities.add(backbone_identity(str(moved)))
    document = config()
    document["preprocess_cfg"]["interpolation"] = "bicubic"
    (moved / "open_clip_config.json").write_text(json.dumps(document))
    identities.add(backbone_identity(str(moved)))
    assert len(identities) == 4


def test_identity_of_published_weights_is_their_name_in_one_spelling():
    assert backbone_identity("openai/ViT-B-16") == "openai/ViT-B-16"
    for spelling in ("openai/ViT-B/16", "openai/ViT-B-16-quickgelu", "OpenAI/ViT-B-16"):
        assert backbone_identity(spelling) == "openai/ViT-B-16"
    assert backbone_identity("laion2b-s34b-b88k/ViT-B-16") == "laion2b_s34b_b88k/ViT-B-16"


def test_identity_needs_neither_torch_nor_open_clip(directory):
    script = (
        "import sys; from shiftbench.models.backbones import backbone_identity as i; "
        f"i('openai/ViT-B-16'); i({str(directory)!r}); i('miniature'); "
        "assert not {'torch', 'open_clip'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_miniature_backbone_loads():
    backbone = load_backbone("miniature")
    assert backbone.identity == backbone_identity("miniature")
    assert backbone.identity.startswith("miniature@")
    text = backbone.clip.encode_text(backbone.tokenizer(["a photo of a star."]))
    assert text.isfinite().all()


@pytest.mark.parametrize(
    ("name", "quick_gelu"),
    [
        ("openai/ViT-B-16", True),
        ("openai/ViT-B/16", True),
        ("openai/ViT-B-16-quickgelu", True),
        ("openai/RN50", True),
        ("laion400m_e32/ViT-B-32", True),
        ("laion400m_e32/ViT-B-16", False),
        ("laion2b_s34b_b88k/ViT-B-16", False),
        ("dfn5b/ViT-H-14", True),
        ("metaclip_400m/ViT-B-32-quickgelu", True),
    ],
)
def test_the_activation_follows_the_weights(name, quick_gelu):
    entry = find_pretrained(name)
    assert entry.quick_gelu is quick_gelu
    assert not entry.model.endswith("quickgelu") and entry.source


def test_every_entry_of_open_clip_is_found_and_keeps_its_activation():
    for model, tag in open_clip.list_pretrained():
        entry = find_pretrained(f"{tag}/{model}")
        trained_with = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
        assert entry.quick_gelu is trained_with
        assert open_clip.get_model_config(entry.model) is not None
        assert backbone_identity(f"{tag}/{model}") == f"{entry.tag}/{entry.model}"


@pytest.mark.parametrize("quick", [True, False])
def test_the_model_that_is_made_has_that_activation(monkeypatch, tmp_path, quick):
    from open_clip.transformer import QuickGELU

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", config()["model_cfg"])
    made = open_clip.create_model("Tiny", force_quick_gelu=quick)
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    fake = {"Tiny": {"fake": {"file": str(tmp_path / "weights.pt"), "quick_gelu": quick}}}
    monkeypatch.setattr("open_clip.pretrained._PRETRAINED", fake)
    backbone = load_backbone("fake/Tiny")
    assert any(isinstance(m, QuickGELU) for m in backbone.clip.modules()) is quick
    tokens = backbone.tokenizer(["a cat"])
    assert torch.equal(backbone.clip.encode_text(tokens), made.eval().encode_text(tokens))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("laion2b_s34b_b88k/ViT-B-16-quickgelu", ["GELU", "laion2b_s34b_b88k/ViT-B-16"]),
        ("openai/ViT-B-17", ["nearest", "openai/ViT-B-16"]),
        ("opnai/ViT-B-16", ["ViT-B-16 has the weights openai"]),
        ("nothing/like-it-zzzzzzzzzzz", ["nearest", "openai/ViT-B-16"]),
        ("ViT-B-16", ["<pretrained>/<model>"]),
        ("minature", ["miniature"]),
        ("openai/", ["<pretrained>/<model>"]),
        ("/no/such/directory", ["open_clip_config.json"]),
        ("./no-such-directory", ["open_clip_config.json"]),
    ],
)
def test_names_that_mean_nothing_say_what_would(name, words):
    with pytest.raises(InputError) as raised:
        load_backbone(name)
    message = str(raised.value)
    assert repr(name) in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_failed_download_says_what_to_do_offline(monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr("open_clip.factory.download_pretrained", fails)
    with pytest.raises(InputError) as raised:
        load_backbone("openai/ViT-B-16")
    message = str(raised.value)
    assert "\n" not in message
    for word in ("no route to host", "timm/vit_base_patch16_clip_224.openai", "HF_HUB_OFFLINE"):
        assert word in message


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_in_a_directory_are_refused(directory, file):
    weights = directory / "open_clip_model.safetensors"
    weights.rename(directory / file)
    for use in (load_backbone, backbone_identity):
        with pytest.raises(InputError, match=rf"{file}: pickled weights .*convert them once"):
            use(str(directory))
    (directory / file).rename(weights)
    torch.save({"w": torch.ones(1)}, weights)
    with pytest.raises(InputError, match="a pickle"):
        load_backbone(str(directory))


def drop(document, *keys):
    for key in keys[:-1]:
        document = document[key]
    del document[keys[-1]]


BAD_CONFIGS = {
    "no model_cfg": (lambda c: drop(c, "model_cfg"), "model_cfg must have"),
    "no tower": (lambda c: drop(c, "model_cfg", "text_cfg"), "must have text_cfg"),
    "unknown key": (lambda c: c["model_cfg"].update(embed_dimension=3), "embed_dimension"),
    "other shape": (lambda c: c["model_cfg"].update(embed_dim=25), "size mismatch"),
    "other size": (lambda c: c["model_cfg"]["vision_cfg"].update(layers=3), "Missing key"),
    "resize": (lambda c: c["preprocess_cfg"].update(resize_mode="longest"), "shortest, squash"),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_configuration_that_does_not_fit_is_named(directory, spoil, words):
    document = config()
    spoil(document)
    (directory / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words) as raised:
        load_backbone(str(directory))
    assert "\n" not in str(raised.value)


def test_damaged_files_are_named(directory):
    weights = directory / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"open_clip_model\.safetensors: truncated"):
        load_backbone(str(directory))
    weights.unlink()
    with pytest.raises(InputError, match=r"open_clip_model\.safetensors: no such file"):
        load_backbone(str(directory))
    (directory / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match=r"open_clip_config\.json: not readable as JSON"):
        load_backbone(str(directory))


def test_weights_that_are_not_finite_are_refused(directory):
    from safetensors.torch import load_file, save_file

    weights = load_file(directory / "open_clip_model.safetensors")
    weights["visual.proj"][3, 2] = float("nan")
    save_file(weights, directory / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"NaN or infinite values in 'visual\.proj'"):
        load_backbone(str(directory))


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    document = config()
    document["model_cfg"]["text_cfg"]["vocab_size"] = 100
    save_backbone(tmp_path, document)
    with pytest.raises(InputError, match=r"49,408 tokens but the text tower 100"):
        load_backbone(str(tmp_path))
    for vocabulary in ("{", "[1, 1]"):
        (tmp_path / "vocabulary.json").write_text(vocabulary)
        with pytest.raises(InputError, match="tokenizer"):
            load_backbone(str(tmp_path))


def test_a_directory_with_a_vocabulary_uses_it(tmp_path):
    document = config()
    document["model_cfg"]["text_cfg"]["vocab_size"] = 14
    save_backbone(tmp_path, document)
    (tmp_path / "vocabulary.json").write_text(json.dumps(list(range(300, 310))))
    backbone = load_backbone(str(tmp_path))
    assert int(backbone.tokenizer(["a photo of a cat"]).max()) == 13


def test_coca_is_refused(tmp_path):
    document = config()
    model = document["model_cfg"]
    model["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    model["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
    model["multimodal_cfg"] = {**model["text_cfg"], "width": 24, "attn_pooler_heads": 2}
    save_backbone(tmp_path, document, kind=open_clip.CoCa)
    model["custom_text"] = True
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="CoCa"):
        load_backbone(str(tmp_path))


def test_the_names_of_files_are_open_clips():
    from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME

    assert (backbones.CONFIG, backbones.WEIGHTS) == (HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME)


def test_another_package_names_a_directory(monkeypatch, directory):
    module = types.ModuleType("mylab_backbones")
    module.clip = lambda: directory
    module.path = str(directory)
    monkeypatch.setitem(sys.modules, "mylab_backbones", module)
    monkeypatch.setenv(
        "SHIFTBENCH_PLUGINS",
        "backbones/made=mylab_backbones:clip,backbones/given=mylab_backbones:path",
    )
    for name in ("made", "given"):
        check_backbone(name)
        assert backbone_identity(name) == backbone_identity(str(directory))
        assert load_backbone(name).name == name


def test_the_table_that_is_read_from_source_is_open_clips_own() -> None:
    import open_clip

    own = {(tag, model) for model, tag in open_clip.list_pretrained()}
    missing = own - names_in_table()
    assert names_in_table() <= own
    assert all(model.endswith("-quickgelu") for _, model in missing)
