"""Which methods of a ranking tie, from the predictions that their runs kept."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.core.locations import cache_dir
from shiftbench.core.provenance import package_versions
from shiftbench.core.source_digest import own_code
from shiftbench.core.stamps import COARSE_S
from shiftbench.evaluation.metrics.registry import plugin_origins
from shiftbench.leaderboard.merging import Folders
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scores import BOOTSTRAP, OF_SETS

if TYPE_CHECKING:
    from shiftbench.evaluation.comparison import Predictions, Seed

_log = logging.getLogger(__name__)


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


def compared(rankings: Sequence[Ranking], results: Path | Folders | None) -> list[Compared]:
    """The ties of each ranking, and intervals of means. Each file of predictions is read once.

    What was found before on the same files is remembered in the cache's folder.

    Args:
        rankings: of a report.
        results: folder of the runs, or several; ``None`` when there is none.
    """
    reader = _Reader(rankings, Folders.of(results))
    found = []
    for ranking in rankings:
        known = _remembered(ranking, reader)
        found.append(Compared(_with_intervals(ranking, known.intervals), known.ties))
        reader.forget(ranking)
    return found


@dataclass(frozen=True)
class _Found:
    """What predictions tell of a ranking.

    Attributes:
        intervals: low and high ends of the means of one seed, by the name of the method.
        ties: which methods tie.
    """

    intervals: Mapping[str, Sequence[float]]
    ties: Ties


def _remembered(ranking: Ranking, reader: _Reader) -> _Found:
    """What is found of a ranking, or was found before on these predictions by this code."""
    key = _key(ranking, reader.folders)
    file = cache_dir() / "ties" / f"{key}.json"
    if key is not None:
        try:
            content = json.loads(file.read_text())
            return _Found(content["intervals"], Ties(**content["ties"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.info("comparing again: %s cannot be read: %s", file, error)
    found = _Found(_intervals(ranking, reader), _ties(ranking, reader))
    if key is not None:
        try:
            with written_atomically(file) as temporary:
                temporary.write_text(json.dumps(asdict(found)))
        except OSError as error:  # the next report compares again, which costs time only
            _log.info("%s: cannot be written: %s", file, error)
    return found


def _key(ranking: Ranking, folders: Folders) -> str | None:
    """A digest of all that decides what is found.

    ``None`` where a file is so new that its time may not show that it is written again.
    """
    if not folders.results:
        return None
    now, methods = time.time_ns(), []
    for method in _compared(ranking):
        mean, files = method.scores.mean_ood, []
        for member in method.members:
            folder = folders.run(member.run_id)
            path = None if folder is None else folder.predictions.absolute()
            try:
                stat = None if path is None else path.stat()
            except OSError:
                stat = None
            if stat is None:
                stamp = None
            else:
                if now - stat.st_mtime_ns < COARSE_S * 1e9:
                    return None
                stamp = (stat.st_size, stat.st_mtime_ns)
            files.append([str(path), member.variant, member.seed, stamp])
        methods.append([method.name, method.shared, mean and mean.interval, files])
    metrics = {name: ranking.metrics[name] for name in ranking.by if name in ranking.metrics}
    code = [own_code(), package_versions(), plugin_origins(metrics.values())]
    parts = [code, metrics, methods]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _with_intervals(ranking: Ranking, intervals: Mapping[str, Sequence[float]]) -> Ranking:
    """The ranking with these intervals of means."""
    methods = []
    for method in ranking.methods:
        mean = method.scores.mean_ood
        if mean is not None and method.name in intervals:
            low, high = intervals[method.name]
            mean = replace(mean, low=low, high=high, interval=BOOTSTRAP)
        methods.append(replace(method, scores=replace(method.scores, mean_ood=mean)))
    return replace(ranking, methods=tuple(methods))


def _intervals(ranking: Ranking, reader: _Reader) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of the means of one seed, where predictions are there.

    Those of what has no predictions follow from the intervals of the sets.
    """
    from shiftbench.evaluation.scoring import interval_of_mean

    metrics = {name: ranking.metrics[name] for name in ranking.by if name in ranking.metrics}
    found = {}
    for method in _compared(ranking):
        mean = method.scores.mean_ood
        if mean is not None and mean.interval == OF_SETS:
            (member,) = method.members
            try:
                tables = reader.read(member.run_id, member.variant, metrics)
                found[method.name] = interval_of_mean(tables, metrics)
            except InputError:  # they are not there, or are classes only: the ties' note says so
                pass
    return found


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
        why = there if reader.folders.results else "There is no results folder."
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

    def __init__(self, rankings: Sequence[Ranking], folders: Folders) -> None:
        self.folders = folders
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

        folder = self.folders.run(run_id)
        if folder is None:
            raise InputError("no results folder")
        path = folder.predictions
        variants = pc.field("variant").isin(sorted(self.variants[run_id]))
        wanted = variants & pc.field("set").isin(list(metrics))
        columns = ["set", "variant", *columns_for(metric(text) for text in metrics.values())]
        try:
            there = pq.read_schema(path).names
            columns = [name for name in columns if name in there]
            return pq.read_table(path, columns=columns, filters=wanted, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
