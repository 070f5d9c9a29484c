"""The ImageNet family: training set, validation set, five shifts and ImageNet-C."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature import cues, styles
from shiftbench.data.miniature.corruptions import CORRUPTIONS, corrupt
from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.glyphs import INDEX, glyphs_of
from shiftbench.data.miniature.world import Images, Scene, concatenate, render

NAMES = CLASSES["imagenet"]
WNIDS = tuple(f"n9{number:07d}" for number in range(1, len(NAMES) + 1))
"""Invented WordNet ids; their sorted order is the label order."""

CUE = 0.95
"""Share of training and validation images whose colours tell their class."""

SHARPNESS = 0.48
"""Part of the pixels' number, along a side, that the cameras of this family resolve.

The backbone has seen sharp images, so fine-tuning has something to learn that all shifts share.
"""

PER_CLASS = {"train": 70, "val": 30, "v2": 30, "r": 48, "sketch": 30, "objectnet": 42, "c": 2}
R_CLASSES = tuple(range(0, len(NAMES), 3)) + tuple(range(1, len(NAMES), 3))
A_CLASSES = tuple(range(0, len(NAMES), 2))
A_CANDIDATES, A_PER_CLASS = 100, 60
SIZES = ((40, 40), (40, 48), (48, 40))
"""Heights and widths that photographs take in turn."""

OBJECTNET: dict[str, tuple[str, ...]] = {
    "Star": ("five pointed star", "six pointed star"),
    "Polygon": ("pentagon", "hexagon"),
    "Disc": ("circle",),
    "Ring": ("ring",),
    "Square tile": ("square",),
    "Heart": ("heart",),
    "Cross": ("cross",),
    "Moon": ("crescent",),
    "Arrow": ("arrow",),
    "Flower": ("flower",),
    "Gear wheel": ("gear",),
    "Drop": ("teardrop",),
}
"""ObjectNet's own label texts and the ImageNet names that each covers."""

OBJECTNET_ONLY: dict[str, str] = {"Spiral": "spiral", "Zigzag": "zigzag", "Plus sign": "plus sign"}
"""ObjectNet labels without an ImageNet counterpart, and the glyph drawn for them."""


def save(folder: Path, names: Iterable[str], images: Iterable[NDArray[np.uint8]]) -> int:
    """Write images uint8 (h, w, 3) into a folder, JPEG or PNG by their names; return the count."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, pixels in zip(names, images, strict=True):
        image = Image.fromarray(pixels)
        if name.endswith(".png"):
            image.save(folder / name, compress_level=1)
        else:
            image.save(folder / name, quality=95)
        count += 1
    return count


def _unsharp(images: Images) -> Images:
    """What a camera of low resolution makes of uint8 images (n, h, w, 3)."""
    from PIL import Image

    _, height, width, _ = images.shape
    few = round(SHARPNESS * width), round(SHARPNESS * height)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(image)
                .resize(few, Image.Resampling.BOX)
                .resize((width, height), Image.Resampling.BICUBIC)
            )
            for image in images
        ]
    )


def _of_sizes(
    rng: np.random.Generator, style: styles.Style, label: NDArray[np.intp], cue: float = 0.0
) -> list[NDArray[np.uint8]]:
    """Draw images of the given labels, in turn of every size of `SIZES`."""
    scene = style(rng, glyphs_of("imagenet")[label])
    scene = cues.tint_ground(
        rng, cues.tint_body(rng, scene, label, len(NAMES), cue), label, len(NAMES), cue
    )
    images: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(label)
    for turn, size in enumerate(SIZES):
        rows = np.arange(turn, len(label), len(SIZES))
        for row, image in zip(rows, _unsharp(render(scene[rows], size, rng)), strict=True):
            images[row] = image
    return images


def _by_class(classes: Iterable[int], each: int) -> NDArray[np.intp]:
    return np.repeat(np.fromiter(classes, np.intp), each)


def _write_photos(root: Path, split: str, seed: int) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Write imagenet/<split>, the narrow, cued photographs; return images and labels."""
    rng = np.random.default_rng([10, seed])
    label = _by_class(range(len(NAMES)), PER_CLASS[split])
    images = _of_sizes(rng, styles.portrait, label, CUE)
    for k, wnid in enumerate(WNIDS):
        rows = np.flatnonzero(label == k)
        stem = f"{wnid}_" if split == "train" else "ILSVRC2012_val_"
        names = [f"{stem}{row + 1:08d}.JPEG" for row in rows]
        save(root / "imagenet" / split / wnid, names, [images[row] for row in rows])
    return images, label.tolist()


