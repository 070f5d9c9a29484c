"""Waterbirds and CelebA, by their worst group; WILDS Camelyon17, by its fifth hospital.

Waterbirds and CelebA have one test set: its mean accuracy is the ID result, and its worst group, of
class and background or of hair and sex, the shift (Sagawa et al., arXiv 1911.08731). Waterbirds'
test set has its groups in other shares than training, by whose shares papers weight the mean; here
it is the plain one. The prompts are ours, but Camelyon17's, which are
those of CLIP and FLYP for PatchCamelyon.
"""

from __future__ import annotations

from shiftbench.data.sources.builtin.subpopulations import CelebA, Waterbirds
from shiftbench.data.sources.builtin.wilds import Camelyon17
from shiftbench.data.tasks.definition import EvaluationSet, Task

TITLE = "Subpopulations and hospitals"

TUMOUR = ("lymph node", "lymph node containing metastatic tumor tissue")
TUMOUR_TEMPLATES = ("this is a photo of {}",)


def _by_group(
    kind: type[Waterbirds] | type[CelebA], classes: tuple[str, str], template: str, groups: str
) -> Task:
    test = kind(split="test")
    return Task(
        name=test.kind,
        classes=classes,
        templates=(template,),
        train=kind(split="train"),
        id_val=kind(split="val"),
        id_test=EvaluationSet(source=test),
        shifts={"worst-group": EvaluationSet(source=test, metric=f"worst-group:{groups}")},
    )


def _camelyon17() -> Task:
    def half(start: float, end: float) -> Camelyon17:
        return Camelyon17(split="id_val", part=(start, end))

    return Task(
        name="camelyon17",
        classes=TUMOUR,
        templates=TUMOUR_TEMPLATES,
        train=Camelyon17(split="train"),
        id_val=half(0, 0.5),  # WILDS has no ID test set: half of the ID validation set is one
        id_test=EvaluationSet(source=half(0.5, 1)),
        ood_val=EvaluationSet(source=Camelyon17(split="val", limit=1_000, balanced=True)),
        shifts={"camelyon17-ood": EvaluationSet(source=Camelyon17(split="test"))},
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _by_group(
            Waterbirds, ("landbird", "waterbird"), "a photo of a {}.", groups="bird*background"
        ),
        _by_group(
            CelebA,
            ("dark hair", "blond hair"),
            "a photo of a celebrity with {}.",
            groups="hair*sex",
        ),
        _camelyon17(),
    )
}
