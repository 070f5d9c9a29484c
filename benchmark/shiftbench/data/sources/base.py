"""The contract of a source: a typed description of a labelled set of images, and how to read it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.subsets import draw, part_of

Fraction = Annotated[float, Field(ge=0, le=1)]


class AbsentError(InputError):
    """A data set is not there at all, as opposed to broken or incomplete."""


class Closed(BaseModel):
    """A specification: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Documented:
    """The size that the authors of a data set, or the literature, state for it.

    Attributes:
        examples: number of images.
        per_class: images of every class, where they are all the same.
        classes: classes that have images.
        certain: False where the number is not from the authors, so that a difference is only
            remarked on and does not count as missing data.
    """

    examples: int | None = None
    per_class: int | None = None
    classes: int | None = None
    certain: bool = True


@dataclass(frozen=True)
class Terms:
    """Where a person gets a data set, and on what terms.

    Attributes:
        home: its page.
        licence: in a few words; "" where the authors state none.
    """

    home: str
    licence: str


class Source(Closed):
    """A labelled set of images, described without opening it.

    A task names a source for each of its sets by ``kind``. Whatever its kind, a source is checked
    by ``data verify``, cut into parts, drawn from, audited for leakage and decoded once.

    To add a kind of your own, write one subclass: fields are the settings that a suite may give,
    ``kind`` is the name, and ``read`` returns the images::

        import csv
        import io
        from typing import Annotated, Literal

        import numpy as np
        from pydantic import Field
        from shiftbench.core import locations
        from shiftbench.data.images import ImageSet
        from shiftbench.data.sources.base import AbsentError, Source
        from shiftbench.data.sources.files import FileImages, fingerprint

        class Scans(Source):
            \"\"\"Scans of one hospital, listed in ``scans.csv``: file, label, hospital.\"\"\"

            kind: Literal["scans"] = "scans"
            hospital: Annotated[str, Field(description="whose scans to take")]

            def read(self, root: str) -> ImageSet:
                folder = locations.join(root, "scans")
                table = f"{folder}/scans.csv"
                if locations.kind_of(table) != "file":
                    raise AbsentError(f"{self.title}: there is no file {table}")
                rows = csv.DictReader(io.StringIO(locations.read(table).decode()))
                mine = [row for row in rows if row["hospital"] == self.hospital]
                ids = np.array([row["file"] for row in mine], np.str_)
                return ImageSet(
                    ids=ids,
                    labels=np.array([int(row["label"]) for row in mine], np.int64),
                    images=FileImages(folder, ids),
                    fingerprint=fingerprint(locations.file_digest(table), self.hospital),
                )

    and register it in your package's ``pyproject.toml``::

        [project.entry-points."shiftbench.sources"]
        scans = "mylab.scans:Scans"

    After that ``train: {kind: scans, hospital: north}`` works in every suite. Before it is
    packaged, ``SHIFTBENCH_PLUGINS=sources/scans=mylab.scans:Scans`` does the same. A run that uses
    it has the package's version in its identity: another version is another run.

    Attributes:
        kind: registered name; a subclass narrows it to a literal with a default.
        part: the examples of every class from one fraction to another, in the order of the hashes
            of their ids: [0, 0.8] and [0.8, 1] split a set in two, the same way every time.
        limit: at most so many examples, those whose ids have the smallest hashes.
        balanced: True if the limited draw takes equally many of every class, as far as it can.
    """

    kind: str
    part: Annotated[
        tuple[Fraction, Fraction],
        Field(description="a part of every class, by hashes of ids: from and to, as fractions"),
    ] = (0.0, 1.0)
    limit: Annotated[int | None, Field(ge=1, description="at most so many examples")] = None
    balanced: Annotated[bool, Field(description="the limited draw is the same for all classes")] = (
        False
    )

    fixed_labels: ClassVar[bool] = True
    """True if the data set itself defines its labels as positions in the task's classes.

    Otherwise every label needs a name (``label_names``) that is one of the task's classes.
    """
    home: ClassVar[str] = ""
    """Where a person gets the data."""
    licence: ClassVar[str] = ""
    """The terms that the data are given on, in a few words; "" where the authors state none."""
    fetched_as: ClassVar[str] = ""
    """Its name in ``shiftbench data fetch``, which can download some data sets."""

    @abstractmethod
    def read(self, root: str) -> ImageSet:
        """Return the whole set without decoding images; ``part`` and ``limit`` come later.

        Args:
            root: the data root, a folder or a URI; ``core.locations`` reads both.

        Raises:
            AbsentError: there are no such files.
            InputError: there are, but they cannot be used.
        """

    def documented(self, root: str) -> Documented:
        """Return the size that the set should have; by default nothing is known."""
        del root
        return Documented()

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the name of every label, by label; ``None`` where the files have no names."""
        del root
        return None

    def class_count(self, root: str) -> int | None:
        """Return the number of classes that a task needs for these labels; ``None`` if unknown."""
        names = self.label_names(root)
        return None if names is None else len(names)

    def terms(self) -> Terms:
        """Return where a person gets the data, and on what terms."""
        return Terms(self.home, self.licence)

    @property
    def title(self) -> str:
        """The name of the set in messages and tables."""
        return self.kind

    def open(self, root: str) -> ImageSet:
        """Return the examples that ``part``, ``limit`` and ``balanced`` choose, nothing decoded.

        Raises:
            AbsentError: there are no such files.
            InputError: there are, but they cannot be used.
        """
        images = self.whole(root)
        if self.part != (0.0, 1.0):
            images = images.subset(part_of(images.ids, images.labels, *self.part))
        if self.limit is not None and self.limit < len(images):
            images = images.subset(draw(images.ids, images.labels, self.limit, self.balanced))
        return images

    def whole(self, root: str) -> ImageSet:
        """Return what ``read`` does, once it is a well-formed image set.

        Raises:
            InputError: it is not; the message says what the reader has to change.
        """
        key = type(self), self.model_dump_json(exclude={"part", "limit", "balanced"}), root
        if _kept is not None and key in _kept:
            return _kept[key]
        images = self.read(root)
        fault = _malformed(images)
        if fault:
            raise InputError(f"{self.title}: {type(self).__name__}.read gives {fault}")
        if _kept is not None:
            _kept[key] = images
        return images

    def size(self, root: str) -> int:
        """Return the number of examples: the documented one where there is one, else counted.

        Parts are counted too, and where there is nothing to count they are fractions of the
        documented number.

        Raises:
            InputError: it had to be counted, and the data cannot be opened.
        """
        known, (start, end) = self.documented(root).examples, self.part
        if known is None or self.part != (0.0, 1.0):
            try:
                return len(self.open(root))
            except AbsentError:
                if known is None:
                    raise
            known = round((end - start) * known)
        return known if self.limit is None else min(known, self.limit)

    def advice(self, root: str) -> str:
        """Return where to get the data, and the command that downloads it where there is one."""
        typed = f"shiftbench data fetch {self.fetched_as} --to {root}" if self.fetched_as else ""
        home = self.terms().home
        parts = (f"get it from {home}" if home else "", typed and f"or type: {typed}")
        return " ".join(filter(None, parts)) or "check the path"

    @model_validator(mode="after")
    def _part_is_one(self) -> Source:
        if self.part[0] >= self.part[1]:
            raise ValueError("part goes from a smaller fraction to a larger one")
        return self


_kept: dict[tuple[type[Source], str, str], ImageSet] | None = None
"""The sets that were opened within ``read_once``."""


@contextmanager
def read_once() -> Iterator[None]:
    """Within the block, the files of a set are listed once, however often it is opened."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def _malformed(images: ImageSet) -> str:
    """Return the first thing by which a set breaks the contract of ``ImageSet``, or ""."""
    n = len(images.labels)
    columns = {"ids": images.ids, "images": images.images, **images.metadata}
    odd = next((name for name, column in columns.items() if len(column) != n), None)
    if odd is not None:
        return f"{n:,} labels, but {len(columns[odd]):,} {odd}"
    if images.labels.dtype != np.int64 or (n and images.labels.min() < 0):
        return "labels that are not int64 from 0"
    if images.ids.dtype.kind != "U":
        return f"ids of dtype {images.ids.dtype}, not text"
    if len(set(images.ids.tolist())) < n:
        return "the same id twice"
    return "" if images.fingerprint else "no fingerprint, so that changed files go unnoticed"
