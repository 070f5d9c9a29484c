"""Effective robustness: accuracy under shift beyond what accuracy in distribution foretells.

Models that were trained on ImageNet alone lie near a line when both accuracies are on a logit
scale. How far above it a model lies is its effective robustness ρ (Taori et al., 2020, arXiv
2007.00644, §3; WiSE-FT, arXiv 2109.01903, §2).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.evaluation.intervals import LEVEL, RESAMPLES, SEED, Floats

ID = "id-test"  # all of ImageNet's validation set
IMAGENET_A = "imagenet-a"

# ImageNet-R, ImageNet-A and ObjectNet have only some of the 1,000 classes, so accuracy on them is
# compared with that on ImageNet's images and logits of these classes.
AXES: Mapping[str, str] = MappingProxyType(
    {
        "imagenet-v2": ID,
        "imagenet-sketch": ID,
        "imagenet-r": f"{ID}-on-imagenet-r-classes",
        "objectnet": f"{ID}-on-objectnet-classes",
        IMAGENET_A: f"{ID}-on-imagenet-a-classes",
    }
)

COLLECTION = "imagenet-testbed"
STANDARD = "standard"
NOT_STANDARD = ("subsample", "aws", "batch64")  # in names: other trainings of a model that is there
# ImageNet-A holds only what this model got wrong: it is where the two pieces of the line meet, and
# its own accuracy there says nothing.
KNOT = "resnet50"
LEAST_ID = 0.55  # accuracy below which models leave the line
LEAST_ID_ON_200_CLASSES = 0.75


@dataclass(frozen=True)
class Line:
    """logit(OOD) = ``slope`` · logit(ID) + ``intercept``.

    Attributes:
        slope: per unit of logit(ID).
        intercept: in logits.
        r2: share of the variance of logit(OOD) that it explains.
        models: how many it was fitted on.
    """

    slope: float
    intercept: float
    r2: float
    models: int


@dataclass(frozen=True, eq=False)
class Baseline:
    """β: the accuracy under a shift to expect of a standard model.

    Attributes:
        axis: the evaluation set that gives its ID accuracy.
        ids: (models,) ID accuracies in (0, 1) that it was fitted on.
        oods: (models,) their accuracies under the shift.
        knot: ID accuracy in (0, 1) where the second line takes over; ``None`` for one line.
        lines: one, or two: below the knot, and from it on.
    """

    axis: str
    ids: Floats
    oods: Floats
    knot: float | None
    lines: tuple[Line, ...]

    def __call__(self, ids: npt.ArrayLike) -> Floats:
        """Expected OOD accuracy in [0, 1], of the shape of ``ids`` in [0, 1]."""
        from scipy.special import expit, logit

        x = np.asarray(ids, dtype=np.float64)
        piece = _piece(x, self.knot)
        slope = np.array([line.slope for line in self.lines])[piece]
        intercept = np.array([line.intercept for line in self.lines])[piece]
        expected: Floats = expit(slope * logit(x) + intercept)
        return expected

    def covers(self, id_accuracy: float) -> bool:
        """True inside the range of ID accuracies that it was fitted on; outside, ρ is a guess."""
        return bool(self.ids.min() <= id_accuracy <= self.ids.max())

    def rho(self, ids: npt.ArrayLike, oods: npt.ArrayLike) -> Floats:
        """Effective robustness: OOD accuracy less what ID accuracy foretells, in (-1, 1)."""
        return np.asarray(oods, dtype=np.float64) - self(ids)


def fit(
    ids: npt.ArrayLike, oods: npt.ArrayLike, axis: str = ID, knot: float | None = None
) -> Baseline:
    """Fit β by least squares in logits.

    Args:
        ids: (models,) ID accuracies in (0, 1).
        oods: (models,) OOD accuracies in (0, 1).
        axis: the evaluation set that gives the ID accuracies.
        knot: ID accuracy that parts two lines, fitted apart.

    Raises:
        ValueError: accuracies that have no logit, or fewer than three models to a line.
    """
    from scipy.special import logit

    x, y = np.asarray(ids, dtype=np.float64), np.asarray(oods, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"accuracies must be two rows of equal length: {x.shape}, {y.shape}")
    if not np.all((x > 0) & (x < 1) & (y > 0) & (y < 1)):
        raise ValueError("accuracies must be between 0 and 1, and neither of them")
    piece = _piece(x, knot)
    lines = []
    for number in range(1 if knot is None else 2):
        here = piece == number
        if len(np.unique(x[here])) < 3:
            raise ValueError("a line needs three models of different accuracy")
        slope, intercept, r2 = _least_squares(logit(x), logit(y), here[None].astype(float))
        lines.append(Line(float(slope[0]), float(intercept[0]), float(r2[0]), int(here.sum())))
    return Baseline(axis, x, y, knot, tuple(lines))


def band(
    baseline: Baseline, at: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[Floats, Floats]:
    """95 % band of β from fits to resampled models (percentile bootstrap).

    It says how well the line is known, not how far models scatter about it.

    Args:
        baseline: of ``fit``.
        at: (points,) ID accuracies in (0, 1).
        resamples: how many fits.
        seed: of the resampling.

    Returns:
        low and high, (points,) OOD accuracies.
    """
    from scipy.special import expit, logit

    points = np.asarray(at, dtype=np.float64)
    n = len(baseline.ids)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    piece, piece_of_point = _piece(baseline.ids, baseline.knot), _piece(points, baseline.knot)
    expected = np.empty((resamples, len(points)))
    for number in range(len(baseline.lines)):
        slope, intercept, _ = _least_squares(
            logit(baseline.ids), logit(baseline.oods), weights * (piece == number)
        )
        here = piece_of_point == number
        expected[:, here] = slope[:, None] * logit(points[here]) + intercept[:, None]
    # A resample whose models are all one has no line.
    low, high = np.nanquantile(expit(expected), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def standard_models(table: pa.Table) -> dict[str, dict[str, float]]:
    """Accuracies by evaluation set of the testbed's models trained on ImageNet alone.

    Args:
        table: published results, of which this looks at the columns ``collection``, ``backbone``
            (the model), ``method`` (the testbed's type of model), ``evaluation_set``, ``metric``
            and ``value`` in [0, 1].

    Raises:
        InputError: a model has two values on a set.
    """
    models: dict[str, dict[str, float]] = {}
    columns = ["collection", "method", "metric", "backbone", "evaluation_set", "value"]
    for row in table.select(columns).to_pylist():
        kind = row["collection"], row["method"], row["metric"]
        model, name, value = row["backbone"], row["evaluation_set"], row["value"]
        if kind != (COLLECTION, STANDARD, "accuracy") or any(p in model for p in NOT_STANDARD):
            continue
        if models.setdefault(model, {}).setdefault(name, value) != value:
            raise InputError(f"{model} has two values on {name}")
    return models


def baselines(
    models: Mapping[str, Mapping[str, float]], axes: Mapping[str, str] = AXES
) -> dict[str, Baseline]:
    """β of each shift.

    ImageNet-A gets two lines that meet at ``KNOT``; that model is left out of every fit, and so is
    what is too inaccurate to lie on a line.

    Args:
        models: of ``standard_models``.
        axes: the evaluation set that gives the ID accuracy, by shift.

    Raises:
        InputError: the model at the knot is missing.
    """
    found = {}
    for shift, axis in axes.items():
        knot = None
        if shift == IMAGENET_A:
            if axis not in models.get(KNOT, {}):
                raise InputError(f'the fit for {shift} needs the accuracy of "{KNOT}" on {axis}')
            knot = models[KNOT][axis]
        few_classes = axis != ID and shift != "objectnet"
        least = LEAST_ID_ON_200_CLASSES if few_classes else LEAST_ID
        pairs = [
            (cells[axis], cells[shift])
            for name, cells in models.items()
            if name != KNOT and axis in cells and shift in cells and cells[axis] >= least
        ]
        ids, oods = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        found[shift] = fit(ids, oods, axis, knot)
    return found


@dataclass(frozen=True)
class Cell:
    """The accuracy of a model on an evaluation set.

    Attributes:
        model: what stands for one set of weights, such as a method and its variant.
        evaluation_set: its name.
        value: in [0, 1].
    """

    model: Hashable
    evaluation_set: str
    value: float


def effective_robustness(
    cells: Sequence[Cell], shifts: Mapping[str, Baseline]
) -> list[float | None]:
    """ρ of every cell; ``None`` where the set has no β, or the model no accuracy on its axis.

    Accuracy on all 1,000 classes does not stand in for that on the classes of the shift.

    Args:
        cells: of any models and sets.
        shifts: β by evaluation set.
    """
    known = {(cell.model, cell.evaluation_set): cell.value for cell in cells}
    found: list[float | None] = []
    for cell in cells:
        baseline = shifts.get(cell.evaluation_set)
        reference = None if baseline is None else known.get((cell.model, baseline.axis))
        if baseline is None or reference is None:
            found.append(None)
        else:
            found.append(float(baseline.rho(reference, cell.value)))
    return found


def _piece(ids: Floats, knot: float | None) -> npt.NDArray[np.intp]:
    """Which line each ID accuracy is on."""
    return np.zeros(ids.shape, np.intp) if knot is None else (ids >= knot).astype(np.intp)


def _least_squares(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Slope, intercept and R² (fits,) of weighted lines; NaN where the points have no line.

    Args:
        x: (n,).
        y: (n,).
        weights: (fits, n) ≥ 0.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = weights @ x / total, weights @ y / total
        # Taken about the means of all points, the sums lose no digits to cancellation.
        u, v = x - x.mean(), y - y.mean()
        mean_u, mean_v = mean_x - x.mean(), mean_y - y.mean()
        var_x = weights @ (u * u) / total - mean_u**2
        var_y = weights @ (v * v) / total - mean_v**2
        cov = weights @ (u * v) / total - mean_u * mean_v
        slope = np.where(var_x > 1e-12, cov / var_x, np.nan)
        return slope, mean_y - slope * mean_x, cov**2 / (var_x * var_y)
