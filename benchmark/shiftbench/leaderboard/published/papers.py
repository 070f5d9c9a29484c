"""The results that papers print: ``papers.csv`` has a value a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from shiftbench.evaluation.results import role_of
from shiftbench.leaderboard.published.cells import Cells, joined, score
from shiftbench.leaderboard.published.schema import ORACLE_PER_COLUMN, PublishedRow

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
_KINDS: dict[str, Literal["original", "second-hand"]] = {
    "original": "original",
    "second-hand": "second-hand",
}
_UNNAMED_VARIANTS = ("", "alpha=best", "alpha=id-val")
_RECIPES_DIFFER = "its recipe differs between papers by up to 4 points: see the source's own others"


def papers(lines: Sequence[Cells]) -> Iterator[PublishedRow]:
    """The rows of ``papers.csv``."""
    for number, cells in enumerate(lines, start=2):
        task, name, source = cells["train_dataset"], cells["eval_dataset"], cells["source"]
        method, parent = _METHODS.get(cells["method"], (cells["method"], None))
        selection = _SELECTIONS[cells["selection"]]
        is_id = (task, name) not in _PAPER_SETS and name == task
        evaluation_set = "id-test" if is_id else _PAPER_SETS.get((task, name), name)
        yield PublishedRow(
            task=task,
            backbone=cells["backbone"],
            method=method,
            label=cells["method"],
            shots=None if cells["shots"] == "full" else int(cells["shots"]),
            variant=_paper_variant(cells["variant"]),
            selection=selection,
            evaluation_set=evaluation_set,
            role=role_of(evaluation_set),
            metric=_PAPER_METRICS[cells["metric"]],
            value=score(cells["value"], number, "value", percent=True),
            parent=parent,
            source=source,
            url=_url(source),
            kind=_KINDS[cells["kind"]],
            note=joined(
                cells["note"],
                "alpha chosen on each test set" if selection == ORACLE_PER_COLUMN else None,
                _RECIPES_DIFFER if method in ("l2-sp", "lp-ft") else None,
            ),
            collection="papers",
            line=number,
            column="value",
        )


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
