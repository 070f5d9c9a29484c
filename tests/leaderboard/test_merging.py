"""Several results folders read as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import shiftbench
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard import store
from shiftbench.leaderboard.merging import Folders, merge, names_of
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import failed, rows

from tests.leaderboard.records import info, run

SETS = {"id-test": 0.7, "imagenet-r": 0.5}
SHIFTS = ("imagenet-r",)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two machines' results: one run alike, one apart with a child each, one failed in one."""
    a, b = tmp_path / "one" / "results", tmp_path / "two" / "results"
    for folder, value in ((a, 0.5), (b, 0.6)):
        store.write_run(folder, "same", run("same", SETS, label="zero-shot", shifts=SHIFTS))
        apart = SETS | {"imagenet-r": value}
        store.write_run(folder, "apart", run("apart", apart, shifts=SHIFTS))
    child = {"label": "child", "parents": (("full", "apart"),), "shifts": SHIFTS}
    store.write_run(a, "c0", run("c0", SETS, **child))
    store.write_run(b, "c1", run("c1", SETS, **child, seed=1))
    store.write_run(a, "half", failed(info("half", label="half"), "no memory"))
    store.write_run(b, "half", run("half", SETS, label="half", shifts=SHIFTS))
    return a, b


def merged_of(a: Path, b: Path):  # type: ignore[no-untyped-def]
    return merge({"one": (a, store.read(a)), "two": (b, store.read(b))})


def test_equal_runs_count_once_and_unequal_ones_stay_apart(folders: tuple[Path, Path]) -> None:
    a, b = folders
    merged = merged_of(a, b)
    found = rows(merged.table)
    values = {(row.run_id, row.evaluation_set): row.value for row in found}
    assert len(values) == len(found)
    ids = [run_id for run_id, name in values if name == "imagenet-r"]
    assert ids == sorted(["same", "apart@one", "apart@two", "c0", "c1", "half"])
    assert values["apart@one", "imagenet-r"] == 0.5
    assert values["apart@two", "imagenet-r"] == 0.6
    parents = {row.run_id: [parent.run_id for parent in row.parents] for row in found}
    assert parents["c0"] == ["apart@one"] and parents["c1"] == ["apart@two"]
    assert merged.folders.origins == {
        "same": ("one", "two"),
        "apart@one": ("one",),
        "apart@two": ("two",),
        "c0": ("one",),
        "c1": ("two",),
        "half": ("two",),
    }
    assert merged.table.schema.equals(store.read(a).schema, check_metadata=True)


def test_files_are_found_where_the_rows_are_from(folders: tuple[Path, Path]) -> None:
    a, b = folders
    where = merged_of(a, b).folders
    assert where.run("same") == RunFolder.of(a, "same")
    assert where.run("apart@two") == RunFolder.of(b, "apart")
    assert where.run("half") == RunFolder.of(b, "half")
    assert where.search("s") == SearchFolder.of(a, "s")
    (b / "searches" / "s").mkdir(parents=True)
    (b / "searches" / "s" / "found.json").write_text("{}")
    assert where.search("s") == SearchFolder.of(b, "s")
    assert Folders.of(None).run("same") is None and Folders.of(None).search("s") is None


def test_what_failed_everywhere_is_told_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        store.write_run(folder, "bad", failed(info("bad"), "no memory"))
    merged = merged_of(a, b)
    assert merged.table["run_id"].to_pylist() == ["bad"]
    assert merged.folders.origins == {"bad": ("one", "two")}


def test_a_child_finds_its_parent_where_another_folder_has_the_same(tmp_path: Path) -> None:
    """Of three accounts of a run two agree; the second of them has a child of it."""
    results = {name: tmp_path / name for name in ("a", "b", "c")}
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.5)):
        table = run("apart", SETS | {"imagenet-r": value}, shifts=SHIFTS)
        store.write_run(results[name], "apart", table)
    child = run("child", SETS, label="child", parents=(("full", "apart"),), shifts=SHIFTS)
    store.write_run(results["c"], "child", child)
    merged = merge({name: (folder, store.read(folder)) for name, folder in results.items()})
    parents = {row.run_id: [parent.run_id for parent in row.parents] for row in rows(merged.table)}
    assert parents == {"apart@a": [], "apart@b": [], "child": ["apart@a"]}
    assert merged.folders.origins["apart@a"] == ("a", "c")


def test_names_are_the_ends_that_differ() -> None:
    assert names_of(["results"]) == ["results"]
    assert names_of(["a/results", "/b/results/"]) == ["a/results", "b/results"]
    assert names_of(["old", "s3://bucket/new?key=secret"]) == ["old", "new"]
    with pytest.raises(InputError, match="given twice"):
        names_of(["results", "results/"])


def test_the_report_says_where_every_line_is_from(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = map(str, folders)
    files = [str(tmp_path / f"r.{ending}") for ending in ("md", "html", "csv")]
    command = ["report", "--results", a, "--results", b, "--markdown", files[0]]
    assert main([*command, "--html", files[1], "--csv", files[2]]) == 0
    markdown, page, table = (Path(file).read_text() for file in files)
    for text in (markdown, page, table):
        assert "one/results" in text and "two/results" in text
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert any("full" in line and "| one/results |" in line for line in lines)
    assert any("zero-shot" in line and "| one/results, two/results |" in line for line in lines)
    assert main(["report", "--results", a, "--results", a, "--markdown", files[0]]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["compare", "--results", a, "--results", b]) == 0
    board = shiftbench.Leaderboard([a, b])
    assert len({member.run_id for m in board.ranking().methods for member in m.members}) == 6
    assert shiftbench.Leaderboard(a).merged().folders == Folders((Path(a),))
