"""The suite that ``shiftbench init`` writes: one task of one's own, some methods, all explained."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shiftbench.core import document
from shiftbench.core.document import Place
from shiftbench.core.errors import InputError, one_line
from shiftbench.core.words import nearest
from shiftbench.data.prompts import FROM_DATA
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.sources.shards import ENDING, split_of
from shiftbench.data.tasks.definition import EvaluationSet, Task
from shiftbench.data.tasks.registry import TASKS
from shiftbench.methods.registry import METHODS
from shiftbench.suite.explained import Section, explained
from shiftbench.suite.file import Budget, Limits, Resources, SuiteFile
from shiftbench.suite.layers import laid_over
from shiftbench.suite.reading import read
from shiftbench.suite.resolving import resolve_method

SETTINGS_OF = "nine-shifts"
"""The suite whose methods, with their settings, can be chosen by their labels."""
BASICS = ("lr", "epochs", "batch_size", "warmup_steps")
FITTED = {"batch_size": 64, "warmup_steps": 50}
"""For thousands of training images; the papers' are for a hundred times as many."""
USUAL = ("zero-shot", "linear-probe", "full", "wise-ft")
OF_HUB = "data"
"""The folder in which data sets of the Hugging Face Hub have their files."""
PARTS: dict[str, tuple[float, float]] = {"train": (0.0, 0.8), "test": (0.8, 1.0)}
HEADER = """\
# Written by `shiftbench init`. What it asks for and what that costs: shiftbench plan {file}
# A line that begins with "#key:" shows a default: take the # away to change it. All kinds of
# sources and methods with their settings are in the reference: docs/reference/suites.md.

"""


@dataclass(frozen=True)
class Answers:
    """What a new suite is to be about.

    Attributes:
        file: to be written.
        train: training images: a folder with a folder for each class, a Parquet file, a folder
            of Parquet files, or one in the Hub's layout, with its files in ``data``. With the
            splits ``train`` and ``test`` in it, both are used.
        test: ID test images; ``None`` for those beside ``train``, or a fifth of the training set.
        shifts: places of the shifts by their names.
        ood_val: OOD validation images, for methods that search.
        classes: a file that names the classes; ``None`` where the data do.
        methods: labels of ``nine-shifts``, or registered names.
        backbone: its name.
        everything: also explain limits that hardly anybody changes.
    """

    file: Path
    train: Path
    test: Path | None = None
    shifts: Mapping[str, Path] = field(default_factory=dict)
    ood_val: Path | None = None
    classes: Path | None = None
    methods: Sequence[str] = USUAL
    backbone: str = "openai/ViT-B-16"
    everything: bool = False


@dataclass(frozen=True)
class _Found:
    """Images that are there, as a source: its kind and settings, but for the path."""

    path: Path
    settings: Mapping[str, Any]

    def keys(self, root: Path) -> dict[str, Any]:
        """The source's settings, with its path relative to the data root."""
        kind = {"kind": self.settings["kind"]}
        return {**kind, "path": _relative(self.path, root), **self.settings}

    def section(self, root: Path) -> Section:
        """The same, with the model that explains them."""
        return Section(SOURCES.load(self.settings["kind"]), self.keys(root))


def suite_text(answers: Answers) -> str:
    """The text of a new suite.

    Raises:
        InputError: data are not there, or their labels have no names; or a method is unknown.
    """
    train, test, id_val = _splits(answers)
    shifts = {name: _found(path) for name, path in answers.shifts.items()}
    ood_val = None if answers.ood_val is None else _found(answers.ood_val)
    every = [train, test, id_val, ood_val, *shifts.values()]
    parents = [found.path.absolute().parent for found in every if found is not None]
    root = Path(os.path.commonpath(parents))
    task: dict[str, Any] = {
        "classes": _classes(answers, train),
        "train": train.section(root),
        "id_test": Section(EvaluationSet, {"source": test.section(root)}),
        "shifts": {name: found.keys(root) for name, found in shifts.items()},
    }
    task |= {} if id_val is None else {"id_val": id_val.keys(root)}
    task |= {} if ood_val is None else {"ood_val": ood_val.keys(root)}
    limits = {"limits": Section(Limits)} if answers.everything else {}
    keys = {
        "data": _relative(root, answers.file.parent),
        "tasks": {_name_of(answers.train): Section(Task, task, without=("name",))},
        "backbones": [_backbone(answers.backbone, answers.file.parent)],
        "methods": _methods(answers.methods),
        "seeds": [0],
        "budget": Section(Budget),
        "resources": Section(Resources, limits),
    }
    body = explained(Section(SuiteFile, keys, without=("extends", "name")))
    return HEADER.format(file=answers.file) + body


def _splits(answers: Answers) -> tuple[_Found, _Found, _Found | None]:
    """Training and ID test images, and those for ID validation where they are kept apart."""
    place = _of_hub(answers.train)
    splits = _splits_in(place)
    if answers.test is not None:
        splits["test"] = _found(answers.test)
    if "train" not in splits:
        splits["train"] = _found(place)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    train = splits["train"]
    if "test" in splits:
        return train, splits["test"], splits.get("validation")
    first, rest = (
        _Found(train.path, {**train.settings, "part": list(part)}) for part in PARTS.values()
    )
    return first, rest, None


