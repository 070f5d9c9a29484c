from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.data.images import ImageSet
from shiftbench.evaluation.examples import FIELDS, Examples, top_k
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.predictions import (
    SCHEMA,
    columns_for,
    concat,
    examples_of,
    read,
    schema_fault,
    table_of,
    to_table,
    write,
)
from shiftbench.evaluation.scoring import Prediction, rescore, results_of, score


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
    monkeypatch.setattr("shiftbench.evaluation.examples.ROWS_AT_ONCE", 7)
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
    table = concat(parts).replace_schema_metadata({"seconds": "1.5"})
    write(path, table)

    assert table.column_names == [*SCHEMA.names, "region", "year", "location"]
    assert [table[name].null_count for name in ("region", "year", "location")] == [300, 300, 300]

    assert read(path).equals(table)
    assert read(path).schema.metadata[b"seconds"] == b"1.5"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["accuracy", "macro-f1", "worst-region", "worst-group:location"])
def test_any_metric_can_be_computed_from_the_file_alone(tmp_path, drawn, text):
    labels, logits = drawn
    metadata = {
        "region": np.array(["Asia", "Other", "Africa"])[np.arange(300) % 3],
        "location": np.arange(300) % 7,
    }
    path = tmp_path / "predictions.parquet"
    write(path, to_table("a", "", image_set(labels, **metadata), logits))

    examples = Examples(labels, logits.argmax(axis=1), metadata)
    assert rescore(read(path), text) == score(metric(text), examples)


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


def test_what_is_kept_of_all_classes_is_that_of_the_softmax(drawn):
    labels, logits = drawn
    logits = 10 * logits
    examples = examples_of(to_table("a", "", image_set(labels), logits))
    exact = logits.astype(np.float64)
    p = np.exp(exact - exact.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    assert examples.fields == set(FIELDS)
    assert examples.log_sum_exp == pytest.approx(np.log(np.exp(exact).sum(axis=1)), rel=1e-14)
    assert (examples.label_logit == logits[np.arange(300), labels]).all()
    assert examples.sum_p2 == pytest.approx((p**2).sum(axis=1), rel=6e-8)
    assert examples.confidence == pytest.approx(p.max(axis=1), rel=1e-12)
    assert examples.nll == pytest.approx(-np.log(p[np.arange(300), labels]), abs=1e-12)


def test_no_likelihood_exceeds_one():
    logits = np.array([[40.0 + 1e-9, 0.0], [1e-9, 0.0]])  # float64, whose last digits are not kept
    examples = examples_of(to_table("a", "", image_set(np.array([0, 0])), logits))
    assert (examples.nll >= 0).all()
    assert (examples.confidence <= 1).all()


def test_class_only_predictions_have_classes_only(tmp_path, drawn):
    labels, logits = drawn
    ids = image_set(labels).ids
    classes = Examples(labels, logits.argmax(axis=1), {"year": labels})
    path = tmp_path / "predictions.parquet"
    write(
        path,
        concat([table_of("a", "", ids, classes), to_table("b", "", image_set(labels), logits)]),
    )
    table = read(path).slice(0, 300)

    assert examples_of(table).fields == frozenset()
    assert rescore(table, "accuracy") == score(metric("accuracy"), classes)
    with pytest.raises(InputError, match='"nll" needs logits'):
        rescore(table, "nll")
    found = results_of(Prediction("", "a", "macro-f1", table, None, "", also=["nll", "top-5"]))
    assert [result.metric for result in found] == ["macro-f1", "accuracy"]
    with pytest.raises(InputError, match='"top-5" needs logits'):
        results_of(Prediction("", "a", "top-5", table, None, ""))
    logits_too = read(path).slice(300).replace_schema_metadata(None)
    found = results_of(Prediction("", "b", "top-5", logits_too, None, "", also=["nll", "ece:5"]))
    assert [(result.metric, result.primary) for result in found] == [
        ("top-5", True),
        ("accuracy", False),
        ("nll", False),
        ("ece:5", False),
    ]


def test_a_metric_beside_the_headline_is_left_out_where_its_column_is_missing(drawn):
    labels, logits = drawn
    table = to_table("a", "", image_set(labels), logits)
    asked = Prediction("", "a", "accuracy", table, None, "", None, ["worst-group:year"])
    assert [result.metric for result in results_of(asked)] == ["accuracy"]


def test_a_file_without_the_sums_over_all_classes_is_read(tmp_path, drawn):
    """As version 2 of the leaderboard wrote them; without logits, with the class alone."""
    import pyarrow.parquet as pq

    labels, logits = drawn
    new = to_table("a", "", image_set(labels, location=labels), logits)
    old = new.drop_columns(["log_sum_exp", "label_logit", "sum_p2"])
    pq.write_table(old, tmp_path / "old.parquet")
    examples = examples_of(read(tmp_path / "old.parquet"))
    assert examples.fields == {"top_classes", "top_logits"}
    assert read(tmp_path / "old.parquet").column_names == [*SCHEMA.names, "location"]

    offsets = np.arange(301, dtype=np.int32)
    alone = {
        "top_classes": pa.ListArray.from_arrays(offsets, new["prediction"].combine_chunks()),
        "top_logits": pa.array([[]] * 300, pa.list_(pa.float32())),
    }
    for name, column in alone.items():
        old = old.set_column(old.column_names.index(name), name, column)
    pq.write_table(old, tmp_path / "classes.parquet")
    assert examples_of(read(tmp_path / "classes.parquet")).fields == frozenset()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.remove(2), 'no columns "id"'),
        (lambda s: s.append(pa.field("id", pa.string())), '2 columns "id"'),
        (
            lambda s: s.set(3, pa.field("label", pa.int64(), False)),
            '"label" is int64 and not int32',
        ),
        (lambda s: s.set(3, pa.field("label", pa.int32())), "may be null"),
        (lambda s: s.append(pa.field("year", pa.int64())), '"year" is no single column of text'),
    ],
)
def test_what_is_no_table_of_predictions_is_said(change, fault):
    assert schema_fault(SCHEMA) is None
    assert fault in (schema_fault(change(SCHEMA)) or "")


def test_metadata_cannot_be_called_as_a_column_of_predictions(drawn):
    labels, logits = drawn
    with pytest.raises(ValueError, match='a column "label"'):
        to_table("a", "", image_set(labels, label=labels), logits)


def test_metrics_say_which_columns_are_to_be_read():
    assert columns_for([metric("accuracy")]) == [
        "id",
        "label",
        "prediction",
        "location",
        "accepted",
    ]
    assert columns_for([metric("top-5"), metric("worst-group:year")])[5:] == [
        "top_classes",
        "year",
        "top_logits",
    ]
