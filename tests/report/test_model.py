from __future__ import annotations

import os
import time
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.evaluation import comparison, predictions
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done, failed, rows
from shiftbench.leaderboard.store import read, relabel, write_run
from shiftbench.report import reading
from shiftbench.report.html.page import remark_of, render
from shiftbench.report.model import build
from shiftbench.report.scores import MEAN, Member
from shiftbench.report.searches import searches

from tests.leaderboard.records import info, results, run
from tests.report.of_table import rankings
from tests.report.page_records import (
    ALPHAS,
    EVIL,
    SETS,
    N,
    curve_values,
    published,
    write_results,
)


def test_rankings_are_those_of_the_rows(table):
    assert [of_ranking.ranking for of_ranking in build(table).rankings] == rankings(table)


def test_a_mean_of_one_seed_has_a_bootstrap_interval_where_predictions_are(cifar, table):
    ranked = [method for method in cifar.ranking.methods if method.rank is not None]
    of = {method.name: method.scores.mean_ood for method in ranked}
    assert of["zero-shot"].interval == "bootstrap of examples, each set on its own"
    assert of["full"].interval == "Student's t over seeds"
    # Two independent proportions of 60 examples each.
    shifts = [next(m for m in ranked if m.name == "zero-shot").scores.by_set[s] for s in SETS[1:]]
    half = 1.96 * sum(p.mean * (1 - p.mean) / N for p in shifts) ** 0.5 / 2
    assert of["zero-shot"].high - of["zero-shot"].low == pytest.approx(2 * half, rel=0.15)


def test_every_method_knows_its_members(cifar):
    members = {method.name: method.members for method in cifar.ranking.methods}
    assert members["full"] == (Member("full0", "", 0), Member("full1", "", 1))
    assert members["zero-shot"] == (Member("zero", "", 0),)
    wise = (Member("wise0", "alpha=0.5", 0), Member("wise1", "alpha=0.5", 1))
    assert members["wise-ft"] == wise
    oracles = (Member("wise0", "alpha=0.0", 0), Member("wise1", "alpha=0.0", 1))
    assert members["wise-ft · oracle"] == oracles


def test_namesakes_keep_their_own_runs(tmp_path):
    for run_id, lr in (("a", 1e-5), ("b", 1e-3)):
        write_run(tmp_path, run_id, run(run_id, {"id-test": 0.5, "x": 0.5}, config={"lr": lr}))
    (of_ranking,) = build(read(tmp_path)).rankings
    assert {method.name: method.members for method in of_ranking.ranking.methods} == {
        "full (lr=1e-05)": (Member("a", "", 0),),
        "full (lr=0.001)": (Member("b", "", 0),),
    }


def test_cells_say_what_their_interval_is(cifar):
    scores = {method.name: method.scores for method in cifar.ranking.methods}
    assert scores["full"].get("cifar10.1").interval == "Student's t over seeds"
    assert scores["full"].get("cifar10.1").seeds == (0, 1)
    assert scores["zero-shot"].get("cifar10.1").interval == "by hand"
    assert scores["zero-shot"].get(MEAN).mean == pytest.approx((0.9 + 0.85) / 2)
    assert scores["full"].get("id-test").n == (100,)


def test_partial_means_say_what_is_missing(report):
    (ranking,) = [of.ranking for of in report.rankings if of.ranking.task == "imagenet"]
    (method,) = [method for method in ranking.methods if method.label == "full"]
    assert method.rank is None
    assert remark_of(method, MEAN) == "missing or incomplete: imagenet-r"
    assert remark_of(method, "imagenet-r") == "29,000 of 30,000 images"


def test_methods_tie_as_the_statistics_say(cifar, folder):
    ranked = [method for method in cifar.ranking.methods if method.rank is not None]
    variants = {"wise-ft": "alpha=0.5"}
    methods = {}
    for method in ranked:
        seeds = [None] if method.name == "zero-shot" else [0, 1]
        methods[method.name] = {
            seed: by_set(folder, member.run_id, variants.get(method.name, ""))
            for seed, member in zip(seeds, method.members, strict=True)
        }
    metrics = dict.fromkeys(SETS[1:], "accuracy")
    found = {
        frozenset((d.first, d.second)): d.adjusted for d in comparison.compare(methods, metrics)
    }
    letters = cifar.ties.letters
    for first, second in combinations(letters, 2):
        tied = bool(set(letters[first]) & set(letters[second]))
        assert tied == (found[frozenset((first, second))] > 0.05)
    assert letters["full"] == letters[EVIL] != letters["zero-shot"]
    assert letters.keys() == {method.name for method in ranked}  # and not the oracle's


def by_set(folder, run_id, variant):
    import pyarrow.compute as pc

    table = predictions.read(RunFolder.of(folder, run_id).predictions)
    table = table.filter(pc.field("variant") == variant)
    return {name: table.filter(pc.field("set") == name) for name in SETS}


