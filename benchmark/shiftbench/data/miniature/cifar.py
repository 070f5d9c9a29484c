"""The CIFAR-10 family: CIFAR-10, 10.1, 10.2 and CIFAR-10-C, 32 x 32 pixels throughout."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature import cues, styles
from shiftbench.data.miniature.corruptions import CORRUPTIONS, corrupt
from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.glyphs import glyphs_of
from shiftbench.data.miniature.world import Images, render

NAMES = CLASSES["cifar10"]
CUE = 0.9
"""Share of CIFAR-10's images whose ground colour tells their class."""

PER_BATCH, TEST, SHIFTED, CORRUPTED = 250, 600, 600, 60
"""Images in a training batch, in the test set, in 10.1 and 10.2, and in CIFAR-10-C (a severity)."""


def _labels(rng: np.random.Generator, count: int) -> NDArray[np.intp]:
    return rng.permutation(cues.balanced(count, len(NAMES)))


def _draw(
    rng: np.random.Generator, style: styles.Style, label: NDArray[np.intp], cue: float = 0.0
) -> Images:
    scene = style(rng, glyphs_of("cifar10")[label])
    return render(cues.tint_ground(rng, scene, label, len(NAMES), cue), (32, 32), rng)


def _write_batch(path: Path, images: Images, label: NDArray[np.intp]) -> None:
    content = {
        b"batch_label": path.name.replace("_", " ").encode(),
        b"labels": label.tolist(),
        b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
        b"filenames": [f"{NAMES[k]}_s_{i:06d}.png".encode() for i, k in enumerate(label)],
    }
    path.write_bytes(pickle.dumps(content, protocol=2))


def _write_cifar10(root: Path) -> tuple[int, NDArray[np.intp]]:
    """Write the batches; return the size of the training set and the test labels."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng([20, 1])
    files = {f"data_batch_{number}": PER_BATCH for number in range(1, 6)}
    label = np.empty(0, np.intp)
    for name, count in {**files, "test_batch": TEST}.items():
        label = _labels(rng, count)
        _write_batch(folder / name, _draw(rng, styles.portrait, label, CUE), label)
    meta = {
        b"label_names": [name.encode() for name in NAMES],
        b"num_cases_per_batch": PER_BATCH,
        b"num_vis": 3 * 32 * 32,
    }
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return 5 * PER_BATCH, label


def _write_cifar10_1(root: Path) -> int:
    folder = root / "CIFAR-10.1"
    folder.mkdir()
    rng = np.random.default_rng([20, 2])
    label = _labels(rng, SHIFTED)
    np.save(folder / "cifar10.1_v6_data.npy", _draw(rng, styles.photo, label))
    np.save(folder / "cifar10.1_v6_labels.npy", label.astype("<i4"))
    return SHIFTED


def _write_cifar10_2(root: Path) -> int:
    folder = root / "CIFAR-10.2"
    folder.mkdir()
    rng = np.random.default_rng([20, 3])
    label = _labels(rng, SHIFTED)
    np.savez(
        folder / "cifar102_test.npz",
        images=_draw(rng, styles.hard_photo, label),
        labels=label.astype(np.int64),
        label_names=np.array(NAMES),
    )
    return SHIFTED


def _write_cifar10_c(root: Path, test: NDArray[np.intp]) -> int:
    """Write CIFAR-10-C with the first test labels; its images are drawn afresh, without the cue."""
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    rng = np.random.default_rng([20, 4])
    label = test[:CORRUPTED]
    clean = _draw(rng, styles.photo, label)
    for name in CORRUPTIONS:
        stacked = [corrupt(clean, name, severity, rng) for severity in range(1, 6)]
        np.save(folder / f"{name}.npy", np.concatenate(stacked))
    np.save(folder / "labels.npy", np.tile(label, 5).astype(np.uint8))
    return 5 * CORRUPTED * len(CORRUPTIONS)


def write(root: Path) -> dict[str, int]:
    """Write the whole family under `root` and return the number of images of every set."""
    train, test = _write_cifar10(root)
    return {
        "cifar10/train": train,
        "cifar10/test": len(test),
        "cifar10.1": _write_cifar10_1(root),
        "cifar10.2": _write_cifar10_2(root),
        "cifar10-c": _write_cifar10_c(root, test),
    }
