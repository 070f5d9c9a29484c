"""The results that papers print: ``papers.csv`` and others of its columns have a value a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from shiftbench.evaluation.results import role_of
from shiftbench.leaderboard.published.cells import Cells, joined, score
from shiftbench.leaderboard.published.schema import ORACLE_PER_COLUMN, UNCROPPED, PublishedRow

_METHODS = {
    "full-ft": ("full", None),
    "output-ensemble": ("output-ensemble", "full"),
    "wise-ft": ("wise-ft", "full"),
    "wise-ft-lc": ("wise-ft", "linear-probe"),
    "lp-ft+wise-ft": ("wise-ft", "lp-ft"),
    "full-ft+vrf": ("vrf", "full"),
    "lp-ft+vrf": ("vrf", "lp-ft"),
    "flyp+vrf": ("vrf", "flyp"),
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
    "ece_of_batches": "ece-of-batches",
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
_FULL_DIFFERS = (
    "full fine-tuning gives 36.6 to 45.5 on ImageNet-A, as each paper's recipe has it: see the "
    "source's own baselines"
)
_LEARNED_ON_TEST_IMAGES = (
    "the released script learns the radii on the images that ID accuracy is measured on; ours "
    "learns them on ID validation"
)
_SETTINGS_DIFFER = {
    "car-ft": "there is no released code; our strength and settings may not be the paper's",
    "lipsum-ft": (
        "the released code flips images and keeps the checkpoint that is best on the images that "
        "ID accuracy is measured on; ours flips none and keeps the one best on ID validation"
    ),
    "mask-fill": "the source does not say which masks; ours are the released code's object masks",
    "static-sd": "the source's loss is not known; ours has TRACER's terms and a teacher that stays",
}
_CALIBRATED_ON_TEST_IMAGES = (
    "the released code fits both temperatures on the images that ID accuracy is measured on; ours "
    "fits them on ID validation"
)
_OF_PROBABILITIES = 'averages probabilities, as output-ensemble does with "space: probabilities"'
_AS_PRINTED = "as printed in the CLIP paper"  # and evaluated by it
_UNCROPPED_SOURCES = ("arXiv:2109.01903", "CaRot ", "arXiv:2605.29380")
_UNCROPPED_LABELS = ("flyp", "autoft", "wise-ft", "wise-ft-lc", "lp-ft+wise-ft")


def papers_of(collection: str) -> Callable[[Sequence[Cells]], Iterator[PublishedRow]]:
    """A reader of a CSV file with the columns of ``papers.csv``, by the file's name."""
    return lambda lines: _papers(lines, collection)


def _papers(lines: Sequence[Cells], collection: str) -> Iterator[PublishedRow]:
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
                _of_recipe(task, cells["backbone"], method),
                _OF_PROBABILITIES if method == "output-ensemble" else None,
                UNCROPPED if name == "objectnet" and _is_uncropped(cells) else None,
            ),
            collection=collection,
            line=number,
            column="value",
        )


def _of_recipe(task: str, backbone: str, method: str) -> str | None:
    """What to know of a method whose settings are not the same in all papers."""
    if method in ("l2-sp", "lp-ft"):
        return _RECIPES_DIFFER
    if method == "tpgm":
        return _LEARNED_ON_TEST_IMAGES
    if method in _SETTINGS_DIFFER:
        return _SETTINGS_DIFFER[method]
    if method == "vrf":
        return _CALIBRATED_ON_TEST_IMAGES
    if (task, backbone, method) == ("imagenet", "openai/ViT-B-16", "full"):
        return _FULL_DIFFERS
    return None


def _is_uncropped(cells: Cells) -> bool:
    """True for a value of the code of WiSE-FT, FLYP or AutoFT, which others took over."""
    of_source = cells["source"].startswith(_UNCROPPED_SOURCES) and cells["note"] != _AS_PRINTED
    return of_source or cells["method"] in _UNCROPPED_LABELS


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
