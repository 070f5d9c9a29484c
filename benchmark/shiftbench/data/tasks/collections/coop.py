"""CoOp's ten data sets beside ImageNet, and ImageNet with all of them as shifts.

Prompts are the hand-made ones of CoOp (``CUSTOM_TEMPLATES`` in ``trainers/zsclip.py``), class names
those of its split files. With ``class_split: base-to-new`` the tasks are CoCoOp's (arXiv
2203.05557); ``imagenet-cross-dataset`` is its transfer. Few-shot draws are of our seeds: CoOp's own
are pickles of an unseeded draw.
"""

from __future__ import annotations

from typing import get_args

from shiftbench.data.prompts import FROM_DATA, SPACED
from shiftbench.data.sources.builtin.coop import CoOp, Name
from shiftbench.data.sources.builtin.imagenet import ImageNet
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task

TITLE = "CoOp's data sets, in its splits (few shots, base to new, cross-dataset)"

TEMPLATES: dict[Name, tuple[str, ...]] = {
    "oxford-pets": ("a photo of a {:spaces}, a type of pet.",),
    "flowers102": ("a photo of a {:spaces}, a type of flower.",),
    "food101": ("a photo of {:spaces}, a type of food.",),
    "fgvc-aircraft": ("a photo of a {:spaces}, a type of aircraft.",),
    "dtd": ("{:spaces} texture.",),
    "eurosat": ("a centered satellite photo of {:spaces}.",),
    "ucf101": ("a photo of a person doing {:spaces}.",),
}
"""The others have ``a photo of a {}.``"""


def _task(name: Name) -> Task:
    return Task(
        name=name,
        classes=FROM_DATA,
        templates=TEMPLATES.get(name, SPACED),
        train=CoOp(dataset=name, split="train"),
        id_val=CoOp(dataset=name, split="val"),
        id_test=EvaluationSet(source=CoOp(dataset=name, split="test")),
        shifts={},
    )


def _elsewhere(name: Name) -> EvaluationSet:
    """One of the sets as a shift of ImageNet, among its own names."""
    return EvaluationSet(
        source=CoOp(dataset=name, split="test"),
        classes=FROM_DATA,
        templates=TEMPLATES.get(name, SPACED),
    )


_CROSS = "imagenet-cross-dataset"
TASKS: dict[str, Task] = {
    **{name: _task(name) for name in get_args(Name)},
    _CROSS: Task(
        name=_CROSS,
        classes="imagenet",
        templates="simple",
        train=ImageNet(split="train"),
        id_val=Holdout(holdout=0.02),
        id_test=EvaluationSet(source=ImageNet(split="val")),
        shifts={name: _elsewhere(name) for name in get_args(Name)},
    ),
}
