import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2
from shiftbench.evaluation.pair_tests import EXACT_UP_TO, bootstrap_p, holm, mcnemar

# McNemar


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 5), (3, 9), (9, 3), (12, 13), (0, 25)])
def test_mcnemar_of_few_pairs_is_the_binomial_test(b, c):
    assert float(mcnemar(b, c)) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-12)


@pytest.mark.parametrize(("b", "c"), [(8, 18), (13, 13), (0, 30), (100, 140), (2000, 2200)])
def test_mcnemar_of_many_pairs_is_mid_p(b, c):
    at = binomtest(b, b + c, alternative="less" if b <= c else "greater").pvalue
    beyond = binomtest(b - 1, b + c).pvalue / 2 if b else 0.0
    if b > c:
        beyond = binomtest(b + 1, b + c).pvalue / 2
    # Twice the tail with half the outcome: the tail with it, and the tail without.
    expected = 1.0 if b == c else at + beyond
    assert float(mcnemar(b, c)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_very_many_pairs_is_the_chi_square_test():
    p = float(mcnemar(5200, 4900))
    assert p == pytest.approx(chi2.sf((5200 - 4900) ** 2 / 10100, 1), rel=1e-3)


def test_mcnemar_without_discordant_pairs_and_of_arrays():
    p = mcnemar([0, 3, 3], [0, 9, 3])
    assert p.tolist() == pytest.approx([1.0, binomtest(3, 12).pvalue, 1.0])
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_does_not_ask_who_is_first(b, c):
    p = float(mcnemar(b, c))
    assert p == float(mcnemar(c, b))
    assert 0 <= p <= 1


@pytest.mark.parametrize("discordant", [20, 60, 500])
def test_mcnemar_keeps_its_level(discordant):
    # 20,000 simulations under equality: the standard error of the share of rejections is 0.15 %.
    b = np.random.default_rng(0).binomial(discordant, 0.5, size=20_000)
    rejected = float((mcnemar(b, discordant - b) <= 0.05).mean())
    assert rejected <= 0.055
    assert discordant <= EXACT_UP_TO or rejected >= 0.035


# Holm


def slow_holm(p_values):
    """Adjusted p of each: the least level at which the step-down procedure rejects it."""

    def rejected(level):
        left = dict(enumerate(p_values))
        while left:
            least = min(left, key=left.__getitem__)
            if left[least] * len(left) > level:
                break
            del left[least]
        return set(range(len(p_values))) - left.keys()

    levels = sorted({p * k for p in p_values for k in range(1, len(p_values) + 1)})
    return [
        min(1.0, min(level for level in levels if index in rejected(level)))
        for index in range(len(p_values))
    ]


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_step_down_procedure(p_values):
    assert holm(p_values).tolist() == pytest.approx(slow_holm(p_values), rel=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_lies_between_no_correction_and_bonferroni_in_any_order(p_values, random):
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p))).all()
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm(p[order]).tolist() == adjusted[order].tolist()


def test_holm_of_a_textbook_case():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("p_values", [[0.5, float("nan")], [1.1], [[0.1]]])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(ValueError, match="p-values"):
        holm(p_values)


# The bootstrap


def test_the_bootstrap_p_at_its_ends():
    assert bootstrap_p(0.0, np.zeros(10), 100) == 1.0
    assert bootstrap_p(1e-17, np.array([1e-17, -1e-17]), 100) == 1.0
    assert bootstrap_p(1.0, np.ones(10), 5) == 2.0**-4  # every unit says so
    assert bootstrap_p(1.0, np.ones(10), 1) == 1.0
    assert bootstrap_p(1.0, np.ones(10), 10**6) > 0
    few = bootstrap_p(0.3, np.array([0.29, 0.31]), 3)
    assert few == 0.25
