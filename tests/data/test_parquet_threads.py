"""Many threads decode from one Parquet file at once, as the store and the checks do."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from shiftbench.data.sources.builtin import parquet
from shiftbench.data.sources.builtin.parquet import Parquet

N = 200


def test_threads_get_the_right_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for i in range(N):
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), (i, 255 - i, 0)).save(stream, "PNG")
        rows.append({"image": {"bytes": stream.getvalue(), "path": None}, "label": i % 2})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "images.parquet", row_group_size=5)
    # So small that every new row group puts another one out.
    monkeypatch.setattr(parquet, "_row_groups", parquet._RowGroups(limit=3_000))

    images = Parquet(kind="parquet", path="images.parquet").open(str(tmp_path)).images
    order = np.random.default_rng(0).permutation(np.tile(np.arange(N), 10))
    with ThreadPoolExecutor(8) as pool:
        reds = list(pool.map(lambda i: images[int(i)].getpixel((0, 0)), order))
    assert reds == [(int(i), 255 - int(i), 0) for i in order]
