"""The columns of published results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa

from shiftbench.leaderboard.columns import Column, Columns

VERSION = "2"
VERSION_KEY = b"shiftbench.published"

COLLECTIONS = (
    *("imagenet-testbed", "model-soups-finetunes", "openclip-zero-shot"),
    *("papers", "papers-since-2023"),
)
"""The source tables that ship, each in a file called so."""

HEADLINE = "headline"
"""Stands for the metric of a set where the source has one number and does not name its metric."""

ORACLE_PER_COLUMN = "oracle-per-column"
"""A variant chosen anew on each test set: stronger than our ``oracle``, which is one variant."""

UNCROPPED = (
    "ObjectNet un-cropped: the 2-pixel crop in WiSE-FT's, FLYP's and AutoFT's code never acts, "
    "while ours does"
)
"""A note of single values: it does not tell lines of a table apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """A value that a paper or a repository reports.

    Fields that a leaderboard's row has too mean the same there.
    """

    data_kind: Annotated[str, Column("always `real`")] = "real"
    task: Annotated[str, Column("name of the task")]
    backbone: Annotated[str, Column("name of the pretrained model")]
    method: Annotated[str, Column("our name of the method, where we have it")]
    label: Annotated[str, Column("what the source calls the method")]
    config: Annotated[
        Mapping[str, Any] | None, Column("settings of the method that the source gives")
    ] = None
    shots: Annotated[
        int | None, Column("training images of each class; null for all", "images per class")
    ] = None
    variant: Annotated[
        str | None, Column("name of the weights; null where the source does not say which they are")
    ] = None
    selection: Annotated[
        str | None,
        Column("how the variant was chosen, `oracle-per-column` if anew on each test set"),
    ] = None
    evaluation_set: Annotated[str, Column("name of the evaluation set in the task")]
    role: Annotated[
        str | None, Column("what the set is for: `id-val`, `id-test`, `ood-val` or `shift`")
    ]
    metric: Annotated[
        str, Column("name of the metric; `headline` where the source does not name it")
    ]
    value: Annotated[float, Column("the metric's value, a fraction", "of the metric")]
    low: Annotated[float | None, Column("lower end of the interval given", "of the metric")] = None
    high: Annotated[float | None, Column("upper end of the interval given", "of the metric")] = None
    interval: Annotated[str | None, Column("how the interval was computed")] = None
    n: Annotated[int | None, Column("examples that the value is of", "images")] = None
    details: Annotated[
        Mapping[str, Any] | None, Column("what else the source tells of the model")
    ] = None
    parent: Annotated[
        str | None, Column("our name of the method whose weights are interpolated or ensembled")
    ] = None
    source: Annotated[str, Column("the work, and the table in it")]
    url: Annotated[str | None, Column("where the source is")] = None
    kind: Annotated[
        Literal["original", "second-hand"],
        Column("`original`: read in the source itself; `second-hand`: quoted by another work"),
    ] = "original"
    note: Annotated[str | None, Column("what to know before comparing")] = None
    collection: Annotated[str, Column("CSV file that the value was read from")]
    line: Annotated[int, Column("line of that file")]
    column: Annotated[str, Column("column of that file")]


PUBLISHED_COLUMNS = Columns(PublishedRow, metadata={VERSION_KEY: VERSION})
PUBLISHED_SCHEMA = PUBLISHED_COLUMNS.schema


def published_rows(table: pa.Table) -> list[PublishedRow]:
    """The rows of a published table, in its order.

    Args:
        table: with all columns of ``PUBLISHED_SCHEMA``.
    """
    return PUBLISHED_COLUMNS.read(PublishedRow, table)
