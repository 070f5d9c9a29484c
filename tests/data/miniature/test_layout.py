"""The world's files, against the real data sets' layouts."""

from __future__ import annotations

import csv
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shiftbench.data.miniature import imagenet
from shiftbench.data.miniature.corruptions import CORRUPTIONS
from shiftbench.data.miniature.definition import CLASSES, VERSION


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_marker_counts_what_is_there(world: Path) -> None:
    marker = json.loads((world / "miniature.json").read_text())
    assert marker["version"] == VERSION
    assert marker["classes"] == {task: list(names) for task, names in CLASSES.items()}
    folders = {
        "imagenet/train": "imagenet/train",
        "imagenet/val": "imagenet/val",
        "imagenet-v2": "imagenetv2-matched-frequency-format-val",
        "imagenet-r": "imagenet-r",
        "imagenet-sketch": "sketch",
        "imagenet-a": "imagenet-a",
        "objectnet": "objectnet-1.0/images",
        "imagenet-c": "imagenet-c",
        "fmow/all": "fmow_v1.1/images",
    }
    for name, folder in folders.items():
        assert marker["counts"][name] == len(_files(world / folder)) >= 450, name


def test_the_world_is_small(world: Path) -> None:
    assert sum(path.stat().st_size for path in _files(world)) < 60e6


def test_imagenet_folders(world: Path) -> None:
    wnids = [path.name for path in sorted((world / "imagenet/train").iterdir())]
    assert wnids == list(imagenet.WNIDS)
    assert len(wnids) == len(CLASSES["imagenet"])
    for split in ("imagenet/val", "sketch"):
        assert [path.name for path in sorted((world / split).iterdir())] == wnids
    for split in ("imagenet-r", "imagenet-a"):
        subset = {path.name for path in (world / split).iterdir()}
        assert subset < set(wnids)
    numbered = {path.name for path in (world / "imagenetv2-matched-frequency-format-val").iterdir()}
    assert numbered == {str(k) for k in range(len(wnids))}


def test_imagenet_photographs_need_resizing_and_cropping(world: Path) -> None:
    sizes = {Image.open(path).size for path in _files(world / "imagenet/val")[:60]}
    assert len(sizes) == 3
    assert all(min(size) > 32 for size in sizes)


def test_imagenet_a_fools_the_simple_classifier(world: Path) -> None:
    def read(folder: Path) -> tuple[list[imagenet.Images], list[int]]:
        paths = _files(folder)
        images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        return images, [imagenet.WNIDS.index(path.parent.name) for path in paths]

    classifier = imagenet.SimpleClassifier(*read(world / "imagenet/train"))
    accuracy = {}
    for folder in ("imagenet/val", "imagenet-a"):
        images, label = read(world / folder)
        accuracy[folder] = float((classifier.predict(images) == label).mean())
    # The images are read back from JPEG here, hence not exactly 0.
    assert accuracy["imagenet-a"] < 0.05 < 0.5 < accuracy["imagenet/val"]


def test_objectnet_mappings_lead_to_imagenet_labels(world: Path) -> None:
    base = world / "objectnet-1.0"
    maps = base / "mappings"
    label_of = json.loads((maps / "folder_to_objectnet_label.json").read_text())
    assert set(label_of) == {path.name for path in (base / "images").iterdir()}
    names = (maps / "imagenet_to_label_2012_v2").read_text().splitlines()
    to_2012 = json.loads((maps / "pytorch_to_imagenet_2012_id.json").read_text())
    to_torch = {id_2012: int(k) for k, id_2012 in to_2012.items()}
    assert any(k != id_2012 for id_2012, k in to_torch.items())
    joined = json.loads((maps / "objectnet_to_imagenet_1k.json").read_text())
    assert sum(";" in texts for texts in joined.values()) >= 2
    assert set(label_of.values()) > set(joined)
    for texts in joined.values():
        for text in texts.split("; "):
            assert CLASSES["imagenet"][to_torch[names.index(text)]] == text


def test_objectnet_images_have_a_one_pixel_red_border(world: Path) -> None:
    pixels = np.asarray(Image.open(_files(world / "objectnet-1.0/images")[0]))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == [255, 0, 0]).all()
    assert not (pixels[1, 1:-1] == [255, 0, 0]).all()


def test_imagenet_c_has_severity_five_of_every_corruption(world: Path) -> None:
    base = world / "imagenet-c"
    assert {path.name for path in base.iterdir()} == set(CORRUPTIONS)
    for name in CORRUPTIONS:
        assert [path.name for path in (base / name).iterdir()] == ["5"]
        assert {path.name for path in (base / name / "5").iterdir()} == set(imagenet.WNIDS)
    assert Image.open(_files(base)[0]).size == (32, 32)


