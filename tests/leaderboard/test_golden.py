from __future__ import annotations

import pytest
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.leaderboard.golden import GOLDEN_SETS, WHOLE_SETS, golden_faults
from shiftbench.leaderboard.published import reading
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.schema import failed, rows

from tests.leaderboard.real_records import B16, GOLDEN, golden, results, zero_shot
from tests.leaderboard.records import info
from tests.leaderboard.test_published import FOLDER


def faults(table, **options):
    return golden_faults(rows(table), read_published(FOLDER), **options)


def test_sizes_are_the_documented_ones(tmp_path):
    for (name, evaluation_set), size in WHOLE_SETS.items():
        source = builtin_tasks()[name].evaluation_sets()[evaluation_set].source
        assert source.documented(str(tmp_path)).examples == size


@pytest.mark.parametrize("task", GOLDEN)
def test_a_golden_row_without_fault(task):
    assert faults(golden(task)) == []


@pytest.mark.parametrize(("task", "name"), GOLDEN_SETS)
def test_a_golden_cell_that_differs(task, name):
    expected = GOLDEN[task][name]
    found = faults(golden(task, {name: expected + 0.011}))
    assert found == [
        f"zero-shot {B16} on {name}: {100 * expected + 1.1:.2f} %, but {100 * expected:.2f} % in "
        "open_clip's table (tolerance 1.0 points)"
    ]
    near = golden(task, {name: expected - 0.009})
    assert faults(near) == []
    assert len(faults(near, tolerance=0.005)) == 1


def test_what_is_no_golden_cell():
    wrong = {"imagenet-r": 0.5}
    assert len(faults(golden("imagenet", wrong))) == 1
    others = [
        golden("imagenet", {"objectnet": 0.3}),  # other class names there
        golden("imagenet", wrong, data_kind="miniature/1"),
        golden("imagenet", wrong, backbone="somebody/model"),
        golden("imagenet", wrong, method="full", reference=False),
        zero_shot(results(wrong, "imagenet", n=30)),  # a part of the set
        failed(info("f", method="zero-shot", backbone=B16), "no memory"),
    ]
    for table in others:
        assert faults(table) == []


def test_fmow_is_no_golden_cell():
    """open_clip's column takes "Other" for a region; WILDS's worst region, and ours, does not."""
    assert faults(golden("fmow", {"fmow-ood": 0.36})) == []


def test_what_is_not_checked_since_published_results_are_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "shipped", lambda _: tmp_path)
    wrong = rows(golden("imagenet", {"imagenet-r": 0.5}))
    assert golden_faults(wrong) == [
        f"not checked: {tmp_path}: there are no published results (Parquet files)"
    ]
    assert golden_faults(rows(golden("fmow"))) == []  # nothing to check