def test_missing_predictions_are_said(report, table, cifar, folder, tmp_path):
    assert all(of_ranking.ties.known for of_ranking in report.rankings)
    alone = build(table).rankings
    assert not alone[0].ties.known
    assert "no results folder" in alone[0].ties.note
    assert not any(of_ranking.ties.letters for of_ranking in alone)
    write_results(tmp_path)
    RunFolder.of(tmp_path, "full1").predictions.unlink()
    of_rest = build(read(tmp_path), tmp_path).rankings[0].ties
    assert "full" not in of_rest.letters
    assert of_rest.letters["saft"]
    assert "predictions are missing: full" in of_rest.note


def test_what_predictions_told_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "results"
    write_results(folder)
    files = sorted((folder / "runs").rglob("predictions.parquet"))
    for age, file in enumerate(files, start=10):
        os.utime(file, (time.time() - age,) * 2)

    def ranked():
        return build(read(folder), folder).rankings

    first = ranked()
    with monkeypatch.context() as patch:
        patch.setattr(reading.Reader, "find", lambda *_: pytest.fail("predictions were read"))
        assert ranked() == first
        os.utime(files[0], (time.time() - 5,) * 2)
        with pytest.raises(pytest.fail.Exception):
            ranked()
    RunFolder.of(folder, "full1").predictions.unlink()
    assert "full" in first[0].ties.letters
    assert "full" not in ranked()[0].ties.letters
    for file in (tmp_path / "cache" / "ties").iterdir():
        file.write_text("{")  # cut short by whatever
    assert "full" not in ranked()[0].ties.letters


def test_each_file_of_predictions_is_read_once(folder, table, tmp_path, monkeypatch):
    """Also that of zero-shot, which stands beside every number of shots."""
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path))
    few = info("few", task="cifar10", data_kind="miniature/2", leakage=None, shots=4)
    of = results(dict.fromkeys(SETS, 0.5), data_fingerprint="d")
    files = []
    opened = pq.ParquetFile

    def counted(file, **options):
        files.append(file)
        return opened(file, **options)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    more = build(pa.concat_tables([table, done(few, of)]), folder)
    assert [of_ranking.ranking.shots for of_ranking in more.rankings[:2]] == [4, None]
    read_files = [file for file in files if file.name == "predictions.parquet"]
    assert RunFolder.of(folder, "zero").predictions in read_files
    assert len(read_files) == len(set(read_files)) > 5


def test_curves_are_means_over_seeds_in_the_order_of_alpha(cifar):
    assert [(point.label, point.alpha) for point in cifar.curves] == [
        ("wise-ft", alpha) for alpha in ALPHAS
    ]
    for point in cifar.curves:
        for name in SETS:
            expected = np.mean([curve_values(point.alpha, seed)[name] for seed in (0, 1)])
            assert point.scores[name].mean == pytest.approx(expected)


def test_masks_are_summed_by_layer(report):
    shares = {share.layer: (share.share, share.density) for share in report.layer_shares}
    assert list(shares) == ["visual conv1", "visual block 2", "visual block 10"]
    assert shares["visual conv1"] == pytest.approx(((0.4 + 0.6) / 2, (4 + 6) / 2 / 50))
    assert shares["visual block 10"] == pytest.approx(((0.3 + 0.2) / 2, (3 + 2) / 2 / 25))


def test_searches_tell_their_rungs(report, table):
    (search,) = report.searches
    assert [(r.steps, r.reached, r.stopped) for r in search.rungs] == [(3, 3, 1), (9, 2, 0)]
    assert [trial.state for trial in search.trials].count("failed") == 1
    (alone,) = searches(rows(table), None)
    assert alone.note == "There is no results folder."


def test_the_published_cloud_is_only_of_the_real_imagenet(report, cifar, table):
    import pyarrow.compute as pc

    (real,) = [of for of in report.rankings if of.ranking.task == "imagenet"]
    assert real.axes == {"imagenet-v2": "id-test"}  # not R: our accuracy on its classes is unknown
    assert cifar.axes == {}
    shifts = {point.shift for point in report.cloud}
    assert shifts >= {"imagenet-v2", "imagenet-r"}
    on_line = [p for p in report.baselines if p.shift == "imagenet-v2"]
    assert all(p.low <= p.ood_accuracy <= p.high for p in on_line)
    small = table.filter(pc.field("data_kind") == "miniature/2")
    assert build(small, published=published()).cloud == ()


def test_published_values_stand_beside_ours(report):
    values = [value for c in report.comparisons for value in c.published]
    assert [value.value for value in values] == [0.66]
    assert report.published_note is None


def test_a_run_with_two_labels_counts_once_whether_it_is_done_or_failed():
    names = {"also_called": ("mine",)}
    good = run("a", {"id-test": 0.5}, **names)
    bad = failed(info("b", seed=1, **names), "no memory")
    report = build(relabel(pa.concat_tables([good, bad])))
    assert [(line.run_id, line.status) for line in report.runs] == [("a", "done"), ("b", "failed")]
    assert [failure.label for failure in report.failures] == ["full", "mine"]
    page = render(report)
    assert "1 run done" in page
    assert "1 failed</a>" in page