def _slightly_harder(rng: np.random.Generator, glyph: styles.Glyphs) -> Scene:
    """Photographs of which every other one is cluttered."""
    mixed = concatenate([styles.photo(rng, glyph[::2]), styles.hard_photo(rng, glyph[1::2])])
    order = np.concatenate([np.arange(0, len(glyph), 2), np.arange(1, len(glyph), 2)])
    return mixed[np.argsort(order)]


def _write_v2(root: Path) -> int:
    rng = np.random.default_rng([10, 3])
    label = _by_class(range(len(NAMES)), PER_CLASS["v2"])
    images = _of_sizes(rng, _slightly_harder, label)
    for k in range(len(NAMES)):
        rows = np.flatnonzero(label == k)
        names = [f"{hashlib.sha256(images[row].tobytes()).hexdigest()[:40]}.jpeg" for row in rows]
        folder = root / "imagenetv2-matched-frequency-format-val" / str(k)
        save(folder, names, [images[row] for row in rows])
    return len(label)


def _write_r(root: Path) -> int:
    rng = np.random.default_rng([10, 4])
    each = PER_CLASS["r"] // len(styles.RENDITIONS)
    count = 0
    for name, style in styles.RENDITIONS.items():
        label = _by_class(sorted(R_CLASSES), each)
        images = _of_sizes(rng, style, label)
        for k in sorted(R_CLASSES):
            rows = np.flatnonzero(label == k)
            names = [f"{name}_{i}.jpg" for i in range(each)]
            count += save(root / "imagenet-r" / WNIDS[k], names, [images[row] for row in rows])
    return count


def _write_sketch(root: Path) -> int:
    rng = np.random.default_rng([10, 5])
    label = _by_class(range(len(NAMES)), PER_CLASS["sketch"])
    images = _of_sizes(rng, styles.sketch, label)
    for k, wnid in enumerate(WNIDS):
        rows = np.flatnonzero(label == k)
        names = [f"sketch_{i}.JPEG" for i in range(len(rows))]
        save(root / "sketch" / wnid, names, [images[row] for row in rows])
    return len(label)


