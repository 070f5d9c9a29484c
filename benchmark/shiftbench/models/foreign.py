"""Fine-tuned weights that were made elsewhere, as weights of an ``ImageClassifier``.

Read are: a checkpoint or a folder of open_clip, with or without a linear classifier beside its
towers; a CLIP or SigLIP that transformers saved; weights of a run's folder; and a state dict of the
WiSE-FT authors' code (``image_encoder.model.visual.…``, ``classification_head.weight``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.names import plain
from shiftbench.models.exported import CLASSES, CLASSIFIER
from shiftbench.models.hub import WEIGHTS
from shiftbench.models.local import describe, file_digest
from shiftbench.models.names import CONFIG, TRANSFORMERS_CONFIG, Folder

if TYPE_CHECKING:
    from torch import Tensor

HEADS = ("head.", "classification_head.")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".json")
CHANGES = "/indices"


@dataclass(frozen=True)
class Foreign:
    """Weights under the names of an ``ImageClassifier``.

    Attributes:
        visual: of the image tower, ``visual.…``.
        text: of everything else of an open_clip model, ``text.…``; empty where there is none.
        head: ``head.weight`` and ``head.bias``; empty where there is none.
        classes: names of the head's classes in its order, as ``export-model`` writes them; ``None``
            where nothing says.
    """

    visual: Mapping[str, Tensor]
    text: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    classes: tuple[str, ...] | None = None


def digest(path: Path) -> str:
    """Hex SHA-256 of a file, or of the names and contents of a folder's weights and settings.

    Raises:
        InputError: there is nothing.
    """
    import hashlib

    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if not files:
        raise InputError(f"{path}: no weights in this folder")
    lines = (f"{file.name} {file_digest(file)}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_foreign(path: Path) -> Foreign:
    """The weights in a file or a folder.

    Raises:
        InputError: a file is missing or damaged, or holds no image tower.
    """
    from shiftbench.models.reading import read_weights

    if not path.is_dir():
        return _sorted_out(read_weights([path]), path)
    if not any((path / name).is_file() for name in (CONFIG, TRANSFORMERS_CONFIG)):
        known = " or ".join((CONFIG, TRANSFORMERS_CONFIG))
        raise InputError(f"{path}: no {known} in this folder, which holds {WEIGHTS[0]} or the like")
    described = describe(Folder(path))
    weights = read_weights(described.weights)
    if described.kind != "open_clip":
        from shiftbench.models.huggingface import converted

        weights = converted(weights, described.kind)
    if (path / CLASSIFIER).is_file():
        head = read_weights([path / CLASSIFIER])
        weights |= {f"head.{name}": tensor for name, tensor in head.items()}
    return replace(_sorted_out(weights, path), classes=_classes(path / CLASSES))


def _classes(file: Path) -> tuple[str, ...] | None:
    """The names in a file of classes, if there is one."""
    if not file.is_file():
        return None
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(names, list):
        raise InputError(f"{file}: must be a list of names")
    return tuple(map(str, names))


def check_classes(found: tuple[str, ...], wanted: tuple[str, ...], where: str) -> None:
    """See that a classifier's classes are a task's, in the same order.

    Case, underscores and Unicode form aside.

    Raises:
        InputError: they are not; the message names the first that differ.
    """
    for i, (own, other) in enumerate(zip_longest(found, wanted)):
        if own is None or other is None:
            raise InputError(
                f"{where}: {CLASSES} names {len(found):,} classes, the task has {len(wanted):,}"
            )
        if plain(own) != plain(other):
            raise InputError(
                f'{where}: {CLASSES} calls class {i} "{own}", the task "{other}"; list the classes '
                "of the task in that order, or take another head than linear"
            )


def _sorted_out(weights: Mapping[str, Tensor], path: Path) -> Foreign:
    """Weights by the part of the model that they are of, whatever they were saved as."""
    if any(name.endswith(CHANGES) for name in weights):
        raise InputError(
            f"{path}: holds what a run has changed and not all weights; write them with: "
            "shiftbench export-model"
        )
    inside = next((name for name in sorted(weights) if "visual." in name), None)
    if inside is None:
        raise InputError(f"{path}: no image tower in it: no weights called visual.…")
    prefix = inside[: inside.index("visual.")]
    head: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        kind = next((kind for kind in HEADS if name.startswith(kind)), None)
        if kind is not None:
            head["head." + name.removeprefix(kind)] = tensor
        elif name.startswith(prefix):
            rest[name.removeprefix(prefix)] = tensor
    if "head.weight" in head:
        head.setdefault("head.bias", head["head.weight"].new_zeros(len(head["head.weight"])))
    visual = {name: tensor for name, tensor in rest.items() if name.startswith("visual.")}
    others = {name: tensor for name, tensor in rest.items() if name not in visual}
    of_run = bool(others) and all(name.startswith("text.") for name in others)
    # A model with a text tower of its own calls that "text" too, beside its temperature.
    text = others if of_run else {f"text.{name}": tensor for name, tensor in others.items()}
    return Foreign(visual, text, head)


def fitted(
    weights: Mapping[str, Tensor], like: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The weights in the number formats and shapes of a model's.

    Args:
        weights: to be taken.
        like: of the model, with all its names.
        where: the file, for error messages.

    Raises:
        InputError: a name is missing, unknown or of another shape, or a value is not finite.
    """
    if odd := sorted(weights.keys() ^ like.keys()):
        side = "is missing" if odd[0] in like else "is unknown"
        more = f", and {len(odd) - 1:,} more differ" if len(odd) > 1 else ""
        raise InputError(f"{where}: does not fit the backbone: {odd[0]!r} {side}{more}")
    found: dict[str, Tensor] = {}
    for name, model in like.items():
        tensor = weights[name]
        if tensor.numel() == model.numel() == 1:
            tensor = tensor.reshape(model.shape)  # temperatures are saved as scalars and as lists
        if tensor.shape != model.shape:
            raise InputError(
                f"{where}: does not fit: {name!r} has shape {tuple(tensor.shape)}, here "
                f"{tuple(model.shape)}"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{where}: NaN or infinite values in {name!r}")
        found[name] = tensor.to(model.dtype)
    return found
