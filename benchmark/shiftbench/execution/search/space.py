"""A search's space in Optuna's terms, and what proposes points of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from shiftbench.methods.search import Choice, Integer, LogUniform, Uniform

if TYPE_CHECKING:
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig
    from shiftbench.methods.search import Domain, Search, SearchConfig, Values


_SEEDS = 2**32
"""Seeds that Optuna's samplers tell apart; of a large one they get the remainder."""


def space_of(asked: Search[Method[MethodConfig]]) -> dict[str, BaseDistribution]:
    """The distribution of each setting, by its name."""
    return {name: _distribution(domain) for name, domain in asked.space.items()}


def sampler(config: SearchConfig, seed: int) -> BaseSampler:
    """The sampler that proposes trials: TPE, jointly or with its defaults, or random points."""
    seed %= _SEEDS
    if config.sampler == "random":
        return RandomSampler(seed=seed)
    jointly = config.sampler == "tpe"
    return TPESampler(
        seed=seed,
        n_startup_trials=config.n_startup_trials,
        multivariate=jointly,
        constant_liar=jointly,
    )


def draw(asked: Search[Method[MethodConfig]], seed: int) -> Values:
    """A random point of a search's space."""
    study = optuna.create_study(sampler=RandomSampler(seed=seed % _SEEDS))
    return study.ask(fixed_distributions=space_of(asked)).params


def _distribution(domain: Domain) -> BaseDistribution:
    match domain:
        case Uniform():
            return FloatDistribution(domain.low, domain.high)
        case LogUniform():
            return FloatDistribution(domain.low, domain.high, log=True)
        case Integer():
            return IntDistribution(domain.low, domain.high)
        case Choice():
            return CategoricalDistribution(domain.values)
