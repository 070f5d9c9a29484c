"""Pretrained vision-language models, by name: what a suite's ``backbones`` can list.

- ``miniature``: the backbone that ships with the miniature world; or the name under which another
  package registers a directory, or a function that returns one (``shiftbench.backbones``);
- ``<pretrained>/<model>``: any pair of ``open_clip.list_pretrained()``, such as
  ``openai/ViT-B-16``; downloaded and cached by open_clip;
- a directory with ``open_clip_config.json`` and ``open_clip_model.safetensors`` (what open_clip
  pushes to the Hugging Face Hub), and ``vocabulary.json`` where the tokenizer is the miniature's.

Importing this module and ``backbone_identity`` need neither torch nor open_clip.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.models.registry import BACKBONES

if TYPE_CHECKING:
    from open_clip import CLIP
    from torch import Tensor, nn

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
VOCABULARY = "vocabulary.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
QUICK_GELU = "-quickgelu"


@dataclass(frozen=True)
class Backbone:
    """A pretrained model, ready to use.

    Attributes:
        name: as the suite spells it.
        identity: what run identities are made of; see ``backbone_identity``.
        clip: the open_clip model, fp32, in eval mode, on the CPU.
        tokenizer: texts to token ids, int64 (n, context length).
        preprocessing: how it wants its images.
    """

    name: str
    identity: str
    clip: CLIP
    tokenizer: Callable[[Sequence[str]], Tensor]
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Pretrained:
    """An entry of open_clip's table of pretrained weights.

    Attributes:
        model: name of the architecture.
        tag: name of its weights.
        quick_gelu: whether the weights were trained with OpenAI's approximation of GELU, which
            they then need.
        source: where open_clip downloads them from: a Hugging Face repository or a URL.
    """

    model: str
    tag: str
    quick_gelu: bool
    source: str


def backbone_identity(name: str) -> str:
    """The part of a run's identity that stands for the backbone called ``name``.

    For open_clip's published weights the pair of names, in one spelling; for files on this machine
    a digest of their content, wherever they lie.

    Raises:
        InputError: the name has none of the three forms, or the directory lacks a file.
    """
    if directory := _directory(name):
        prefix = "miniature" if name == "miniature" else "local"
        return f"{prefix}@{_digest(directory)[:16]}"
    tag, model = _split(name)
    return f"{tag}/{model.removesuffix(QUICK_GELU)}"


def load_backbone(name: str) -> Backbone:
    """The model, tokenizer and preprocessing called ``name``.

    Raises:
        InputError: unknown name, activation mismatch, failed download, or a directory whose files
            are missing, pickled, damaged or do not fit each other.
    """
    if directory := _directory(name):
        return _load_directory(name, directory)
    return _load_pretrained(name, find_pretrained(name))


def check_backbone(name: str) -> None:
    """See that ``name`` is one of the three forms and its files or its entry are there.

    Downloads nothing, and builds no more than a tower without weights.

    Raises:
        InputError: unknown name, activation mismatch, files that are missing or damaged, or an
            image size that the image tower does not take.
    """
    if directory := _directory(name):
        from shiftbench.models.checkpoints import check_file

        _read_config(directory)
        check_file(_weights_file(directory))
        if not is_shipped(name):
            from shiftbench.models.towers import check_image_size

            try:
                check_image_size(image_tower(name))
            except InputError as error:
                raise InputError(f"backbone {name!r}: {error}") from error
    elif _split(name) not in names_in_table():
        find_pretrained(name)


@functools.cache
def names_in_table() -> frozenset[tuple[str, str]]:
    """Tags and models in open_clip's table of weights, read from its source: it is not imported.

    Importing it takes seconds, since it imports torch. Where its source is another than the one
    known, nothing is found, and whoever asks has to import it.
    """
    values = {
        node.targets[0].id: node.value
        for node in ast.parse(_source_of_open_clip("pretrained.py")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    table = values.get("_PRETRAINED")
    if not isinstance(table, ast.Dict):
        return frozenset()
    found = set()
    for key, value in zip(table.keys, table.values, strict=True):
        entries = values.get(value.id) if isinstance(value, ast.Name) else value
        if isinstance(key, ast.Constant) and isinstance(entries, ast.Call):
            found |= {(word.arg, str(key.value)) for word in entries.keywords if word.arg}
    return frozenset(found)


def _source_of_open_clip(file: str) -> str:
    """A file of the package open_clip, which is not imported; "" where there is none."""
    package = importlib.util.find_spec("open_clip")
    for place in (package.submodule_search_locations if package else None) or []:
        if (path := Path(place, file)).is_file():
            return path.read_text(encoding="utf-8")
    return ""


def is_plain_vit(name: str) -> bool:
    """True for a pair of open_clip's table whose image tower is open_clip's own ViT.

    Its configuration is read, and nothing imported.
    """
    if _directory(name) is not None or _split(name) not in names_in_table():
        return False
    text = _source_of_open_clip(f"model_configs/{_split(name)[1]}.json")
    vision = json.loads(text)["vision_cfg"] if text else {}
    return isinstance(vision.get("layers"), int) and "timm_model_name" not in vision


def is_shipped(name: str) -> bool:
    """True for a backbone that is part of this package."""
    found = BACKBONES.entries().get(name)
    return found is not None and found.builtin


def find_pretrained(name: str) -> Pretrained:
    """The entry of open_clip's table that ``<pretrained>/<model>`` names; downloads nothing.

    The activation follows the weights: ``openai/ViT-B-16`` and ``openai/ViT-B-16-quickgelu`` are
    the same model, and asking for QuickGELU of weights trained without it is an error.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    tag, model = _split(name)
    plain = model.removesuffix(QUICK_GELU)
    known: list[tuple[str, str]] = open_clip.list_pretrained()
    if (model, tag) not in known:
        if (plain, tag) in known:
            raise InputError(
                f"backbone {name!r}: the {tag} weights were trained with GELU, not QuickGELU; "
                f"use {tag}/{plain}"
            )
        raise InputError(f"unknown backbone {name!r}; {_nearest(tag, model, known)}")
    config = get_pretrained_cfg(model, tag)
    return Pretrained(
        model=plain,
        tag=tag,
        quick_gelu=bool(config.get("quick_gelu", False)),
        source=config.get("hf_hub", "").strip("/") or config.get("url", ""),
    )


