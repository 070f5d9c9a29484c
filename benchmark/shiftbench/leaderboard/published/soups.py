"""Model Soups: ``model-soups-finetunes.csv`` has a fine-tuned CLIP ViT-B/32 a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shiftbench.evaluation.results import role_of
from shiftbench.leaderboard.published.cells import Cells, joined, score, settings
from shiftbench.leaderboard.published.schema import PublishedRow

_SETS = {
    "ImageNet2p": "id-val",
    "ImageNet": "id-test",
    "ImageNetV2": "imagenet-v2",
    "ImageNetSketch": "imagenet-sketch",
    "ImageNetR": "imagenet-r",
    "ObjectNet": "objectnet",
    "ImageNetA": "imagenet-a",
}
_SETTINGS = ("aug", "epochs", "lr", "mix", "smoothing", "wd")
_SEARCH = "from a random search over the settings in config"


def soups(lines: Sequence[Cells]) -> Iterator[PublishedRow]:
    """The rows of ``model-soups-finetunes.csv``."""
    for number, cells in enumerate(lines, start=2):
        unknown = cells.keys() - {"model_name", "info", *_SETS, *_SETTINGS}
        if unknown:
            raise KeyError(min(unknown))
        config = settings({name: cells[name] for name in _SETTINGS})
        for column, evaluation_set in _SETS.items():
            yield PublishedRow(
                task="imagenet",
                backbone="openai/ViT-B-32",
                method="linear-probe" if config is None else "full",
                label=cells["model_name"],
                config=config,
                evaluation_set=evaluation_set,
                role=role_of(evaluation_set),
                metric="accuracy",
                value=score(cells[column], number, column, percent=False),
                source="arXiv:2203.05482, the models of its repository",
                url="https://github.com/mlfoundations/model-soups",
                note=joined(cells["info"], None if config is None else _SEARCH),
                collection="model-soups-finetunes",
                line=number,
                column=column,
            )
