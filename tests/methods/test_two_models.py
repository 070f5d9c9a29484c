"""VRF and DaWin, which weigh two models example by example, against references in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import beta as beta_distribution
from shiftbench.methods.base import Parent
from shiftbench.methods.beta_mixture import fit_mixture
from shiftbench.methods.builtin import vrf
from shiftbench.methods.builtin.dawin import Dawin, DawinConfig, shares
from shiftbench.methods.builtin.vrf import Vrf, VrfConfig
from shiftbench.methods.calibration import calibrated_temperature
from shiftbench.methods.members import Labelled, Members, Outputs

FULL = Parent("full")


def make_members(n: int, seed: int, scale: float = 3) -> Members:
    random = np.random.default_rng(seed)

    def outputs() -> Outputs:
        features = random.standard_normal((n, 6))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        logits = scale * random.standard_normal((n, 4))
        return Outputs(features.astype(np.float32), logits.astype(np.float32))

    return Members(outputs(), {FULL: outputs()}, never)


def never(*of: object) -> NoReturn:
    raise AssertionError(f"not needed: {of}")


def softmax(logits: Sequence[float], t: float) -> list[float]:
    powers = [math.exp(float(z) / t - max(map(float, logits)) / t) for z in logits]
    return [power / sum(powers) for power in powers]


# VRF


def test_vrf_says_what_it_needs() -> None:
    method = Vrf(VrfConfig(parent="lp-ft"))
    assert method.parents() == (Parent("lp-ft"),)
    assert method.kept and method.selects() and method.projected
    assert not method.transductive


@pytest.mark.parametrize("neighbours", [0.01, 0.2])
def test_vrf_weighs_by_the_distance_to_what_fine_tuning_mended(neighbours: float) -> None:
    train, id_val, test = (make_members(n, seed) for n, seed in ((60, 1), (40, 2), (20, 3)))
    answers = [outputs.logits.argmax(1) for outputs in (train.zero_shot, train.parents[FULL])]
    labels = np.where(np.arange(60) % 2, *answers)
    of_val = np.where(np.arange(40) % 3, id_val.parents[FULL].logits.argmax(1), 0)
    config = VrfConfig(midpoints=(0.5, 1.2), widths=(0.3, 0.6), neighbours=neighbours)
    method = Vrf(config)
    fitted = method.fit(lambda: Labelled(id_val, of_val), lambda: Labelled(train, labels))

    mended = [
        train.parents[FULL].features[i].astype(np.float64)
        for i in range(60)
        if answers[1][i] == labels[i] != answers[0][i]
    ]
    assert 10 < len(mended) < 60
    temperatures = [
        float(np.float32(calibrated_temperature(outputs.logits, of_val)))
        for outputs in (id_val.zero_shot, id_val.parents[FULL])
    ]

    def probabilities(members: Members, a: float, b: float) -> np.ndarray:
        rows = []
        for i, feature in enumerate(members.parents[FULL].features):
            distances = sorted(float(((feature.astype(np.float64) - c) ** 2).sum()) for c in mended)
            d = distances[max(1, int(neighbours * len(mended))) - 1]
            w = 1 / (1 + math.exp((d - a) / b))
            p0 = softmax(members.zero_shot.logits[i], temperatures[0])
            p1 = softmax(members.parents[FULL].logits[i], temperatures[1])
            rows.append([w * q + (1 - w) * p for p, q in zip(p0, p1, strict=True)])
        return np.array(rows)

    right = {
        (a, b): float((probabilities(id_val, a, b).argmax(1) == of_val).mean())
        for a in (0.5, 1.2)
        for b in (0.3, 0.6)
    }
    best = max(right, key=lambda point: right[point])
    assert fitted["point"] == pytest.approx(best)
    found = method.combine("", test, fitted)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), probabilities(test, *best), rtol=1e-4)


def test_vrf_looks_for_its_point_with_the_distances_of_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members, asked = make_members(30, 1), []

    def counted(features: np.ndarray, *of: object) -> np.ndarray:
        asked.append(len(features))
        return np.linspace(0, 2, len(features))

    monkeypatch.setattr(vrf, "squared_distances", counted)
    labels = np.where(np.arange(30) % 2, 0, members.parents[FULL].logits.argmax(1))
    method = Vrf(VrfConfig(midpoints=(0.3, 0.9, 1.5), widths=(0.3, 0.6)))
    method.fit(*[lambda: Labelled(members, labels)] * 2)
    assert asked == [30]
    Vrf(VrfConfig()).fit(*[lambda: Labelled(members, labels)] * 2)
    assert asked == [30]  # with one point there is nothing to look for


def test_vrf_is_the_zero_shot_model_where_fine_tuning_mended_nothing() -> None:
    members = make_members(12, 1)
    labels = members.zero_shot.logits.argmax(1)
    method = Vrf(VrfConfig())
    fitted = method.fit(*[lambda: Labelled(members, labels)] * 2)
    assert fitted["centres"].shape == (0, 6)
    found = method.combine("", members, fitted).astype(np.float64)
    t = float(fitted["temperatures"][0])
    expected = [softmax(row, t) for row in members.zero_shot.logits]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5, atol=1e-30)


# DaWin


def slow_shares(members: Members, temperatures: Sequence[float], *, offset: bool) -> list[float]:
    entropies = []
    for outputs, t in zip((members.zero_shot, members.parents[FULL]), temperatures, strict=True):
        rows = [softmax(row, t) for row in outputs.logits]
        entropies.append([-sum(p * math.log(p) for p in row) for row in rows])
    h0, h1 = entropies
    b, w = 0.0, 2.0
    if offset:
        b = (np.std(h0, ddof=1) / np.mean(h0) + np.std(h1, ddof=1) / np.mean(h1)) / 2
        w = (np.mean(h0) + np.mean(h1)) / np.mean(h0)
    return [
        (math.exp(-two) + b / w) / (math.exp(-one) + math.exp(-two) + b)
        for one, two in zip(h0, h1, strict=True)
    ]


def test_dawin_says_that_it_looks_at_the_whole_set() -> None:
    method = Dawin(DawinConfig())
    assert method.transductive and method.projected
    assert method.kept and method.selects()
    given = Dawin(DawinConfig(temperatures=(0.96, 1.0066)))
    assert not given.kept and not given.selects()
    assert given.fit(never, never) == {}


@pytest.mark.parametrize("offset", [True, False])
def test_dawin_mixes_probabilities_by_entropy(offset: bool) -> None:
    members = make_members(30, 4)
    temperatures = (0.9, 1.3)
    method = Dawin(DawinConfig(space="probabilities", offset=offset, temperatures=temperatures))
    expected = []
    for i, share in enumerate(slow_shares(members, temperatures, offset=offset)):
        p0 = softmax(members.zero_shot.logits[i], temperatures[0])
        p1 = softmax(members.parents[FULL].logits[i], temperatures[1])
        expected.append([(1 - share) * p + share * q for p, q in zip(p0, p1, strict=True)])
    found = method.combine("", members, {})
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


def test_dawin_calibrates_both_models_on_id_validation() -> None:
    members = make_members(30, 4)
    labels = members.parents[FULL].logits.argmax(1)
    labels[::3] = 0
    method = Dawin(DawinConfig())
    fitted = method.fit(lambda: Labelled(members, labels), never)
    expected = [
        calibrated_temperature(outputs.logits, labels)
        for outputs in (members.zero_shot, members.parents[FULL])
    ]
    assert fitted["temperatures"] == pytest.approx(expected)


def test_dawin_has_one_model_for_each_group() -> None:
    members, temperatures = make_members(40, 5), (1.0, 1.0)
    asked: dict[float, np.ndarray] = {}

    def between(parent: Parent, alpha: float, positions: np.ndarray) -> Outputs:
        assert parent == FULL
        asked[alpha] = positions
        n = len(positions)
        return Outputs(np.zeros((n, 6), np.float32), np.full((n, 4), alpha, np.float32))

    method = Dawin(DawinConfig(groups=3, temperatures=temperatures))
    found = method.combine("", members._replace(between=between), {})
    expected = slow_shares(members, temperatures, offset=True)
    assert 2 <= len(asked) <= 3
    assert sorted(np.concatenate([*asked.values()])) == [*range(40)]
    for alpha, positions in asked.items():
        assert (found[positions] == np.float32(alpha)).all()
        mine, others = (
            np.abs(np.array(expected)[positions] - other).mean() for other in (alpha, 1 - alpha)
        )
        assert mine < others or abs(alpha - 0.5) < 0.05
    order = sorted(asked)
    assert [np.array(expected)[asked[alpha]].mean() for alpha in order] == sorted(
        np.array(expected)[asked[alpha]].mean() for alpha in order
    )


def test_a_model_that_is_sure_of_all_has_no_spread() -> None:
    found = shares(np.zeros(3), np.array([0.0, 0.1, 0.2]), offset=True)
    np.testing.assert_allclose(found, 1 / (1 + np.exp([0.0, 0.1, 0.2])))


def slow_round(values: np.ndarray, of: np.ndarray) -> tuple[list[tuple[float, float]], list[float]]:
    """Moments of the groups of a hard assignment, as Betas and weights."""
    pairs, weights = [], []
    for group in np.unique(of):
        own = values[of == group]
        mean, variance = own.mean(), min(own.var(), own.mean() * (1 - own.mean()) / 4)
        scale = mean * (1 - mean) / (variance + 1e-10) - 1
        pairs.append((scale * mean, scale * (1 - mean)))
        weights.append(len(own) / len(values))
    return pairs, weights


def test_a_mixture_of_betas_finds_the_groups_that_values_were_drawn_from() -> None:
    drawn = np.random.default_rng(0)
    parts = [drawn.beta(30, 120, 300), drawn.beta(80, 80, 500), drawn.beta(200, 20, 200)]
    values = np.concatenate(parts)
    origin = np.repeat([0, 1, 2], [300, 500, 200])
    means, of = fit_mixture(values, 3)
    rank = np.argsort(np.argsort(means))
    np.testing.assert_allclose(sorted(means), [part.mean() for part in parts], atol=0.01)
    assert (rank[of] == origin).mean() > 0.97
    pairs, weights = slow_round(values, rank[of])
    densities = [
        w * beta_distribution(a, b).pdf(values) for (a, b), w in zip(pairs, weights, strict=True)
    ]
    assert (np.argmax(densities, axis=0) == rank[of]).mean() > 0.98


def test_the_order_of_values_does_not_matter_to_a_mixture() -> None:
    values = np.random.default_rng(1).uniform(0, 1, 200)
    means, of = fit_mixture(values, 3)
    again, reversed_of = fit_mixture(values[::-1], 3)
    assert np.array_equal(means[of], again[reversed_of][::-1])


@pytest.mark.parametrize(
    ("values", "components"),
    [([0.5] * 4, 1), ([0.0, 1.0, 1.0], 2), ([0.2, 0.4], 2), ([1.0], 1)],
)
def test_few_values_have_few_groups(values: list[float], components: int) -> None:
    means, of = fit_mixture(np.array(values), 3)
    assert len(means) == components
    np.testing.assert_allclose(means[of], values, atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"groups": 0}, "greater than or equal to 1"), ({"temperatures": [1, 0]}, "greater than 0")],
)
def test_impossible_settings_of_dawin_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        DawinConfig(**settings)  # type: ignore[arg-type]
