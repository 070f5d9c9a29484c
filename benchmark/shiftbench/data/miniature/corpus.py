"""Captioned images that a miniature backbone is pretrained on, and exams of what it learnt."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftbench.data.miniature import broad
from shiftbench.data.miniature.captions import general_captions, task_captions
from shiftbench.data.miniature.definition import CLASSES


@dataclass(frozen=True)
class Exam:
    """Labelled images to measure zero-shot accuracy on."""

    name: str
    subject: str
    """Exams of one subject share their prompts."""
    images: Tensor
    """uint8 (n, 3, h, w)."""
    label: Tensor
    """int64 (n,)."""
    prompts: list[list[str]]
    """For every class, the prompts whose embeddings are averaged."""


@dataclass(frozen=True)
class Corpus:
    """Captioned images to learn from."""

    images: Tensor
    """uint8 (n, 3, h, w)."""
    concept: Tensor
    """int64 (n,): images and texts of one concept match each other."""
    texts: list[str]
    """Distinct captions."""
    choices: Tensor
    """int64 (n, k): rows of `texts` that may caption each image."""
    augment: bool
    """True if images are mirrored and shifted at random."""
    exams: list[Exam]


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _world_exams(seed: int, count: int) -> list[Exam]:
    exams = []
    for drawn in broad.draw(seed, count):
        prompts = [task_captions(drawn.task, name) for name in CLASSES[drawn.task]]
        label = torch.from_numpy(drawn.label)
        name = f"{drawn.task} {drawn.style}"
        exams.append(Exam(name, drawn.task, _tensor(drawn.images), label, prompts))
    return exams


def world_corpus(images: int, seed: int) -> Corpus:
    """Draw the broad miniature world.

    Args:
        images: how many to draw.
        seed: of the drawing; the exams are drawn with the next one.
    """
    drawings = broad.draw(seed, images)
    first = {
        task: sum(len(CLASSES[t]) for t in list(CLASSES)[:i]) for i, task in enumerate(CLASSES)
    }
    said = [text for drawn in drawings for text in drawn.captions]
    texts = sorted(set(said))
    row = {text: i for i, text in enumerate(texts)}
    return Corpus(
        images=_tensor(np.concatenate([drawn.images for drawn in drawings])),
        concept=torch.from_numpy(np.concatenate([d.label + first[d.task] for d in drawings])),
        texts=texts,
        choices=torch.tensor([[row[text]] for text in said]),
        augment=False,
        exams=_world_exams(seed + 1, min(images, 6000)),
    )


def _label_names(metadata: dict[bytes, bytes]) -> list[str]:
    names: list[str] = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    return names


def parquet_corpus(path: Path, label_names: Sequence[str] | None, images: int, seed: int) -> Corpus:
    """Read images and labels of a Parquet file; captions are the 80 prompts of the class names.

    Args:
        path: a file with columns image {bytes, path} and label.
        label_names: class names; without it, those in the schema's `huggingface` metadata, cut at
            the first comma.
        images: the most to take.
        seed: of their order, and so of the held-out tenth.
    """
    from PIL import Image
    from pyarrow import parquet

    table = parquet.read_table(path, columns=["image", "label"])
    names = list(label_names or _label_names(table.schema.metadata or {}))
    names = [name.split(",")[0] for name in names]
    order = np.random.default_rng(seed).permutation(len(table))[:images]
    table = table.take(order)
    decoded = [
        np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        for row in table["image"].to_pylist()
    ]
    pixels = _tensor(np.stack(decoded))
    label = torch.tensor(table["label"].to_pylist())
    prompts = [general_captions(name) for name in names]
    per_class = len(prompts[0])
    held = len(pixels) // 10
    choices = label[held:, None] * per_class + torch.arange(per_class)
    return Corpus(
        images=pixels[held:],
        concept=label[held:],
        texts=[text for texts in prompts for text in texts],
        choices=choices,
        augment=True,
        exams=[Exam("held-out tenth", "all", pixels[:held], label[:held], prompts)],
    )
