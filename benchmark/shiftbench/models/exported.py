"""Fine-tuned models in a folder that plain open_clip loads, with their classifier: to classify.

Needs torch and open_clip and nothing else of this package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError, first_line

if TYPE_CHECKING:
    from open_clip import CLIP
    from PIL.Image import Image
    from torch import Tensor

CLASSIFIER = "classifier.safetensors"
"""Holds ``weight`` (classes, width) and ``bias`` (classes,) of the classifier."""

CLASSES = "classes.json"
"""Names of the classes, in the order of the logits."""


@dataclass(frozen=True)
class Exported:
    """A model of a folder, on the CPU.

    Attributes:
        clip: the open_clip model.
        preprocess: from an image to the model's input, (3, size, size).
        weight: of the classifier, (classes, width), fp32; it holds CLIP's temperature.
        bias: of the classifier, (classes,), fp32.
        classes: their names.
    """

    clip: CLIP
    preprocess: Callable[[Image], Tensor]
    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...]

    def logits(self, images: Sequence[Image]) -> Tensor:
        """Logits (n, classes), fp32."""
        import torch
        from torch.nn.functional import linear, normalize

        with torch.inference_mode():
            inputs = torch.stack([self.preprocess(image) for image in images])
            features = normalize(self.clip.encode_image(inputs).float(), dim=-1)
            return linear(features, self.weight, self.bias)


def load_exported(folder: Path) -> Exported:
    """The model that ``shiftbench export-model`` wrote.

    Raises:
        InputError: a file is missing or damaged, or they do not fit each other.
    """
    for name in (CLASSIFIER, CLASSES):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; shiftbench export-model writes it")
    import open_clip
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        head = load_file(folder / CLASSIFIER)
        classes = tuple(json.loads((folder / CLASSES).read_text(encoding="utf-8")))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be loaded: {first_line(error)}") from error
    if len(head["weight"]) != len(classes):
        raise InputError(
            f"{folder}: {CLASSES} names {len(classes)} classes, the classifier has "
            f"{len(head['weight'])}"
        )
    return Exported(clip.eval(), preprocess, head["weight"], head["bias"], classes)


def classify(
    model: Exported, files: Sequence[Path], top: int, batch: int = 32
) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """For each image the likeliest classes, with their probabilities, the likeliest first.

    Raises:
        InputError: a file is no image.
    """
    from PIL import Image

    for start in range(0, len(files), batch):
        part = files[start : start + batch]
        images = []
        for file in part:
            try:
                with Image.open(file) as image:
                    image.load()
                    images.append(image)
            except OSError as error:  # of Pillow's own errors, too
                raise InputError(f"{file}: not read as an image: {error}") from error
        found = model.logits(images).softmax(dim=-1).topk(min(top, len(model.classes)))
        for file, values, places in zip(
            part, found.values.tolist(), found.indices.tolist(), strict=True
        ):
            yield file, [(model.classes[i], p) for i, p in zip(places, values, strict=True)]
