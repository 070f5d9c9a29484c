"""Files of predictions: the wanted rows of the wanted columns, however a file is cut into parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.evaluation.examples import of_logits
from shiftbench.evaluation.predictions import concat, table_of
from shiftbench.report.reading import by_variant_and_set, rows_of

IDS = np.array([str(i) for i in range(30)])


def predictions() -> pa.Table:
    """Two variants on two sets, one of them twice in parts."""
    rng = np.random.default_rng(0)
    tables = {}
    for variant in ("", "alpha=0.5"):
        for name in ("id-test", "sketch"):
            examples = of_logits(rng.integers(0, 3, 30), rng.normal(size=(30, 3)), {})
            tables[variant, name] = table_of(name, variant, IDS, examples)
    first, *others = tables.values()
    return concat([first.slice(0, 10), *others, first.slice(10)])


@pytest.mark.parametrize("part", [7, 30, 1000])
def test_wanted_rows_of_every_part_of_a_file(part: int, tmp_path: Path) -> None:
    whole = predictions()
    pq.write_table(whole, tmp_path / "x.parquet", row_group_size=part)
    columns = ["set", "variant", "id", "top_logits", "location"]
    wanted = {"variant": ["alpha=0.5", ""], "set": ["id-test", "other"]}
    found = by_variant_and_set(rows_of(tmp_path / "x.parquet", columns, wanted))
    assert found.keys() == {("", "id-test"), ("alpha=0.5", "id-test")}
    for (variant, name), table in found.items():
        assert table.column_names == columns[:4]
        own = whole.filter(pa.compute.equal(whole["variant"], variant))
        own = own.filter(pa.compute.equal(own["set"], name))
        assert table["top_logits"].to_pylist() == own["top_logits"].to_pylist()
        assert table["id"].to_pylist() == IDS.tolist()


def test_a_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(predictions().slice(0, 0), tmp_path / "x.parquet")
    found = rows_of(tmp_path / "x.parquet", ["set", "variant"], {"variant": [""], "set": ["x"]})
    assert by_variant_and_set(found) == {}
