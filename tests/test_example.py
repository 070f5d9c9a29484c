"""The committed example shows what it is there to show."""

from __future__ import annotations

from pathlib import Path

import pytest
from shiftbench import Leaderboard
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.schema import rows
from shiftbench.report.order import Order, orders
from shiftbench.report.ranking import RankedMethod, Ranking, rank

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rankings() -> dict[str, Ranking]:
    board = Leaderboard(ROOT / "results/example")
    return {ranking.task: ranking for ranking in rank(rows(board.rows()))}


def called(ranking: Ranking, label: str) -> RankedMethod:
    return next(m for m in ranking.methods if m.label == label and m.selection == "fixed")


def ends(method: RankedMethod) -> tuple[float, float]:
    mean = method.scores.mean_ood
    assert mean is not None and mean.low is not None and mean.high is not None
    return mean.low, mean.high


def test_wise_ft_gains_on_the_shifts_of_imagenet_and_full_fine_tuning_loses(
    rankings: dict[str, Ranking],
) -> None:
    ranking = rankings["imagenet"]
    zero_shot, full, wise_ft = (called(ranking, name) for name in ("zero-shot", "full", "wise-ft"))
    assert ends(wise_ft)[0] > ends(zero_shot)[1]
    assert ends(wise_ft)[0] > ends(full)[1]
    means = [method.scores.mean_ood for method in (full, zero_shot)]
    assert means[0] is not None and means[1] is not None and means[0].mean < means[1].mean


def test_full_fine_tuning_loses_on_the_shifts_of_cifar10(rankings: dict[str, Ranking]) -> None:
    """Intervals are apart; on ImageNet, that of zero-shot over 2,700 images is too wide."""
    ranking = rankings["cifar10"]
    assert ends(called(ranking, "full"))[1] < ends(called(ranking, "zero-shot"))[0]


def order(rankings: dict[str, Ranking]) -> Order:
    (found,) = orders([*rankings.values()], read_published())
    return found


def test_methods_come_in_the_published_order(rankings: dict[str, Ranking]) -> None:
    assert order(rankings).rho >= 0.7
    assert order(rankings).low > 0


def test_the_readme_says_how_far_they_do(rankings: dict[str, Ranking]) -> None:
    found = order(rankings)
    told = f"{found.rho:.2f} ({found.low:.2f} to {found.high:.2f}, {len(found.gains)} methods)"
    assert told in " ".join((ROOT / "README.md").read_text().split())
