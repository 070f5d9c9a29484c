"""A task: what to fine-tune on, how its classes are called, and what to evaluate on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from shiftbench.data.prompts import (
    CLASS_LISTS,
    FROM_DATA,
    TEMPLATE_SETS,
    Prompts,
    check_template,
    resolve_classes,
)
from shiftbench.data.sources.any_source import AnySource
from shiftbench.data.sources.base import Closed, Source
from shiftbench.data.tasks.names import composed, not_distinct
from shiftbench.data.tasks.prompting import misfit

ID_TEST = "id-test"
RESERVED = ("id-val", ID_TEST, "ood-val")
NEW = "new"
"""The shift of a task with a class split."""
ALSO = "also-"
"""Begins the names of sets that are scored beside a task's own, and count in no mean."""
OUTLIERS = "outliers-"
"""Begins the names of sets of none of the task's classes, which a model should be unsure of."""
SURENESS = "ece:1"
"""Of images that no answer is right for, the mean confidence."""
PART = f"{ID_TEST}-on-"
"""Begins the names of parts of the ID test set, such as ``id-test-on-imagenet-a-classes``."""
MOST_VALIDATION_SHOTS = 4
"""Few-shot validation sets have min(k, 4) images of every class, as in CoOp."""

Texts = str | tuple[str, ...]
Templates = Texts | dict[str, tuple[str, ...]]
Vocabulary = tuple[tuple[str, ...], Prompts]
"""Class names in label order, and their prompts."""


def known_classes(classes: Texts | None) -> Texts | None:
    """Return ``classes`` if it is a list of names, the name of such a list, or nothing.

    Names are composed (NFC); no two of them may be matched as one.
    """
    if isinstance(classes, str) and classes not in (*CLASS_LISTS, FROM_DATA):
        known = ", ".join((*CLASS_LISTS, FROM_DATA))
        raise ValueError(f'"{classes}" is none of {known}, nor a list of names')
    if classes is not None and (len(classes) < 2 or not all(classes)):
        raise ValueError("name at least two classes")
    if isinstance(classes, tuple):
        classes = tuple(map(composed, classes))
        if fault := not_distinct(classes):
            raise ValueError(fault)
    return classes


def known_templates(templates: Templates | None) -> Templates | None:
    """Return ``templates``: texts, the name of a list of them, texts of each class, or nothing."""
    if templates is None:
        return None
    if isinstance(templates, dict):
        if fault := not_distinct(tuple(templates)):
            raise ValueError(fault)
        bare = next((name for name, said in templates.items() if not all((said, *said))), None)
        if bare is not None or not templates:
            raise ValueError(f'there are no prompts for the class "{bare}"' if bare else "is empty")
        return {composed(name): said for name, said in templates.items()}
    if isinstance(templates, str):
        if templates not in TEMPLATE_SETS:
            known = ", ".join(TEMPLATE_SETS)
            raise ValueError(f'"{templates}" is none of {known}, nor a list of texts with {{}}')
        return templates
    if not templates:
        raise ValueError("name at least one template")
    return tuple(check_template(template) for template in templates)


def _by_class(templates: Templates | None) -> bool:
    return isinstance(templates, dict)


def _check_prompts(classes: Texts | None, templates: Templates | None) -> None:
    """Refuse sentences of other classes, as far as the classes are known without the data."""
    if not isinstance(templates, dict) or classes is None or classes == FROM_DATA:
        return
    if fault := misfit(resolve_classes(classes), templates):
        raise ValueError(f"templates: {fault}")


