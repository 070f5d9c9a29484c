"""Errors under corruptions, against sums written out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from shiftbench.data.sources.corruptions import STANDARD_CORRUPTIONS
from shiftbench.report.corruptions import ALEXNET, corruption_of
from shiftbench.report.html.page import columns, render
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build

from tests.leaderboard.records import run

SETS = [f"{name}-{severity}" for name in STANDARD_CORRUPTIONS for severity in range(1, 6)]


def table(task: str, kind: str) -> tuple[pa.Table, np.ndarray]:
    """Zero-shot and a method of two seeds; the latter's accuracies (seed, corruption, severity)."""
    accuracies = np.random.default_rng(0).uniform(0.1, 0.9, (2, 15, 5))
    place = {"task": task, "data_kind": kind, "leakage": None, "shifts": tuple(SETS)}
    tables = [
        run(
            f"full{seed}",
            {"id-test": 0.9, **dict(zip(SETS, accuracies[seed].ravel(), strict=True))},
            seed=seed,
            **place,
        )
        for seed in (0, 1)
    ]
    zero_shot = {"label": "zero-shot", "method": "zero-shot", "seeded": False, "reference": True}
    tables.append(run("zero", {"id-test": 0.8, **dict.fromkeys(SETS, 0.5)}, **zero_shot, **place))
    return pa.concat_tables(tables), accuracies


def test_mce_is_the_mean_of_errors_over_those_of_alexnet(monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    made, accuracies = table("imagenet-c", "real")
    report = build(made)
    (of_ranking,) = report.rankings
    found = of_ranking.corruptions
    alexnet = [ALEXNET[name] for name in STANDARD_CORRUPTIONS]
    each = []
    for seed in (0, 1):
        ratios = []
        for c in range(15):
            own = sum(1 - accuracies[seed, c, s] for s in range(5))
            ratios.append(own / (5 * alexnet[c]))
        each.append(sum(ratios) / 15)
    full = found.methods["full"]
    assert full.mce is not None
    assert full.mce.mean == pytest.approx(np.mean(each), rel=1e-12)
    assert full.mce.sd == pytest.approx(np.std(each, ddof=1))
    assert full.mean.mean == pytest.approx(1 - accuracies.mean())
    assert full.errors["fog"].mean == pytest.approx(1 - accuracies[:, 9].mean())
    half = found.methods["zero-shot"].mce
    assert half.mean == pytest.approx(0.5 * np.mean(1 / np.array(alexnet)))
    # 75 sets are no columns: they are the corruptions of a table of their own.
    assert [column.heading for column in columns(of_ranking.ranking)] == ["ID", "OOD"]
    text = to_markdown(report)
    header = next(line for line in text.splitlines() if "mCE |" in line)
    assert header.startswith("| method | mCE | mean | gaussian noise | shot noise |")
    assert f"| full | {100 * full.mce.mean:.1f} | {100 * full.mean.mean:.1f} |" in text
    assert f">{100 * full.mce.mean:.1f}</td>" in render(report)


def test_only_the_real_imagenet_c_is_measured_against_alexnet():
    made, accuracies = table("cifar10-c", "real")
    found = build(made).rankings[0].corruptions
    assert not found.normalised
    assert found.methods["full"].mean.mean == pytest.approx(1 - accuracies.mean())
    assert not build(table("imagenet-c", "miniature/2")[0]).rankings[0].corruptions.normalised
    assert not build(run("a", {"id-test": 0.5, "fog-1": 0.5})).rankings[0].corruptions


def test_sets_that_are_no_corruption_in_a_severity_are_none():
    assert corruption_of("also-jpeg_compression-5") == ("jpeg_compression", 5)
    assert not any(map(corruption_of, ("fog", "fog-6", "fog-0", "imagenet-a", "smog-1", "fog-01")))
