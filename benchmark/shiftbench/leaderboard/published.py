"""Published results in the leaderboard's own columns, to put beside ours.

``results/published/`` holds a Parquet file for each source table. Columns that the leaderboard has
too have its names and types, so DuckDB unites both with ``UNION ALL BY NAME``; what nobody
published, such as run ids, is not there or null. ``source`` tells published rows from ours.

The files are made from CSV files, of which every value is a row::

    python -m shiftbench.leaderboard.published --from FOLDER --to results/published
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.core.shipped import shipped
from shiftbench.leaderboard.schema import SCHEMA, role_of

VERSION = "2"
VERSION_KEY = b"shiftbench.published"

HEADLINE = "headline"
"""Stands for the metric of a set where the source has one number and does not name its metric."""

ORACLE_PER_COLUMN = "oracle-per-column"
"""A variant chosen anew on each test set: stronger than our ``oracle``, which is one variant."""

_SHARED = (
    *("data_kind", "task", "backbone", "method", "label", "config", "shots"),
    *("variant", "selection", "evaluation_set", "role", "metric", "value"),
    *("low", "high", "interval", "n", "details"),
)
_ALWAYS = ("data_kind", "task", "backbone", "method", "label", "evaluation_set", "metric", "value")
PUBLISHED_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name).with_nullable(name not in _ALWAYS) for name in _SHARED),
        pa.field("parent", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("note", pa.string()),
        pa.field("collection", pa.string(), nullable=False),
        pa.field("line", pa.int32(), nullable=False),
        pa.field("column", pa.string(), nullable=False),
    ],
    metadata={VERSION_KEY: VERSION},
)
"""The columns of published results.

Those of the leaderboard mean what they mean there: ``label`` is what the source calls the method,
``config`` the settings that it gives, ``value`` is in [0, 1]. Intervals, ``n``, ``selection`` and
``shots`` are null where the source says nothing. Then there are

- ``parent``: registered name of the method whose weights are interpolated or ensembled;
- ``source``: the work, and the table in it; ``url``: where it is;
- ``kind``: ``original``, read in the source itself, or ``second-hand``, quoted by another work;
- ``note``: what to know before comparing;
- ``collection``, ``line``, ``column``: the cell of the CSV file that the value was read from.
"""

Row = Mapping[str, Any]
Cells = Mapping[str, str]


# Reading


def find_published(folder: Path | None = None) -> Path:
    """Where the published results are: ``folder``, or by default the shipped ones.

    Raises:
        InputError: they are not there.
    """
    place = shipped("published") if folder is None else folder
    if any(place.glob("*.parquet")):
        return place
    raise InputError(f"{place}: there are no published results (Parquet files)")


def read_published(folder: Path | None = None) -> pa.Table:
    """All published results.

    Args:
        folder: of the Parquet files; by default as ``find_published`` says.

    Raises:
        InputError: there are none, or a file is broken or of another version.
    """
    paths = sorted(find_published(folder).glob("*.parquet"))
    return pa.concat_tables(_read_file(path) for path in paths)


def _read_file(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not table.schema.equals(PUBLISHED_SCHEMA, check_metadata=True):
        raise InputError(
            f"{path}: not published results of version {VERSION}, which this shiftbench reads"
        )
    return table


# Lines and their averages


@dataclass(frozen=True)
class PublishedLine:
    """The values that belong together: one line of a published table.

    Attributes:
        first: the first of its rows, for what all of them share.
        cells: value in [0, 1] by evaluation set.
    """

    first: Row
    cells: Mapping[str, float]


_LINE = (
    *("collection", "source", "note", "task", "backbone", "shots"),
    *("label", "parent", "config", "variant", "selection"),
)


def published_lines(table: pa.Table) -> list[PublishedLine]:
    """The lines of published tables, in their order.

    Two that agree in all but the values, such as two quoted re-runs, are told apart by a set that
    comes again.
    """
    found: list[tuple[Row, dict[str, float]]] = []
    current: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in table.to_pylist():
        key = tuple(row[name] for name in _LINE)
        name = row["evaluation_set"]
        if key not in current or name in current[key]:
            current[key] = {}
            found.append((row, current[key]))
        current[key][name] = row["value"]
    return [PublishedLine(first, cells) for first, cells in found]


def average_of_cells(cells: Mapping[str, float], sets: Sequence[str]) -> float | None:
    """The mean over evaluation sets, each counting alike; ``None`` when one is missing.

    WiSE-FT's "avg shifts" is this over the five shifts of ImageNet (arXiv 2109.01903, Table 1).
    """
    if not sets or any(name not in cells for name in sets):
        return None
    return sum(cells[name] for name in sets) / len(sets)


# Making them from CSV files


def convert(folder: Path) -> dict[str, pa.Table]:
    """A table for each CSV file of results, by name.

    Raises:
        InputError: there is none, or an unknown one, or one with a value that is no score.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    results = {stem: path for stem, path in paths.items() if stem not in NOT_RESULTS}
    if not results:
        raise InputError(f"{folder}: there are no CSV files of published results")
    tables = {}
    for stem, path in results.items():
        if stem not in CONVERTERS:
            raise InputError(f"{path}: only these are known: {', '.join(CONVERTERS)}")
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        try:
            rows = [_finished(row, stem) for row in CONVERTERS[stem](lines)]
        except KeyError as error:
            raise InputError(f"{path}: the column or name {error} is missing or unknown") from error
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        tables[stem] = pa.Table.from_pylist(rows, schema=PUBLISHED_SCHEMA)
    return tables


