"""Words that all printers share: names of sets and methods, titles, explanations, durations."""

from __future__ import annotations

from collections.abc import Sequence

from shiftbench.core import words
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.leaderboard.schema import REAL, FailedRun
from shiftbench.report.corruptions import shown_shifts
from shiftbench.report.over_tasks import OverallRanking
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import ACCURACY, NONE, metric_title
from shiftbench.report.scores import MEAN
from shiftbench.report.tradeoffs import Tradeoff

SHORT = {
    ID_TEST: "ID",
    MEAN: "OOD",
    "imagenet-v2": "V2",
    "imagenet-r": "R",
    "imagenet-sketch": "Sketch",
    "objectnet": "ObjNet",
    "imagenet-a": "A",
    "cifar10.1": "10.1",
    "cifar10.2": "10.2",
    "iwildcam-ood": "iWildCam",
    "fmow-ood": "FMoW",
}
"""Headings of columns."""
MARK = "*"  # of a value from incomplete data
OTHERS = "others"  # heading of the column of what fine-tuning forgets
RESULTS = "results"  # heading of the column that says where runs are from
OUTSIDE = "†"  # of an effective robustness that is extrapolated
NOTE = (
    "Headline metric of each set, in percent unless it is a loss; mean over seeds ± standard "
    "deviation. OOD: mean over all shifts, which ranks. Cost: device time to train and to search, "
    f"parents included. {MARK} incomplete data or seeds. ood-val: settings found on OOD validation "
    "data. Oracle: chosen on the shifts themselves, so it never ranks."
)
TRADEOFFS = (
    "Frontier: no other method's selected variant or point of a curve has both a higher ID "
    "accuracy and a higher mean OOD (numbers are alphas). Area: what the method's curve dominates "
    "beyond zero-shot, in points². Gain: mean OOD over zero-shot in points, and per hour of device "
    "time, searches included. ρ: effective robustness in points, accuracy above that of standard "
    "ImageNet models of the same ID accuracy (arXiv 2007.00644); "
    f"{OUTSIDE} outside of the ID accuracies that their line was fitted on, so extrapolated."
)


def short(set_name: str) -> str:
    """The heading of an evaluation set's column."""
    return SHORT.get(set_name, set_name)


def title_of(ranking: Ranking | OverallRanking) -> str:
    """Task or tasks, backbone, shots and data of a ranking."""
    if isinstance(ranking, Ranking):
        return f"{ranking.task} · {_setting(ranking)}"
    return f"mean over {len(ranking.tasks)} tasks · {_setting(ranking)}"


def metrics_of(ranking: Ranking) -> str:
    """The title of each headline metric with the sets that it is of, and what OOD is over."""
    by_metric: dict[str, list[str]] = {}
    for name in (ID_TEST, *ranking.shifts):
        if name in ranking.metrics:
            by_metric.setdefault(metric_title(ranking.metrics[name]), []).append(name)
    parts = [f"{title}: {', '.join(sets)}" for title, sets in by_metric.items()]
    return "; ".join([*parts, *([of_mean] if (of_mean := ood_of(ranking)) else [])])


def ood_of(ranking: Ranking) -> str | None:
    """The shifts that the mean is over, and which of them no method was scored on."""
    shifts = ranking.shifts
    if not shifts:
        return None
    if len(shifts) == 1:
        text = f"OOD: {shifts[0]}"
    else:
        text = f"OOD: mean over all {len(shifts)} shifts ({', '.join(shifts)})"
    absent = [name for name in shifts if name not in ranking.metrics]
    return f"{text}; nothing here has {', '.join(absent)}" if absent else text


def tasks_of(ranking: OverallRanking) -> str:
    """The tasks that a ranking over tasks is of."""
    tasks = ", ".join(ranking.tasks)
    return f"Methods that rank in all of {tasks}; each task's own metrics count alike."


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    return NONE if seconds is None else words.duration(seconds)


def shots_text(shots: int | None) -> str:
    """Training images per class; ``all`` for ``None``."""
    return "all" if shots is None else str(shots)


def failure_text(failure: FailedRun) -> str:
    """A run that failed, with the reason."""
    shots = "" if failure.shots is None else f" · {failure.shots} shots"
    run = f"{failure.task} · {failure.backbone} · {failure.label}{shots} · seed {failure.seed}"
    return f"{run} ({failure.run_id}): {failure.reason}"


def set_metric(ranking: Ranking, set_name: str) -> str:
    """The title of a set's headline metric; ``mean`` for the mean over shifts."""
    return metric_title(ranking.metrics[set_name]) if set_name in ranking.metrics else "mean"


def several_shifts(ranking: Ranking) -> tuple[str, ...]:
    """The shifts that have columns of their own: a single one is the mean already."""
    return shown_shifts(ranking) if len(ranking.shifts) > 1 else ()


def missing_text(missing: Sequence[str]) -> str | None:
    """Why a mean over shifts is partial; ``None`` when nothing is missing."""
    return f"missing or incomplete: {', '.join(missing)}" if missing else None


def partial_text(method: RankedMethod, set_name: str) -> str:
    """What stands where a method has no score."""
    return "partial" if set_name == MEAN and method.scores.missing else NONE


def tradeoff_header(found: Sequence[Tradeoff]) -> tuple[list[str], list[str]]:
    """The header of the table of trade-offs, and the shifts that have effective robustness."""
    shifts = list(dict.fromkeys(shift for tradeoff in found for shift in tradeoff.rho))
    header = ["method", "on the frontier", "area", "gain", "gain per hour"]
    return header + [f"ρ {short(shift)}" for shift in shifts], shifts


def tradeoff_cells(tradeoff: Tradeoff, shifts: Sequence[str]) -> list[str]:
    """A row of the table of trade-offs, after its method's name.

    Args:
        tradeoff: of the method.
        shifts: that effective robustness is shown for.
    """
    per_hour = tradeoff.gain_per_hour
    return [
        ", ".join(tradeoff.frontier) or NONE,
        NONE if tradeoff.area is None else f"{1e4 * tradeoff.area:.1f}",
        ACCURACY.difference(tradeoff.gain),
        NONE if per_hour is None else f"{100 * per_hour:+,.0f}",
        *(
            ACCURACY.difference(tradeoff.rho.get(shift))
            + (OUTSIDE if shift in tradeoff.outside and shift in tradeoff.rho else "")
            for shift in shifts
        ),
    ]


def _setting(ranking: Ranking | OverallRanking) -> str:
    shots = "all training data" if ranking.shots is None else f"{ranking.shots} shots"
    data = "" if ranking.data_kind == REAL else f" · {ranking.data_kind} data"
    images = "" if ranking.images is None else f" · at most {ranking.images} images a set"
    return f"{ranking.backbone} · {shots}{data}{images}"
