"""What selection rules lose against an oracle that is not paid for its luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from shiftbench.leaderboard.schema import done
from shiftbench.report.html.page import render
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build
from shiftbench.report.regret import against_oracle
from shiftbench.report.scores import over_seeds

from tests.leaderboard.records import info, results, run


def slow(chosen, pool):
    """For each seed: the best on the mean of the others, less what was chosen."""
    losses = []
    for k in range(len(chosen)):
        others = [[v for j, v in enumerate(of) if j != k] for of in pool]
        means = [sum(of) / len(of) for of in others]
        losses.append(pool[means.index(max(means))][k] - chosen[k])
    mean = sum(losses) / len(losses)
    half = stats.t.ppf(0.975, len(losses) - 1) * np.std(losses, ddof=1) / np.sqrt(len(losses))
    return mean, mean - half, mean + half


def test_the_oracle_of_each_seed_is_picked_on_the_others():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pool = rng.normal(0.7, 0.1, (6, 3)).tolist()
        estimates = [over_seeds(of, (0, 1, 2)) for of in pool]
        loss = against_oracle(estimates[2], estimates)
        expected = slow(pool[2], pool)
        assert (loss.value, loss.low, loss.high) == pytest.approx(expected)


def test_among_equals_the_oracle_gains_nothing_by_its_luck():
    """Twenty methods that differ by chance alone: the highest is far above, and tells nothing."""
    rng = np.random.default_rng(1)
    honest, naive = [], []
    for _ in range(200):
        pool = rng.normal(0.7, 0.05, (20, 3))
        estimates = [over_seeds(of.tolist(), (0, 1, 2)) for of in pool]
        honest.append(against_oracle(estimates[0], estimates).value)
        naive.append(pool.mean(axis=1).max() - pool[0].mean())
    assert np.mean(naive) > 0.04
    assert abs(np.mean(honest)) < 0.015


def test_what_has_one_seed_stands_for_all_and_alone_is_compared_by_its_interval():
    shared, of_three = over_seeds([0.8], [0]), over_seeds([0.7, 0.6, 0.5], [0, 1, 2])
    loss = against_oracle(of_three, [shared, of_three])
    assert loss.value == pytest.approx(0.2)
    assert against_oracle(shared, [shared, of_three]).value == 0
    examples = replace(of_three, seeds=(0,), values=(0.6,), low=0.5, high=0.7, sd=None)
    loss = against_oracle(examples, [replace(shared, low=0.75, high=0.85), of_three, examples])
    assert (loss.value, loss.low is not None and loss.low < 0.2) == (pytest.approx(0.2), True)
    alone = over_seeds([0.6], [0])
    assert against_oracle(alone, [shared, alone]).value == pytest.approx(0.2)


ALPHAS = {"alpha=0": (0.8, 0.70), "alpha=0.5": (0.9, 0.80), "alpha=1": (0.95, 0.6)}


def test_every_rule_has_its_worst_shift_and_its_regret(monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    place = {"task": "pets", "data_kind": "miniature/2", "leakage": None, "shifts": ("a", "b")}
    tables = []
    for seed in (0, 1):
        rows = []
        for variant, (by_id, ood) in ALPHAS.items():
            scores = {"id-val": by_id, "id-test": by_id, "a": ood, "b": ood - 0.1}
            rows += results(scores, variant, "fixed" if variant == "alpha=0.5" else None)
            if variant == "alpha=1":
                rows += results(scores, variant, "id-val")
        tables.append(done(info(f"w{seed}", label="wise-ft", seed=seed, **place), rows))
        found = {"search_id": "f00d", "searched": {"lr": 1}, "search_trials": 2}
        scores = {"id-val": 0.9, "id-test": 0.9, "a": 0.77, "b": 0.67}
        tables.append(
            done(
                info(f"t{seed}", label="tuned", seed=seed, **found, **place),
                results(scores, selection="ood-val"),
            )
        )
    zero = {"id-val": 0.8, "id-test": 0.8, "a": 0.7, "b": 0.6}
    reference = {"label": "zero-shot", "method": "zero-shot", "seeded": False, "reference": True}
    tables.append(run("z", zero, **reference, **place))
    report = build(pa.concat_tables(tables))
    (of_ranking,) = report.rankings
    found = {rule.name: rule for rule in of_ranking.rules}
    losses = {name: round(rule.regret.value, 6) for name, rule in found.items()}
    assert losses == {
        "oracle": 0,
        "id-val, of all": 0.2,
        "none: zero-shot": 0.1,
        "the recommendation's": losses["the recommendation's"],
        "ood-val": 0.03,
        "as configured, within methods": 0,
        "id-val, within methods": 0.2,
        "always alpha=0, within methods": 0.1,
        "always alpha=0.5, within methods": 0,
        "always alpha=1, within methods": 0.2,
    }
    assert found["ood-val"].takes == "tuned · ood-val"
    assert found["id-val, of all"].takes == "wise-ft alpha=1"
    name, score = found["id-val, of all"].worst
    assert (name, score.mean) == ("b", 0.5)
    text = to_markdown(report)
    assert "| ood-val | tuned · ood-val |" in text
    assert "| always alpha=1, within methods | 1 method, most lost: wise-ft 20.0 |" in text
    assert '<th scope="row">always alpha=1, within methods</th>' in render(report)
