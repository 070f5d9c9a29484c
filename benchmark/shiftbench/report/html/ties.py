"""Which methods of a ranking tie, from the predictions that their runs kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.runfolder import RunFolder

if TYPE_CHECKING:
    from shiftbench.evaluation.statistics import Predictions, Seed

_COLUMNS = ["id", "label", "prediction", "region", "location"]


@dataclass(frozen=True)
class Contestant:
    """What a line of a ranking was predicted by.

    Attributes:
        name: of the line, unique in its ranking.
        runs: run id and variant by seed; the seed ``None`` stands for every seed.
    """

    name: str
    runs: Mapping[Seed, tuple[str, str]]


@dataclass(frozen=True)
class Ties:
    """Groups of methods that cannot be told apart.

    Attributes:
        letters: of the groups, by name; those that share a letter tie.
        note: how they were found, or why there are none.
        known: whether all that can be known of ties is in the letters.
    """

    letters: Mapping[str, str]
    note: str
    known: bool


def ties(
    contestants: Sequence[Contestant], metrics: Mapping[str, str], results: Path | None
) -> Ties:
    """Compare the lines of a ranking, best first, on what the ranking is by.

    Args:
        contestants: lines that rank.
        metrics: headline metric by evaluation set; the ranking is by the mean over these.
        results: folder of the runs; ``None`` when there is none.
    """
    from shiftbench.evaluation.statistics import compare, decisions, groups, letters

    if len(contestants) < 2:
        return Ties({}, "There is nothing to compare with.", True)
    methods: dict[str, Mapping[Seed, Predictions]] = {}
    missing = []
    for contestant in contestants:
        try:
            methods[contestant.name] = _predictions(contestant, metrics, results)
        except InputError:
            missing.append(contestant.name)
    absent = ", ".join(missing)
    if len(methods) < 2:
        why = f"Predictions are missing of {absent}." if results else "There is no results folder."
        return Ties({}, f"Ties are not known. {why}", False)
    try:
        differences = compare(methods, metrics)
    except InputError as error:
        return Ties({}, f"Ties are not known: {error}.", False)
    names = list(methods)
    differs = decisions(differences, names)
    labels = dict(zip(names, map(letters, groups(differs)), strict=True))
    tests = ", ".join(sorted({difference.test for difference in differences}))
    note = (
        f"Methods that share a letter tie: their difference is within chance on the same examples "
        f"({tests}; {len(differences)} pairs, Holm's correction, 5 %)."
    )
    if missing:
        note += f" Not compared, since predictions are missing: {absent}."
    return Ties(labels, note, True)


def _predictions(
    contestant: Contestant, metrics: Mapping[str, str], results: Path | None
) -> dict[Seed, Predictions]:
    """By seed, the predictions on each set.

    Raises:
        InputError: some are not there, or cannot be read.
    """
    found: dict[Seed, Predictions] = {}
    for seed, (run_id, variant) in contestant.runs.items():
        if results is None:
            raise InputError("no results folder")
        tables = _read(RunFolder.of(results, run_id).predictions, variant, [*metrics])
        found[seed] = tables
    return found


def _read(path: Path, variant: str, sets: Sequence[str]) -> dict[str, pa.Table]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = (pc.field("variant") == variant) & pc.field("set").isin(list(sets))
    try:
        table = pq.read_table(path, columns=["set", *_COLUMNS], filters=wanted, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    tables = {name: table.filter(pc.field("set") == name).select(_COLUMNS) for name in sets}
    for name, of_set in tables.items():
        if not len(of_set):
            raise InputError(f"{path}: has no predictions of {variant or 'the weights'} on {name}")
    return tables
