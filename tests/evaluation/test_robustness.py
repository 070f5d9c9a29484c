from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, logit
from shiftbench.core.errors import InputError
from shiftbench.evaluation.robustness import (
    AXES,
    ID,
    KNOT,
    Cell,
    band,
    baselines,
    effective_robustness,
    fit,
    standard_models,
)

TESTBED = Path(__file__).parents[2] / "results" / "published" / "imagenet-testbed.parquet"


def models_on_a_line(n, slope, intercept, noise=0.0, seed=0, span=(0.6, 0.85)):
    rng = np.random.default_rng(seed)
    ids = rng.uniform(*span, size=n)
    return ids, expit(slope * logit(ids) + intercept + noise * rng.normal(size=n))


def table(*rows, metric="accuracy", collection="imagenet-testbed"):
    names = ("backbone", "method", "evaluation_set", "value")
    shared = {"metric": metric, "collection": collection}
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) | shared for row in rows])


def test_the_line_of_models_that_lie_on_one_is_found():
    ids, oods = models_on_a_line(30, 1.2, -0.7)
    baseline = fit(ids, oods)
    (line,) = baseline.lines
    assert (line.slope, line.intercept, line.r2) == pytest.approx((1.2, -0.7, 1.0))
    assert line.models == 30
    assert baseline(ids) == pytest.approx(oods)
    assert baseline.rho(0.7, 0.6) == pytest.approx(0.6 - expit(1.2 * logit(0.7) - 0.7))
    assert baseline([0.0, 1.0]).tolist() == [0.0, 1.0]


def test_the_line_is_that_of_least_squares_in_logits():
    ids, oods = models_on_a_line(40, 0.9, -1.5, noise=0.3)
    (line,) = fit(ids, oods).lines
    slope, intercept = np.polyfit(logit(ids), logit(oods), 1)
    r2 = np.corrcoef(logit(ids), logit(oods))[0, 1] ** 2
    assert (line.slope, line.intercept, line.r2) == pytest.approx((slope, intercept, r2))


def test_two_lines_are_fitted_apart():
    low = models_on_a_line(20, 0.7, -5.0, span=(0.6, 0.9))
    high = models_on_a_line(20, 3.0, -10.0, span=(0.92, 0.99))
    baseline = fit(*np.concatenate([low, high], axis=1), knot=0.91)
    assert [line.models for line in baseline.lines] == [20, 20]
    assert [line.slope for line in baseline.lines] == pytest.approx([0.7, 3.0])
    assert baseline(0.8) == pytest.approx(expit(0.7 * logit(0.8) - 5))
    assert baseline([0.91, 0.95]) == pytest.approx(expit(3 * logit([0.91, 0.95]) - 10))


@pytest.mark.parametrize(
    ("ids", "oods", "message"),
    [
        ([0.6, 0.7, 1.0], [0.1, 0.2, 0.3], "neither"),
        ([0.6, 0.7, 0.8], [0.0, 0.2, 0.3], "neither"),
        ([60, 70, 80], [10, 20, 30], "between 0 and 1"),
        ([0.6, 0.7], [0.1, 0.2], "three models"),
        ([0.6, 0.6, 0.6], [0.1, 0.2, 0.3], "three models"),
        ([0.6, 0.7, 0.8], [0.1, 0.2], "equal length"),
    ],
)
def test_what_has_no_line_is_refused(ids, oods, message):
    with pytest.raises(ValueError, match=message):
        fit(ids, oods)


def test_the_band_is_that_of_refits_to_resampled_models():
    ids, oods = models_on_a_line(40, 1.0, -1.0, noise=0.2)
    at = np.array([0.6, 0.7, 0.85])
    low, high = band(fit(ids, oods), at, resamples=4000)
    rng = np.random.default_rng(5)
    slow = []
    for _ in range(4000):
        drawn = rng.integers(0, 40, size=40)
        slow.append(
            expit(np.polyval(np.polyfit(logit(ids[drawn]), logit(oods[drawn]), 1), logit(at)))
        )
    slow_low, slow_high = np.quantile(slow, [0.025, 0.975], axis=0)
    # Both are random: the standard error of their difference is 0.001.
    assert low == pytest.approx(slow_low, abs=0.005)
    assert high == pytest.approx(slow_high, abs=0.005)
    assert (low < high).all()


def test_the_band_covers_the_line():
    # 200 sets of 40 models, 95 % nominal; three standard errors of a simulated share are 4.6 %.
    covered = []
    for seed in range(200):
        low, high = band(fit(*models_on_a_line(40, 1.1, -0.9, 0.2, seed)), [0.7], resamples=400)
        covered.append(low[0] <= expit(1.1 * logit(0.7) - 0.9) <= high[0])
    assert 0.90 <= np.mean(covered) <= 0.99


def test_each_piece_has_its_own_band():
    low = models_on_a_line(20, 0.7, -5.0, noise=0.1, span=(0.6, 0.9))
    high = models_on_a_line(20, 3.0, -10.0, span=(0.92, 0.99))
    below, above = band(fit(*np.concatenate([low, high], axis=1), knot=0.91), [0.8, 0.95])
    assert below[0] < expit(0.7 * logit(0.8) - 5) < above[0]
    assert above[1] - below[1] < 1e-9


