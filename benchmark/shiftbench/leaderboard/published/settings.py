"""What works state of the settings behind their published values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from shiftbench.core.document import read
from shiftbench.core.shipped import shipped
from shiftbench.core.validation import validate
from shiftbench.leaderboard.published.schema import PublishedRow

FILE = "settings.yaml"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Statement(_Closed):
    """Settings that a work states.

    Attributes:
        source: published values are meant whose source begins so.
        where: in the work, or in its code.
        methods: our names of those it is of.
        tasks: those it is of; ``None`` for all.
        backbones: those it is of; ``None`` for all.
        shots: of the values; ``None`` for all training data.
        settings: by their names in our configuration of the method.
    """

    source: str
    where: str
    methods: tuple[str, ...]
    tasks: tuple[str, ...] | None = None
    backbones: tuple[str, ...] | None = None
    shots: int | None = None
    settings: Mapping[str, Any]


class StatedSettings(_Closed):
    """All statements, and why there is no published value of other methods.

    Attributes:
        statements: in no order; several of one value add up.
        nothing_published: the reason, by our name of the method.
    """

    statements: tuple[Statement, ...] = ()
    nothing_published: Mapping[str, str] = {}

    def of(self, row: PublishedRow, method: str) -> Mapping[str, Any] | None:
        """What the source of a value states of a method in it; ``None`` where it says nothing."""
        found = [
            statement.settings
            for statement in self.statements
            if row.source.startswith(statement.source)
            and method in statement.methods
            and statement.shots == row.shots
            and (statement.tasks is None or row.task in statement.tasks)
            and (statement.backbones is None or row.backbone in statement.backbones)
        ]
        if not found:
            return None
        return {name: value for settings in found for name, value in settings.items()}


def read_stated(folder: Path | None = None) -> StatedSettings:
    """The statements beside published results; none where the folder has none.

    Args:
        folder: of the published results; by default the shipped ones.

    Raises:
        InputError: the file cannot be read, or says something else.
    """
    file = (shipped("published") if folder is None else folder) / FILE
    if folder is not None and not file.is_file():
        return StatedSettings()
    return validate(StatedSettings, read(file))
