"""Folders of the Hugging Face hub: never two splits as one set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.sources.base import AbsentError
from shiftbench.data.sources.builtin.parquet import Parquet
from shiftbench.data.sources.shards import split_of

from tests.data import layouts


@pytest.fixture
def hub(tmp_path: Path) -> str:
    for split, n in (("train", 3), ("test", 2)):
        for part in range(2):
            name = f"hub/data/{split}-{part:05d}-of-00002.parquet"
            layouts.parquet(tmp_path / name, [part] * n)
    return str(tmp_path)


def test_a_folder_of_several_splits_is_refused_until_one_is_named(hub: str) -> None:
    with pytest.raises(InputError, match=r'test \(2 files\), train \(2 files\).*"split"') as error:
        Parquet(path="hub/data").open(hub)
    assert "\n" not in str(error.value)
    assert len(Parquet(path="hub/data", split="train").open(hub)) == 6
    assert len(Parquet(path="hub/data", split="test").open(hub)) == 4
    with pytest.raises(InputError, match=r'no file is of split "tset".*"test"'):
        Parquet(path="hub/data", split="tset").open(hub)


def test_a_pattern_or_a_list_says_which_files(hub: str) -> None:
    train = Parquet(path="hub/data/train-*.parquet")
    assert train.open(hub).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(Parquet(path="**/test-?????-of-*.parquet").open(hub)) == 4
    first = "hub/data/train-00000-of-00002.parquet"
    both = Parquet(path=(first, "hub/data/test-*.parquet", first))
    assert both.open(hub).ids[[0, 3]].tolist() == [
        "train-00000-of-00002.parquet/0",
        "test-00000-of-00002.parquet/0",
    ]
    with pytest.raises(AbsentError, match="validation"):
        Parquet(path="hub/data/validation-*").open(hub)


def test_files_of_one_name_in_two_folders_keep_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        layouts.parquet(tmp_path / folder / "0.parquet", [0])
    images = Parquet(path="*/0.parquet").open(str(tmp_path))
    assert images.ids.tolist() == ["a/0.parquet/0", "b/0.parquet/0"]


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("train-00000-of-00002-3f1c9ab0.parquet", "train"),
        ("cifar_dev.parquet", "validation"),
        ("x/val.parquet", "validation"),
        ("eval-0.parquet", "test"),
        ("sketch-00000-of-00001.parquet", "sketch"),
        ("part-1.parquet", ""),
        ("contest.parquet", ""),
    ],
)
def test_the_split_that_a_file_name_tells(file: str, split: str) -> None:
    assert split_of(file) == split


def test_a_save_to_disk_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow"):
        (tmp_path / "saved" / name).write_text("{}")
    file = "data-00000-of-00001.arrow"
    (tmp_path / "dictionary").mkdir()
    (tmp_path / "dictionary/dataset_dict.json").write_text('{"splits": ["train"]}')
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / file).write_text("{}")
    for path in ("saved", "dictionary", "cache", f"saved/{file}"):
        with pytest.raises(InputError, match=rf"{path} was written by save_to_disk.*to_parquet"):
            Parquet(path=path, split="train").open(str(tmp_path))


@pytest.mark.parametrize(
    "kind", [pa.dictionary(pa.int8(), pa.string()), pa.string_view(), pa.large_string()]
)
def test_labels_in_dictionaries_and_views_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["dog", "ant", "dog"]).cast(pa.large_string()).cast(kind)
    images = pa.array([layouts.encoded(i) for i in range(3)], pa.binary()).cast(pa.binary_view())
    pq.write_table(pa.table({"image": images, "label": column}), tmp_path / "a.parquet")
    source = Parquet(path="a.parquet", where={"label": "dog"})
    assert source.label_names(str(tmp_path)) == ("ant", "dog")
    found = source.open(str(tmp_path))
    assert found.ids.tolist() == ["a.parquet/0", "a.parquet/2"]
    assert np.array_equal(np.asarray(found.images[1]), layouts.pixels(2))


@pytest.mark.parametrize(
    ("regions", "message"),
    [([["a"], ["b"]], "is of type list"), (["a", None], "has 1 nulls"), (["a", "b"], "")],
)
def test_a_region_is_one_text_for_each_image(
    tmp_path: Path, regions: list[object], message: str
) -> None:
    columns = {"image": [layouts.encoded(k) for k in range(2)], "label": [0, 1], "r": regions}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = Parquet(path="a.parquet", region="r")
    if message:
        with pytest.raises(InputError, match=f'column "r" {message}'):
            source.open(str(tmp_path))
    else:
        assert source.open(str(tmp_path)).metadata["region"].tolist() == regions


def test_lists_are_one_line(tmp_path: Path) -> None:
    table = pa.table({"image": [layouts.encoded(0)], "label": [[0]], "pixels": [[1, 2]]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r'column "label" is of type list'):
        Parquet(path="a.parquet").open(str(tmp_path))
    table = table.set_column(1, "label", pa.array([0]))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r'column "pixels" is list<.*not encoded images'):
        Parquet(path="a.parquet", image="pixels").open(str(tmp_path)).images[0]
