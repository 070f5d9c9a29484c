"""The traps of the ImageNet family's layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data.sources.builtin.imagenet import (
    ImageNet,
    ImageNetA,
    ImageNetC,
    ImageNetR,
    ImageNetSketch,
    ImageNetV2,
    ObjectNet,
)
from shiftbench.data.verify import check

from tests.data import layouts
from tests.data.layouts import WNIDS


def test_v2_labels_are_the_folder_names_not_their_string_order(tmp_path: Path) -> None:
    layouts.imagenet_v2(tmp_path, n=12)
    images = ImageNetV2().open(str(tmp_path))
    assert [int(name.split("/")[0]) for name in images.ids] == images.labels.tolist()
    assert images.labels.tolist() == list(range(12))


@pytest.mark.parametrize(
    "place", ["ImageNetV2-matched-frequency", "imagenetv2-matched-frequency-format-val"]
)
def test_v2_under_either_name(tmp_path: Path, place: str) -> None:
    layouts.imagenet_v2(tmp_path, place)
    assert len(ImageNetV2().open(str(tmp_path))) == 12


@pytest.mark.parametrize(
    ("split", "place"),
    [
        ("val", "imagenet/val_in_folder"),
        ("val", "imagenet/val"),
        ("val", "ILSVRC2012/val_dirs"),
        ("val", "ILSVRC2012/val"),
        ("train", "imagenet/train"),
        ("train", "ILSVRC2012/train"),
    ],
)
def test_imagenet_at_every_customary_place(tmp_path: Path, split: str, place: str) -> None:
    layouts.class_folders(tmp_path / place, reversed(WNIDS), 2)
    images = ImageNet.model_validate({"split": split}).open(str(tmp_path))
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert images.ids[0] == f"{WNIDS[0]}/{WNIDS[0]}_0.JPEG"


def test_a_flat_val_folder_gives_way_to_a_sorted_one(tmp_path: Path) -> None:
    layouts.write_image(tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(InputError, match="no class folders"):
        ImageNet(split="val").open(str(tmp_path))
    layouts.class_folders(tmp_path / "imagenet/val_in_folder", WNIDS, 1)
    assert len(ImageNet(split="val").open(str(tmp_path))) == 5


def test_a_class_missing_from_val_moves_no_label(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path / "imagenet/train", WNIDS, 1)
    layouts.class_folders(tmp_path / "imagenet/val", WNIDS[1:], 1)
    assert ImageNet(split="val").open(str(tmp_path)).labels.tolist() == [1, 2, 3, 4]
    assert ImageNet(split="val").class_count(str(tmp_path)) == 5


def test_other_folders_are_no_classes(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    for name in (".cache", "lost+found", "n123"):
        layouts.write_image(tmp_path / "imagenet/val" / name / "a.JPEG")
    (tmp_path / "imagenet/val" / WNIDS[0] / "._junk.JPEG").write_bytes(b"x")
    (tmp_path / "imagenet/val" / WNIDS[0] / "notes.txt").write_bytes(b"x")
    assert len(ImageNet(split="val").open(str(tmp_path))) == 10


@pytest.mark.parametrize(
    ("source", "place"), [(ImageNetR(), "imagenet-r"), (ImageNetA(), "imagenet-a")]
)
def test_r_and_a_are_scored_on_their_own_classes(
    tmp_path: Path, source: ImageNetR | ImageNetA, place: str
) -> None:
    layouts.imagenet(tmp_path)
    layouts.subset(tmp_path, place, (WNIDS[4], WNIDS[1], WNIDS[3]))
    images = source.open(str(tmp_path))
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [name[:9] for name in images.ids] == [WNIDS[k] for k in (1, 1, 3, 3, 4, 4)]
    assert images.projection is not None
    # The best of all five classes is one that the set does not have.
    logits = np.array([[9.0, 1.0, 8.0, 3.0, 2.0]])
    assert images.projection(logits).tolist() == [[1.0, 3.0, 2.0]]


def test_r_without_imagenet_says_what_is_needed(tmp_path: Path) -> None:
    layouts.subset(tmp_path, "imagenet-r")
    finding = check(ImageNetR(), str(tmp_path))
    assert finding.status == "refused"
    assert "imagenet/train" in finding.detail


def test_a_folder_that_imagenet_lacks_is_refused(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    layouts.class_folders(tmp_path / "sketch", [*WNIDS, "n99999999"], 1)
    with pytest.raises(InputError, match="n99999999"):
        ImageNetSketch().open(str(tmp_path))


def test_c_reads_the_wanted_corruptions_and_severity(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    layouts.imagenet_c(tmp_path, ["fog", "snow", "frost"])
    images = ImageNetC(corruptions=("snow", "fog"), severity=1).open(str(tmp_path))
    assert [name.rsplit("/", 2)[0] for name in images.ids] == ["snow/1"] * 5 + ["fog/1"] * 5
    assert images.labels.tolist() == [0, 1, 2, 3, 4] * 2
    with pytest.raises(InputError, match="blur"):
        ImageNetC(corruptions=("fog", "defocus_blur")).open(str(tmp_path))


def test_c_refuses_corruptions_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="fgo"):
        ImageNetC(corruptions=("fgo",))
    with pytest.raises(ValueError, match="twice"):
        ImageNetC(corruptions=("fog", "fog"))


def test_objectnet_takes_the_maximum_over_the_classes_it_covers(tmp_path: Path) -> None:
    layouts.objectnet(tmp_path)
    images = ObjectNet().open(str(tmp_path))
    # Sorted folders: a_lamp, bike, zebra_mug; "tray" has no counterpart.
    assert [name.split("/")[0] for name in images.ids[::2]] == ["a_lamp", "bike", "zebra_mug"]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.projection is not None
    assert [set(group) for group in images.projection.groups] == [{1}, {0, 3}, {4}]
    logits = np.array([[0.0, 1.0, 9.0, 2.0, 0.5], [3.0, 1.0, 9.0, 2.0, 0.5]])
    assert images.projection(logits).tolist() == [[1.0, 2.0, 0.5], [1.0, 3.0, 0.5]]


def test_objectnet_loses_its_border_before_anything_else(tmp_path: Path) -> None:
    layouts.objectnet(tmp_path)
    images = ObjectNet().open(str(tmp_path))
    file = tmp_path / "objectnet-1.0/images/bike/bike1.png"
    inner = np.asarray(Image.open(file))[2:-2, 2:-2]
    image = images.images[images.ids.tolist().index("bike/bike1.png")]
    assert np.array_equal(np.asarray(image), inner)


def test_objectnet_keeps_labels_when_a_folder_is_missing(tmp_path: Path) -> None:
    layouts.objectnet(tmp_path)
    for file in (tmp_path / "objectnet-1.0/images/a_lamp").iterdir():
        file.unlink()
    (tmp_path / "objectnet-1.0/images/a_lamp").rmdir()
    images = ObjectNet().open(str(tmp_path))
    assert images.labels.tolist() == [1, 1, 2, 2]
    assert images.projection is not None
    assert len(images.projection.groups) == 3


def test_objectnet_refuses_mappings_that_lead_nowhere(tmp_path: Path) -> None:
    layouts.objectnet(tmp_path)
    file = tmp_path / "objectnet-1.0/mappings/objectnet_to_imagenet_1k.json"
    file.write_text(json.dumps({"Bicycle": "no such class"}))
    with pytest.raises(InputError, match="Bicycle"):
        ObjectNet().open(str(tmp_path))
    file.write_text("[")
    with pytest.raises(InputError, match="not valid JSON"):
        ObjectNet().open(str(tmp_path))
