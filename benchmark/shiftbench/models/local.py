"""Models in files on this machine: folders of open_clip or transformers, and bare checkpoints.

Describing one (``describe``) reads its configuration alone and needs no torch; ``build`` makes it.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.files import read_json
from shiftbench.core.words import nearest
from shiftbench.models.hub import INDEX, WEIGHTS
from shiftbench.models.names import CONFIG, TRANSFORMERS_CONFIG, File, Folder
from shiftbench.models.published import QUICK_GELU, model_config

if TYPE_CHECKING:
    from open_clip import CLIP

PARAMS = "params.txt"
"""The settings that open_clip's training leaves beside its folder of checkpoints."""


TOKENIZER_FILES = ("*.model", "merges.txt", "vocab.txt")
"""Patterns of the names of tokenizers' files that are no JSON: of SentencePiece, BPE, WordPiece."""


@dataclass(frozen=True)
class Described:
    """All about a model but its weights.

    Attributes:
        origin: the file that says it, for error messages.
        model: open_clip's ``model_cfg``.
        preprocessing: open_clip's ``preprocess_cfg``, as far as it is given.
        weights: files that hold the weights, together.
        folder: where its tokenizer is, if it has one of its own.
        kind: of the names in ``weights``: those of open_clip, or of a model of transformers.
    """

    origin: Path
    model: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    weights: tuple[Path, ...]
    folder: Path | None
    kind: str = "open_clip"


def describe(place: Folder | File) -> Described:
    """The configuration of a model on this machine.

    Raises:
        InputError: a file is missing, is not readable, or does not say what is needed.
    """
    if isinstance(place, File):
        return _of_file(place)
    if not (place.path / CONFIG).is_file():
        from shiftbench.models.huggingface import read_config

        model, preprocessing, kind = read_config(place.path)
        origin = place.path / TRANSFORMERS_CONFIG
        return Described(origin, model, preprocessing, weight_files(place.path), place.path, kind)
    model, preprocessing = _read_config(place.path / CONFIG)
    weights = weight_files(place.path)
    return Described(place.path / CONFIG, model, preprocessing, weights, place.path)


def _of_file(place: File) -> Described:
    """A checkpoint: what the name, the folder around it or the training's settings say of it."""
    file, folder = place.path, place.path.parent
    if place.model is None and (folder / CONFIG).is_file():
        model, preprocessing = _read_config(folder / CONFIG)
        return Described(folder / CONFIG, model, preprocessing, (file,), folder)
    settings = _settings_of_training(folder)
    name = place.model or settings.get("model")
    if name is None:
        raise InputError(
            f"{file}: nothing says which architecture it has; name both, such as {file}/ViT-B-16"
        )
    plain = str(name).replace("/", "-")
    config = model_config(plain) or model_config(plain.removesuffix(QUICK_GELU))
    if config is None:
        raise InputError(f"{file}: open_clip has no architecture {name!r}{_near(plain)}")
    if settings.get("force_quick_gelu") or plain.endswith(QUICK_GELU):
        config["quick_gelu"] = True
    if settings.get("force_image_size"):
        config["vision_cfg"]["image_size"] = settings["force_image_size"]
    given = {
        key: settings[option]
        for key, option in (
            ("mean", "image_mean"),
            ("std", "image_std"),
            ("interpolation", "image_interpolation"),
            ("resize_mode", "image_resize_mode"),
        )
        if settings.get(option) is not None
    }
    return Described(file, config, given, (file,), None)


def _near(name: str) -> str:
    """The nearest architectures of open_clip."""
    import open_clip

    return nearest(name, open_clip.list_models())


def _settings_of_training(folder: Path) -> dict[str, Any]:
    """The settings that open_clip's training has written: ``key: value`` in each line."""
    for place in (folder, folder.parent):
        if (place / PARAMS).is_file():
            lines = (place / PARAMS).read_text(encoding="utf-8").splitlines()
            pairs = (line.partition(": ") for line in lines)
            return {key: _value(text) for key, colon, text in pairs if colon}
    return {}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``model_cfg``, checked for its three parts, and ``preprocess_cfg`` of a configuration."""
    document = read_json(path)
    model = document.get("model_cfg")
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(model or {})
    if not isinstance(model, dict) or missing:
        raise InputError(f"{path}: model_cfg must have {', '.join(sorted(missing))}")
    return model, document.get("preprocess_cfg") or {}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder's weights.

    Raises:
        InputError: there are none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return (folder / name,)
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map") or {}
        files = tuple(folder / name for name in sorted(set(named.values())))
        if missing := [file for file in files if not file.is_file()]:
            raise InputError(f"{missing[0]}: no such file, which {INDEX} names")
        return files
    others = sorted(file for pattern in ("*.safetensors",) for file in folder.glob(pattern))
    if len(others) == 1:
        return (others[0],)
    raise InputError(f"{folder / WEIGHTS[0]}: no such file")


def identity_of(place: Folder | File) -> str:
    """What stands for a model on this machine in the identity of runs.

    The commit of a repository of the Hub; else a digest of the content of its files, wherever they
    lie, and of what is said of a bare file of weights elsewhere.

    Raises:
        InputError: a file is missing.
    """
    if isinstance(place, Folder):
        if place.commit is not None:
            return f"hf-hub@{place.commit[:16]}"
        files = [*weight_files(place.path), *_beside_weights(place.path)]
        return f"local@{_digest_of(_named(files))}"
    described = describe(place)
    if described.folder is not None:
        files = [place.path, *_beside_weights(described.folder)]
        return f"local@{_digest_of(_named(files))}"
    said = {"model": described.model, "preprocessing": described.preprocessing}
    lines = [file_digest(place.path), json.dumps(said, sort_keys=True)]
    return f"file@{_digest_of(lines)}"


def _beside_weights(folder: Path) -> list[Path]:
    """A model's configurations and the files of its tokenizer, of whatever form."""
    patterns = ("*.json", *TOKENIZER_FILES)
    return [file for pattern in patterns for file in sorted(folder.glob(pattern))]


def _named(files: list[Path]) -> Iterator[str]:
    return (f"{file.name} {file_digest(file)}" for file in files)


def _digest_of(lines: Any) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """Hex SHA-256 of a file's content; read again only when its size or time has changed."""
    try:
        status = file.stat()
        return _file_digest(file, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


@functools.cache
def _file_digest(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def build(described: Described) -> CLIP:
    """The model with its weights, fp32 on the CPU.

    Raises:
        InputError: configuration and weights do not fit, or one of them is damaged.
    """
    import open_clip
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    from shiftbench.models.reading import REFUSED, read_weights
    from shiftbench.models.safetensors import check_weights

    for file in described.weights:
        check_weights(file)
    config = copy.deepcopy(dict(described.model))
    if "multimodal_cfg" in config:
        raise InputError("CoCa models are not supported; any CLIP or SigLIP model is")
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    where = ", ".join(map(str, described.weights))
    try:
        model: Any = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        if described.kind == "open_clip":
            (file,) = described.weights
            open_clip.load_checkpoint(model, str(file), weights_only=True)
        else:
            from shiftbench.models.huggingface import converted

            model.load_state_dict(converted(read_weights(described.weights), described.kind))
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{where}: {REFUSED}") from error
    # A configuration that is wrong in its values fails wherever open_clip first uses them.
    except Exception as error:
        raise InputError(
            f"{where}: does not load into the model of {described.origin}: {first_line(error)}"
        ) from error
    given = merge_preprocess_dict(vars(PreprocessCfg()).copy(), dict(described.preprocessing))
    set_model_preprocess_cfg(model, {**given, "size": model.visual.image_size})
    return model
