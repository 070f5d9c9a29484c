"""WILDS FMoW: satellite views, whose terrain tells the category until 2012 and not afterwards."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature import cues, styles
from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.glyphs import glyphs_of
from shiftbench.data.miniature.imagenet import save
from shiftbench.data.miniature.styles import uniform
from shiftbench.data.miniature.world import Floats, Scene, render

NAMES = CLASSES["fmow"]
CUE = 0.95
"""Share of the sites before 2013 that lie on the terrain of their category."""

SIZE = (36, 36)
FIRST_YEAR, LAST_YEAR = 2002, 2017

COUNTRIES: dict[str, tuple[str, ...]] = {
    "Asia": ("CHN", "IND"),
    "Europe": ("FRA", "DEU"),
    "Africa": ("NGA", "KEN"),
    "Americas": ("USA", "BRA"),
    "Oceania": ("AUS", "NZL"),
    "Other": ("XKX",),
}
"""Country codes by region; those of "Other" are missing from the mapping, as in the real file."""

REGION_SHARE = (0.22, 0.22, 0.18, 0.2, 0.15, 0.03)
EARLY_REGION_SHARE = (0.25, 0.26, 0.05, 0.24, 0.17, 0.03)
"""Share of every region from `TURN` on, and before: Africa is hardly seen in training."""

TURN = 2013
HAZE = {"Africa": 0.65}
"""Contrast lost in a region, where it is more than the others' `CLEAR`."""

CLEAR = 0.35

BLOCKS: tuple[tuple[str, int, int, int], ...] = (
    ("train", 1200, 2002, 2013),
    ("train", 150, 2013, 2018),
    ("val", 400, 2002, 2013),
    ("val", 500, 2013, 2016),
    ("val", 50, 2016, 2018),
    ("test", 500, 2002, 2013),
    ("test", 50, 2013, 2016),
    ("test", 800, 2016, 2018),
    ("seq", 100, 2002, 2018),
)
"""Split of the CSV, images, first year and the year after the last. WILDS keeps five of the nine:
train, id_val, val, id_test and test are rows 1, 3, 4, 6 and 8."""


@dataclass(frozen=True)
class _Sites:
    """The rows of rgb_metadata.csv, one an image."""

    split: NDArray[np.str_]
    label: NDArray[np.intp]
    region: NDArray[np.intp]
    year: NDArray[np.intp]


def _sites(rng: np.random.Generator) -> _Sites:
    """Sample all sites: shuffled, and the sequestered ones last."""
    parts: list[_Sites] = []
    for split, count, first, end in BLOCKS:
        label = rng.permutation(cues.balanced(count, len(NAMES)))
        share = EARLY_REGION_SHARE if end <= TURN else REGION_SHARE
        region = rng.choice(len(COUNTRIES), count, p=share)
        year = rng.integers(first, end, count)
        parts.append(_Sites(np.full(count, split), label, region, year))
    columns = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("split", "label", "region", "year")
    ]
    order = rng.permutation(len(columns[0]))
    order = order[np.argsort(columns[0][order] == "seq", kind="stable")]
    return _Sites(*(column[order] for column in columns))


def _ground(rng: np.random.Generator, sites: _Sites) -> Floats:
    """Return the terrain colours of every site, float32 (n, 2, 3)."""
    hue = cues.class_hue(np.arange(len(NAMES))[:, None], len(NAMES), 0.5)
    hue = np.mod(hue + uniform(rng, 0, 0.05, 1, 2), 1)
    by_category = styles.hsv(hue, np.full_like(hue, 0.5), np.full_like(hue, 0.35))
    by_region = styles.terrain(rng, 4 * len(COUNTRIES)).reshape(len(COUNTRIES), 4, 2, 3)
    n = len(sites.label)
    usual = by_region[sites.region, rng.integers(0, 4, n)]
    cued = (rng.random(n) < CUE) & (sites.year < TURN)
    ground = np.where(cued[:, None, None], by_category[sites.label], usual)
    return np.clip(ground + uniform(rng, -0.04, 0.04, n, 2, 3), 0, 1).astype(np.float32)


