"""Writes small files in the layouts of the real data sets, independently of the miniature world."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n01484850", "n02123045", "n04254680")
CIFAR_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def pixels(seed: int, size: tuple[int, int] = (12, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(seed: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, form)
    return buffer.getvalue()


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    form = "PNG" if path.suffix == ".png" else "JPEG"
    path.write_bytes(encoded(seed, form))


def class_folders(folder: Path, names: Iterable[str], each: int, ending: str = ".JPEG") -> None:
    for k, name in enumerate(names):
        for i in range(each):
            write_image(folder / name / f"{name}_{i}{ending}", 100 * k + i)


def imagenet(root: Path, train: str = "imagenet/train", val: str = "imagenet/val") -> None:
    class_folders(root / train, WNIDS, 4)
    class_folders(root / val, WNIDS, 2)


def imagenet_v2(
    root: Path, place: str = "imagenetv2-matched-frequency-format-val", n: int = 12
) -> None:
    class_folders(root / place, map(str, range(n)), 1, ".jpeg")


def subset(root: Path, place: str, wnids: Sequence[str] = (WNIDS[3], WNIDS[1])) -> None:
    class_folders(root / place, wnids, 2, ".jpg")


def imagenet_c(root: Path, corruptions: Sequence[str], place: str = "imagenet-c") -> None:
    for corruption in corruptions:
        for severity in (1, 5):
            class_folders(root / place / corruption / str(severity), WNIDS, 1)


def objectnet(root: Path) -> None:
    """Four folders: "bike" covers the ImageNet classes 0 and 3, "tray" none.

    The 2012 ids are the positions backwards, as the real ones follow another order than the wnids.
    """
    base = root / "objectnet-1.0"
    labels = {"zebra_mug": "Zebra mug", "bike": "Bicycle", "tray": "Tray", "a_lamp": "A lamp"}
    for k, folder in enumerate(labels):
        for i in range(2):
            image = np.full((20, 16, 3), (255, 0, 0), np.uint8)
            image[1:-1, 1:-1] = 0
            image[2:-2, 2:-2] = pixels(10 * k + i, (16, 12))
            path = base / "images" / folder / f"{folder}{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    texts = [f"class {k}, a synonym" for k in range(5)]
    contents = {
        "folder_to_objectnet_label.json": labels,
        "objectnet_to_imagenet_1k.json": {
            "Zebra mug": texts[4],
            "Bicycle": f"{texts[3]}; {texts[0]}",
            "A lamp": texts[1],
        },
        "pytorch_to_imagenet_2012_id.json": {str(k): 4 - k for k in range(5)},
    }
    (base / "mappings").mkdir()
    for name, content in contents.items():
        (base / "mappings" / name).write_text(json.dumps(content))
    (base / "mappings/imagenet_to_label_2012_v2").write_text("\n".join(reversed(texts)) + "\n")


def cifar_batch(path: Path, n: int, seed: int, labels: Sequence[int] | None = None) -> None:
    rng = np.random.default_rng(seed)
    content = {
        b"batch_label": path.name.encode(),
        b"labels": list(range(10)) * (n // 10) if labels is None else list(labels),
        b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
        b"filenames": [b"x.png"] * n,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for number in range(1, 6):
        cifar_batch(folder / f"data_batch_{number}", 20, number)
    cifar_batch(folder / "test_batch", 30, 6)
    names = {b"label_names": [name.encode() for name in CIFAR_NAMES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))


def cifar101(root: Path) -> None:
    folder = root / "CIFAR-10.1"
    folder.mkdir()
    np.save(folder / "cifar10.1_v6_data.npy", cifar_images(20, 7))
    np.save(folder / "cifar10.1_v6_labels.npy", np.tile(np.arange(10), 2).astype("<i4"))


def cifar_images(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def cifar102_npz(root: Path, seed: int = 8) -> None:
    """The newer file; its keywords are pickled objects, as in the real one."""
    folder = root / "CIFAR-10.2"
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / "cifar102_test.npz",
        images=cifar_images(20, seed),
        labels=np.tile(np.arange(10), 2),
        label_names=np.array(CIFAR_NAMES, dtype=object),
        keywords=np.array(["a", None] * 10, dtype=object),
    )


def cifar102_npy(root: Path, seed: int = 9) -> None:
    """The older file: a dictionary in a pickled array of objects."""
    folder = root / "CIFAR-10.2"
    folder.mkdir(exist_ok=True)
    content = {
        "images": cifar_images(20, seed),
        "labels": np.tile(np.arange(10), 2),
        "label_names": list(CIFAR_NAMES),
        "keywords": ["a"] * 20,
    }
    np.save(folder / "cifar102_test.npy", content, allow_pickle=True)


def cifar10_c(root: Path, corruptions: Sequence[str], n: int = 10) -> None:
    """Every pixel of severity s of image i is 10 s + i, so that rows tell where they belong."""
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(np.arange(n) % 10, 5).astype(np.uint8))
    values = np.add.outer(10 * np.arange(1, 6), np.arange(n)).reshape(-1, 1, 1, 1)
    for corruption in corruptions:
        array = np.broadcast_to(values, (5 * n, 32, 32, 3)).astype(np.uint8)
        np.save(folder / f"{corruption}.npy", array)


IWILDCAM_HEADER = (
    ",split,location_remapped,location,sequence_remapped,seq_id,y,category_id,datetime,"
    "filename,image_id"
)


def iwildcam(root: Path) -> None:
    """30 images, 3 classes, every split; class 2 has none in the OOD test set."""
    folder = root / "iwildcam_v2.0"
    folder.mkdir()
    (folder / "RELEASE_v2.0.txt").write_text("2.0\n")
    (folder / "categories.csv").write_text(
        "y,category_id,name\n2,9,panthera onca\n0,0,empty\n1,2,tayassu pecari\n99999,4,unknown\n"
    )
    splits = ["train"] * 12 + ["val"] * 5 + ["test"] * 5 + ["id_val"] * 4 + ["id_test"] * 4
    rows = [IWILDCAM_HEADER]
    for i, split in enumerate(splits):
        y = i % 2 if split == "test" else i % 3
        rows.append(
            f"{i},{split},{i % 6},{200 + i % 6},{i // 2},seq-{i // 2},{y},{y * 5},"
            f"201{i % 5}-0{i % 9 + 1}-01 1{i % 9}:00:00.000,image{i:02d}.jpg,image{i:02d}"
        )
        write_image(folder / "train" / f"image{i:02d}.jpg", i)
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


FMOW_HEADER = (
    "split,img_filename,img_path,spatial_reference,epsg,category,visible,img_width,img_height,"
    "country_code,cloud_cover,timestamp,lat,lon,region"
)
FMOW_ROWS = (
    # split, category, country, time stamp; among them the first and last moments of the periods
    ("train", "zoo", "DEU", "2012-12-31T23:59:59.999Z"),
    ("train", "airport", "USA", "2002-01-01T00:00:00Z"),
    ("train", "dam", "XKX", "2013-01-01T00:00:00Z"),
    ("val", "zoo", "USA", "2012-06-01T10:00:17Z"),
    ("val", "dam", "IND", "2013-01-01T00:00:00.001Z"),
    ("val", "zoo", "XKX", "2015-12-31T23:59:59Z"),
    ("val", "dam", "DEU", "2016-01-01T00:00:00Z"),
    ("test", "airport", "IND", "2010-02-03T04:05:06.643Z"),
    ("test", "dam", "DEU", "2014-01-01T00:00:00Z"),
    ("test", "zoo", "XKX", "2016-01-01T00:00:00Z"),
    ("test", "airport", "USA", "2017-12-31T23:59:59.500Z"),
    ("test", "dam", "IND", "2016-05-05T05:05:05Z"),
    ("seq", "zoo", "IND", "2011-01-01T00:00:00Z"),
)


def fmow(root: Path, rows: Sequence[tuple[str, str, str, str]] = FMOW_ROWS) -> None:
    """Countries of four regions; XKX is not in the mapping, so its region is "Other"."""
    folder = root / "fmow_v1.1"
    folder.mkdir()
    (folder / "RELEASE_v1.1.txt").write_text("1.1\n")
    (folder / "country_code_mapping.csv").write_text(
        "name,alpha-3,region\nGermany,DEU,Europe\nIndia,IND,Asia\nUSA,USA,Americas\n"
    )
    lines = [FMOW_HEADER]
    for i, (split, category, country, time) in enumerate(rows):
        lines.append(
            f'{split},a.jpg,"{split}/a,b.jpg",EPSG,32637,{category},True,10,12,{country},0,'
            f"{time},1.0,2.0,"
        )
        write_image(folder / "images" / f"rgb_img_{i}.png", i)
    (folder / "rgb_metadata.csv").write_text("\n".join(lines) + "\n")


def parquet(
    path: Path,
    labels: Sequence[int] | Sequence[str],
    names: Sequence[str] | None = None,
    rows_per_group: int = 3,
    first: int = 0,
    **columns: Sequence[object],
) -> None:
    """A Hugging Face-style file; image i is ``encoded(first + i)``."""
    data = [{"bytes": encoded(first + i), "path": f"{i}.png"} for i in range(len(labels))]
    image = pa.array(data, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "label": pa.array(labels), **columns})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)