def write(tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Write each table to a Parquet file; the same tables give the same bytes."""
    for stem, table in tables.items():
        with written_atomically(folder / f"{stem}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd", compression_level=19)


def _finished(row: dict[str, Any], collection: str) -> dict[str, Any]:
    defaults = {"data_kind": "real", "kind": "original", "role": role_of(row["evaluation_set"])}
    return defaults | row | {"collection": collection}


def _score(text: str, line: int, column: str, *, percent: bool) -> float:
    """A score in [0, 1], the float nearest to what is written."""
    try:
        value = float(Decimal(text).scaleb(-2 if percent else 0))
    except InvalidOperation as error:
        raise ValueError(f'line {line}, {column}: "{text}" is not a number') from error
    if not 0 <= value <= 1:
        raise ValueError(f"line {line}, {column}: {text} is not a score")
    return value


def _json(values: Mapping[str, str]) -> str | None:
    """The cells that are not empty, numbers as such; ``None`` when all are empty."""
    typed = {name: _typed(text) for name, text in values.items() if text}
    return json.dumps(typed, sort_keys=True) if typed else None


def _typed(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


# papers.csv: a value a line

_METHODS = {
    "full-ft": ("full", None),
    "output-ensemble": ("output-ensemble", "full"),
    "wise-ft": ("wise-ft", "full"),
    "wise-ft-lc": ("wise-ft", "linear-probe"),
    "lp-ft+wise-ft": ("wise-ft", "lp-ft"),
}
"""Our name of a method, and of its parent, where the sources have another."""

_PAPER_SETS = {
    ("iwildcam", "iwildcam-id"): "id-test",
    ("iwildcam", "iwildcam"): "iwildcam-ood",
    ("fmow", "fmow-id"): "id-test",
    ("fmow", "fmow"): "fmow-ood",
}
_PAPER_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-f1",
    "worst_region_accuracy": "worst-region",
    "pm0_accuracy": "pm0-accuracy",
}
_REPOSITORIES = {
    "Lipsum-FT repository": "https://github.com/cs-giung/lipsum-ft",
    "SRAPF repository": "https://github.com/hannawang09/SRAPF",
    "TPGM repository": "https://github.com/PotatoTian/TPGM",
}
_SELECTIONS = {
    "": None,
    "fixed": "fixed",
    "id-val": "id-val",
    "oracle per column": ORACLE_PER_COLUMN,
}
_UNNAMED_VARIANTS = ("", "alpha=best", "alpha=id-val")
_RECIPES_DIFFER = "its recipe differs between papers by up to 4 points: see the source's own others"


def _papers(lines: Sequence[Cells]) -> Iterator[dict[str, Any]]:
    for number, cells in enumerate(lines, start=2):
        task, name, source = cells["train_dataset"], cells["eval_dataset"], cells["source"]
        method, parent = _METHODS.get(cells["method"], (cells["method"], None))
        selection = _SELECTIONS[cells["selection"]]
        is_id = (task, name) not in _PAPER_SETS and name == task
        yield {
            "task": task,
            "backbone": cells["backbone"],
            "method": method,
            "label": cells["method"],
            "shots": None if cells["shots"] == "full" else int(cells["shots"]),
            "variant": _paper_variant(cells["variant"]),
            "selection": selection,
            "evaluation_set": "id-test" if is_id else _PAPER_SETS.get((task, name), name),
            "metric": _PAPER_METRICS[cells["metric"]],
            "value": _score(cells["value"], number, "value", percent=True),
            "parent": parent,
            "source": source,
            "url": _url(source),
            "kind": cells["kind"],
            "note": _joined(
                cells["note"],
                "alpha chosen on each test set" if selection == ORACLE_PER_COLUMN else None,
                _RECIPES_DIFFER if method in ("l2-sp", "lp-ft") else None,
            ),
            "line": number,
            "column": "value",
        }


def _paper_variant(text: str) -> str | None:
    """The variant as our methods call it; ``None`` where the source does not say which it is."""
    if text in _UNNAMED_VARIANTS:
        return None
    key, _, alpha = text.partition("=")
    if key != "alpha":
        raise ValueError(f'unknown variant "{text}"')
    return f"alpha={float(alpha)}"


def _url(source: str) -> str | None:
    found = re.search(r"arXiv:(\d{4}\.\d{5})", source)
    if found:
        return f"https://arxiv.org/abs/{found[1]}"
    return next((url for start, url in _REPOSITORIES.items() if source.startswith(start)), None)


# openclip-zero-shot.csv: a model a line, a data set a column

_OPENCLIP_NAMES = ("name", "pretrained")
_OPENCLIP_DETAILS = {"params (M)": "params_millions", "FLOPs (B)": "flops_billions"}
_OPENCLIP_SETS = {
    "ImageNet 1k": ("imagenet", "id-test", "accuracy"),
    "ImageNet v2": ("imagenet", "imagenet-v2", "accuracy"),
    "ImageNet-R": ("imagenet", "imagenet-r", "accuracy"),
    "ImageNet Sketch": ("imagenet", "imagenet-sketch", "accuracy"),
    "ObjectNet": ("imagenet", "objectnet", "accuracy"),
    "ImageNet-A": ("imagenet", "imagenet-a", "accuracy"),
    "ImageNet-O": ("imagenet", "imagenet-o", "accuracy"),
    "CIFAR-10": ("cifar10", "id-test", "accuracy"),
    "CIFAR-100": ("cifar100", "id-test", "accuracy"),
    "iWildCam": ("iwildcam", "iwildcam-ood", "macro-f1"),
    "FMoW": ("fmow", "fmow-ood", "worst-region"),
    "Camelyon17": ("camelyon17", "camelyon17-ood", HEADLINE),
    "Describable Textures": ("dtd", "id-test", HEADLINE),
    "Food-101": ("food101", "id-test", HEADLINE),
    "Caltech-101": ("caltech101", "id-test", HEADLINE),
}
_OPENCLIP_AVERAGE = "Average perf. on 38 datasets"
_OBJECTNET_NAMES = "with ObjectNet's own class names, which add about 2 points to ImageNet's"


def _openclip(lines: Sequence[Cells]) -> Iterator[dict[str, Any]]:
    for number, cells in enumerate(lines, start=2):
        details = _json({name: cells[column] for column, name in _OPENCLIP_DETAILS.items()})
        for column, text in cells.items():
            if column in _OPENCLIP_NAMES or column in _OPENCLIP_DETAILS:
                continue
            row = {
                "backbone": f"{cells['pretrained']}/{cells['name']}",
                "method": "zero-shot",
                "label": "zero-shot",
                "value": _score(text, number, column, percent=False),
                "details": details,
                "source": "open_clip zero-shot table",
                "url": "https://github.com/mlfoundations/open_clip/blob/main/docs/openclip_results.csv",
                "note": _OBJECTNET_NAMES if column == "ObjectNet" else None,
                "line": number,
                "column": column,
            }
            if column == _OPENCLIP_AVERAGE:
                where = ("open-clip-38-datasets", "average", HEADLINE)
                row["role"] = None
            else:
                where = _OPENCLIP_SETS.get(column, (_slug(column), "id-test", HEADLINE))
            yield row | dict(zip(("task", "evaluation_set", "metric"), where, strict=True))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


# model-soups-finetunes.csv: a fine-tuned CLIP ViT-B/32 a line

_SOUP_SETS = {
    "ImageNet2p": "id-val",
    "ImageNet": "id-test",
    "ImageNetV2": "imagenet-v2",
    "ImageNetSketch": "imagenet-sketch",
    "ImageNetR": "imagenet-r",
    "ObjectNet": "objectnet",
    "ImageNetA": "imagenet-a",
}
_SOUP_SETTINGS = ("aug", "epochs", "lr", "mix", "smoothing", "wd")
_SEARCH = "from a random search over the settings in config"


def _soups(lines: Sequence[Cells]) -> Iterator[dict[str, Any]]:
    for number, cells in enumerate(lines, start=2):
        unknown = cells.keys() - {"model_name", "info", *_SOUP_SETS, *_SOUP_SETTINGS}
        if unknown:
            raise KeyError(min(unknown))
        settings = _json({name: cells[name] for name in _SOUP_SETTINGS})
        for column, evaluation_set in _SOUP_SETS.items():
            yield {
                "task": "imagenet",
                "backbone": "openai/ViT-B-32",
                "method": "linear-probe" if settings is None else "full",
                "label": cells["model_name"],
                "config": settings,
                "evaluation_set": evaluation_set,
                "metric": "accuracy",
                "value": _score(cells[column], number, column, percent=False),
                "source": "arXiv:2203.05482, the models of its repository",
                "url": "https://github.com/mlfoundations/model-soups",
                "note": _joined(cells["info"], None if settings is None else _SEARCH),
                "line": number,
                "column": column,
            }


# imagenet-testbed.csv: a model that was trained on ImageNet a line

_TESTBED_SETS = {
    "val": ("id-test", "accuracy"),
    "val-on-imagenet-a-classes": ("id-test-on-imagenet-a-classes", "accuracy"),
    "val-on-imagenet-r-classes": ("id-test-on-imagenet-r-classes", "accuracy"),
    "val-on-objectnet-classes": ("id-test-on-objectnet-classes", "accuracy"),
    "imagenetv2-matched-frequency-format-val": ("imagenet-v2", "accuracy"),
    "imagenet-sketch": ("imagenet-sketch", "accuracy"),
    "imagenet-r": ("imagenet-r", "accuracy"),
    "imagenet-a": ("imagenet-a", "accuracy"),
    "objectnet-1.0-beta": ("objectnet", "accuracy"),
    "imagenet-vid-robust_pm0": ("imagenet-vid-robust", "pm0-accuracy"),
    "imagenet-vid-robust_pm10": ("imagenet-vid-robust", "pm10-accuracy"),
    "ytbb-robust_pm0": ("ytbb-robust", "pm0-accuracy"),
    "ytbb-robust_pm10": ("ytbb-robust", "pm10-accuracy"),
}


UNTYPED = "untyped"
"""The method of testbed models whose type the file leaves open."""


def _testbed(lines: Sequence[Cells]) -> Iterator[dict[str, Any]]:
    """``method`` is the testbed's type: ``standard`` models are the baseline of robustness.

    A model that was evaluated nowhere has no row.
    """
    for number, cells in enumerate(lines, start=2):
        for column, text in cells.items():
            if column in ("model", "type"):
                continue
            evaluation_set, metric = _TESTBED_SETS[column]
            if not text:
                continue  # the model was not evaluated there
            yield {
                "task": "imagenet",
                "backbone": cells["model"],
                "method": cells["type"] or UNTYPED,
                "label": cells["model"],
                "evaluation_set": evaluation_set,
                "metric": metric,
                "value": _score(text, number, column, percent=True),
                "source": "arXiv:2007.00644, the testbed of its repository",
                "url": "https://github.com/modestyachts/imagenet-testbed",
                "note": "ObjectNet 1.0-beta" if evaluation_set == "objectnet" else None,
                "line": number,
                "column": column,
            }


Converter = Callable[[Sequence[Cells]], Iterable[dict[str, Any]]]
CONVERTERS: dict[str, Converter] = {
    "imagenet-testbed": _testbed,
    "model-soups-finetunes": _soups,
    "openclip-zero-shot": _openclip,
    "papers": _papers,
}
NOT_RESULTS = ("iwildcam-labels",)
"""CSV files beside them that are no results: the class names that the task iwildcam has."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the Parquet files from CSV files."""
    parser = argparse.ArgumentParser(description="Make the Parquet files of published results.")
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the CSV files")
    parser.add_argument("--to", type=Path, default=shipped("published"), help="a folder")
    options = parser.parse_args(arguments)
    try:
        tables = convert(options.source)
        write(tables, options.to)
    except InputError as error:
        parser.error(str(error))
    for stem, table in tables.items():
        print(f"{options.to / stem}.parquet: {table.num_rows} rows")


if __name__ == "__main__":
    main()