@functools.cache
def image_tower(name: str) -> nn.Module:
    """The image tower of a backbone without its weights, on the meta device; shared.

    Raises:
        InputError: unknown name, or a configuration that cannot be read or makes no tower.
    """
    from shiftbench.models.towers import build_tower

    if directory := _directory(name):
        config, quick_gelu = _read_config(directory), False
    else:
        import open_clip

        entry = find_pretrained(name)
        config, quick_gelu = open_clip.get_model_config(entry.model), entry.quick_gelu
    quick_gelu = quick_gelu or config.get("quick_gelu", False)
    return build_tower(config["embed_dim"], config["vision_cfg"], quick_gelu)


def _load_pretrained(name: str, entry: Pretrained) -> Backbone:
    import open_clip

    try:
        clip = open_clip.create_model(
            entry.model,
            pretrained=entry.tag,
            precision="fp32",
            force_quick_gelu=entry.quick_gelu,
            require_pretrained=True,
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(entry.model)
    # The Hub client, urllib and transformers share no base class for "could not be fetched".
    except Exception as error:
        raise InputError(
            f"backbone {name!r} could not be loaded ({_one_line(error)}); without network access, "
            f"copy a Hugging Face cache that holds {entry.source} and set HF_HOME to it and "
            f"HF_HUB_OFFLINE=1, or name a local directory with {CONFIG} and {WEIGHTS}"
        ) from error
    return _backbone(name, clip, tokenizer)


def _load_directory(name: str, directory: Path) -> Backbone:
    import open_clip

    from shiftbench.models.checkpoints import check_file

    config = _read_config(directory)
    weights = _weights_file(directory)
    check_file(weights)
    try:
        clip = open_clip.create_model(
            f"local-dir:{directory}", precision="fp32", require_pretrained=True
        )
    # A configuration that is wrong in its values fails wherever open_clip first uses them.
    except Exception as error:
        raise InputError(
            f"{weights}: does not load into the model of {directory / CONFIG}: {_one_line(error)}"
        ) from error
    return _backbone(name, clip, _local_tokenizer(directory, config))


def _local_tokenizer(directory: Path, config: dict[str, Any]) -> Callable[[Sequence[str]], Tensor]:
    """The miniature's tokenizer where there is a vocabulary, else the one open_clip's config says.

    Raises:
        InputError: the tokenizer has more tokens than the text tower.
    """
    import open_clip

    from shiftbench.data.miniature.tokenizer import CompactTokenizer

    text = config["text_cfg"]
    try:
        tokenizer: Any = (
            CompactTokenizer.load(directory)
            if (directory / VOCABULARY).is_file()
            else open_clip.get_tokenizer(f"local-dir:{directory}")
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(f"{directory}: cannot load its tokenizer: {_one_line(error)}") from error
    tokens = getattr(tokenizer, "vocab_size", None)
    rows = text.get("vocab_size", 49408)
    if tokens is not None and tokens > rows and "hf_model_name" not in text:
        raise InputError(
            f"{directory}: the tokenizer has {tokens:,} tokens but the text tower {rows:,}; "
            f"add the {VOCABULARY} it was trained with"
        )
    return tokenizer  # type: ignore[no-any-return]


def _backbone(name: str, clip: CLIP, tokenizer: Callable[[Sequence[str]], Tensor]) -> Backbone:
    import open_clip

    where = f"backbone {name!r}"
    if isinstance(clip, open_clip.CoCa):
        raise InputError(f"{where}: CoCa models are not supported; any CLIP or SigLIP model is")
    for key, tensor in clip.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{where}: its weights have NaN or infinite values in {key!r}")
    preprocessing = Preprocessing.from_open_clip(clip.visual.preprocess_cfg, where)
    return Backbone(name, backbone_identity(name), clip.float().eval(), tokenizer, preprocessing)


def _directory(name: str) -> Path | None:
    """The directory that ``name`` means, or ``None`` for a pair of open_clip names."""
    if name in BACKBONES.entries():
        found = BACKBONES.load(name)
        return Path(str(found() if callable(found) else found))
    path = Path(name).expanduser()
    if (path / CONFIG).is_file():
        return path
    if path.is_dir() or path.is_absolute() or name.startswith("."):
        raise InputError(f"backbone {name!r}: no {CONFIG} in this directory")
    return None


def _split(name: str) -> tuple[str, str]:
    """``<pretrained>/<model>`` in open_clip's spelling: (tag, model)."""
    tag, slash, model = name.partition("/")
    if not (tag and slash and model):
        raise InputError(
            f"unknown backbone {name!r}; accepted: miniature, <pretrained>/<model> such as "
            f"openai/ViT-B-16, or a directory with {CONFIG} and {WEIGHTS}"
        )
    return tag.lower().replace("-", "_"), model.replace("/", "-")


def _nearest(tag: str, model: str, known: list[tuple[str, str]]) -> str:
    """A hint for an error message: other weights of the model, or similar names."""
    tags = [t for m, t in known if m == model]
    if tags:
        return f"{model} has the weights {', '.join(tags)}"
    names = {f"{t}/{m}".lower(): f"{t}/{m}" for m, t in known if not m.endswith(QUICK_GELU)}
    close = difflib.get_close_matches(f"{tag}/{model}".lower(), names, n=3, cutoff=0.5)
    return f"nearest: {', '.join(names[c] for c in close) or 'openai/ViT-B-16'}"


def _read_config(directory: Path) -> dict[str, Any]:
    """The ``model_cfg`` of a directory's configuration, checked for its three parts."""
    path = directory / CONFIG
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON: {_one_line(error)}") from error
    model = document.get("model_cfg") if isinstance(document, dict) else None
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(model or {})
    if not isinstance(model, dict) or missing:
        raise InputError(f"{path}: model_cfg must have {', '.join(sorted(missing))}")
    return model


def _weights_file(directory: Path) -> Path:
    path = directory / WEIGHTS
    if path.is_file():
        return path
    pickled = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if not pickled:
        raise InputError(f"{path}: no such file")
    raise InputError(
        f"{directory / pickled[0]}: pickled weights are not loaded, because a pickle can run any "
        f"code; convert them once, if you trust them: safetensors.torch.save_file("
        f"torch.load({pickled[0]!r}, weights_only=True), {WEIGHTS!r})"
    )


def _digest(directory: Path) -> str:
    """Hex SHA-256 over the names and contents of the weights and of every JSON file beside them."""
    files = [_weights_file(directory), *sorted(directory.glob("*.json"))]
    digests = [f"{file.name} {_file_digest(file, *_stamp(file))}" for file in files]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@functools.cache
def _file_digest(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