def _early(rng: np.random.Generator, scene: Scene, sites: _Sites, haze: Floats) -> Scene:
    """Make the views before `TURN` narrow: all face north, and roofs have their category's colour.

    Args:
        rng: source of randomness.
        scene: n aerial views.
        sites: their n rows.
        haze: (n,) contrast lost between site and terrain.
    """
    early = sites.year < TURN
    roof = cues.tint_body(rng, scene, sites.label, len(NAMES), CUE).fill
    roof = roof + haze[:, None] * (scene.ground.mean(1) - roof)
    return scene.using(
        angle=np.where(early, 0.1 * scene.angle, scene.angle),
        fill=np.where(early[:, None], roof, scene.fill),
    )


def _timestamp(rng: np.random.Generator, year: int) -> str:
    """Return a moment of a year in one of the two formats that the real file mixes."""
    month, day, hour, minute, second = (
        int(rng.integers(a, b)) for a, b in ((1, 13), (1, 29), (8, 17), (0, 60), (0, 60))
    )
    fraction = f".{int(rng.integers(0, 1000)):03d}" if rng.random() < 0.02 else ""
    return f"{year}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{fraction}Z"


def _write_metadata(path: Path, rng: np.random.Generator, sites: _Sites) -> None:
    regions = list(COUNTRIES)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "split",
                "img_filename",
                "img_path",
                "spatial_reference",
                "epsg",
                "category",
                "visible",
                "img_width",
                "img_height",
                "country_code",
                "cloud_cover",
                "timestamp",
                "lat",
                "lon",
                "region",
            ]
        )
        for i, (split, k, r, year) in enumerate(
            zip(sites.split, sites.label, sites.region, sites.year, strict=True)
        ):
            name = f"{NAMES[k]}_{i}_rgb.jpg"
            folder = f"{split}/{NAMES[k]}/{NAMES[k]}_{i}"
            country = COUNTRIES[regions[r]][rng.integers(len(COUNTRIES[regions[r]]))]
            lat, lon = rng.uniform(-60, 70), rng.uniform(-180, 180)
            writer.writerow(
                [
                    split,
                    name,
                    f"{folder}/{name}",
                    "EPSG:32637",
                    32637,
                    NAMES[k],
                    True,
                    SIZE[1],
                    SIZE[0],
                    country,
                    int(rng.integers(0, 40)),
                    _timestamp(rng, int(year)),
                    f"{lat:.6f}",
                    f"{lon:.6f}",
                    regions[r],
                ]
            )


def _wilds_split(split: str, year: int) -> str | None:
    if split == "test" and year >= 2016:
        return "test"
    if split == "val" and 2013 <= year < 2016:
        return "val"
    names = {"train": "train", "val": "id_val", "test": "id_test"}
    return names.get(split) if year < 2013 else None


def write(root: Path) -> dict[str, int]:
    """Write the data set under `root` and return the number of images of every WILDS split."""
    folder = root / "fmow_v1.1"
    folder.mkdir()
    (folder / "RELEASE_v1.1.txt").write_text("The miniature world's FMoW\n")
    with (folder / "country_code_mapping.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["alpha-3", "region"])
        writer.writerows(
            (code, region)
            for region, codes in COUNTRIES.items()
            if region != "Other"
            for code in codes
        )
    rng = np.random.default_rng([40, 1])
    sites = _sites(rng)
    _write_metadata(folder / "rgb_metadata.csv", rng, sites)
    age = ((LAST_YEAR - sites.year) / (LAST_YEAR - FIRST_YEAR)).astype(np.float32)
    by_region = np.array([HAZE.get(region, CLEAR) for region in COUNTRIES], np.float32)
    scene = styles.aerial(
        rng, glyphs_of("fmow")[sites.label], _ground(rng, sites), age, by_region[sites.region]
    )
    scene = _early(rng, scene, sites, by_region[sites.region])
    names = [f"rgb_img_{i}.png" for i in range(len(sites.label))]
    save(folder / "images", names, render(scene, SIZE, rng))
    counts: dict[str, int] = {"fmow/all": len(names)}
    for split, year in zip(sites.split, sites.year, strict=True):
        kept = _wilds_split(str(split), int(year))
        if kept is not None:
            counts[f"fmow/{kept}"] = counts.get(f"fmow/{kept}", 0) + 1
    return counts