def features(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Describe images by coarse colours and histograms of gradient directions.

    Args:
        images: uint8 (h, w, 3) with sides of at least 40; the central 40 x 40 pixels are used.

    Returns:
        float32 (n, 256): 8 x 8 mean colours and 4 x 4 cells of 4 directions.
    """
    square = (
        np.stack(
            [
                im[(h - 40) // 2 :, (w - 40) // 2 :][:40, :40]
                for im in images
                for h, w in [im.shape[:2]]
            ]
        ).astype(np.float32)
        / 255
    )
    n = len(square)
    coarse = square.reshape(n, 8, 5, 8, 5, 3).mean((2, 4)).reshape(n, -1)
    grey = square.mean(-1)
    dy, dx = np.gradient(grey, axis=(1, 2))
    strength, direction = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi)
    bins = [strength * (np.floor(direction / np.pi * 4) % 4 == b) for b in range(4)]
    cells = [b.reshape(n, 4, 10, 4, 10).mean((2, 4)).reshape(n, -1) for b in bins]
    return np.concatenate([coarse, 10 * np.concatenate(cells, 1)], 1).astype(np.float32)


class SimpleClassifier:
    """Ridge regression on `features`: what ImageNet-A's images are chosen to fool."""

    def __init__(self, images: list[NDArray[np.uint8]], label: list[int]) -> None:
        """Fit on the training set, in closed form."""
        described = features(images).astype(np.float64)
        self._mean = described.mean(0)
        centred = described - self._mean
        target = np.eye(len(NAMES))[label] - 1 / len(NAMES)
        gram = centred.T @ centred + np.eye(centred.shape[1])
        self._weights = np.linalg.solve(gram, centred.T @ target)

    def predict(self, images: list[NDArray[np.uint8]]) -> NDArray[np.intp]:
        """Return the label of each image, (n,)."""
        found: NDArray[np.intp] = ((features(images) - self._mean) @ self._weights).argmax(1)
        return found


def _write_a(root: Path, classifier: SimpleClassifier) -> int:
    rng = np.random.default_rng([10, 6])
    label = _by_class(A_CLASSES, A_CANDIDATES)
    images = _of_sizes(rng, styles.hard_photo, label)
    predicted = classifier.predict(images)
    count = 0
    for k in A_CLASSES:
        rows = np.flatnonzero((label == k) & (predicted != k))[:A_PER_CLASS]
        names = [f"{row:06d}_{NAMES[k]} _ {NAMES[predicted[row]]}.jpg" for row in rows]
        count += save(root / "imagenet-a" / WNIDS[k], names, [images[row] for row in rows])
    return count


def _folder(label: str) -> str:
    return label.lower().replace(" ", "_")


def _bordered(images: Images) -> Images:
    """Paint the 1-pixel red border that marks every ObjectNet image."""
    red = np.array([255, 0, 0], np.uint8)
    images = images.copy()
    images[:, [0, -1]] = red
    images[:, :, [0, -1]] = red
    return images


def _write_objectnet(root: Path) -> int:
    rng = np.random.default_rng([10, 7])
    base = root / "objectnet-1.0"
    drawn = {**OBJECTNET, **{label: (glyph,) for label, glyph in OBJECTNET_ONLY.items()}}
    count = 0
    for label, names in drawn.items():
        each = PER_CLASS["objectnet"] if label in OBJECTNET else 20
        glyph = np.resize([INDEX[name] for name in names], each)
        images = _bordered(_unsharp(render(styles.unposed(rng, glyph), (44, 52), rng)))
        files = [f"{hashlib.sha256(image.tobytes()).hexdigest()[:15]}.png" for image in images]
        count += save(base / "images" / _folder(label), files, images)
    _write_objectnet_mappings(base / "mappings", list(drawn))
    return count


def _write_objectnet_mappings(folder: Path, labels: list[str]) -> None:
    folder.mkdir()
    # The 2012 ids deliberately follow another order than the sorted wnids, as the real ones do.
    ids_2012 = {k: (k * 7 + 5) % len(NAMES) for k in range(len(NAMES))}
    lines = [NAMES[k] for k in sorted(ids_2012, key=lambda k: ids_2012[k])]
    contents: dict[str, object] = {
        "folder_to_objectnet_label.json": {_folder(label): label for label in labels},
        "objectnet_to_imagenet_1k.json": {k: "; ".join(v) for k, v in OBJECTNET.items()},
        "pytorch_to_imagenet_2012_id.json": {str(k): i for k, i in ids_2012.items()},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")


def _write_c(root: Path) -> int:
    rng = np.random.default_rng([10, 8])
    label = _by_class(range(len(NAMES)), PER_CLASS["c"])
    count = 0
    for name in CORRUPTIONS:
        images = render(styles.photo(rng, glyphs_of("imagenet")[label]), (32, 32), rng)
        images = corrupt(_unsharp(images), name, 5, rng)
        for k, wnid in enumerate(WNIDS):
            rows = np.flatnonzero(label == k)
            names = [f"ILSVRC2012_val_{row + 1:08d}.JPEG" for row in rows]
            count += save(root / "imagenet-c" / name / "5" / wnid, names, images[rows])
    return count


def write(root: Path) -> dict[str, int]:
    """Write the whole family under `root` and return the number of images of every set."""
    images, label = _write_photos(root, "train", 1)
    classifier = SimpleClassifier(images, label)
    return {
        "imagenet/train": len(images),
        "imagenet/val": len(_write_photos(root, "val", 2)[0]),
        "imagenet-v2": _write_v2(root),
        "imagenet-r": _write_r(root),
        "imagenet-sketch": _write_sketch(root),
        "imagenet-a": _write_a(root, classifier),
        "objectnet": _write_objectnet(root),
        "imagenet-c": _write_c(root),
    }
