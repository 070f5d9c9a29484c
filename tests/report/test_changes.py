"""What got better or worse between two results folders, on runs with answers written by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shiftbench.cli import main
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import Examples
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows, runs, to_table
from shiftbench.report.changes import Change, changes_between
from shiftbench.report.ranking import rank

from tests.leaderboard.records import run

N = 400


def write(
    folder: Path,
    label: str,
    right: Mapping[str, int],
    run_id: str,
    *,
    kept: bool = True,
    **facts: Any,
) -> None:
    """A run that is right on the first so many examples of each set."""
    values = {name: count / N for name, count in right.items()}
    shifts = ("imagenet-r",)
    table = run(run_id, values, label=label, method=label, shifts=shifts, **facts)
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


def test_two_commits_of_one_results_folder_are_compared(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    old, new = "a1" * 20, "b2" * 20
    write(tmp_path, "full", {"id-test": 300, "imagenet-r": 200}, "old1", git_sha=old)
    write(tmp_path, "full", {"id-test": 300, "imagenet-r": 300}, "new1", git_sha=new)
    write(tmp_path, "zero-shot", {"id-test": 200, "imagenet-r": 200}, "zero", git_sha=old)
    child = {"git_sha": new, "parents": (("zero-shot", "zero"),), "git_dirty": False}
    write(tmp_path, "child", {"id-test": 300, "imagenet-r": 300}, "new2", **child)
    command = ["diff", "--results", str(tmp_path)]
    assert main([*command, "a1a1a1a", new]) == 0
    shown = capsys.readouterr().out
    assert "1 better" in shown and "worse" not in shown
    assert "3 equal" in shown  # full on id-test, and zero-shot, which a run of the new one needs
    assert "child" in shown and "1 runs of b2b2b2b were computed with changes" in shown
    for commits, problem in (
        (("a1", "c3"), "no run is of such a commit; runs are of"),
        (("a1", "a1a1"), "are one commit"),
        (("", "b2"), "several commits are meant"),
    ):
        assert main([*command, *commits]) == 2
        assert problem in capsys.readouterr().err


def test_a_commit_may_be_called_as_git_calls_it(tmp_path: Path) -> None:
    from shiftbench.report.commits import of_commit

    def git(*arguments: str) -> str:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    sha = git("rev-parse", "HEAD")
    results = tmp_path / "results"
    write(results, "full", {"id-test": 1, "imagenet-r": 1}, "r1", git_sha=sha)
    write(results, "full", {"id-test": 1, "imagenet-r": 1}, "r2", git_sha="f" * 40)
    found = of_commit(store.read(results), "HEAD", tmp_path)
    assert found.sha == sha and set(found.table["run_id"].to_pylist()) == {"r1"}


def test_a_run_of_two_labels_is_compared_under_both(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    for name, right in (("a", 200), ("b", 260)):
        write(tmp_path / name, "full", {"id-test": 300, "imagenet-r": right}, "f0")
        table = store.read(tmp_path / name)
        (of_run,) = runs(table)
        store.write_run(
            tmp_path / name,
            "f0",
            to_table([replace(row, also_called=("mine",)) for row in rows(table)]),
        )
        assert of_run.labels == ("full",)
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    assert "2 better" in shown and "2 equal" in shown
    for label in ("full", "mine"):
        (line,) = (line for line in shown.splitlines() if line.startswith(label))
        assert "better" in line