def _of_hub(folder: Path) -> Path:
    """Where the files of a folder are: those of a data set in the Hub's layout are one deeper."""
    inside = {path.parent for path in folder.glob(f"*/*{ENDING}")}
    whole = inside == {folder / OF_HUB} and not any(folder.glob(f"*{ENDING}"))
    return folder / OF_HUB if whole else folder


def _splits_in(folder: Path) -> dict[str, _Found]:
    """The splits that a folder holds, by the names of its folders or of its Parquet files."""
    if not folder.is_dir():
        return {}
    inside = {split_of(f"{path.name}{ENDING}"): path for path in folder.iterdir() if path.is_dir()}
    if "train" in inside:
        return {name: _found(path) for name, path in inside.items() if name}
    files = sorted(folder.glob(f"*{ENDING}"))
    names = {split_of(str(file)) for file in files} - {""}
    return {name: _Found(folder, {**_columns(files[0]), "split": name}) for name in names}


def _found(path: Path) -> _Found:
    """What is at a path.

    Raises:
        InputError: nothing, or neither class folders nor Parquet files.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    path = _of_hub(path)
    if path.is_file() and path.suffix == ENDING:
        return _Found(path, _columns(path))
    files = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else []
    if files:
        return _Found(path, _columns(files[0]))
    deeper = sorted(path.glob(f"*/*{ENDING}")) if path.is_dir() else []
    if deeper:
        raise InputError(f"{path}: its {ENDING} files are in {deeper[0].parent}: name that folder")
    if path.is_dir() and any(entry.is_dir() for entry in path.iterdir()):
        return _Found(path, {"kind": "image-folder"})
    raise InputError(
        f"{path}: neither a folder with a folder for each class, nor {ENDING} files; sources of "
        "other kinds are written by hand"
    )


def _columns(file: Path) -> dict[str, Any]:
    """The settings of a Parquet source: its columns, where they are not called as usual.

    Raises:
        InputError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as Parquet: {one_line(error)}") from error
    labels = [name for name in schema.names if name.endswith("label")]
    images = [
        item.name
        for item in schema
        if pa.types.is_binary(item.type)
        or (pa.types.is_struct(item.type) and item.type.get_field_index("bytes") >= 0)
    ]
    found: dict[str, Any] = {"kind": "parquet"}
    for key, names in (("image", images), ("label", labels)):
        if key not in schema.names and len(names) == 1:
            found[key] = names[0]
    return found


def _classes(answers: Answers, train: _Found) -> str:
    """How the suite says what the classes are called."""
    if answers.classes is not None:
        return _relative(answers.classes, answers.file.parent)
    settings = {**train.settings, "path": str(train.path.absolute())}
    source: Source = SOURCES.load(train.settings["kind"]).model_validate(settings)
    if source.label_names("") is None:
        raise InputError(
            f"{train.path}: the files do not name their labels; --classes FILE can name them, a "
            "line of text for each in the order of the numbers"
        )
    return FROM_DATA


def _methods(labels: Sequence[str]) -> dict[str, Any]:
    """The settings of some methods, and of those that they build on, by label."""
    base = read(SETTINGS_OF)
    known = {*base.children["methods"].children, *METHODS.entries()}
    for label in labels:
        if label not in known:
            raise InputError(f'--methods: there is no method "{label}"{nearest(label, known)}')
    option = Place("--methods", None, Path())
    picked = laid_over(base, document.tree({"methods": list(dict.fromkeys(labels))}, option))
    return {
        label: _settings(label, entry)
        for label, entry in document.named_entries(picked.children["methods"]).children.items()
    }


def _settings(label: str, entry: document.Node) -> Section | dict[str, Any]:
    method = resolve_method(label, entry)
    config = method.config
    fields = type(config).model_fields
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"precision"})
    basics = config.model_dump(mode="json", include={*BASICS} & fields.keys())
    fitted = {name: value for name, value in FITTED.items() if name in fields}
    named = {} if method.name == label else {"method": method.name}
    settings = {**named, **basics, **values, **fitted}
    return Section(type(config), settings, named=True) if fields else {}


def _name_of(path: Path) -> str:
    """A task's name after its training images."""
    path = path.absolute()
    stem = path.name.removesuffix(ENDING)
    if split_of(f"{stem}{ENDING}") or (stem == OF_HUB and path.is_dir()):
        stem = path.parent.name
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip("-.") or "task"
    return f"my-{name}" if name in TASKS.entries() or not name[0].isalnum() else name


def _backbone(name: str, folder: Path) -> str:
    """A backbone as a file in ``folder`` names it."""
    if not name.startswith(("./", "../", "~", "/")):
        return name
    relative = _relative(Path(name).expanduser(), folder)
    return relative if relative.startswith("../") else f"./{relative}"


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.absolute(), folder.absolute())
