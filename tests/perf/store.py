"""What the decode-once store saves: ``python tests/perf/store.py [--images 400] [--threads 2]``.

Writes JPEG photographs of ImageNet's usual size, then times, in this one process: decoding them
all, building a store entry (decoding and writing), and reading one epoch from it; once for the
evaluation inputs and once for training at full resolution with augmentation. The first reading of
an entry may find its pages in memory, as it does after building.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from shiftbench.data.images import Images, ImageSet
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.data.store import Store


@dataclass(frozen=True)
class Files:
    """Images in files, decoded on every access."""

    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.open(self.paths[index]).convert("RGB")


def photographs(directory: Path, n: int) -> ImageSet:
    """Noise of two scales in 500 by 375 pixels: about 100 kB each as JPEG, as in ImageNet."""
    rng = np.random.default_rng(0)
    paths = [directory / f"{i}.jpg" for i in range(n)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        grain = rng.normal(0, 12, (375, 500, 1))
        pixels = np.clip(np.asarray(coarse.resize((500, 375))) + grain, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)
    ids = np.array([path.name for path in paths])
    return ImageSet(ids, np.zeros(n, dtype=np.int64), Files(paths), "perf")


def seconds(action: Callable[[], object]) -> float:
    """Wall time of ``action``."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    preprocessing = Preprocessing(224)

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        photos = photographs(directory, arguments.images)
        store = Store(directory / "store", arguments.threads)

        def evaluate_files() -> None:
            for image in photos.images:
                preprocessing.pixels(image)

        def evaluate_store() -> None:
            pixels = store.evaluation(photos, preprocessing)
            for start in range(0, len(pixels), 64):
                pixels[start : start + 64].copy()

        def augment(images: Images) -> None:
            rng = np.random.default_rng(0)
            for index in range(len(images)):
                preprocessing.augment(images[index], rng)

        rows = {
            "evaluation": (
                seconds(evaluate_files),
                seconds(lambda: store.evaluation(photos, preprocessing)),
                seconds(evaluate_store),
            ),
            "training": (
                seconds(lambda: augment(photos.images)),
                seconds(lambda: store.decoded(photos, 2**40)),
                seconds(lambda: augment(store.decoded(photos, 2**40))),
            ),
        }
    n = arguments.images
    print(f"{n} images, one thread for an epoch, {store.threads} to build; ms an image")
    for name, (files, build, epoch) in rows.items():
        per_image = [1000 * value / n for value in (files, build, epoch)]
        times = "files {:.2f}, build {:.2f}, store {:.2f}".format(*per_image)
        print(f"{name:11} {times}: an epoch from the store is {files / epoch:.1f} times as fast")


if __name__ == "__main__":
    main()