class EvaluationSet(Closed):
    """A set to score on.

    By default the answer may be any of the task's classes, also where the set has images of only
    some of them. With ``scored_on: own`` it is the best among those that the set has images of.

    A shift may have ``classes`` of its own, which then compete in place of the task's: CIFAR-10 as
    a shift of ImageNet is scored among CIFAR-10's names (cross-dataset transfer).
    """

    source: Annotated[
        AnySource,
        Field(description="its images; a suite may name kind and settings here without it"),
    ]
    metric: Annotated[
        str, Field(description="accuracy, macro-f1, worst-region, ece:15, … or of a plugin")
    ] = "accuracy"
    scored_on: Annotated[
        Literal["task", "own"],
        Field(description="which classes compete: all that are named, or those with images here"),
    ] = "task"
    classes: Annotated[
        Texts | None, Field(description="of a shift whose classes are not the task's; as there")
    ] = None
    templates: Annotated[
        Templates | None, Field(description="for classes of its own; null: the task's")
    ] = None

    _known_classes = field_validator("classes")(known_classes)
    _known_templates = field_validator("templates")(known_templates)

    @model_validator(mode="after")
    def _templates_go_with_classes(self) -> EvaluationSet:
        if self.templates is not None and self.classes is None:
            raise ValueError('"templates" of its own go with "classes" of its own')
        _check_prompts(self.classes, self.templates)
        return self


class Holdout(Closed):
    """A validation set that is cut off the training set, the same one for all seeds."""

    holdout: Annotated[
        float, Field(gt=0, lt=1, description="fraction of the training images of every class")
    ]
    withheld_from: Annotated[
        Literal["all", "selecting"],
        Field(
            description="methods that do not train on it: all, or those that select something on "
            "ID validation; the others have the whole training set, as papers do"
        ),
    ] = "all"


def _source_or_holdout(value: object) -> str | None:
    if isinstance(value, Source) or (isinstance(value, Mapping) and "kind" in value):
        return "source"
    holdout = isinstance(value, Holdout) or (isinstance(value, Mapping) and "holdout" in value)
    return "holdout" if holdout else None


SourceOrHoldout = Annotated[
    Annotated[AnySource, Tag("source")] | Annotated[Holdout, Tag("holdout")],
    Discriminator(
        _source_or_holdout,
        custom_error_type="source_or_holdout",
        custom_error_message='the key "kind" is missing or the key "holdout" is missing',
    ),
]


