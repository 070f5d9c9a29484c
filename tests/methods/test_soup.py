"""Soups against a slow reference in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from shiftbench.methods.base import Parent
from shiftbench.methods.builtin.soup import Soup, SoupConfig, greedy_ingredients
from shiftbench.testing.toys import make_derivation
from torch import Tensor

Weights = Mapping[str, Tensor]


def make_soup(*parents: str, kind: str, over_seeds: tuple[int, ...] | None = None) -> Soup:
    return Soup(SoupConfig(parents=parents, kind=kind, over_seeds=over_seeds))  # type: ignore[arg-type]


def make_weights(n: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "visual.w": torch.randn(4, 3, generator=generator),
            "head.bias": torch.randn(2, generator=generator),
            "visual.count": torch.tensor(7),
        }
        for _ in range(n)
    ]


def closeness(target: Weights) -> Callable[[Weights], float]:
    """A stand-in for accuracy: nearer to some weights is better."""

    def score(weights: Weights) -> float:
        return -sum(
            float((weights[k].double() - target[k].double()).square().sum()) for k in target
        )

    return score


def slow_mean(thetas: list[dict[str, Tensor]], name: str) -> np.ndarray:
    return np.mean([theta[name].double().numpy() for theta in thetas], axis=0)


def slow_greedy(thetas: list[dict[str, Tensor]], score: Callable[[Weights], float]) -> set[int]:
    """Recipe 1 word by word, with means in float64."""

    def score_of(members: list[int]) -> float:
        mean = {k: slow_mean([thetas[i] for i in members], k) for k in thetas[0]}
        return score({k: torch.from_numpy(np.asarray(v)) for k, v in mean.items()})

    ranked = sorted(range(len(thetas)), key=lambda i: score_of([i]), reverse=True)
    ingredients: list[int] = []
    for i in ranked:
        if not ingredients or score_of([*ingredients, i]) >= score_of(ingredients):
            ingredients.append(i)
    return set(ingredients)


def never(weights: Weights) -> float:
    raise AssertionError("a uniform soup needs no validation")


def test_a_uniform_soup_is_the_mean() -> None:
    thetas = make_weights(3)
    parents = {Parent(label): theta for label, theta in zip("abc", thetas, strict=True)}
    derivation = make_derivation(thetas[0], parents, never)
    soup = make_soup("a", "b", "c", kind="uniform").derive("", derivation)
    assert soup.keys() == thetas[0].keys()
    for name in ("visual.w", "head.bias"):
        np.testing.assert_allclose(soup[name], slow_mean(thetas, name), rtol=1e-6, atol=1e-7)
        assert soup[name].dtype == torch.float32
    assert soup["visual.count"].item() == 7


@pytest.mark.parametrize("seed", range(8))
def test_a_greedy_soup_takes_what_the_recipe_takes(seed: int) -> None:
    *thetas, target = make_weights(6, seed)
    score = closeness(target)
    taken = greedy_ingredients(thetas, score)
    assert set(taken) == slow_greedy(thetas, score)
    labels = tuple("abcde")
    parents = {Parent(label): theta for label, theta in zip(labels, thetas, strict=True)}
    soup = make_soup(*labels, kind="greedy").derive("", make_derivation(target, parents, score))
    expected = slow_mean([thetas[i] for i in taken], "visual.w")
    np.testing.assert_allclose(soup["visual.w"], expected, rtol=1e-6, atol=1e-7)


def test_the_seeds_cover_soups_of_different_sizes() -> None:
    sizes = set()
    for seed in range(8):
        *thetas, target = make_weights(6, seed)
        sizes.add(len(greedy_ingredients(thetas, closeness(target))))
    assert len(sizes) > 1


def scalar(value: float) -> dict[str, Tensor]:
    return {"w": torch.tensor([float(value)])}


def test_an_ingredient_that_changes_nothing_stays() -> None:
    assert greedy_ingredients([scalar(1), scalar(2)], lambda weights: 0.5) == [0, 1]


def test_an_ingredient_that_lowers_the_score_goes() -> None:
    score = closeness(scalar(1.0))
    assert greedy_ingredients([scalar(5), scalar(1), scalar(1)], score) == [1, 2]


def test_ties_are_tried_in_the_order_of_the_configuration() -> None:
    scores = {1.0: 0.9, 2.0: 0.8, 3.0: 0.8, 1.5: 0.9}  # of candidates and of averages
    tried: list[float] = []

    def score(weights: Weights) -> float:
        tried.append(weights["w"].item())
        return scores[tried[-1]]

    assert greedy_ingredients([scalar(3), scalar(1), scalar(2)], score) == [1, 2]
    assert tried == [3, 1, 2, (1 + 3) / 2, (1 + 2) / 2]


def test_the_best_is_taken_even_when_all_averages_are_worse() -> None:
    values = {value: -i for i, value in enumerate((4.0, 1.0, 9.0))}
    thetas = [scalar(value) for value in (1.0, 9.0, 4.0)]
    assert greedy_ingredients(thetas, lambda w: values.get(w["w"].item(), -99)) == [2]


def test_it_says_what_it_needs() -> None:
    soup = make_soup("full", "full-2", kind="greedy")
    assert soup.parents() == (Parent("full"), Parent("full-2"))
    assert soup.kept
    assert not soup.seeded


def test_a_soup_over_seeds_is_the_mean_of_every_parent_of_every_seed() -> None:
    soup = make_soup("full", "ema", kind="uniform", over_seeds=(0, 7))
    expected = [Parent("full", 0), Parent("full", 7), Parent("ema", 0), Parent("ema", 7)]
    assert list(soup.parents()) == expected
    thetas = make_weights(4)
    parents = dict(zip(expected, thetas, strict=True))
    mean = soup.derive("", make_derivation(thetas[0], parents, never))
    np.testing.assert_allclose(mean["visual.w"], slow_mean(thetas, "visual.w"), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parents": ["full"]}, "at least 2 runs"),
        ({"parents": ["full"], "over_seeds": [1]}, "at least 2 runs"),
        ({"parents": ["full"], "over_seeds": [1, 1]}, "over_seeds must differ"),
        ({"parents": ["full", "ema"], "over_seeds": []}, "at least 1"),
        ({"parents": ["full"], "over_seeds": [0, -1]}, "greater than or equal to 0"),
        ({"parents": ["full", "full"]}, "must differ"),
        ({"parents": ["a", "b"], "kind": "lucky"}, "uniform"),
        ({}, "parents"),
    ],
)
def test_impossible_soups_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SoupConfig(**settings)  # type: ignore[arg-type]


def test_the_order_of_candidates_without_ties_does_not_matter() -> None:
    *thetas, target = make_weights(4, seed=2)
    score = closeness(target)
    reference = [thetas[i]["visual.w"] for i in greedy_ingredients(thetas, score)]
    for order in itertools.permutations(range(3)):
        shuffled = [thetas[i] for i in order]
        taken = [shuffled[i]["visual.w"] for i in greedy_ingredients(shuffled, score)]
        assert len(taken) == len(reference)
        assert all(torch.equal(a, b) for a, b in zip(taken, reference, strict=True))
