"""Points of a search's space that are drawn and not tried."""

from __future__ import annotations

from shiftbench.execution.search.space import draw
from shiftbench.methods.builtin.autoft import AutoFt, AutoFtConfig


def test_an_objective_that_is_drawn_depends_on_the_seed_alone() -> None:
    search = AutoFt(AutoFtConfig(lr=1e-3)).search()
    assert search is not None
    points = [draw(search, seed) for seed in (0, 0, 1)]
    assert points[0] == points[1] != points[2]
    assert points[0].keys() == search.space.keys()
    assert 1e-5 <= float(points[0]["lr"]) <= 1e-1
