"""open_clip's table of published weights: ``openai/ViT-B-16`` and its like."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftbench.core.errors import InputError
from shiftbench.models.hub import Source, source_of

QUICK_GELU = "-quickgelu"


@dataclass(frozen=True)
class Pretrained:
    """An entry of open_clip's table of pretrained weights.

    Attributes:
        model: name of the architecture.
        tag: name of its weights.
        quick_gelu: whether the weights were trained with OpenAI's approximation of GELU, which
            they then need.
        source: where they are downloaded from.
        preprocessing: keys of open_clip's ``preprocess_cfg`` that belong to the weights.
    """

    model: str
    tag: str
    quick_gelu: bool
    source: Source
    preprocessing: Mapping[str, Any]


@functools.cache
def sources_in_table() -> Mapping[tuple[str, str], Source]:
    """The source of every entry of open_clip's table, by tag and model, read from its source code.

    Importing it takes seconds, since it imports torch. Where its source is another than the one
    known, nothing is found, and whoever asks has to import it. Entries of ``…-quickgelu``, which
    are copies, are not among them.
    """
    values = {
        node.targets[0].id: node.value
        for node in ast.parse(_source_of_open_clip("pretrained.py")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    table = values.get("_PRETRAINED")
    if not isinstance(table, ast.Dict):
        return {}
    found: dict[tuple[str, str], Source] = {}
    for key, value in zip(table.keys, table.values, strict=True):
        entries = values.get(value.id) if isinstance(value, ast.Name) else value
        if isinstance(key, ast.Constant) and isinstance(entries, ast.Call):
            for word in entries.keywords:
                if word.arg and isinstance(word.value, ast.Call):
                    texts = _texts(word.value.keywords)
                    source = source_of(texts.get("hf_hub", ""), texts.get("url", ""))
                    found[word.arg, str(key.value)] = source
    return found


def _texts(keywords: Iterable[ast.keyword]) -> dict[str, str]:
    """The keyword arguments that are plain texts."""
    return {
        word.arg: word.value.value
        for word in keywords
        if word.arg and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
    }


def model_config(model: str) -> dict[str, Any] | None:
    """open_clip's configuration of an architecture, which is read, and nothing imported."""
    text = _source_of_open_clip(f"model_configs/{model}.json")
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found


def _source_of_open_clip(file: str) -> str:
    """A file of the package open_clip, which is not imported; "" where there is none."""
    package = importlib.util.find_spec("open_clip")
    for place in (package.submodule_search_locations if package else None) or []:
        if (path := Path(place, file)).is_file():
            return path.read_text(encoding="utf-8")
    return ""


def find_pretrained(tag: str, model: str, name: str | None = None) -> Pretrained:
    """The entry of open_clip's table of a tag and a model; downloads nothing.

    The activation follows the weights: ``openai/ViT-B-16`` and ``openai/ViT-B-16-quickgelu`` are
    the same model, and asking for QuickGELU of weights trained without it is an error.

    Args:
        tag: in open_clip's spelling.
        model: likewise.
        name: how the pair was spelled, for error messages.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    name = name or f"{tag}/{model}"
    plain = model.removesuffix(QUICK_GELU)
    known: list[tuple[str, str]] = open_clip.list_pretrained()
    if (model, tag) not in known:
        if (plain, tag) in known:
            raise InputError(
                f"backbone {name!r}: the {tag} weights were trained with GELU, not QuickGELU; "
                f"use {tag}/{plain}"
            )
        hint = did_you_mean(name) or _nearest(tag, model, known)
        raise InputError(f"unknown backbone {name!r}; {hint}")
    config = get_pretrained_cfg(model, tag)
    kept = ("mean", "std", "interpolation", "resize_mode")
    return Pretrained(
        model=plain,
        tag=tag,
        quick_gelu=bool(config.get("quick_gelu", False)),
        source=source_of(config.get("hf_hub", ""), config.get("url", "")),
        preprocessing={key: config[key] for key in kept if config.get(key) is not None},
    )


def did_you_mean(name: str) -> str | None:
    """A hint for the two names of a pair in another order, case or with another sign between them.

    Such as ``ViT-B-32/openai``, ``ViT-B/32:openai`` or ``openai ViT-B-32``.
    """
    known = {_letters(f"{tag}/{model}"): f"{tag}/{model}" for tag, model in sources_in_table()}
    known |= {_letters(f"{m}/{t}"): f"{t}/{m}" for t, m in sources_in_table()}
    found = known.get(_letters(name.removesuffix(QUICK_GELU)))
    return None if found is None else f"did you mean {found}?"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _nearest(tag: str, model: str, known: list[tuple[str, str]]) -> str:
    """A hint for an error message: other weights of the model, or similar names."""
    tags = [t for m, t in known if m == model]
    if tags:
        return f"{model} has the weights {', '.join(tags)}"
    names = {f"{t}/{m}".lower(): f"{t}/{m}" for m, t in known if not m.endswith(QUICK_GELU)}
    close = difflib.get_close_matches(f"{tag}/{model}".lower(), names, n=3, cutoff=0.5)
    return f"nearest: {', '.join(names[c] for c in close) or 'openai/ViT-B-16'}"
