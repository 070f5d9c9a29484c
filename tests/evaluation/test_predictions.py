from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.data.images import ImageSet
from shiftbench.evaluation.metrics import score
from shiftbench.evaluation.predictions import SCHEMA, read, rescore, to_table, top_k, write


def image_set(labels, **metadata):
    n = len(labels)
    ids = np.array([f"test/{i}" for i in range(n)])
    return ImageSet(ids, labels, [None] * n, "", metadata)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 12)).astype(np.float32)
    return rng.integers(0, 12, size=300), logits


def test_top_k_equals_a_stable_sort(drawn):
    _, logits = drawn
    logits = np.round(logits)  # many ties
    classes, values = top_k(logits, 5)
    slow = [sorted(range(12), key=lambda c, row=row: (-row[c], c))[:5] for row in logits]

    assert classes.tolist() == slow
    assert values.tolist() == [[row[c] for c in top] for row, top in zip(logits, slow, strict=True)]
    assert (classes[:, 0] == logits.argmax(axis=1)).all()
    assert (classes.dtype, values.dtype) == (np.int32, np.float32)


def test_top_k_leaves_its_input_alone_and_works_in_blocks(drawn, monkeypatch):
    _, logits = drawn
    before = logits.copy()
    whole = top_k(logits, 3)
    monkeypatch.setattr("shiftbench.evaluation.predictions.ROWS_AT_ONCE", 7)
    blocks = top_k(logits, 3)

    assert (logits == before).all()
    assert all((a == b).all() for a, b in zip(whole, blocks, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_fail_the_run(value):
    logits = np.zeros((3, 4))
    logits[1, 2] = value
    with pytest.raises(RunFailedError, match="not finite"):
        top_k(logits, 2)


def test_a_table_has_a_row_for_each_example(drawn):
    labels, logits = drawn
    table = to_table("imagenet-r", "alpha=0.5", image_set(labels), logits)

    assert table.schema == SCHEMA
    assert table["set"].unique().to_pylist() == ["imagenet-r"]
    assert table["variant"].unique().to_pylist() == ["alpha=0.5"]
    assert table["id"].to_pylist() == [f"test/{i}" for i in range(300)]
    assert table["label"].to_pylist() == labels.tolist()
    assert table["prediction"].to_pylist() == logits.argmax(axis=1).tolist()
    assert table["region"].null_count == table["location"].null_count == 300
    row = table.slice(7, 1).to_pylist()[0]
    assert row["top_classes"] == np.argsort(-logits[7])[:5].tolist()
    assert row["top_logits"] == np.sort(logits[7])[::-1][:5].tolist()


def test_fewer_classes_than_five_are_all_kept():
    table = to_table("a", "", image_set(np.array([0, 1])), np.array([[1.0, 2.0], [4.0, 3.0]]))
    assert table["top_classes"].to_pylist() == [[1, 0], [0, 1]]
    assert table["top_logits"].to_pylist() == [[2.0, 1.0], [4.0, 3.0]]


def test_round_trip(tmp_path, drawn):
    labels, logits = drawn
    path = tmp_path / "deep" / "predictions.parquet"
    regions = np.array(["Asia", "Other", "Africa"])[labels % 3]
    parts = [
        to_table("fmow-ood", "", image_set(labels, region=regions, year=labels), logits),
        to_table("id-test", "", image_set(labels[:0]), logits[:0]),
        to_table("id-val", "", image_set(labels, location=labels % 7), logits),
    ]
    table = pa.concat_tables(parts).replace_schema_metadata({"seconds": "1.5"})
    write(path, table)

    assert read(path).equals(table)
    assert read(path).schema.metadata[b"seconds"] == b"1.5"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "worst-region"])
def test_any_metric_can_be_computed_from_the_file_alone(tmp_path, drawn, metric):
    labels, logits = drawn
    metadata = {
        "region": np.array(["Asia", "Other", "Africa"])[np.arange(300) % 3],
        "location": np.arange(300) % 7,
    }
    path = tmp_path / "predictions.parquet"
    write(path, to_table("a", "", image_set(labels, **metadata), logits))

    assert rescore(read(path), metric) == score(metric, labels, logits.argmax(axis=1), metadata)


def test_a_metric_whose_column_is_empty_is_refused(drawn):
    labels, logits = drawn
    table = to_table("a", "", image_set(labels), logits)
    with pytest.raises(InputError, match='"region"'):
        rescore(table, "worst-region")


def test_logits_of_other_images_are_refused(drawn):
    labels, logits = drawn
    with pytest.raises(ValueError, match="300 images, but logits of shape"):
        to_table("a", "", image_set(labels), logits[:-1])


def test_files_that_are_no_predictions_are_named(tmp_path):
    import pyarrow.parquet as pq

    with pytest.raises(InputError, match=r"absent\.parquet: cannot be read"):
        read(tmp_path / "absent.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"broken\.parquet: cannot be read"):
        read(tmp_path / "broken.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet: holds no predictions"):
        read(tmp_path / "other.parquet")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def stop(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "a.parquet", SCHEMA.empty_table())
    assert list(tmp_path.iterdir()) == []
