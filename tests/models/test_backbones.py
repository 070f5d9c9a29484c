from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from shiftbench.core.errors import InputError
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.models import hub, names
from shiftbench.models.backbones import backbone_identity, check_backbone, load_backbone
from shiftbench.models.published import Pretrained, sources_in_table
from shiftbench.models.published import find_pretrained as find
from shiftbench.models.reading import read_weights

from tests.models.tiny import RESNET, config, save_backbone


def find_pretrained(name: str) -> Pretrained:
    """The entry that a name means."""
    place = names.meaning(name)
    assert isinstance(place, names.Published)
    return find(place.tag, place.model)


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
    for file in ("vocabulary.json", "spiece.model", "vocab.txt", "merges.txt"):
        (moved / file).write_text("[1, 2]")
        identities.add(backbone_identity(str(moved)))
    save_backbone(moved, seed=1)
    identities.add(backbone_identity(str(moved)))
    document = config()
    document["preprocess_cfg"]["interpolation"] = "bicubic"
    (moved / "open_clip_config.json").write_text(json.dumps(document))
    identities.add(backbone_identity(str(moved)))
    assert len(identities) == 7


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


COMMIT = "c0ffee" * 6 + "c0ff"


def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a Hub that nobody answers at."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )


@pytest.mark.parametrize("use", [load_backbone, check_backbone])
def test_without_a_network_it_stops_at_once_and_says_what_to_do(monkeypatch, tmp_path, use):
    no_network(monkeypatch, tmp_path)
    asked = []
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", asked.append)
    with pytest.raises(InputError) as raised:
        use("openai/ViT-B-16")
    message = str(raised.value)
    assert "\n" not in message and not asked
    for word in ("timm/vit_base_patch16_clip_224.openai", "backbone fetch", "HF_HUB_OFFLINE"):
        assert word in message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        use("openai/ViT-B-16")


def test_what_is_in_the_cache_needs_no_network(monkeypatch, tmp_path):
    no_network(monkeypatch, tmp_path)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", config()["model_cfg"])
    entry = {"url": "", "hf_hub": "lab/tiny/", "quick_gelu": True, "mean": (0.1, 0.2, 0.3)}
    monkeypatch.setattr("open_clip.pretrained._PRETRAINED", {"Tiny": {"lab": entry}})
    weights = cached_repository(tmp_path / "hub", "lab/tiny", {})
    backbone = load_backbone("lab/Tiny")
    assert backbone.config["quick_gelu"] and backbone.preprocessing.mean == (0.1, 0.2, 0.3)
    assert torch.equal(backbone.clip.state_dict()["visual.proj"], weights["visual.proj"])


