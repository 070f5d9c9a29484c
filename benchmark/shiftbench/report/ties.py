"""Which methods of a ranking tie, from the predictions that their runs kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scores import BOOTSTRAP, OF_SETS

if TYPE_CHECKING:
    from shiftbench.evaluation.comparison import Predictions, Seed


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


@dataclass(frozen=True)
class Compared:
    """All that the predictions of a ranking tell.

    Attributes:
        ranking: with the intervals of means that predictions give.
        ties: which of its methods tie.
    """

    ranking: Ranking
    ties: Ties


def compared(rankings: Sequence[Ranking], results: Path | None) -> list[Compared]:
    """The ties of each ranking, and intervals of means. Each file of predictions is read once.

    Args:
        rankings: of a report.
        results: folder of the runs; ``None`` when there is none.
    """
    reader = _Reader(rankings, results)
    found = []
    for ranking in rankings:
        found.append(Compared(_with_intervals(ranking, reader), _ties(ranking, reader)))
        reader.forget(ranking)
    return found


def _with_intervals(ranking: Ranking, reader: _Reader) -> Ranking:
    """The ranking with bootstrap intervals of the means of one seed, where predictions are there.

    Those of what has no predictions follow from the intervals of the sets.
    """
    from shiftbench.evaluation.scoring import interval_of_mean

    metrics = {name: ranking.metrics[name] for name in ranking.by if name in ranking.metrics}
    methods = []
    for method in ranking.methods:
        mean = method.scores.mean_ood
        if method.rank is not None and mean is not None and mean.interval == OF_SETS:
            (member,) = method.members
            try:
                tables = reader.read(member.run_id, member.variant, metrics)
                low, high = interval_of_mean(tables, metrics)
            except InputError:  # they are not there, or are classes only: the ties' note says so
                pass
            else:
                mean = replace(mean, low=low, high=high, interval=BOOTSTRAP)
        methods.append(replace(method, scores=replace(method.scores, mean_ood=mean)))
    return replace(ranking, methods=tuple(methods))


def _ties(ranking: Ranking, reader: _Reader) -> Ties:
    """Compare the ranked methods, best first, on what the ranking is by."""
    from shiftbench.evaluation.comparison import compare, decisions
    from shiftbench.evaluation.letters import groups, letters

    ranked = _compared(ranking)
    if len(ranked) < 2:
        return Ties({}, "There is nothing to compare with.", True)
    metrics = {name: ranking.metrics[name] for name in ranking.by}
    predictions: dict[str, Mapping[Seed, Predictions]] = {}
    missing = []
    for method in ranked:
        try:
            predictions[method.name] = {
                None if method.shared else member.seed: reader.read(
                    member.run_id, member.variant, metrics
                )
                for member in method.members
            }
        except InputError:
            missing.append(method.name)
    absent = ", ".join(missing)
    if len(predictions) < 2:
        there = f"Predictions are missing of {absent}."
        why = "There is no results folder." if reader.results is None else there
        return Ties({}, f"Ties are not known. {why}", False)
    try:
        differences = compare(predictions, metrics)
    except InputError as error:
        return Ties({}, f"Ties are not known: {error}.", False)
    names = list(predictions)
    differs = decisions(differences, names)
    of_methods = groups(differs)
    last = max(chain.from_iterable(of_methods))
    labels = {name: letters(own, last) for name, own in zip(names, of_methods, strict=True)}
    tests = ", ".join(sorted({difference.test for difference in differences}))
    note = (
        f"Methods that share a letter tie: their difference is within chance on the same examples "
        f"({tests}; {len(differences)} pairs, Holm's correction, 5 %)."
    )
    if missing:
        note += f" Not compared, since predictions are missing: {absent}."
    return Ties(labels, note, True)


def _compared(ranking: Ranking) -> list[RankedMethod]:
    return [method for method in ranking.methods if method.rank is not None]


class _Reader:
    """Predictions of runs, kept from a run's first ranking to its last."""

    def __init__(self, rankings: Sequence[Ranking], results: Path | None) -> None:
        self.results = results
        self.variants: dict[str, set[str]] = {}  # that are looked at
        self.last: dict[str, Ranking] = {}  # that looks at a run
        self.tables: dict[str, pa.Table | InputError] = {}
        for ranking in rankings:
            for method in _compared(ranking):
                for member in method.members:
                    self.variants.setdefault(member.run_id, set()).add(member.variant)
                    self.last[member.run_id] = ranking

    def read(self, run_id: str, variant: str, metrics: Mapping[str, str]) -> dict[str, pa.Table]:
        """Predictions of a run's variant by evaluation set: what the sets' metrics look at.

        Raises:
            InputError: some are not there, or cannot be read.
        """
        import pyarrow.compute as pc

        if run_id not in self.tables:
            try:
                self.tables[run_id] = self._table(run_id, metrics)
            except InputError as error:
                self.tables[run_id] = error
        table = self.tables[run_id]
        if isinstance(table, InputError):
            raise table
        of_variant = table.filter(pc.field("variant") == variant)
        found = {name: of_variant.filter(pc.field("set") == name) for name in metrics}
        for name, of_set in found.items():
            if not len(of_set):
                what = variant or "the weights"
                raise InputError(f"{run_id}: has no predictions of {what} on {name}")
        return found

    def forget(self, ranking: Ranking) -> None:
        """Let go of what no later ranking looks at."""
        for run_id in [run_id for run_id in self.tables if self.last[run_id] is ranking]:
            del self.tables[run_id]

    def _table(self, run_id: str, metrics: Mapping[str, str]) -> pa.Table:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from shiftbench.evaluation.metrics.registry import metric
        from shiftbench.evaluation.predictions import columns_for

        if self.results is None:
            raise InputError("no results folder")
        path = RunFolder.of(self.results, run_id).predictions
        variants = pc.field("variant").isin(sorted(self.variants[run_id]))
        wanted = variants & pc.field("set").isin(list(metrics))
        columns = ["set", "variant", *columns_for(metric(text) for text in metrics.values())]
        try:
            there = pq.read_schema(path).names
            columns = [name for name in columns if name in there]
            return pq.read_table(path, columns=columns, filters=wanted, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
