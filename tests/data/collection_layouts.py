"""Writes small files in the layouts of the data sets beside the nine shifts."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.data.layouts import WNIDS, cifar_images, class_folders, parquet, write_image

CIFAR100_NAMES = tuple(f"thing_{k:02d}" for k in range(100))
PETS = ("american_bulldog", "bengal", "pug")
VARIANTS = ("707-320", "Cessna 172", "MD-11")


def cifar100(root: Path, seed: int = 0) -> None:
    """Fine labels 0 … 19 in both files; coarse ones stand beside them."""
    folder = root / "cifar-100-python"
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(("train", "test")):
        rng = np.random.default_rng((seed, number))
        content = {
            b"fine_labels": list(range(20)) * 2,
            b"coarse_labels": [0] * 40,
            b"data": rng.integers(0, 256, (40, 3072), dtype=np.uint8),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {b"fine_label_names": [name.encode() for name in CIFAR100_NAMES]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))


def cifar100_c(root: Path, corruptions: Sequence[str], n: int = 10) -> None:
    folder = root / "CIFAR-100-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(np.arange(n) * 9, 5))
    for seed, corruption in enumerate(corruptions):
        np.save(folder / f"{corruption}.npy", cifar_images(5 * n, seed))


def zhou(root: Path, folder: str, images: str, file: str, names: Sequence[str]) -> None:
    """Of every class three images for training, one for validation and two for tests."""
    base = root / folder
    splits: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(names):
        for i, split in enumerate(("train", "test", "train", "val", "train", "test")):
            path = f"{name}/image_{i}.jpg"
            write_image(base / images / path, 10 * label + i)
            splits[split].append((path, label, name))
    (base / file).write_text(json.dumps(splits))


def oxford_pets(root: Path) -> None:
    zhou(root, "oxford_pets", "images", "split_zhou_OxfordPets.json", PETS)


def dtd(root: Path) -> None:
    names = ("banded", "dotted", "grid", "lined", "woven")
    zhou(root, "dtd", "images", "split_zhou_DescribableTextures.json", names)


def fgvc_aircraft(root: Path) -> None:
    """The lists of FGVC Aircraft: numbers of images, names of variants with spaces."""
    base = root / "fgvc_aircraft"
    for i in range(9):
        write_image(base / "images" / f"{i:07d}.jpg", i)
    (base / "variants.txt").write_text("\n".join(VARIANTS) + "\n")
    for k, split in enumerate(("train", "val", "test")):
        lines = [f"{3 * k + i:07d} {VARIANTS[(i + k) % 3]}" for i in range(3)]
        (base / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")


def pacs(root: Path) -> None:
    """Two classes in four domains; one domain lacks the first of them."""
    for k, domain in enumerate(("art_painting", "cartoon", "photo", "sketch")):
        names = ["dog", "giraffe"][int(domain == "photo") :]
        class_folders(root / "PACS" / domain, names, 10 + k, ".png")


def transfer(
    root: Path,
    folder: str,
    names: Sequence[str],
    val: str = "val",
    each: tuple[int, int, int] = (3, 2, 1),
) -> None:
    for split, n in zip(("train", val, "test"), each, strict=True):
        class_folders(root / folder / split, names, n, ".jpg")


def patch_camelyon(root: Path) -> None:
    for k, split in enumerate(("train", "valid", "test")):
        file = root / f"PatchCamelyon/data/{split}-00000-of-00001-abc123.parquet"
        parquet(file, [False, True, True, False], first=4 * k)


CAMELYON_HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split"
CAMELYON_ROWS = (
    # patient, node, x, y, tumor, slide, center, split
    ("004", 4, 3328, 21792, 1, 0, 0, 0),
    ("004", 4, 3200, 22272, 0, 0, 0, 0),
    ("061", 0, 5, 6, 1, 31, 3, 0),
    ("061", 0, 7, 6, 0, 31, 3, 1),
    ("090", 1, 1, 2, 1, 44, 4, 1),
    ("022", 4, 9, 9, 0, 12, 1, 0),
    ("022", 4, 8, 9, 1, 12, 1, 1),
    ("024", 2, 8, 8, 1, 14, 1, 0),
    ("040", 3, 11, 12, 0, 20, 2, 0),
    ("040", 3, 13, 12, 1, 21, 2, 1),
    ("042", 3, 11, 14, 1, 23, 2, 0),
)


def camelyon17(root: Path) -> None:
    folder = root / "camelyon17_v1.0"
    lines = [CAMELYON_HEADER]
    for i, (patient, node, x, y, *rest) in enumerate(CAMELYON_ROWS):
        lines.append(",".join(map(str, (i, patient, node, x, y, *rest))))
        name = f"patient_{patient}_node_{node}"
        write_image(folder / "patches" / name / f"patch_{name}_x_{x}_y_{y}.png", i)
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "RELEASE_v1.0.txt").write_text("1.0\n")


def waterbirds(root: Path) -> None:
    """Every group in every split."""
    folder = root / "waterbirds_v1.0"
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(24):
        y, place, split = i % 2, i // 2 % 2, i % 3
        name = f"{y:03d}.Bird_{y}/bird_{i:04d}.jpg"
        lines.append(f"{i + 1},{name},{y},{split},{place},/l/lake/{i}.jpg")
        write_image(folder / name, i)
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "RELEASE_v1.0.txt").write_text("1.0\n")


def celeba(root: Path, ending: str = "csv") -> None:
    """Every group in every split; the attributes that count stand among others."""
    folder = root / ("celebA_v1.0" if ending == "csv" else "celeba")
    header = ["Bald", "Blond_Hair", "Chubby", "Male"]
    attributes, partition = [], []
    for i in range(24):
        name, blond, male = f"{i + 1:06d}.jpg", 2 * (i % 2) - 1, 2 * (i // 2 % 2) - 1
        attributes.append([name, "-1", str(blond), "1", str(male)])
        partition.append([name, str(i % 3)])
        write_image(folder / "img_align_celeba" / name, i)
    if ending == "csv":
        attributes.insert(0, ["image_id", *header])
        partition.insert(0, ["image_id", "partition"])
    mark = "," if ending == "csv" else "  "
    lines = [mark.join(row) for row in attributes]
    if ending == "txt":
        lines = ["24", " ".join(header), *lines]
    (folder / f"list_attr_celeba.{ending}").write_text("\n".join(lines) + "\n")
    rows = [("," if ending == "csv" else " ").join(row) for row in partition]
    (folder / f"list_eval_partition.{ending}").write_text("\n".join(rows) + "\n")
    (folder / "RELEASE_v1.0.txt").write_text("1.0\n")


VID_LABELS = {
    "val/clip_a/000008.JPEG": [0],
    "val/clip_a/000010.JPEG": [0, 2],
    "val/clip_a/000015.JPEG": [2],
    "val/clip_b/000100.JPEG": [1],
    "val/clip_b/000101.JPEG": [1],
    "val/clip_c/000007.JPEG": [2],
}
VID_ANCHORS = {
    "val/clip_a/000010.JPEG": ["val/clip_a/000008.JPEG", "val/clip_a/000015.JPEG"],
    "val/clip_b/000100.JPEG": ["val/clip_b/000101.JPEG"],
    "val/clip_c/000007.JPEG": [],
}


def vid_robust(root: Path) -> None:
    """Three classes: the first covers the ImageNet classes 0 and 3, the others one each."""
    base = root / "imagenet_vid_ytbb_robust/imagenet-vid-robust"
    for i, name in enumerate(VID_LABELS):
        write_image(base / name, i)
    contents = {
        "metadata/labels.json": VID_LABELS,
        "metadata/pmsets.json": VID_ANCHORS,
        "misc/imagenet_class_index.json": {str(k): [w, f"c{k}"] for k, w in enumerate(WNIDS)},
        "misc/imagenet_vid_class_index.json": {
            "0": ["v0", "airplane"],
            "1": ["v1", "giant_panda"],
            "2": ["v2", "zebra"],
        },
        "misc/rev_wnid_map.json": {
            "v0": [WNIDS[0], WNIDS[3]],
            "v1": [WNIDS[4]],
            "v2": [WNIDS[1]],
        },
    }
    for name, content in contents.items():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(json.dumps(content))


YTBB_CLASSES = {"0": "person", "1": "bird", "2": "cow", "3": "none"}


def ytbb_robust(root: Path) -> None:
    """Anchors: reviewed, with a label added, with one that ImageNet lacks, bad ones.

    "cow" covers no class of ImageNet; pairs are alike, unlike, or of an anchor that is bad.
    """
    base = root / "imagenet_vid_ytbb_robust/ytbb-robust"
    marks = ["good", "unsure", "bad", "person", "bird", "cow"]
    of_pairs = ["similar", "dissimilar", "bad-anchor", "blur-increase", "correct"]
    anchors = {
        "aa-_a_1000/frame-15.jpg": [0, 4],  # person, and a bird beside
        "bb_b_2000/frame-30.jpg": [0],
        "cc_3000/frame-45.jpg": [0, 1],  # unsure
        "dd_4000/frame-60.jpg": [0],  # a bad anchor, by one of its pairs
        "ee_5000/frame-75.jpg": [0],  # a cow
    }
    pairs = [
        ("aa-_a_1000/frame-15.jpg", "aa-_a_1000/frame-13.jpg", [0, 4]),
        ("aa-_a_1000/frame-15.jpg", "aa-_a_1000/frame-20.jpg", [0]),
        ("aa-_a_1000/frame-15.jpg", "aa-_a_1000/frame-16.jpg", [0, 3]),
        ("aa-_a_1000/frame-15.jpg", "aa-_a_1000/frame-40.jpg", [0]),  # too far
        ("bb_b_2000/frame-30.jpg", "bb_b_2000/frame-29.jpg", [1]),
        ("dd_4000/frame-60.jpg", "dd_4000/frame-61.jpg", [0, 2]),
    ]
    for i, name in enumerate(dict.fromkeys([*anchors, *(two for _, two, _ in pairs)])):
        write_image(base / "ytbb_videos" / name, i)
    first = {
        "aa-_a": (1000, 0),
        "bb_b": (2000, 1),
        "cc": (3000, 0),
        "dd": (4000, 0),
        "ee": (5000, 2),
    }
    table = ["ytid,time_ms,label", *(f"{v},{ms},{label}" for v, (ms, label) in first.items())]
    folder = base / "metadata"
    folder.mkdir()
    (folder / "ytbb_robustness_test_anchors_full.csv").write_text("\n".join(table) + "\n")
    contents = {
        "anchor_labels": {
            "annotations": [{"key": k, "notes": "", "labels": v} for k, v in anchors.items()],
            "labels": marks,
        },
        "pmk_labels": {
            "annotations": [
                {"key": f"frames/{one},frames/{two}", "labels": v} for one, two, v in pairs
            ],
            "labels": of_pairs,
        },
        "ytbb_class_index": YTBB_CLASSES,
        "rev_class_idx_map": {"0": [2], "1": [0, 1]},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
