"""Decoding a training image, per core: by the papers' code, from files, and from the store.

    python -m tests.perf.store [--images 120] [--rounds 5]

JPEGs of 400 px and about 61 kB, each to a random crop of 224 px, one thread, processor time; what
the store's forms take of the disk and how far their crops are from those of the files is said
beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from shiftbench.data.decoding import Decoder, augmented
from shiftbench.data.images import Images, ImageSet
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.data.shards import Form
from shiftbench.data.sources.files import FileImages
from shiftbench.data.store import Store
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from tests.perf.gpu.world import photograph
from tests.perf.measurement import Measurement, alternating, lines

PREPROCESSING = Preprocessing(224)
FORMS = {
    "store, full size": Form(),
    "store, side 256, uint8": Form(256),
    "store, side 256, jpeg": Form(256, "jpeg"),
}


def measure(images: int = 120, rounds: int = 5) -> list[Measurement]:
    """All measurements; takes about a minute.

    Args:
        images: distinct files.
        rounds: how often each way has its turn.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed in range(images):
            photograph(seed, root)
        return in_folder(root, rounds)


def in_folder(root: Path, rounds: int) -> list[Measurement]:
    """The measurements, on the files of a folder."""
    names = np.array(sorted(path.name for path in root.glob("*.jpg")))
    n = len(names)
    files = FileImages(str(root), names)
    images = ImageSet(names, np.zeros(n, dtype=np.int64), files, "perf")
    store = Store(root / "store", threads=1)
    crop = RandomResizedCrop(224, (0.9, 1.0), interpolation=InterpolationMode.BICUBIC)

    def papers() -> None:
        for name in names:
            with Image.open(root / name) as image:
                np.asarray(crop(image.convert("RGB")))

    def ours(of: Images, decoder: Decoder) -> Callable[[], None]:
        def work() -> None:
            rng = np.random.default_rng(0)
            for index in range(n):
                augmented(of, index, PREPROCESSING, rng, decoder)

        return work

    ways: dict[str, Callable[[], object]] = {"papers": papers}
    ways |= {f"files, `{name}`": ours(files, name) for name in ("pil", "turbo")}
    notes = {}
    for name, form in FORMS.items():
        begun = time.process_time()
        kept = store.shrunk(images, form)
        seconds = (time.process_time() - begun) / n
        notes[name] = _note(store.estimated_bytes(images, form) / n, seconds, files, kept)
        ways |= {f"{name}, `{decoder}`": ours(kept, decoder) for decoder in ("pil", "turbo")}
    times = alternating(ways, rounds)
    goals = {"files, `pil`": 1.3, "files, `turbo`": 2.5}
    return [
        Measurement(
            f"a training image, {name}",
            1e3 * times[name].processor / n,
            1e3 * times["papers"].processor / n,
            "Pillow and `RandomResizedCrop`",
            goals.get(name),
            faster=True,
            unit="ms",
            note=notes.get(name.rpartition(",")[0], ""),
        )
        for name in ways
        if name != "papers"
    ]


def _note(size: float, seconds: float, files: Images, kept: Images) -> str:
    """What an image takes of the disk and to make, and how far its crops are from a file's."""
    differences = []
    for index in range(min(20, len(files))):
        both = [
            augmented(of, index, PREPROCESSING, np.random.default_rng(index), "pil").numpy()
            for of in (files, kept)
        ]
        differences.append(np.abs(both[0].astype(int) - both[1]).mean())
    return (
        f"{size / 1e3:.0f} kB an image, {1e3 * seconds:.1f} ms to make; crops differ by "
        f"{np.mean(differences):.1f} of 255 on average"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("\n".join(lines(measure(given.images, given.rounds))))


if __name__ == "__main__":
    main()
