"""The ensemble in output space says its mixture, and has no weights."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from shiftbench.methods.builtin.output_ensemble import OutputEnsemble, OutputEnsembleConfig

from tests.methods.toys import make_model


def make_ensemble(**settings: object) -> OutputEnsemble:
    return OutputEnsemble(OutputEnsembleConfig(**settings))  # type: ignore[arg-type]


def test_the_mixture_of_every_variant() -> None:
    method = make_ensemble(parent="lp-ft", alphas=[0, 0.3, 0.5, 1])
    assert method.variants() == ("alpha=0.0", "alpha=0.3", "alpha=0.5", "alpha=1.0")
    assert [method.mixture(variant) for variant in method.variants()] == [
        {"zero-shot": 1.0, "lp-ft": 0.0},
        {"zero-shot": 0.7, "lp-ft": 0.3},
        {"zero-shot": 0.5, "lp-ft": 0.5},
        {"zero-shot": 0.0, "lp-ft": 1.0},
    ]
    assert method.fixed_variant() == "alpha=0.5"
    assert method.parents() == ("lp-ft",)
    assert method.inputs is None
    assert not method.seeded


def test_the_default_is_the_curve_of_full_fine_tuning() -> None:
    method = make_ensemble()
    assert method.parents() == ("full",)
    assert len(method.variants()) == 11


def test_it_has_no_weights() -> None:
    weights = make_model().state_dict()
    with pytest.raises(ValueError, match="no weights of its own"):
        make_ensemble().finish("alpha=0.5", weights, {"full": weights}, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parent": "zero-shot"}, "must be a fine-tuned run"),
        ({"alphas": [0, 1]}, "must be one of alphas"),
        ({"alphas": [0.5, 0.5]}, "must differ"),
    ],
)
def test_impossible_mixtures_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OutputEnsembleConfig(**settings)  # type: ignore[arg-type]
