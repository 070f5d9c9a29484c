"""``import``, ``verify`` and ``export`` as they are typed."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from shiftbench.cli import main
from shiftbench.data.sources.builtin.cifar import Cifar101
from shiftbench.evaluation import predictions
from shiftbench.evaluation.scoring import rescore
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import task_digest
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.data import layouts
from tests.leaderboard.test_verify import rewrite, store_run

NAMES = ("ant", "bee", "cow")
SUITE = """\
data: data
backbones: [openai/ViT-B-16]
tasks:
  animals:
    classes: [ant, bee, cow]
    train: {kind: image-folder, path: train}
    id_val: {holdout: 0.2}
    id_test: {source: {kind: image-folder, path: test}}
    shifts: {sketch: {source: {kind: image-folder, path: sketch}}}
methods: {zero-shot: {}, full: {lr: 1e-4}}
seeds: [0, 1]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the suite ``x.yaml`` and its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SHIFTBENCH_PLUGINS", raising=False)
    (tmp_path / "x.yaml").write_text(SUITE)
    for name, each in (("train", 5), ("test", 3), ("sketch", 2)):
        layouts.class_folders(tmp_path / "data" / name, NAMES, each, ".png")
    return tmp_path


def predicted(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    file = folder / "mine.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("set", "id", "prediction"), *rows])
    return file


def animals(*sets: tuple[str, int], wrong: int = 0) -> list[tuple[str, str, str]]:
    """Predictions that are right, but for the first few of each set."""
    rows = []
    for name, each in sets:
        found = [(name, f"{label}/{label}_{i}.png", label) for label in NAMES for i in range(each)]
        missed = [(name, key, "cow" if label != "cow" else "ant") for name, key, label in found]
        rows += missed[:wrong] + found[wrong:]
    return rows


def imports(folder: Path, *options: str, rows: list[tuple[str, str, str]] | None = None) -> int:
    file = predicted(folder, rows or animals(("id-test", 3), ("sketch", 2), wrong=2))
    words = ["import", "predictions", str(file), "--task", "animals", "--method", "mine"]
    return main([*words, "--backbone", "openai/ViT-B-16", "--suite", "x.yaml", *options])


# import predictions


def test_predictions_are_scored_and_reported(folder, capsys):
    assert imports(folder, "--seed", "1") == 0
    shown = capsys.readouterr().out
    assert "id-test: accuracy 77.78 % (39.99 to 97.19), 9 examples" in shown
    assert "sketch: accuracy 66.67 %" in shown
    (run_id,) = store.statuses(folder / "results")
    assert f"run {run_id} is in results" in shown
    assert main(["report"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"1 +mine \(imported\) +1 +77\.8 +66\.7", shown)
    digest = hashlib.sha256((folder / "mine.csv").read_bytes()).hexdigest()
    assert f"not from here animals · mine, seed 1: imported from mine.csv, sha256 {digest}" in shown
    assert imports(folder, "--seed", "1") == 0
    assert f"run {run_id} was in results already" in capsys.readouterr().out
    assert len(store.statuses(folder / "results")) == 1
    assert main(["verify", "--all"]) == 0
    assert "1 of 1 runs agree" in capsys.readouterr().out


def test_imported_rows_are_marked_in_every_printer(folder, capsys):
    """With the file's name and hash, and without a command that would not do them again."""
    assert imports(folder, "--seed", "1") == 0
    digest = hashlib.sha256((folder / "mine.csv").read_bytes()).hexdigest()
    source = f"imported from mine.csv, sha256 {digest}"
    words = ["--html", "a.html", "--csv", "a.csv", "--latex", "a.tex", "--markdown", "a.md"]
    assert main(["report", *words]) == 0
    for name in ("a.html", "a.csv", "a.tex", "a.md"):
        assert "mine (imported)" in (folder / name).read_text(), name
    assert source in (folder / "a.md").read_text()
    (comment,) = [line for line in (folder / "a.tex").read_text().splitlines() if source in line]
    assert comment == f"% animals · mine, seed 1: {source}"
    for row in csv.DictReader((folder / "a.csv").read_text().splitlines()):
        assert (row["imported_files"], row["imported_sha256"]) == ("mine.csv", digest)
    page = (folder / "a.html").read_text()
    assert source in page
    assert "no command is known" not in page


def test_an_import_stands_beside_the_runs_of_its_suite(folder, capsys):
    plan = Plan.build(Suite.load("x.yaml"))
    run = next(run for run in plan.runs.values() if run.label == "full")
    assert imports(folder) == 0
    (row, *_) = store.read(folder / "results").to_pylist()
    assert row["task_digest"] == task_digest(run.task)
    assert (row["data_kind"], row["backbone"], row["suite"]) == (run.data_kind, run.backbone, "x")


def test_a_budget_of_the_suite_counts(folder, capsys):
    (folder / "x.yaml").write_text(f"{SUITE}budget: {{evaluation_images: 4}}\n")
    assert imports(folder) == 2
    assert "the set 4 examples" in capsys.readouterr().err
    assert imports(folder, "--set", "budget.evaluation_images=3") == 2
    assert "the set 3 examples" in capsys.readouterr().err


def test_a_registered_task_needs_no_suite(folder, capsys):
    layouts.cifar10(folder / "data")
    layouts.cifar101(folder / "data")
    line = (
        "import predictions a.csv --task cifar10 --method m --backbone b --evaluation-set cifar10.1"
    )
    words = line.split()
    (folder / "a.csv").write_text(
        "index,prediction\n" + "".join(f"{i},{i % 10}\n" for i in range(3))
    )
    assert main(words) == 2
    assert "no data: add --data" in capsys.readouterr().err
    assert main([*words, "--data", "data"]) == 2
    assert "the file has 3 rows, the set" in capsys.readouterr().err
    n = len(Cifar101().open(str(folder / "data")))
    (folder / "a.csv").write_text("index,prediction\n" + "".join(f"{i},cat\n" for i in range(n)))
    assert main([*words, "--data", "data"]) == 0
    (row,) = store.read(folder / "results").to_pylist()
    assert (row["task"], row["data_kind"], row["n"]) == ("cifar10", "real", n)
    assert main([*words, "--data", "data", "--task", "cifar"]) == 2
    assert main([*words, "--data", "data", "--set", "budget.evaluation_images=3"]) == 2
    assert "--set changes a suite; name it with --suite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (animals(("id-test", 2)), "id-test: 3 ids of the set are missing (ant/ant_2.png, "),
        (animals(("id-test", 4)), "id-test: 3 ids are not in the set (ant/ant_3.png, "),
        (animals(("id-test", 3), ("id-test", 1)), "id-test: 3 ids are there more than once"),
        (animals(("skech", 2)), 'no evaluation set "skech" (did you mean "sketch"?)'),
        ([("id-test", "a", "ant")], "1 ids are not in the set (a); 9 ids of the set are missing"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(folder, capsys, rows, message):
    assert imports(folder, rows=rows) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out
    assert not (folder / "results").exists()


def test_options_that_do_not_fit_are_one_line(folder, capsys):
    for options, message in {
        ("--task", "animal"): 'has no task "animal"',
        ("--evaluation-set", "id-val"): 'has no rows of the set "id-val"',
        ("--method", " "): "--method: must be a name",
        ("--selection", "best"): "--selection",
        ("--seed", "-1"): "--seed",
        ("--data", "nowhere"): '"nowhere" is not a folder',
    }.items():
        assert imports(folder, *options) == 2
        assert message in capsys.readouterr().err
    assert not (folder / "results").exists()


# verify


def test_verify_says_what_differs(folder, capsys):
    results = folder / "results"
    for run_id in ("a1", "b2", "b3"):
        store_run(results, run_id)
    assert main(["verify", "--all"]) == 0
    assert "3 of 3 runs agree" in capsys.readouterr().out
    rewrite(results, "b2", "value", lambda value: value + 1e-9)
    RunFolder.of(results, "b3").predictions.unlink()
    assert main(["verify", "--all"]) == 1
    shown = capsys.readouterr().out
    assert "agrees a1 (imagenet, miniature, full, seed 0): 6 rows" in shown
    assert "differs b2" in shown
    assert "id-val, accuracy: value is 0." in shown
    assert "its predictions are missing" in shown
    assert "1 of 3 runs agree" in shown
    assert main(["verify", "a1"]) == 0
    assert main(["verify", "a", "b2"]) == 1
    assert main(["verify", "--task", "imagenet", "--method", "full"]) == 1


def test_verify_wants_to_know_what(folder, capsys):
    assert main(["verify", "--all"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    store_run(folder / "results", "a1")
    for words, message in {
        "": "or else --all",
        "--all a1": "or else --all",
        "b": '"b" is no run',
        "--all --tolerance 0.1": "go with --rerun",
        "--all --rerun x.yaml": "none of these runs is one of x.yaml",
        "a1 --rerun x.yaml": "a1 is no run of x as it is now",
    }.items():
        assert main(["verify", *words.split()]) == 2
        assert message in capsys.readouterr().err


def test_verify_can_run_again(folder, capsys, monkeypatch):
    results = folder / "results"
    run_id = next(iter(Plan.build(Suite.load("x.yaml")).runs))
    store_run(results, run_id, task="animals")
    store_run(results, "a1")
    places = []

    def launch(suite, into, *arguments, **options):
        places.append(into)
        store_run(into, run_id, task="animals")

    monkeypatch.setattr("shiftbench.execution.rerun.launch", launch)
    assert main(["verify", "--all", "--rerun", "x.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "1 runs are not of this suite" in shown
    assert "1 of 1 runs agree" in shown
    (place,) = places
    assert place.parent == Path("results")
    assert not place.exists()
    rewrite(results, run_id, "value", lambda value: value + 1e-9)
    assert main(["verify", run_id, "--rerun", "x.yaml"]) == 1
    assert main(["verify", run_id, "--rerun", "x.yaml", "--tolerance", "1e-8"]) == 0


# export and import bundle


def test_what_is_exported_can_be_imported(folder, capsys):
    assert imports(folder) == 0
    store_run(folder / "results", "a1")
    capsys.readouterr()
    assert main(["export", "--to", "all.zip"]) == 0
    assert re.match(r"all\.zip: 2 runs, [\d,]+ bytes\ndigest \w{64}\n$", capsys.readouterr().out)
    assert main(["import", "bundle", "all.zip", "--results", "there"]) == 0
    assert capsys.readouterr().out.count("taken in") == 2
    assert main(["import", "bundle", "all.zip", "--results", "there"]) == 0
    assert capsys.readouterr().out.count("was there already") == 2
    assert main(["verify", "--all", "--results", "there"]) == 0
    assert main(["report", "--results", "there"]) == 0
    assert "mine" in capsys.readouterr().out


def test_labels_of_a_bundle_are_checked_where_the_data_are(folder, capsys):
    """Made-up labels, with values that follow from them, are taken in only where nothing tells."""
    assert imports(folder) == 0
    assert main(["export", "--to", "right.zip"]) == 0
    (run_id,) = store.statuses(folder / "results")
    file = RunFolder.of(folder / "results", run_id).predictions
    table = predictions.read(file)
    position = table.schema.get_field_index("label")
    field = table.schema.field(position)
    predictions.write(file, table.set_column(position, field, table["prediction"]))
    for i, row in enumerate(store.read(folder / "results", [run_id]).to_pylist()):
        part = predictions.read(file).filter(pc.field("set") == row["evaluation_set"])
        for name, value in vars(rescore(part, row["metric"])).items():
            rewrite(folder / "results", run_id, name, value, i)
    assert main(["export", "--to", "forged.zip"]) == 0
    capsys.readouterr()

    assert main(["import", "bundle", "forged.zip", "--results", "a"]) == 0
    shown = capsys.readouterr().out
    assert "labels of id-test, sketch not checked" in shown
    assert "--data FOLDER checks labels" in shown
    with_data = ["--suite", "x.yaml", "--data", "data"]
    assert main(["import", "bundle", "forged.zip", "--results", "b", *with_data]) == 2
    assert "id-test has not the labels that the data has of it" in capsys.readouterr().err
    assert main(["import", "bundle", "right.zip", "--results", "b", *with_data]) == 0
    assert capsys.readouterr().out == f"{run_id}: taken in\n"
    assert set(store.read(folder / "b")["unchecked"].to_pylist()) == {None}

    assert main(["import", "bundle", "right.zip", "--results", "c", "--data", "data"]) == 0
    assert "animals, id-test: labels not checked (no such task" in capsys.readouterr().out


def test_a_conflict_of_bundles_is_shown_and_decided(folder, capsys):
    assert imports(folder) == 0
    (run_id,) = store.statuses(folder / "results")
    assert main(["export", "--to", "a.zip"]) == 0
    rewrite(folder / "results", run_id, "n", 8)
    capsys.readouterr()
    assert main(["import", "bundle", "a.zip"]) == 1
    shown = capsys.readouterr().out
    assert f"{run_id}: CONFLICT, stays as it is here: id-test, accuracy: n is 8 here" in shown
    assert f"decide with --theirs or --ours {run_id}" in shown
    assert main(["import", "bundle", "a.zip", "--theirs", run_id]) == 0
    assert main(["import", "bundle", "a.zip"]) == 0
    assert main(["verify", "--all"]) == 0


def test_a_bundle_that_was_changed_is_one_line(folder, capsys):
    store_run(folder / "results", "a1")
    assert main(["export", "--runs", "a", "--to", "a.zip"]) == 0
    data = bytearray((folder / "a.zip").read_bytes())
    data[data.index(b"PAR1") + 10] ^= 1
    (folder / "a.zip").write_bytes(bytes(data))
    capsys.readouterr()
    assert main(["import", "bundle", "a.zip", "--results", "there"]) == 2
    shown = capsys.readouterr()
    assert "predictions/a1.parquet cannot be read" in shown.err
    assert shown.err.count("\n") == 1
    assert not (folder / "there").exists()


def test_export_wants_runs_and_a_file(folder, capsys):
    assert main(["export", "--to", "a.zip"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    store_run(folder / "results", "a1")
    assert main(["export", "--to", "a.rar"]) == 2
    assert "must end in .zip" in capsys.readouterr().err
    assert main(["export", "--runs", "b", "--to", "a.zip"]) == 2
    assert '"b" is no run' in capsys.readouterr().err
    assert main(["export", "--to", "nowhere/deep/a.zip"]) == 0


# Start


def test_nothing_heavy_is_imported_before_it_is_needed(folder):
    store_run(folder / "results", "a1")
    code = (
        "import contextlib, io, sys\n"
        "from shiftbench.cli import main\n"
        "light = (['import', '--help'], ['import', 'predictions', '--help'],\n"
        "         ['import', 'bundle', '--help'], ['verify', '--help'], ['export', '--help'])\n"
        "work = (['verify', '--all'], ['export', '--to', 'a.zip'],\n"
        "        ['import', 'bundle', 'a.zip', '--results', 'b'])\n"
        "for words in light:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert main(words) == 0, words\n"
        "heavy = {'torch', 'ray', 'open_clip'}\n"
        "assert not (heavy | {'numpy', 'pyarrow', 'yaml'}) & sys.modules.keys()\n"
        "for words in work:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert main(words) == 0, words\n"
        "    assert not heavy & sys.modules.keys(), (words, heavy & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
