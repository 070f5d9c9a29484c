"""The curve of a training: the file of a run's folder that says what happened at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError, one_line
from shiftbench.core.files import written_atomically

STEP, LOSS = "step", "loss"
RATE, NORM, SPEED, ID_VAL = "learning_rate", "gradient_norm", "images_per_second", "id_val"
TERM = "term_"
"""Begins the name of a column that is a term which the method's ``loss`` returned."""

Values = Sequence[float | None]


@dataclass(frozen=True)
class TrainingCurve:
    """What is known of every step of a training, in order.

    Attributes:
        columns: values by name, one for each step; ``None`` where there is none. ``step`` counts
            from 1. ``loss`` is the mean over the global batch, ``term_<name>`` the same of another
            term of the method's loss. ``learning_rate`` is that of the step, ``gradient_norm`` the
            global norm before clipping, ``images_per_second`` the speed of the step, and
            ``id_val`` the headline metric on ID validation, where it was scored after the step.
    """

    columns: Mapping[str, Values]

    def __len__(self) -> int:
        return len(self.columns[STEP])

    @property
    def drawn(self) -> dict[str, Values]:
        """The columns that say something, but for the steps."""
        named = {name: values for name, values in self.columns.items() if name != STEP}
        return {n: of for n, of in named.items() if any(value is not None for value in of)}

    def write(self, file: Path) -> None:
        """Write the whole curve in place of what was there."""
        kinds = {STEP: pa.int64()}
        columns = {
            name: pa.array(values, kinds.get(name, pa.float64()))
            for name, values in self.columns.items()
        }
        with written_atomically(file) as temporary:
            pq.write_table(pa.table(columns), temporary)

    @classmethod
    def read(cls, file: Path) -> TrainingCurve | None:
        """The curve in a file; ``None`` when there is no such file.

        Raises:
            InputError: it cannot be read.
        """
        try:
            with pq.ParquetFile(file) as opened:
                table = opened.read()
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            reason = one_line(error)
            raise InputError(f"{file}: the curve cannot be read ({reason})") from error
        if not {STEP, LOSS} <= set(table.column_names):
            raise InputError(f"{file}: is no curve of a training: it has no step or no loss")
        for item in table.schema:
            if not (pa.types.is_integer(item.type) or pa.types.is_floating(item.type)):
                raise InputError(f"{file}: is no curve of a training: {item.name} has no numbers")
        return cls({name: table[name].to_pylist() for name in table.column_names})


def thinned(steps: Sequence[int], values: Values, most: int) -> list[tuple[int, float]]:
    """At most so many points that show a curve: the mean of each of as many equal pieces of it.

    Steps without a finite value are left out.
    """
    there = [
        (step, value)
        for step, value in zip(steps, values, strict=True)
        if value is not None and abs(value) < float("inf")
    ]
    pieces = min(most, len(there))
    points = []
    for i in range(pieces):
        piece = there[i * len(there) // pieces : (i + 1) * len(there) // pieces]
        points.append((piece[-1][0], sum(value for _, value in piece) / len(piece)))
    return points
