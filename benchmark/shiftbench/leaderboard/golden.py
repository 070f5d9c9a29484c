"""Golden rows: zero-shot results that must be as in open_clip's own table.

Nothing is trained for them, so a fault means other data, preprocessing, prompts or weights than
everybody's. They are checked while a suite runs, before GPU days are spent, and in every report.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.published.schema import published_rows
from shiftbench.leaderboard.schema import REAL, Row

TOLERANCE = 0.01
COLLECTION = "openclip-zero-shot"
GOLDEN_SETS = (
    *(("imagenet", name) for name in (ID_TEST, "imagenet-v2", "imagenet-r")),
    *(("imagenet", name) for name in ("imagenet-sketch", "imagenet-a")),
    ("iwildcam", "iwildcam-ood"),
)
"""Tasks and sets for which open_clip's zero-shot table has our images, names, templates and metric.

ObjectNet is not among them because of its class names there, nor CIFAR-10 because of its templates,
nor FMoW because of its metric.
"""
WHOLE_SETS = {
    ("imagenet", ID_TEST): 50_000,
    ("imagenet", "imagenet-v2"): 10_000,
    ("imagenet", "imagenet-r"): 30_000,
    ("imagenet", "imagenet-sketch"): 50_889,
    ("imagenet", "objectnet"): 18_574,
    ("imagenet", "imagenet-a"): 7_500,
    ("cifar10", ID_TEST): 10_000,
    ("cifar10", "cifar10.1"): 2_000,
    ("cifar10", "cifar10.2"): 2_000,
    ("iwildcam", ID_TEST): 8_154,
    ("iwildcam", "iwildcam-ood"): 42_791,
    ("fmow", "fmow-ood"): 22_108,
}
"""Images of the whole evaluation set, by task and set, where that is documented."""


def golden_faults(
    rows: Iterable[Row], published: pa.Table | None = None, tolerance: float = TOLERANCE
) -> list[str]:
    """The zero-shot results that are not as in open_clip's own table, a line for each.

    Only whole sets of ``GOLDEN_SETS`` are checked; an empty list is also what rows without any of
    them give. Where rows cannot be checked, since the published results are not there, the one line
    says so.

    Args:
        rows: of the leaderboard.
        published: as ``read_published`` gives it, which is also the default.
        tolerance: largest difference in [0, 1] that is no fault.
    """
    golden = [row for row in rows if _is_golden(row)]
    if not golden:
        return []
    if published is None:
        try:
            published = read_published()
        except InputError as error:
            return [f"not checked: {error}"]
    expected = {
        (row.task, row.backbone, row.evaluation_set, row.metric): row.value
        for row in published_rows(published)
        if row.collection == COLLECTION
    }
    faults: dict[str, None] = {}
    for row in golden:
        value = expected.get((row.task, row.backbone, row.evaluation_set, row.metric))
        if value is None or abs(row.value - value) <= tolerance:
            continue
        faults.setdefault(
            f"zero-shot {row.backbone} on {row.evaluation_set}: {100 * row.value:.2f} %, "
            f"but {100 * value:.2f} % in open_clip's table "
            f"(tolerance {100 * tolerance:.1f} points)"
        )
    return list(faults)


def _is_golden(row: Row) -> bool:
    """True for a zero-shot result on a whole set that open_clip's table has too."""
    place = row.task, row.evaluation_set
    return (
        row.data_kind == REAL
        and row.reference
        and row.primary
        and row.complete
        and place in GOLDEN_SETS
        and row.n == WHOLE_SETS.get(place)
    )
