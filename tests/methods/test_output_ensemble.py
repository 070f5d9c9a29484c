"""The ensemble in output space against means in float64."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import softmax
from shiftbench.methods.base import Parent
from shiftbench.methods.builtin.output_ensemble import OutputEnsemble, OutputEnsembleConfig
from shiftbench.methods.calibration import calibrated_temperature
from shiftbench.methods.members import Labelled, Members, Outputs


def make_ensemble(**settings: object) -> OutputEnsemble:
    return OutputEnsemble(OutputEnsembleConfig(**settings))  # type: ignore[arg-type]


def make_members(parent: str = "full", scale: float = 10) -> Members:
    random = np.random.default_rng(0)
    features = np.zeros((6, 2), np.float32)

    def outputs() -> Outputs:
        return Outputs(features, (scale * random.standard_normal((6, 4))).astype(np.float32))

    return Members(outputs(), {Parent(parent): outputs()}, never)


def test_it_says_what_it_needs() -> None:
    method = make_ensemble(parent="lp-ft", alphas=[0, 0.3, 0.5, 1])
    assert method.variants() == ("alpha=0.0", "alpha=0.3", "alpha=0.5", "alpha=1.0")
    assert method.fixed_variant() == "alpha=0.5"
    assert method.parents() == (Parent("lp-ft"),)
    assert not method.kept
    assert not method.seeded


def test_the_default_is_the_curve_of_full_fine_tuning_over_logits() -> None:
    method = make_ensemble()
    assert method.parents() == (Parent("full"),)
    assert len(method.variants()) == 11
    assert not method.projected


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_logits_are_averaged(alpha: float) -> None:
    members = make_members()
    method = make_ensemble(alphas=[alpha], alpha=alpha)
    zero_shot, full = members.zero_shot.logits, members.parents[Parent("full")].logits
    expected = (1 - alpha) * zero_shot.astype(np.float64) + alpha * full.astype(np.float64)
    found = method.combine(f"alpha={alpha}", members, {})
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1, 1000])
def test_probabilities_are_averaged(alpha: float, scale: float) -> None:
    members = make_members(scale=scale)
    method = make_ensemble(alphas=[alpha], alpha=alpha, space="probabilities")
    zero_shot, full = members.zero_shot.logits, members.parents[Parent("full")].logits
    expected = (1 - alpha) * softmax(zero_shot.astype(np.float64), axis=1)
    expected += alpha * softmax(full.astype(np.float64), axis=1)
    found = method.combine(f"alpha={alpha}", members, {})
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(softmax(found.astype(np.float64), axis=1), expected, atol=1e-5)
    assert method.projected


def test_the_two_means_can_disagree() -> None:
    """A sure model outvotes an unsure one only where logits are averaged."""
    features = np.zeros((1, 2), np.float32)
    sure = Outputs(features, np.array([[60, 0, 50]], np.float32))
    unsure = Outputs(features, np.array([[0, 3, 11]], np.float32))
    members = Members(sure, {Parent("full"): unsure}, never)
    answers = [
        make_ensemble(alphas=[alpha], alpha=alpha, space=space)
        .combine(f"alpha={alpha}", members, {})
        .argmax()
        for alpha in (0.5, 0.6)
        for space in ("logits", "probabilities")
    ]
    assert answers == [2, 0, 2, 2]


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_models_are_calibrated_on_id_validation_first(space: str) -> None:
    members = make_members(scale=4)
    parts = (members.zero_shot.logits, members.parents[Parent("full")].logits)
    labels = np.array([z.argmax() for z in parts[1]])
    labels[:2] = (labels[:2] + 1) % 4  # of six, the fine-tuned model is right on four
    method = make_ensemble(alphas=[0.3], alpha=0.3, space=space, temperatures="id-val")
    assert method.kept
    assert method.selects()
    fitted = method.fit(lambda: Labelled(members, labels), never)
    grid = np.geomspace(0.1, 10, 20_001)
    scaled = []
    for z, found in zip(parts, fitted["temperatures"], strict=True):
        wide = z.astype(np.float64)
        accuracy = (z.argmax(1) == labels).mean()
        gaps = [abs(softmax(wide / t, axis=1).max(1).mean() - accuracy) for t in grid]
        assert found == pytest.approx(grid[np.argmin(gaps)], rel=5e-4)
        scaled.append(wide / found)
    of = (lambda z: z) if space == "logits" else (lambda z: softmax(z, axis=1))
    expected = 0.7 * of(scaled[0]) + 0.3 * of(scaled[1])
    combined = method.combine("alpha=0.3", members, fitted).astype(np.float64)
    np.testing.assert_allclose(of(combined), expected, rtol=1e-5)


def never(*of: object) -> NoReturn:
    raise AssertionError(f"not needed: {of}")


def test_a_temperature_stays_between_two_ends() -> None:
    logits = np.array([[5, 0, 0], [0, 5, 0], [0, 0, 5]], np.float32)
    assert calibrated_temperature(logits, np.array([1, 2, 0])) == 10  # never right
    assert calibrated_temperature(logits, np.array([0, 1, 2])) == pytest.approx(0.1)  # always


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphas": [0, 1]}, "must be one of alphas"),
        ({"alphas": [0.5, 0.5]}, "must differ"),
        ({"space": "features"}, "'logits' or 'probabilities'"),
    ],
)
def test_impossible_mixtures_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OutputEnsembleConfig(**settings)  # type: ignore[arg-type]
