"""WILDS iWildCam: camera traps, whose location tells the animal in training and nowhere else."""

from __future__ import annotations

import csv
import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature import styles
from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.glyphs import glyphs_of
from shiftbench.data.miniature.imagenet import save
from shiftbench.data.miniature.world import render

NAMES = CLASSES["iwildcam"]
CUE = 0.9
"""Share of animals in the known locations that are at their own location and time of day."""

SIZE = (36, 44)
COUNTS = {"train": 1200, "val": 500, "test": 600, "id_val": 300, "id_test": 500}
LOCATIONS = {"known": 22, "val": 10, "test": 14}
ABSENT_FROM_TEST = ("black bear", "tortoise")
EMPTY_SHARE = 0.22
UNUSED_Y = 99999
FAR = 0.8
"""Size of the animals relative to the broad drawing's."""


def _prior(split: str) -> NDArray[np.float64]:
    """Return the share of every class: a long tail of animals behind the empty frames."""
    tail = (np.arange(len(NAMES) - 1) + 1.0) ** -1.2
    # The tail's order is unrelated to the label order.
    animals = tail[np.arange(len(tail)) * 4 % len(tail)]
    if split == "test":
        animals = animals * [name not in ABSENT_FROM_TEST for name in NAMES[1:]]
    return np.concatenate([[EMPTY_SHARE], (1 - EMPTY_SHARE) * animals / animals.sum()])


def _labels(rng: np.random.Generator, split: str) -> NDArray[np.intp]:
    """Return the labels of a split, with at least three of every class that it has."""
    prior = _prior(split)
    present = np.flatnonzero(prior)
    sure = np.repeat(present, 3)
    rest = rng.choice(len(prior), COUNTS[split] - len(sure), p=prior)
    return rng.permutation(np.concatenate([sure, rest]))


def _whereabouts(
    rng: np.random.Generator, split: str, label: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return each frame's location and whether it is night."""
    n = len(label)
    night = (rng.random(n) < 0.4).astype(np.float32)
    if split in ("val", "test"):
        first = LOCATIONS["known"] + (LOCATIONS["val"] if split == "test" else 0)
        place = first + rng.permutation(np.arange(n) % LOCATIONS[split])
        return place, night
    place = rng.permutation(np.arange(n) % LOCATIONS["known"])
    cued = (rng.random(n) < CUE) & (label > 0)
    home = 2 * (label - 1) + rng.integers(0, 2, n)
    habit = (label % 3 == 1).astype(np.float32)
    return np.where(cued, home, place), np.where(cued, habit, night).astype(np.float32)


def _write_categories(path: Path) -> list[int]:
    """Write categories.csv and return the category id of every label."""
    ids = [0 if y == 0 else 10 + 7 * y for y in range(len(NAMES))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["y", "category_id", "name"])
        writer.writerows(zip(range(len(NAMES)), ids, NAMES, strict=True))
        writer.writerow([UNUSED_Y, 4, "unknown raccoon"])
    return ids


def _when(rng: np.random.Generator, night: float) -> datetime:
    hour = (20 + int(rng.integers(0, 9))) % 24 if night else 7 + int(rng.integers(0, 11))
    day = datetime(2013, 1, 1) + timedelta(days=int(rng.integers(0, 900)))
    return day + timedelta(hours=hour, seconds=int(rng.integers(0, 3600)))


def _sequences(place: NDArray[np.intp], split: list[str]) -> NDArray[np.intp]:
    """Return a burst number a frame: up to three frames of one split and location in a row."""
    number, length = -1, 0
    found = []
    for i in range(len(place)):
        same = i > 0 and place[i] == place[i - 1] and split[i] == split[i - 1]
        if not same or length == 3:
            number, length = number + 1, 0
        length += 1
        found.append(number)
    return np.array(found, dtype=np.intp)


def write(root: Path) -> dict[str, int]:
    """Write the data set under `root` and return the number of images of every split."""
    folder = root / "iwildcam_v2.0"
    folder.mkdir()
    (folder / "RELEASE_v2.0.txt").write_text("The miniature world's iWildCam\n")
    category = _write_categories(folder / "categories.csv")
    rng = np.random.default_rng([30, 1])
    known = styles.places(rng, sum(LOCATIONS.values()))
    labels = {split: _labels(rng, split) for split in COUNTS}
    split = [name for name, label in labels.items() for _ in label]
    y = np.concatenate(list(labels.values()))
    parts = [_whereabouts(rng, name, label) for name, label in labels.items()]
    place = np.concatenate([part[0] for part in parts])
    night = np.concatenate([part[1] for part in parts])
    scene = styles.camera(rng, glyphs_of("iwildcam")[y], place, known, night)
    # Animals are farther from the camera than in the broad drawing: harder, and rarely certain.
    scene = scene.using(scale=FAR * scene.scale)
    images = render(scene, SIZE, rng)
    sequence = _sequences(place, split)
    names = [hashlib.sha256(image.tobytes()).hexdigest()[:24] for image in images]
    save(folder / "train", [f"{name}.jpg" for name in names], images)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "",
                "split",
                "location_remapped",
                "location",
                "sequence_remapped",
                "seq_id",
                "y",
                "category_id",
                "datetime",
                "filename",
                "image_id",
            ]
        )
        for i, name in enumerate(names):
            moment = _when(rng, float(night[i])).strftime("%Y-%m-%d %H:%M:%S.%f")
            writer.writerow(
                [
                    i,
                    split[i],
                    place[i],
                    100 + 3 * place[i],
                    sequence[i],
                    f"seq-{sequence[i]:05d}",
                    y[i],
                    category[y[i]],
                    moment,
                    f"{name}.jpg",
                    name,
                ]
            )
    return {f"iwildcam/{name}": len(label) for name, label in labels.items()}