def test_cifar_batches(world: Path) -> None:
    folder = world / "cifar-10-batches-py"
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = pickle.loads((folder / name).read_bytes())
        assert set(batch) == {b"batch_label", b"labels", b"data", b"filenames"}
        assert batch[b"data"].dtype == np.uint8
        assert batch[b"data"].shape == (len(batch[b"labels"]), 3072)
        assert set(Counter(batch[b"labels"]).values()) == {len(batch[b"labels"]) // 10}
    meta = pickle.loads((folder / "batches.meta").read_bytes())
    assert tuple(name.decode() for name in meta[b"label_names"]) == CLASSES["cifar10"]


def test_cifar_shifts(world: Path) -> None:
    images = np.load(world / "CIFAR-10.1/cifar10.1_v6_data.npy")
    labels = np.load(world / "CIFAR-10.1/cifar10.1_v6_labels.npy")
    assert (images.dtype, images.shape[1:], labels.dtype.str) == (np.uint8, (32, 32, 3), "<i4")
    with np.load(world / "CIFAR-10.2/cifar102_test.npz", allow_pickle=False) as content:
        assert content["images"].shape == (len(content["labels"]), 32, 32, 3)
        assert content["labels"].dtype == np.int64
        assert tuple(content["label_names"]) == CLASSES["cifar10"]


def test_cifar_c_stacks_five_severities(world: Path) -> None:
    labels = np.load(world / "CIFAR-10-C/labels.npy")
    n = len(labels) // 5
    test = pickle.loads((world / "cifar-10-batches-py/test_batch").read_bytes())[b"labels"]
    assert labels.dtype == np.uint8
    assert labels.tolist() == test[:n] * 5
    for name in CORRUPTIONS:
        assert np.load(world / "CIFAR-10-C" / f"{name}.npy").shape == (5 * n, 32, 32, 3)


def test_iwildcam_tables(world: Path) -> None:
    base = world / "iwildcam_v2.0"
    rows = _rows(base / "metadata.csv")
    columns = (
        ",split,location_remapped,location,sequence_remapped,seq_id,y,category_id,datetime,"
        "filename,image_id"
    )
    assert (base / "metadata.csv").read_text().splitlines()[0] == columns
    assert all((base / "train" / row["filename"]).exists() for row in rows)
    where: dict[str, set[str]] = {}
    classes: dict[str, set[int]] = {}
    for row in rows:
        where.setdefault(row["split"], set()).add(row["location_remapped"])
        classes.setdefault(row["split"], set()).add(int(row["y"]))
    assert set(where) == {"train", "val", "test", "id_val", "id_test"}
    assert where["id_val"] <= where["train"] >= where["id_test"]
    assert not where["train"] & where["val"] | where["test"] & (where["train"] | where["val"])
    assert classes["train"] == set(range(len(CLASSES["iwildcam"]))) > classes["test"]
    categories = _rows(base / "categories.csv")
    assert [row["name"] for row in categories[:-1]] == list(CLASSES["iwildcam"])
    assert categories[-1]["y"] == "99999"
    frequency = Counter(row["y"] for row in rows if row["split"] == "train")
    assert max(frequency.values()) > 8 * min(frequency.values())


def test_fmow_tables(world: Path) -> None:
    base = world / "fmow_v1.1"
    rows = _rows(base / "rgb_metadata.csv")
    columns = (
        "split,img_filename,img_path,spatial_reference,epsg,category,visible,img_width,img_height,"
        "country_code,cloud_cover,timestamp,lat,lon,region"
    )
    assert (base / "rgb_metadata.csv").read_text().splitlines()[0] == columns
    first_seq = next(i for i, row in enumerate(rows) if row["split"] == "seq")
    assert all((row["split"] == "seq") == (i >= first_seq) for i, row in enumerate(rows))
    assert {len(row["timestamp"]) for row in rows} == {20, 24}
    assert {int(row["timestamp"][:4]) for row in rows} == set(range(2002, 2018))
    mapped = {row["alpha-3"]: row["region"] for row in _rows(base / "country_code_mapping.csv")}
    assert set(mapped.values()) == {"Asia", "Europe", "Africa", "Americas", "Oceania"}
    assert {row["country_code"] for row in rows} > set(mapped)
    assert all((base / "images" / f"rgb_img_{i}.png").exists() for i in range(len(rows)))


def test_wilds_reads_iwildcam(world: Path) -> None:
    dataset = pytest.importorskip("wilds.datasets.iwildcam_dataset")
    read = dataset.IWildCamDataset(root_dir=str(world), download=False)
    assert {name: len(read.get_subset(name)) for name in ("train", "test")} == {
        "train": 1200,
        "test": 600,
    }
    assert read.n_classes == len(CLASSES["iwildcam"])


def test_wilds_reads_fmow(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pytest.importorskip("wilds.datasets.fmow_dataset")
    parse = dataset.pd.to_datetime
    # Newer pandas refuses the real file's two timestamp formats too (p-lambda/wilds#146).
    monkeypatch.setattr(dataset.pd, "to_datetime", lambda texts: parse(texts, format="ISO8601"))
    read = dataset.FMoWDataset(root_dir=str(world), download=False)
    counts = json.loads((world / "miniature.json").read_text())["counts"]
    for split in ("train", "id_val", "id_test", "val", "test"):
        subset = read.get_subset(split)
        assert len(subset) == counts[f"fmow/{split}"] >= 400
    image, label, _ = read.get_subset("test")[0]
    assert image.size == (36, 36)
    assert dataset.categories[int(label)] in CLASSES["fmow"]
    order = [dataset.categories.index(name) for name in CLASSES["fmow"]]
    assert order == sorted(order)
