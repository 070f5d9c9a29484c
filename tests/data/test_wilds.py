"""iWildCam, FMoW, Camelyon17, Waterbirds and CelebA, against the wilds package on their files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.prompts import FMOW_CATEGORIES
from shiftbench.data.sources.builtin.subpopulations import CelebA, Waterbirds
from shiftbench.data.sources.builtin.wilds import (
    Camelyon17,
    FMoW,
    IWildCam,
    Split,
    fmow_splits,
    years,
)
from shiftbench.data.verify import check

from tests.data import collection_layouts, layouts

SPLITS: tuple[Split, ...] = ("train", "id_val", "id_test", "val", "test")


@pytest.fixture(scope="module")
def wilds_iwildcam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    from wilds.datasets.iwildcam_dataset import IWildCamDataset

    root = tmp_path_factory.mktemp("wilds")
    layouts.iwildcam(root)
    return root, IWildCamDataset(root_dir=str(root))


@pytest.fixture(scope="module")
def wilds_fmow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    from wilds.datasets import fmow_dataset

    root = tmp_path_factory.mktemp("wilds")
    layouts.fmow(root)
    with pytest.MonkeyPatch.context() as patch:
        # pandas 3 reads no mixture of time stamps unless it is told to (wilds issue 146).
        mixed = functools.partial(fmow_dataset.pd.to_datetime, format="ISO8601")
        patch.setattr(fmow_dataset.pd, "to_datetime", mixed)
        yield root, fmow_dataset.FMoWDataset(root_dir=str(root))


@pytest.mark.parametrize("split", SPLITS)
def test_iwildcam_is_what_wilds_says(wilds_iwildcam: tuple[Path, Any], split: Split) -> None:
    root, dataset = wilds_iwildcam
    theirs = dataset.get_subset(split)
    ours = IWildCam(split=split).open(str(root))
    assert len(ours) == len(theirs) > 0
    fields = dataset.metadata_fields
    for index, (image, y, metadata) in enumerate(theirs):
        assert ours.labels[index] == y
        assert ours.metadata["location"][index] == str(int(metadata[fields.index("location")]))
        assert ours.metadata["year"][index] == metadata[fields.index("year")]
        assert np.array_equal(np.asarray(ours.images[index]), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("split", SPLITS)
def test_fmow_is_what_wilds_says(wilds_fmow: tuple[Path, Any], split: Split) -> None:
    root, dataset = wilds_fmow
    theirs = dataset.get_subset(split)
    ours = FMoW(split=split).open(str(root))
    assert len(ours) == len(theirs) > 0
    fields, names = dataset.metadata_fields, dataset.metadata_map["region"]
    for index, (image, y, metadata) in enumerate(theirs):
        assert ours.labels[index] == y
        assert ours.metadata["region"][index] == names[int(metadata[fields.index("region")])]
        assert ours.metadata["year"][index] == 2002 + metadata[fields.index("year")]
        assert np.array_equal(np.asarray(ours.images[index]), np.asarray(image))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("name", ["waterbirds", "celeba", "camelyon17"])
def test_others_are_what_wilds_says(
    wilds: Callable[[str], tuple[str, Any]], name: str, split: str
) -> None:
    root, dataset = wilds(name)
    theirs = dataset.get_subset(split)
    kinds = {"waterbirds": Waterbirds, "celeba": CelebA, "camelyon17": Camelyon17}
    ours = kinds[name].model_validate({"split": split}).open(root)
    assert len(ours) == len(theirs) > 0
    fields = dataset.metadata_fields
    for index, (image, y, metadata) in enumerate(theirs):
        known = {field: int(metadata[k]) for k, field in enumerate(fields)}
        mine = {column: values[index] for column, values in ours.metadata.items()}
        assert ours.labels[index] == y
        assert np.array_equal(np.asarray(ours.images[index]), np.asarray(image))
        if name == "waterbirds":
            assert mine["background"] == ("land", "water")[known["background"]]
            assert mine["bird"] == ("landbird", "waterbird")[y]
        elif name == "celeba":
            assert mine["sex"] == ("female", "male")[known["male"]]
            assert mine["hair"] == ("not blond", "blond")[y]
        else:
            assert mine["hospital"] == known["hospital"]
            assert mine["location"] == str(known["slide"])


@pytest.fixture(scope="module")
def wilds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, Any]]:
    from wilds.datasets.camelyon17_dataset import Camelyon17Dataset
    from wilds.datasets.celebA_dataset import CelebADataset
    from wilds.datasets.waterbirds_dataset import WaterbirdsDataset

    root = tmp_path_factory.mktemp("groups")
    collection_layouts.waterbirds(root)
    collection_layouts.celeba(root)
    collection_layouts.camelyon17(root)
    kinds = {
        "waterbirds": WaterbirdsDataset,
        "celeba": CelebADataset,
        "camelyon17": Camelyon17Dataset,
    }
    made = {name: kind(root_dir=str(root)) for name, kind in kinds.items()}
    return lambda name: (str(root), made[name])


def test_fmow_splits_are_those_of_wilds_row_by_row(wilds_fmow: tuple[Path, Any]) -> None:
    _, dataset = wilds_fmow
    number = dataset.split_dict | {"": -1}
    rows = [row for row in layouts.FMOW_ROWS if row[0] != "seq"]
    split = np.array([row[0] for row in rows])
    year = years("table", "timestamp", [row[3] for row in rows])
    found = [number[name] for name in fmow_splits(split, year).tolist()]
    assert found == dataset.split_array.tolist()
    assert {-1, 0, 1, 2, 3, 4} == set(found)


def test_categories_are_those_of_wilds() -> None:
    from wilds.datasets.fmow_dataset import categories

    assert list(FMOW_CATEGORIES) == categories


def test_countries_that_the_mapping_lacks_are_in_other(tmp_path: Path) -> None:
    layouts.fmow(tmp_path)
    images = FMoW(split="test").open(str(tmp_path))
    assert images.metadata["region"].tolist() == ["Other", "Americas", "Asia"]


def test_a_class_may_be_absent_from_a_split(tmp_path: Path) -> None:
    layouts.iwildcam(tmp_path)
    assert set(IWildCam(split="test").open(str(tmp_path)).labels.tolist()) == {0, 1}
    names = IWildCam(split="test").label_names(str(tmp_path))
    assert names == ("empty", "tayassu pecari", "panthera onca")


def test_images_that_are_missing_are_counted(tmp_path: Path) -> None:
    layouts.iwildcam(tmp_path)
    (tmp_path / "iwildcam_v2.0/train/image14.jpg").unlink()
    images = IWildCam(split="val").open(str(tmp_path))
    assert images.ids.tolist() == [f"image{i}.jpg" for i in (12, 13, 15, 16)]
    finding = check(IWildCam(split="val"), str(tmp_path))
    assert finding.status == "incomplete"
    assert "4 images instead of 14,961" in finding.detail
    assert "iwildcam_v2.0/train/image14.jpg: is not there" in finding.detail


def test_broken_tables_are_one_clear_line(tmp_path: Path) -> None:
    layouts.fmow(tmp_path)
    table = tmp_path / "fmow_v1.1/rgb_metadata.csv"
    whole = table.read_text()
    for bad, message in [
        (whole.replace(",timestamp,", ",time,", 1), 'no column "timestamp"'),
        (whole.replace("2002-01-01T00:00:00Z", "1.1.2002"), "1.1.2002"),
        (whole.replace("2002-01-01T00:00:00Z", "2002-01-01T00:00:00+05:00"), "UTC"),
        (whole.replace(",airport,", ",spaceport,"), "spaceport"),
        (whole[:-30], "fields"),
    ]:
        table.write_text(bad)
        with pytest.raises(InputError, match=message) as error:
            FMoW(split="train").open(str(tmp_path))
        assert "\n" not in str(error.value)
