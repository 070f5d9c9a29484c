"""Image folders and Parquet files of one's own."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.sources.builtin import parquet as module
from shiftbench.data.sources.builtin.image_folder import ImageFolder
from shiftbench.data.sources.builtin.parquet import Parquet

from tests.data import layouts

SHARED = Path(__file__).parents[3] / "shared" / "data"


def _decoded(seed: int) -> np.ndarray:
    return layouts.pixels(seed)


def test_where_keeps_the_rows_with_the_values(tmp_path: Path) -> None:
    domains = ["photo", "sketch", "photo", "cartoon", "sketch", "photo", "sketch"]
    layouts.parquet(tmp_path / "a.parquet", [0, 1, 1, 0, 1, 0, 0], ["cat", "dog"], domain=domains)
    images = Parquet(path="a.parquet", where={"domain": "sketch"}).open(str(tmp_path))
    assert images.ids.tolist() == ["a.parquet/1", "a.parquet/4", "a.parquet/6"]
    assert images.labels.tolist() == [1, 1, 0]
    for index, row in enumerate((1, 4, 6)):
        assert np.array_equal(np.asarray(images.images[index]), _decoded(row))
    both = Parquet(path="a.parquet", where={"domain": ("sketch", "cartoon")}).open(str(tmp_path))
    assert len(both) == 4
    assert both.fingerprint != images.fingerprint


def test_where_of_whole_numbers(tmp_path: Path) -> None:
    layouts.parquet(tmp_path / "a.parquet", [0, 1, 1, 0], year=[2001, 2002, 2002, 2003])
    assert len(Parquet(path="a.parquet", where={"year": 2002}).open(str(tmp_path))) == 2
    with pytest.raises(InputError, match="year"):
        Parquet(path="a.parquet", where={"year": "2002"}).open(str(tmp_path))


def test_several_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    layouts.parquet(tmp_path / "all/part-1.parquet", [0, 1, 2, 0], rows_per_group=3)
    layouts.parquet(tmp_path / "all/part-0.parquet", [2, 2, 1, 0, 1], rows_per_group=2)
    (tmp_path / "all/README.md").write_text("not data")
    images = Parquet(path="all").open(str(tmp_path))
    assert images.ids[4:6].tolist() == ["part-0.parquet/4", "part-1.parquet/0"]
    assert images.labels.tolist() == [2, 2, 1, 0, 1, 0, 1, 2, 0]
    for index in np.random.default_rng(0).permutation(9):
        assert np.array_equal(
            np.asarray(images.images[index]), _decoded(index % 5 if index < 5 else index - 5)
        )
    assert Parquet(path="all").label_names(str(tmp_path)) is None


def test_text_labels_share_their_order_whatever_is_kept(tmp_path: Path) -> None:
    labels, domains = ["dog", "ant", "cow", "ant"], ["a", "b", "a", "a"]
    layouts.parquet(tmp_path / "a.parquet", labels, domain=domains)
    source = Parquet(path="a.parquet", where={"domain": "a"})
    assert source.label_names(str(tmp_path)) == ("ant", "cow", "dog")
    assert source.open(str(tmp_path)).labels.tolist() == [2, 1, 0]


def test_columns_of_other_names_and_plain_bytes(tmp_path: Path) -> None:
    table = pa.table({"img": [layouts.encoded(0), layouts.encoded(1)], "fine_label": [3, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    images = Parquet(path="a.parquet", image="img", label="fine_label").open(str(tmp_path))
    assert images.labels.tolist() == [3, 1]
    assert np.array_equal(np.asarray(images.images[1]), _decoded(1))


def test_the_columns_of_a_file_are_told_apart_by_their_fingerprints(tmp_path: Path) -> None:
    """Else one would be taken for the other wherever decoded images or features are kept."""
    of_column = {"image": [0, 1], "depth": [2, 3]}
    columns = {name: [layouts.encoded(i) for i in rows] for name, rows in of_column.items()}
    pq.write_table(pa.table({**columns, "label": [0, 1]}), tmp_path / "a.parquet")
    plain, named, depth = (
        Parquet.model_validate({"path": "a.parquet", **settings}).open(str(tmp_path))
        for settings in ({}, {"image": "image"}, {"image": "depth"})
    )
    assert np.array_equal(np.asarray(depth.images[0]), _decoded(2))
    assert plain.fingerprint == named.fingerprint != depth.fingerprint


def test_regions_for_the_worst_region_metric(tmp_path: Path) -> None:
    layouts.parquet(
        tmp_path / "a.parquet", [0, 1, 0], continent=["Asia", "Other", "Asia"], year=[1, 2, 2]
    )
    source = Parquet(path="a.parquet", region="continent", where={"year": 2})
    assert source.open(str(tmp_path)).metadata["region"].tolist() == ["Other", "Asia"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "lable"}, 'no column "lable"; it has image, label, domain'),
        ({"where": {"dom": "a"}}, 'no column "dom"'),
        ({"where": {"domain": "z"}}, "no row has"),
        ({"image": "domain"}, "not encoded images"),
        ({"region": "r"}, 'no column "r"'),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    layouts.parquet(tmp_path / "a.parquet", [0, 1], domain=["a", "b"])
    source = Parquet.model_validate({"path": "a.parquet"} | change)
    with pytest.raises(InputError, match=message):
        source.open(str(tmp_path)).images[0]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, None], None, "1 nulls"),
        ([0, -1], None, "from -1 to 0"),
        ([0, 2], ["a", "b"], "names 2 labels"),
        ([0.5, 1.0], None, "double"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, labels: list[int], names: list[str] | None, message: str
) -> None:
    layouts.parquet(tmp_path / "a.parquet", labels, names)
    with pytest.raises(InputError, match=message):
        Parquet(path="a.parquet").open(str(tmp_path))


def test_files_that_are_none_are_one_clear_line(tmp_path: Path) -> None:
    layouts.parquet(tmp_path / "a.parquet", [0, 1])
    whole = (tmp_path / "a.parquet").read_bytes()
    for content in (b"", b"PAR1", whole[:-20]):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.parquet") as error:
            Parquet(path="a.parquet").open(str(tmp_path))
        assert "\n" not in str(error.value)


def test_an_image_that_is_missing_or_broken_names_its_row(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": "x"}, {"bytes": b"\x89PNG", "path": "y"}]
    table = pa.table({"image": images, "label": [0, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = Parquet(path="a.parquet").open(str(tmp_path))
    with pytest.raises(InputError, match="row 0 has no image"):
        found.images[0]
    with pytest.raises(InputError, match=r"a\.parquet: row 1: cannot be decoded"):
        found.images[1]


def test_metadata_that_cannot_be_read(tmp_path: Path) -> None:
    table = pa.table({"image": [layouts.encoded(0)], "label": [0]})
    for text in ("{", json.dumps({"info": 3})):
        with_it = table.replace_schema_metadata({"huggingface": text})
        pq.write_table(with_it, tmp_path / "a.parquet")
        with pytest.raises(InputError, match="huggingface"):
            Parquet(path="a.parquet").open(str(tmp_path))


def test_reading_in_order_reads_every_row_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.parquet(tmp_path / "a.parquet", [0] * 10, rows_per_group=4)
    read: list[int] = []
    original = module._read_images

    def counting(file: str, column: str, group: int) -> object:
        read.append(group)
        return original(file, column, group)

    monkeypatch.setattr(module, "_read_images", counting)
    monkeypatch.setattr(module, "_row_groups", module._RowGroups(limit=0))
    images = pickle.loads(pickle.dumps(Parquet(path="a.parquet").open(str(tmp_path)).images))
    for index in range(10):
        assert np.array_equal(np.asarray(images[index]), _decoded(index))
    assert read == [0, 1, 2]


def test_image_folder_walks_nested_folders_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/deep/1.PNG", "a/x.jpg", "b/.hidden.png", "b/readme.txt"):
        layouts.write_image(tmp_path / "pets" / name)
    images = ImageFolder(path="pets").open(str(tmp_path))
    assert images.ids.tolist() == ["a/x.jpg", "b/2.png", "b/deep/1.PNG"]
    assert images.labels.tolist() == [0, 1, 1]
    assert ImageFolder(path="pets").label_names(str(tmp_path)) == ("a", "b")


@pytest.mark.parametrize("path", ["pets", "empty"])
def test_a_folder_without_images_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no class folders|no images"):
        ImageFolder(path=path).open(str(tmp_path))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photographs are not here")
def test_real_files() -> None:
    sketches = Parquet(path="pacs-64.parquet", where={"domain": "sketch"}).open(str(SHARED))
    assert len(sketches) == 3929
    assert sketches.images[17].size == (64, 64)
    train = Parquet(path="cifar10-train-15k.parquet")
    assert np.bincount(train.open(str(SHARED)).labels).tolist() == [1500] * 10
    assert train.label_names(str(SHARED)) == layouts.CIFAR_NAMES