def cached_repository(cache: Path, repo: str, document: dict) -> dict[str, torch.Tensor]:
    """A repository as the Hub's clients keep it in their cache."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / (COMMIT)
    weights = save_backbone(snapshot, document or None)
    if not document:
        (snapshot / "open_clip_config.json").unlink()
    return weights


def test_a_repository_of_the_hub_is_read_from_the_cache(monkeypatch, tmp_path):
    no_network(monkeypatch, tmp_path)
    name = "hf-hub:lab/tiny"
    for use in (load_backbone, check_backbone, backbone_identity):
        with pytest.raises(InputError, match="shiftbench backbone fetch hf-hub:lab/tiny"):
            use(name)
    weights = cached_repository(tmp_path / "hub", "lab/tiny", config())
    check_backbone(name)
    backbone = load_backbone(name)
    assert torch.equal(backbone.clip.state_dict()["visual.proj"], weights["visual.proj"])
    assert backbone.identity == backbone_identity(name) == "hf-hub@c0ffeec0ffeec0ff"
    assert load_backbone(f"{name}@{COMMIT}").identity == backbone.identity
    with pytest.raises(InputError, match="fetch"):
        backbone_identity(f"{name}@other")


@pytest.mark.parametrize(
    "name",
    ["ViT-B-32/openai", "ViT-B/32/openai", "ViT-B-32:openai", "openai:ViT-B-32", "openai vit-b-32"],
)
def test_a_pair_in_another_order_is_understood_but_not_taken(name):
    for use in (load_backbone, check_backbone):
        with pytest.raises(InputError, match=r"did you mean openai/ViT-B-32\?"):
            use(name)


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.bin", "model.pth"])
def test_pytorchs_own_files_are_read_without_their_code(directory, file, capfd):
    weights = directory / "open_clip_model.safetensors"
    kept = load_file(weights)
    weights.unlink()
    torch.save(kept, directory / file)
    check_backbone(str(directory))
    backbone = load_backbone(str(directory))
    assert torch.equal(backbone.clip.state_dict()["visual.proj"], kept["visual.proj"])
    torch.save({**kept, "code": Harmful()}, directory / file)
    with pytest.raises(InputError, match=rf"{file}: .*not read: a pickle can run any code"):
        load_backbone(str(directory))
    assert not capfd.readouterr().out


class Harmful:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (print, ("harm",))


def test_a_pickle_called_safetensors_is_refused(directory):
    torch.save({"w": torch.ones(1)}, directory / "open_clip_model.safetensors")
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


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b"\x93NUMPY"])
def test_a_file_of_something_else_is_no_weights(tmp_path, content):
    (tmp_path / "file.txt").write_bytes(content)
    for use in (check_backbone, load_backbone):
        with pytest.raises(InputError, match=r"file\.txt: holds no weights: neither \.safe"):
            use(f"{tmp_path}/file.txt/ViT-B-32")
    with pytest.raises(InputError, match=r"file\.txt: holds no weights"):
        read_weights([tmp_path / "file.txt"])


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", b"\x80\x02e.", b"\x80\x02h\x65."])
def test_a_damaged_file_of_pytorch_says_what_went_wrong(tmp_path, content):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.pt: (cannot be read: \w+Error: |holds more)"):
        read_weights([tmp_path / "file.pt"])


def test_weights_that_are_not_finite_are_refused(directory):
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


@pytest.mark.parametrize(
    ("of_hub", "key"), [(True, "trust_remote_code"), (True, "cache_dir"), (False, "bpe_path")]
)
def test_a_configuration_cannot_have_a_tokenizer_run_code_or_open_files(
    tmp_path, monkeypatch, of_hub, key
):
    def never(*args, **settings):
        raise AssertionError(settings)

    for name in ("HFTokenizer", "SimpleTokenizer"):
        monkeypatch.setattr(f"open_clip.tokenizer.{name}", never)
    document = config()
    text = document["model_cfg"]["text_cfg"]
    text["tokenizer_kwargs"] = {"clean": "lower", key: True}
    if of_hub:
        text["hf_tokenizer_name"] = "lab/tokenizer"
    save_backbone(tmp_path, document)
    words = rf"open_clip_config\.json: tokenizer_kwargs: '{key}' is not accepted, only .*clean"
    with pytest.raises(InputError, match=words):
        load_backbone(str(tmp_path))


def test_the_code_of_a_tokenizers_folder_is_never_asked_for(tmp_path, monkeypatch):
    """Where nothing is said, transformers asks on the terminal whether to run it."""
    document = config()
    document["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "lab/tokenizer"
    save_backbone(tmp_path, document)
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    marker = tmp_path / "harm"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with pytest.raises(InputError, match="cannot load its tokenizer"):
        load_backbone(str(tmp_path))
    assert not marker.exists()


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

    assert (names.CONFIG, hub.WEIGHTS[0]) == (HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME)


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
    missing = own - sources_in_table().keys()
    assert sources_in_table().keys() <= own
    assert all(model.endswith("-quickgelu") for _, model in missing)
    for (tag, model), source in sources_in_table().items():
        assert source == find(tag, model).source and (source.repo or source.url)


def training_checkpoint(folder: Path, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """``checkpoints/epoch_3.pt`` as open_clip's training leaves it, and a folder ``clip``."""
    weights = save_backbone(folder / "clip")
    (folder / "checkpoints").mkdir()
    state = {prefix + name: tensor for name, tensor in weights.items()}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()
    content = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer}
    torch.save(content, folder / "checkpoints" / "epoch_3.pt")
    return weights


@pytest.fixture
def tiny(monkeypatch):
    """An architecture of open_clip called Tiny."""
    model = config()["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", model)
    monkeypatch.setattr(
        "shiftbench.models.local.model_config",
        lambda name: json.loads(json.dumps(model)) if name == "Tiny" else None,
    )


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_checkpoint_of_training_is_read(tmp_path, tiny, prefix):
    weights = training_checkpoint(tmp_path, prefix)
    file = tmp_path / "checkpoints" / "epoch_3.pt"
    name = f"{file}/Tiny"
    check_backbone(name)
    backbone = load_backbone(name)
    state = backbone.clip.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in weights.items())
    assert backbone.identity == backbone_identity(name)
    assert backbone.identity.startswith("file@")
    assert backbone.preprocessing == Preprocessing(16)
    with pytest.raises(InputError, match=rf"which architecture it has; name both, .*{file}/ViT"):
        check_backbone(str(file))
    with pytest.raises(InputError, match=r"no architecture 'Tinny'"):
        check_backbone(f"{file}/Tinny")
    (tmp_path / "params.txt").write_text(
        "model: Tiny\nforce_quick_gelu: True\nimage_mean: (0.1, 0.2, 0.3)\nname: a: b\n"
    )
    said = load_backbone(str(file))
    assert said.config["quick_gelu"] and said.preprocessing.mean == (0.1, 0.2, 0.3)
    assert said.identity != backbone.identity
    # A bare safetensors file is the same, and one beside a configuration needs no name.
    save_file(weights, tmp_path / "model.safetensors")
    assert torch.equal(
        load_backbone(f"{tmp_path / 'model.safetensors'}/Tiny").clip.state_dict()["visual.proj"],
        weights["visual.proj"],
    )
    beside = load_backbone(str(tmp_path / "clip" / "open_clip_model.safetensors"))
    assert beside.preprocessing.interpolation == "bilinear"


def test_a_checkpoint_of_another_architecture_is_named(tmp_path, tiny):
    save_backbone(tmp_path, config(**RESNET))
    name = f"{tmp_path / 'open_clip_model.safetensors'}/Tiny"
    with pytest.raises(InputError, match=r"does not load into the model of .*Missing key"):
        load_backbone(name)


def test_open_clips_spelling_of_a_directory(directory):
    assert backbone_identity(f"local-dir:{directory}") == backbone_identity(str(directory))
    check_backbone(f"local-dir:{directory}")
    with pytest.raises(InputError, match="no such file or folder"):
        check_backbone(f"local-dir:{directory}/nothing")
