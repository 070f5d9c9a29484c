"""Transfer sets without a shift: those of FLYP and AutoFT, in FLYP's splits, and CIFAR-100.

WiSE-FT's other transfer sets (DTD, Food-101, SUN397, Stanford Cars) are CoOp's here. Names and
prompts are those of FLYP's code, which has them from CLIP's evaluation; flowers and cars are
called as the folders that its scripts make.
"""

from __future__ import annotations

from shiftbench.data.prompts import FROM_DATA
from shiftbench.data.sources.builtin.cifar import Cifar100
from shiftbench.data.sources.builtin.transfer import Name, PatchCamelyon, Transfer
from shiftbench.data.tasks.collections.subpopulations import TUMOUR, TUMOUR_TEMPLATES
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task, Texts

TITLE = "Transfer sets (FLYP, AutoFT, WiSE-FT)"

_CALTECH = tuple(
    text.format(word)
    for word in ("a", "the")
    for text in (
        *(f"{kind} of {{}} {{{{}}}}." for kind in ("a photo", "a painting", "a sculpture")),
        *(f"{kind} of {{}} {{{{}}}}." for kind in ("a sketch", "a tattoo", "a rendition", "art")),
        *(f"{kind} of {{}} {{{{}}}}." for kind in ("graffiti", "a drawing", "a doodle")),
        *(f"{{}} {kind} {{{{}}}}." for kind in ("plastic", "toy", "embroidered", "cartoon")),
        *(f"{{}} {kind} {{{{}}}}." for kind in ("plushie", "origami")),
        "{} {{}} in a video game.",
    )
)
_CARS = (
    *(f"a photo of {word} {{:spaces}}." for word in ("a", "the", "my")),
    "i love my {:spaces}!",
    *(f"a photo of my {word} {{:spaces}}." for word in ("dirty", "clean", "new", "old")),
)


def _task(task: str, dataset: Name, classes: Texts, templates: tuple[str, ...]) -> Task:
    return Task(
        name=task,
        classes=classes,
        templates=templates,
        train=Transfer(dataset=dataset, split="train"),
        id_val=Transfer(dataset=dataset, split="val"),
        id_test=EvaluationSet(source=Transfer(dataset=dataset, split="test")),
        shifts={},
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("flyp-caltech101", "caltech101", "caltech101", _CALTECH),
        _task(
            "flyp-flowers102",
            "flowers102",
            FROM_DATA,
            ("a photo of a {:spaces}, a type of flower.",),
        ),
        _task("flyp-stanford-cars", "stanford-cars", FROM_DATA, _CARS),
        _task("rendered-sst2", "rendered-sst2", FROM_DATA, ("a {} review of a movie.",)),
        Task(
            name="patch-camelyon",
            classes=TUMOUR,
            templates=TUMOUR_TEMPLATES,
            train=PatchCamelyon(split="train"),
            id_val=PatchCamelyon(split="val"),
            id_test=EvaluationSet(source=PatchCamelyon(split="test")),
            shifts={},
        ),
        Task(
            name="cifar100",
            classes="cifar100",
            templates="openai-80",
            train=Cifar100(split="train"),
            id_val=Holdout(holdout=0.1),
            id_test=EvaluationSet(source=Cifar100(split="test")),
            shifts={},
        ),
    )
}
