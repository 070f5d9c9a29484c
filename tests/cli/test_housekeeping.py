"""``remove`` and ``gc``: what they would delete, what they delete, and what they never do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.leaderboard import housekeeping, store
from shiftbench.leaderboard.leases import Leases
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done, failed

from tests.leaderboard.records import info
from tests.leaderboard.records import results as scores

OLD = time.time() - 30 * 24 * 3600
IDS = {"full": "a" * 16, "wise-ft": "b" * 16, "alone": "c" * 16, "broken": "d" * 16}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run that another one builds on, one alone, and one that failed."""
    for label, run_id in IDS.items():
        parents = (("full", IDS["full"]),) if label == "wise-ft" else ()
        of_run = info(run_id, label=label, parents=parents)
        rows = done(of_run, scores({"id-val": 0.5, "id-test": 0.5}))
        table = failed(of_run, "no luck") if label == "broken" else rows
        store.write_run(tmp_path, run_id, table)
        folder = RunFolder.of(tmp_path, run_id)
        folder.path.mkdir(parents=True)
        folder.record.write_text(json.dumps({"run": {"parents": []}}))
        if label != "broken":
            folder.weights.write_bytes(b"x" * 1500)
            folder.predictions.write_bytes(b"y" * 10)
    return tmp_path


def there(results: Path) -> set[str]:
    """Every file in the results folder."""
    return {str(file.relative_to(results)) for file in results.rglob("*") if file.is_file()}


