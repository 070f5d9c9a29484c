import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shiftbench.evaluation.frontier import area, gain_per_gpu_hour, pareto

GRID = st.integers(0, 8)
POINTS = st.lists(st.tuples(GRID, GRID), min_size=1, max_size=12)


def test_a_point_that_is_worse_in_both_is_off_the_frontier():
    points = [(0.7, 0.5), (0.8, 0.4), (0.75, 0.45), (0.7, 0.4), (0.6, 0.6), (0.8, 0.4)]
    assert pareto(points).tolist() == [True, True, True, False, True, True]


@given(POINTS)
def test_the_frontier_is_what_nothing_dominates(points):
    def dominated(p):
        return any(q != p and all(a >= b for a, b in zip(q, p, strict=True)) for q in points)

    assert pareto(points).tolist() == [not dominated(point) for point in points]


def test_points_must_be_numbers():
    with pytest.raises(ValueError, match="rows of numbers"):
        pareto([(0.5, float("nan"))])
    with pytest.raises(ValueError, match="rows of numbers"):
        pareto([0.5, 0.6])


@given(POINTS, st.tuples(GRID, GRID))
def test_the_area_counts_the_squares_that_are_dominated(points, reference):
    squares = sum(
        any(x >= i + 1 and y >= j + 1 for x, y in points)
        for i in range(reference[0], 8)
        for j in range(reference[1], 8)
    )
    ids, oods = np.array(points).T / 8
    found = area(ids, oods, (reference[0] / 8, reference[1] / 8))
    assert found == pytest.approx(squares / 64, abs=1e-12)


def test_the_area_of_a_curve():
    # From (0.6, 0.5): 0.1 wide up to 0.08, then 0.05 more up to 0.04; the last point loses OOD.
    ids, oods = [0.6, 0.7, 0.75, 0.8], [0.5, 0.58, 0.54, 0.45]
    assert area(ids, oods, (0.6, 0.5)) == pytest.approx(0.1 * 0.08 + 0.05 * 0.04)


def test_what_gains_in_one_accuracy_alone_has_no_area():
    assert area([0.9, 0.5], [0.5, 0.9], (0.5, 0.5)) == 0
    with pytest.raises(ValueError, match="equal length"):
        area([0.9], [0.5, 0.9], (0.5, 0.5))


def test_gain_per_hour():
    assert gain_per_gpu_hour(0.06, 3600) == pytest.approx(0.06)
    assert gain_per_gpu_hour(-0.01, 1800) == pytest.approx(-0.02)


def test_gain_per_hour_is_not_invented():
    assert gain_per_gpu_hour(0.06, None) is None
    assert gain_per_gpu_hour(0.0, 0.0) is None
    with pytest.raises(ValueError, match="negative"):
        gain_per_gpu_hour(0.06, -1)