class Task(Closed):
    """One fine-tuning problem, described without opening any file.

    With ``class_split: base-to-new`` it is cut in two by classes, as for CoCoOp (arXiv 2203.05557,
    ``subsample_classes`` in its code): of n in label order the first ⌈n/2⌉ are *base*, the others
    *new*.
    Training and both validation sets have base classes only. ``id-test`` is its images of base
    classes among the base names, and the one shift, ``new``, its images of new classes among the
    new names. The task's other shifts are left out: they mix both.
    """

    name: Annotated[str, Field(min_length=1, description="its key in a suite")]
    classes: Annotated[
        Texts,
        Field(
            description=f"{', '.join(CLASS_LISTS)}, {FROM_DATA}, the names in label order, or a "
            "name for each label; a file (.txt, .json, .yaml) may hold either"
        ),
    ]
    templates: Annotated[
        Templates,
        Field(
            description=f"{', '.join(TEMPLATE_SETS)}, texts with {{}} for the class name, or for "
            "each class its own sentences; a file (.txt, .json, .yaml) may hold either"
        ),
    ] = "simple"
    train: Annotated[
        AnySource, Field(description="training images: the kind of source, and its settings")
    ]
    id_val: Annotated[
        SourceOrHoldout,
        Field(description="in-distribution validation: a source, or a part held out of train"),
    ] = Holdout(holdout=0.1)
    id_test: Annotated[EvaluationSet, Field(description="in-distribution test images")]
    ood_val: Annotated[
        EvaluationSet | None,
        Field(description="images of other distributions that searches look at; no shift's"),
    ] = None
    shifts: Annotated[
        dict[str, EvaluationSet],
        Field(
            default_factory=dict,
            description="evaluation sets of other distributions, by name; in a suite, null removes "
            "one that the registered task has",
        ),
    ]
    also: dict[str, EvaluationSet] = Field(
        default_factory=dict,
        description="sets to score beside, by name, which count in no mean and no identity: "
        "other tasks' test sets, whose classes are their own, or corruptions",
    )
    outliers: dict[str, AnySource] = Field(
        default_factory=dict,
        description="images of none of the task's classes, by name, to be told from its test "
        "images (OOD detection); they count in no mean and no identity",
    )
    class_split: Annotated[
        Literal["base-to-new"] | None,
        Field(description="train on the first half of the classes, and test on each half"),
    ] = None
    also_metrics: Annotated[
        tuple[str, ...],
        Field(description="metrics to record for every set beside its own and accuracy"),
    ] = ()
    overlap: Annotated[
        Literal["refuse", "label"],
        Field(description="if a test set holds images that a method sees: stop, or label the rows"),
    ] = "refuse"

    _known_classes = field_validator("classes")(known_classes)
    _known_templates = field_validator("templates")(known_templates)

    @model_validator(mode="after")
    def _sets_are_consistent(self) -> Task:
        for name in self.shifts:
            if name in RESERVED or name.startswith((PART, ALSO, OUTLIERS)) or not name:
                raise ValueError(f'a shift cannot be called "{name}"')
        for name in (*self.shifts, *self.also, *self.outliers):
            if not name.isprintable() or "\\" in name:
                raise ValueError(
                    f"a shift cannot be called {name!a}: no backslash, no control signs"
                )
        for named in (self.shifts, self.also, self.outliers):
            if fault := not_distinct(tuple(named), "shift"):
                raise ValueError(fault)
        for name, item in (("id_test", self.id_test), ("ood_val", self.ood_val)):
            if item is not None and item.classes is not None:
                raise ValueError(f"{name} has the task's classes; only a shift may have its own")
        _check_prompts(self.classes, self.templates)
        for name, item in (*self.shifts.items(), *self.also.items()):
            if item.classes is not None and item.templates is None and _by_class(self.templates):
                raise ValueError(
                    f"shift {name} has classes of its own, and the task's templates are sentences "
                    "for the task's: name templates for it"
                )
        return self

    def evaluation_sets(self) -> dict[str, EvaluationSet]:
        """Return all sets to score on but ID validation: ``id-test``, ``ood-val``, the shifts."""
        sets = {"id-test": self.id_test}
        if self.ood_val is not None:
            sets["ood-val"] = self.ood_val
        sets |= {NEW: self.id_test} if self.class_split else self.shifts
        sets |= {f"{ALSO}{name}": item for name, item in self.also.items()}
        return sets | {
            f"{OUTLIERS}{name}": EvaluationSet(source=source, metric=SURENESS)
            for name, source in self.outliers.items()
        }

    def without_also(self) -> Task:
        """Return the task without the sets that are scored beside: what its runs' identity is of.

        A set more or less changes nothing in a model, so it makes no other runs.
        """
        return self.model_copy(update={"also": {}, "outliers": {}})

    def recorded(self) -> Task:
        """Return the task as runs and their rows mean it: only a search looks at ``ood_val``.

        From which methods a part is withheld is a fact of each run.
        """
        id_val = self.id_val
        if isinstance(id_val, Holdout):
            id_val = Holdout(holdout=id_val.holdout)
        return self.model_copy(update={"ood_val": None, "id_val": id_val})

    def sources(self) -> dict[str, Source]:
        """Return every source by its role: ``train``, ``id-val``, ``id-test``, …, the shifts."""
        found: dict[str, Source] = {"train": self.train}
        if isinstance(self.id_val, Source):
            found["id-val"] = self.id_val
        return found | {name: item.source for name, item in self.evaluation_sets().items()}


IN_NO_IDENTITY = frozenset({"also", "outliers"})
"""Fields of a task that its runs' identity and its digest leave out."""


def whole_set(name: str) -> str:
    """Return the set that an evaluation set is a part of: itself, but for parts of ``id-test``."""
    return ID_TEST if name.startswith(PART) else name


def beside(name: str) -> bool:
    """Return whether an evaluation set is scored beside the task's own, and is in no identity."""
    return name.startswith((ALSO, OUTLIERS))
