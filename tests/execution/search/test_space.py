"""Points of a search's space that are drawn and not tried."""

from __future__ import annotations

import optuna
import pytest
from shiftbench.execution.search.space import draw, sampler, space_of
from shiftbench.methods.builtin.autoft import AutoFt, AutoFtConfig
from shiftbench.methods.search import SearchConfig


def test_an_objective_that_is_drawn_depends_on_the_seed_alone() -> None:
    search = AutoFt(AutoFtConfig(lr=1e-3)).search()
    assert search is not None
    points = [draw(search, seed) for seed in (0, 0, 1)]
    assert points[0] == points[1] != points[2]
    assert points[0].keys() == search.space.keys()
    assert 1e-5 <= float(points[0]["lr"]) <= 1e-1


@pytest.mark.parametrize("kind", ["tpe", "tpe-independent", "random"])
@pytest.mark.parametrize("seed", [2**32, 1_000_003 * 20_300_101])
def test_a_search_may_have_any_seed(kind: str, seed: int) -> None:
    search = AutoFt(AutoFtConfig(lr=1e-3)).search()
    assert search is not None
    made = sampler(SearchConfig(sampler=kind), seed)
    assert optuna.create_study(sampler=made).ask(space_of(search)).params
    assert draw(search, seed) == draw(search, seed) != draw(search, seed + 1)
