"""What got better or worse between two results folders, on runs with answers written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from shiftbench.cli import main
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import Examples
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows
from shiftbench.report.changes import Change, changes_between
from shiftbench.report.ranking import rank

from tests.leaderboard.records import run

N = 400


def write(
    folder: Path, label: str, right: Mapping[str, int], run_id: str, *, kept: bool = True
) -> None:
    """A run that is right on the first so many examples of each set."""
    values = {name: count / N for name, count in right.items()}
    shifts = ("imagenet-r",)
    table = run(run_id, values, label=label, method=label, shifts=shifts)
    store.write_run(folder, run_id, table)
    if not kept:
        return
    ids = np.array([f"{i:04}" for i in range(N)])
    labels = np.zeros(N, dtype=np.int64)
    parts = [
        predictions.table_of(
            name, "", ids, Examples(labels=labels, predictions=(np.arange(N) >= count).astype(int))
        )
        for name, count in right.items()
    ]
    predictions.write(RunFolder.of(folder, run_id).predictions, predictions.concat(parts))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Results before and after."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, "full", {"id-test": 300, "imagenet-r": 200}, "a1")
    write(b, "full", {"id-test": 301, "imagenet-r": 260}, "b1")
    write(a, "lora", {"id-test": 300, "imagenet-r": 200}, "a2")
    write(b, "lora", {"id-test": 300, "imagenet-r": 100}, "b2")
    write(a, "old", {"id-test": 300, "imagenet-r": 200}, "a3")
    write(b, "new", {"id-test": 300, "imagenet-r": 200}, "b3")
    write(a, "unkept", {"id-test": 10, "imagenet-r": 10}, "a4", kept=False)
    write(b, "unkept", {"id-test": 390, "imagenet-r": 390}, "b4")
    return a, b


def test_what_changed_beyond_chance_is_told_from_what_did_not(folders) -> None:  # type: ignore[no-untyped-def]
    before, after = (
        (rank(row for row in rows(store.read(folder)) if row.primary), folder) for folder in folders
    )
    found = changes_between(before, after)
    by: dict[tuple[str, str], Change] = {
        (change.method, change.evaluation_set): change for change in found.changes
    }
    verdicts = {key: change.verdict for key, change in by.items()}
    assert verdicts == {
        ("full", "id-test"): "chance",
        ("full", "imagenet-r"): "better",
        ("lora", "id-test"): "equal",
        ("lora", "imagenet-r"): "worse",
        ("unkept", "id-test"): "not tested",
        ("unkept", "imagenet-r"): "not tested",
    }
    gain = by["full", "imagenet-r"]
    assert gain.after - gain.before == pytest.approx(0.15)
    assert gain.low is not None and gain.high is not None and 0 < gain.low < 0.15 < gain.high
    # McNemar's exact test of 60 gained and none lost, corrected for the four tests.
    assert gain.p == pytest.approx(3 * 2 * 0.5**60)
    assert [name for _, name in found.only_before] == ["old"]
    assert [name for _, name in found.only_after] == ["new"]
    # The other way round everything is reversed.
    back = {(c.method, c.evaluation_set): c for c in changes_between(after, before).changes}
    assert back["full", "imagenet-r"].verdict == "worse"
    assert back["lora", "imagenet-r"].verdict == "better"


def test_the_command_shows_changes_and_counts_the_rest(folders, capsys) -> None:  # type: ignore[no-untyped-def]
    a, b = map(str, folders)
    assert main(["diff", a, b]) == 0
    shown = capsys.readouterr().out
    assert "better" in shown and "worse" in shown and "old" in shown and "new" in shown
    assert "1 within chance" in shown and "1 equal" in shown and "2 not tested" in shown
    assert "no predictions are there" in shown
    assert main(["diff", a, a]) == 0
    assert "6 equal" in capsys.readouterr().out
    assert main(["diff", a, str(folders[0] / "nothing")]) == 2
    assert "there are no results" in capsys.readouterr().err
