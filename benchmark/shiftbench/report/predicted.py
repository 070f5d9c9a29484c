"""All that predictions tell of rankings, which is remembered: ties, intervals, calibration."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shiftbench.core.errors import InputError
from shiftbench.core.provenance import package_versions
from shiftbench.core.remembering import place_of, recalled, remember
from shiftbench.core.source_digest import own_code
from shiftbench.core.stamps import COARSE_S
from shiftbench.evaluation.metrics.registry import plugin_origins
from shiftbench.leaderboard.merging import Folders
from shiftbench.report.measures import Measures, Values, measured_metrics, measures, values
from shiftbench.report.ranking import Ranking
from shiftbench.report.reading import Reader, ranked_methods
from shiftbench.report.scores import BOOTSTRAP, OF_SETS
from shiftbench.report.ties import Ties, ties


@dataclass(frozen=True)
class Compared:
    """All that the predictions of a ranking tell.

    Attributes:
        ranking: with the intervals of means that predictions give.
        ties: which of its methods tie.
        measures: calibration and selective classification of its methods.
    """

    ranking: Ranking
    ties: Ties
    measures: Measures


def compared(rankings: Sequence[Ranking], results: Path | Folders | None) -> list[Compared]:
    """What predictions tell of each ranking. Each file of predictions is read once.

    What was found before on the same files is remembered in the cache's folder.

    Args:
        rankings: of a report.
        results: folder of the runs, or several; ``None`` when there is none.
    """
    reader = Reader(rankings, Folders.of(results), measured_metrics())
    found = []
    for ranking in rankings:
        known = _remembered(ranking, reader)
        found.append(
            Compared(
                _with_intervals(ranking, known.intervals),
                known.ties,
                measures(ranking, known.measured),
            )
        )
        reader.forget(ranking)
    return found


@dataclass(frozen=True)
class _Found:
    """What predictions tell of a ranking.

    Attributes:
        intervals: low and high ends of the means that no seed changes, by the name of the method.
        ties: which methods tie.
        measured: numbers of the methods' runs.
    """

    intervals: Mapping[str, Sequence[float]]
    ties: Ties
    measured: Values

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> _Found:
        """What ``asdict`` gave."""
        return cls(content["intervals"], Ties(**content["ties"]), content["measured"])


def _remembered(ranking: Ranking, reader: Reader) -> _Found:
    """What is found of a ranking, or was found before on these predictions by this code."""
    parts = _parts(ranking, reader.folders)
    place = None if parts is None else place_of("ties", parts)
    if place is not None and (known := recalled(place, _Found.from_json)) is not None:
        return known
    found = _Found(_intervals(ranking, reader), ties(ranking, reader), values(ranking, reader))
    if place is not None:
        remember(place, asdict(found))
    return found


def _parts(ranking: Ranking, folders: Folders) -> list[Any] | None:
    """All that decides what is found.

    ``None`` where a file is so new that its time may not show that it is written again.
    """
    if not folders.results:
        return None
    now, methods = time.time_ns(), []
    for method in ranked_methods(ranking):
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
    code = [own_code(), package_versions(), plugin_origins(ranking.metrics.values())]
    return [code, {**ranking.metrics}, ranking.by, methods]


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


def _intervals(ranking: Ranking, reader: Reader) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of the means that no seed changes, where predictions are there.

    Those of what has no predictions follow from the intervals of the sets.
    """
    from shiftbench.evaluation.scoring import interval_of_mean

    metrics = {name: ranking.metrics[name] for name in ranking.by if name in ranking.metrics}
    found = {}
    for method in ranked_methods(ranking):
        mean = method.scores.mean_ood
        if mean is not None and mean.interval == OF_SETS:
            member = method.members[0]
            try:
                tables = reader.read(member.run_id, member.variant, ranking, [*metrics])
                found[method.name] = interval_of_mean(tables, metrics)
            except InputError:  # they are not there, or are classes only: the ties' note says so
                pass
    return found