def test_standard_models_are_those_trained_on_imagenet_alone():
    found = standard_models(
        pa.concat_tables(
            [
                table(
                    ("resnet50", "standard", ID, 0.76),
                    ("resnet50", "standard", "imagenet-v2", 0.63),
                    ("resnet50_aws_baseline", "standard", ID, 0.75),
                    ("clip", "more-data", ID, 0.70),
                    ("blurred", "", ID, 0.70),
                ),
                table(("resnet50", "standard", "ytbb-robust", 0.5), metric="pm10-accuracy"),
                table(("resnet50", "standard", "imagenet-r", 0.5), collection="papers"),
            ]
        )
    )
    assert found == {"resnet50": {ID: 0.76, "imagenet-v2": 0.63}}


def test_a_model_with_two_values_is_refused():
    with pytest.raises(InputError, match=r"^a has two values on id-test$"):
        standard_models(table(("a", "standard", ID, 0.7), ("a", "standard", ID, 0.71)))


def test_the_knot_and_poor_models_are_left_out():
    ids, oods = models_on_a_line(10, 1.0, -0.5)
    models = {
        f"m{i}": {ID: x, "imagenet-v2": y} for i, (x, y) in enumerate(zip(ids, oods, strict=True))
    }
    models |= {"poor": {ID: 0.5, "imagenet-v2": 0.9}, KNOT: {ID: 0.76, "imagenet-v2": 0.01}}
    models |= {"elsewhere": {ID: 0.8}}
    found = baselines(models, {"imagenet-v2": ID})
    assert found["imagenet-v2"].lines[0].models == 10
    assert found["imagenet-v2"].lines[0].slope == pytest.approx(1.0)


def test_imagenet_a_needs_its_knot():
    with pytest.raises(InputError, match="resnet50"):
        baselines({"a": {ID: 0.8, "imagenet-a": 0.1}}, {"imagenet-a": ID})


def test_rho_of_every_cell():
    ids, oods = models_on_a_line(10, 1.0, -0.5)
    plain, subset = fit(ids, oods), fit(ids, oods, axis="id-test-on-imagenet-r-classes")
    cells = [
        Cell(("wise-ft", "alpha=0.5"), ID, 0.8),
        Cell(("wise-ft", "alpha=0.5"), "imagenet-v2", 0.75),
        Cell(("wise-ft", "alpha=0.5"), "imagenet-r", 0.7),
        Cell(("zero-shot", ""), "imagenet-v2", 0.6),
        Cell(("wise-ft", "alpha=0.5"), "other", 0.7),
    ]
    shifts = {"imagenet-v2": plain, "imagenet-r": subset}
    rho = effective_robustness(cells, shifts)
    assert rho[1] == pytest.approx(0.75 - expit(logit(0.8) - 0.5))
    # No β for ID itself, no accuracy on the classes of ImageNet-R, none at all, no β of that set.
    assert [rho[0], *rho[2:]] == [None, None, None, None]

    cells.append(Cell(("wise-ft", "alpha=0.5"), "id-test-on-imagenet-r-classes", 0.9))
    rho = effective_robustness(cells, shifts)
    assert rho[2] == pytest.approx(0.7 - expit(logit(0.9) - 0.5))


needs_testbed = pytest.mark.skipif(not TESTBED.is_file(), reason="the testbed is not here")


@needs_testbed
@pytest.mark.parametrize(
    ("shift", "axis", "lines"),
    [
        ("imagenet-v2", ID, [(84, 0.9232, -0.4973, 0.996)]),
        ("imagenet-sketch", ID, [(84, 1.0709, -2.3698, 0.869)]),
        ("imagenet-r", ID, [(79, 0.9115, -1.5995, 0.877)]),
        ("imagenet-r", AXES["imagenet-r"], [(79, 0.6368, -2.1072, 0.890)]),
        ("objectnet", ID, [(84, 1.1993, -2.0249, 0.941)]),
        ("objectnet", AXES["objectnet"], [(84, 0.9810, -1.9290, 0.953)]),
        ("imagenet-a", ID, [(33, 0.9516, -4.5977, 0.39), (51, 5.3997, -9.4381, 0.90)]),
        (
            "imagenet-a",
            AXES["imagenet-a"],
            [(33, 0.6894, -5.1400, 0.41), (51, 2.9560, -10.2774, 0.91)],
        ),
    ],
)
def test_the_lines_of_the_imagenet_testbed(shift, axis, lines):
    """Another fit to the same models, with NumPy's polyfit, gave these, rounded."""
    found = baselines(standard_models(pq.read_table(TESTBED)), {shift: axis})[shift]
    assert [line.models for line in found.lines] == [models for models, *_ in lines]
    for line, (_, slope, intercept, r2) in zip(found.lines, lines, strict=True):
        assert (line.slope, line.intercept) == pytest.approx((slope, intercept), abs=5.1e-5)
        assert line.r2 == pytest.approx(r2, abs=0.0051)


@needs_testbed
def test_standard_models_of_the_testbed_have_no_effective_robustness_on_average():
    found = baselines(standard_models(pq.read_table(TESTBED)))
    assert set(found) == set(AXES)
    for baseline in found.values():
        assert abs(baseline.rho(baseline.ids, baseline.oods).mean()) < 0.01