def test_a_run_goes_with_all_that_is_its_own_and_only_when_meant(results, capsys):
    before = there(results)
    words = ["remove", "cccc", "--results", str(results)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "nothing is deleted without --yes" in shown and IDS["alone"] in shown
    assert there(results) == before
    assert main([*words, "--yes"]) == 0
    gone = before - there(results)
    assert gone and all(IDS["alone"] in name for name in gone)
    assert not any(IDS["alone"] in name for name in there(results))
    assert IDS["alone"] not in store.statuses(results)
    assert store.statuses(results).keys() == set(IDS.values()) - {IDS["alone"]}


def test_what_another_run_builds_on_stays(results, capsys):
    before = there(results)
    assert main(["remove", "--method", "full", "--yes", "--results", str(results)]) == 2
    assert f"{IDS['wise-ft']} (wise-ft) builds on {IDS['full']}" in capsys.readouterr().err
    assert there(results) == before
    assert main(["remove", "aaaa", "bbbb", "--yes", "--results", str(results)]) == 0
    assert store.statuses(results).keys() == {IDS["alone"], IDS["broken"]}


@pytest.mark.parametrize("words", [["--method", "mine"], ["mine"]])
def test_a_run_goes_by_each_of_its_labels(results, words):
    run_id = "9" * 16
    of_run = info(run_id, label="plain", also_called=("mine",))
    store.write_run(results, run_id, done(of_run, scores({"id-val": 0.5, "id-test": 0.5})))
    assert main(["remove", *words, "--yes", "--results", str(results)]) == 0
    assert store.statuses(results).keys() == set(IDS.values())


def test_failed_runs_go_together(results):
    assert main(["remove", "--failed", "--yes", "--results", str(results)]) == 0
    assert store.statuses(results).keys() == set(IDS.values()) - {IDS["broken"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name runs"),
        (["e"], '"e" is no run'),
        (["--method", "none"], "no such run"),
    ],
)
def test_what_means_no_run_is_said(results, capsys, words, message):
    assert main(["remove", *words, "--results", str(results)]) == 2
    assert message in capsys.readouterr().err


def test_gc_finds_what_nothing_needs_and_nothing_else(results, capsys):
    folder = RunFolder.of(results, IDS["full"])
    (folder.path / "fit.json").write_text("{}")
    folder.state.write_bytes(b"z")
    (folder.path / "parts").mkdir()
    (folder.path / "parts" / "x.parquet").write_bytes(b"z")
    for name, when in (("old", OLD), ("new", time.time())):
        lost = results / "runs" / name
        lost.mkdir()
        (lost / "state.safetensors").write_bytes(b"z")
        os.utime(lost / "state.safetensors", (when, when))
        group = results / f"train-{name}"
        group.mkdir()
        (group / "checkpoint").write_text("z")
        os.utime(group / "checkpoint", (when, when))
        search = results / "searches" / name
        search.mkdir(parents=True)
        (search / "journal.log").write_text("z")
        os.utime(search / "journal.log", (when, when))
    before = there(results)
    assert main(["gc", "--results", str(results)]) == 0
    assert "nothing is deleted without --yes" in capsys.readouterr().out
    assert there(results) == before
    assert main(["gc", "--yes", "--results", str(results)]) == 0
    assert before - there(results) == {
        f"runs/{IDS['full']}/state.safetensors",
        f"runs/{IDS['full']}/parts/x.parquet",
        "runs/old/state.safetensors",
        "searches/old/journal.log",
        "train-old/checkpoint",
    }
    capsys.readouterr()
    assert main(["gc", "--results", str(results)]) == 0
    assert capsys.readouterr().out == "nothing\n"


def test_gc_keeps_weights_that_an_unfinished_run_builds_on(results, capsys):
    waiting = RunFolder.of(results, "e" * 16)
    waiting.path.mkdir()
    run = {"parents": [["full", None, IDS["full"]]]}
    waiting.record.write_text(json.dumps({"run": run}))
    assert main(["gc", "--weights", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("weights that no unfinished run builds on") == 2
    assert "1.5 kB" in shown and "3.0 kB in all" in shown and IDS["full"] not in shown
    assert main(["gc", "--weights", "--yes", "--results", str(results)]) == 0
    assert RunFolder.of(results, IDS["full"]).weights.exists()
    assert not RunFolder.of(results, IDS["alone"]).weights.exists()
    assert RunFolder.of(results, IDS["alone"]).predictions.exists()
    assert store.statuses(results).keys() == set(IDS.values())


def test_weights_go_with_their_record_so_that_they_are_made_again_when_needed(results, capsys):
    folder = RunFolder.of(results, IDS["alone"])
    folder.fit.write_text("{}")
    before = there(results)
    assert main(["gc", "--weights", "--yes", "--results", str(results)]) == 0
    assert capsys.readouterr().out.count("record of these weights") == 1
    assert not folder.fitted and f"runs/{IDS['alone']}/fit.json" in before - there(results)


def test_gc_keeps_weights_below_a_run_that_keeps_none(results):
    """An unfinished run builds on WiSE-FT, which is made of its parent's weights each time."""
    derived = RunFolder.of(results, IDS["wise-ft"])
    derived.record.write_text(json.dumps({"run": {"parents": [["full", None, IDS["full"]]]}}))
    waiting = RunFolder.of(results, "e" * 16)
    waiting.path.mkdir()
    waiting.record.write_text(json.dumps({"run": {"parents": [["w", None, IDS["wise-ft"]]]}}))
    assert main(["gc", "--weights", "--yes", "--results", str(results)]) == 0
    assert RunFolder.of(results, IDS["full"]).weights.exists()
    assert not RunFolder.of(results, IDS["alone"]).weights.exists()


def test_a_file_that_is_renamed_meanwhile_is_no_error(tmp_path, monkeypatch):
    gone = tmp_path / ".weights.tmp"
    assert housekeeping._item(gone, "why").size == 0
    assert housekeeping._age(gone) < 1


def test_what_is_being_done_is_left_alone(results, capsys):
    state = RunFolder.of(results, IDS["broken"]).path / "state.safetensors"
    state.write_bytes(b"z")
    (state.parent / "fit.json").write_text("{}")
    before = there(results)
    with Leases.of(results) as leases:
        leases.take(IDS["broken"])
        assert main(["remove", "--failed", "--yes", "--results", str(results)]) == 2
        error = capsys.readouterr().err
        assert f"is being done by process {os.getpid()} on " in error
        assert error.count("\n") == 1 and f"{IDS['broken']}.1.json" in error
        assert main(["gc", "--weights", "--yes", "--results", str(results)]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"1 being done by process {os.getpid()} on ")
        assert before <= there(results)
    assert main(["gc", "--yes", "--results", str(results)]) == 0
    assert not state.exists()
    assert main(["remove", "--failed", "--yes", "--results", str(results)]) == 0
    assert not any(IDS["broken"] in name for name in there(results))


def test_gc_takes_old_leases_that_nobody_holds(results):
    with Leases.of(results) as leases:
        for key in ("done", "held"):
            leases.take(key)
        leases.end("done", "done")
        leases.take("new")
        leases.end("new", "done")
        for name in ("done", "held"):
            os.utime(results / "leases" / f"{name}.1.json", (OLD, OLD))
        assert main(["gc", "--yes", "--results", str(results)]) == 0
        left = {file.name for file in (results / "leases").iterdir()}
    assert left == {"held.1.json", "new.1.json"}
