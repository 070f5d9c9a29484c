import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shiftbench.api import Leaderboard
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard import store
from shiftbench.leaderboard.files import COPY, Files
from shiftbench.leaderboard.schema import SCHEMA, VERSION_KEY, done, failed
from shiftbench.leaderboard.store import (
    compact,
    folder,
    keep_compact,
    read,
    statuses,
    write_run,
)

from tests.leaderboard.records import info, results, run
from tests.leaderboard.together import everyone_at_once

SETS = {"id-test": 0.5, "imagenet-r": 0.25}


def fill(place, names, **changes):
    tables = {name: run(name, SETS, **changes) for name in names}
    for name, table in tables.items():
        write_run(place, name, table)
    return tables


def opened(monkeypatch):
    """The runs whose own files are read from now on."""
    names = []
    plain = Files.read_run

    def noted(self, run_id, chosen):
        names.append(run_id)
        return plain(self, run_id, chosen)

    monkeypatch.setattr(Files, "read_run", noted)
    return names


def test_rows_are_the_same_before_and_after(tmp_path, monkeypatch):
    fill(tmp_path, ["c3", "a1"], task="imagenet")
    fill(tmp_path, ["b2"], task="fmow", backbone="ViT-B-32")
    write_run(tmp_path, "d4", failed(info("d4"), "power cut"))
    before, states = read(tmp_path), statuses(tmp_path)

    copied = compact(tmp_path, settled=0)

    assert (copied.runs, copied.rows, copied.recent) == (4, 7, 0)
    names = opened(monkeypatch)
    assert read(tmp_path).equals(before)
    assert read(tmp_path).schema.equals(before.schema, check_metadata=True)
    assert statuses(tmp_path) == states
    for name in ("a1", "b2", "c3", "d4"):
        assert read(tmp_path, [name]).equals(before.filter(pc.field("run_id") == name))
    assert read(tmp_path, ["other"]).num_rows == 0
    assert names == []  # nothing but the copy was read
    query = f"SELECT run_id, count(*) FROM '{folder(tmp_path)}/*.parquet' GROUP BY ALL"  # noqa: S608
    assert dict(duckdb.sql(query).fetchall()) == {"a1": 2, "b2": 2, "c3": 2, "d4": 1}


def test_what_has_changed_since_is_read_from_its_own_file(tmp_path, monkeypatch):
    tables = fill(tmp_path, ["a1", "b2", "c3"])
    compact(tmp_path, settled=0)
    tables |= fill(tmp_path, ["d4"])
    tables["b2"] = run("b2", {"id-test": 0.75})
    write_run(tmp_path, "b2", tables["b2"])
    (folder(tmp_path) / "c3.parquet").unlink()
    del tables["c3"]

    names = opened(monkeypatch)
    assert read(tmp_path).equals(pa.concat_tables(tables[name] for name in sorted(tables)))
    assert names == ["b2", "d4"]
    compact(tmp_path, settled=0)
    names.clear()
    assert read(tmp_path).equals(pa.concat_tables(tables[name] for name in sorted(tables)))
    assert names == []


def test_a_file_that_may_yet_change_unseen_is_not_copied(tmp_path, monkeypatch):
    fill(tmp_path, ["a1"])
    assert compact(tmp_path, settled=3600) == store.Compaction(runs=0, rows=0, recent=1)
    names = opened(monkeypatch)
    assert read(tmp_path).num_rows == 2
    assert names == ["a1"]


def test_a_run_written_while_it_is_copied_keeps_its_new_rows(tmp_path, monkeypatch):
    fill(tmp_path, ["a1", "b2"])
    new = run("a1", {"id-test": 0.75})
    plain = Files.write

    def late(self, name, table, **options):
        monkeypatch.undo()
        write_run(tmp_path, "a1", new)
        plain(self, name, table, **options)

    monkeypatch.setattr(Files, "write", late)
    compact(tmp_path, settled=0)
    assert read(tmp_path, ["a1"]).equals(new)


@pytest.mark.parametrize("compacted", ["none", "all", "half"])
def test_a_filter_gives_what_filtering_all_rows_gives(tmp_path, compacted):
    def write(numbers):
        for i in numbers:
            task, backbone = ("imagenet", "fmow", "it's")[i % 3], ("b16", "b32")[i % 2]
            rows = [*results(SETS), *results({"id-val": 0.5}, "a", None, incomplete_reason="gap")]
            about = info(f"{i:04x}", task=task, backbone=backbone)
            table = failed(about, "no") if i % 7 == 6 else done(about, rows)
            write_run(tmp_path, f"{i:04x}", table)

    write(range(0, 20, 2))
    if compacted == "half":
        compact(tmp_path, settled=0)
    write(range(1, 20, 2))
    if compacted == "all":
        compact(tmp_path, settled=0)
    table = read(tmp_path)
    assert len(set(table["run_id"].to_pylist())) == 20
    for task, backbone in itertools.product(("imagenet", "it's", "other"), ("b16", "b32")):
        found = read(tmp_path, where={"task": [task], "backbone": [backbone]})
        right = (pc.field("task") == task) & (pc.field("backbone") == backbone)
        assert found.equals(table.filter(right))
    assert read(tmp_path, where={"task": []}).num_rows == 0
    found = read(tmp_path, where={"evaluation_set": ["id-val", "id-test"]}, columns=["value", "n"])
    right = table.filter(pc.field("evaluation_set").isin(["id-val", "id-test"]))
    assert found.equals(right.select(found.column_names))
    assert found.column_names == ["value", "n"]
    some = [f"{i:04x}" for i in range(0, 20, 5)]
    found = read(tmp_path, some, where={"task": ["fmow", "imagenet"]})
    right = pc.field("run_id").isin(some) & pc.field("task").isin(["fmow", "imagenet"])
    assert found.equals(table.filter(right))


def test_a_copy_that_was_not_finished_leaves_the_one_before(tmp_path, monkeypatch):
    tables = fill(tmp_path, ["a1"])
    compact(tmp_path, settled=0)
    tables |= fill(tmp_path, ["b2"])
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compact(tmp_path, settled=0)
    assert read(tmp_path).equals(pa.concat_tables(tables.values()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboard", COPY]


@pytest.mark.parametrize("content", [b"", b"not parquet"])
def test_a_broken_copy_is_named(tmp_path, content):
    fill(tmp_path, ["a1"])
    (tmp_path / COPY).write_bytes(content)
    with pytest.raises(InputError, match=r"leaderboard\.parquet: cannot be read .* delete it"):
        read(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / COPY)
    with pytest.raises(InputError, match=r"leaderboard\.parquet: not a file of the leaderboard"):
        read(tmp_path)


def test_a_copy_of_another_version_is_not_read(tmp_path):
    tables = fill(tmp_path, ["a1"])
    pq.write_table(
        SCHEMA.empty_table().replace_schema_metadata({VERSION_KEY: b"1"}), tmp_path / COPY
    )
    assert read(tmp_path).equals(tables["a1"])


def test_a_run_of_that_name_is_no_copy(tmp_path):
    tables = fill(tmp_path, ["a1", "b2"])
    pq.write_table(run("c3", SETS), tmp_path / COPY)
    assert read(tmp_path).equals(pa.concat_tables(tables.values()))


def test_a_file_that_is_deleted_after_it_was_listed_has_no_rows(tmp_path, monkeypatch):
    tables = fill(tmp_path, ["a1", "b2"])
    listed = Files.of(tmp_path).runs()
    (folder(tmp_path) / "b2.parquet").unlink()
    monkeypatch.setattr(Files, "runs", lambda self: listed)
    assert read(tmp_path).equals(tables["a1"])


def test_a_broken_file_is_named_and_nothing_is_copied(tmp_path):
    fill(tmp_path, ["a1"])
    (folder(tmp_path) / "c3.parquet").write_bytes(b"half")
    with pytest.raises(InputError, match=r"c3\.parquet: cannot be read"):
        compact(tmp_path, settled=0)
    assert not (tmp_path / COPY).exists()


@pytest.fixture
def few(monkeypatch):
    """Copies are made of three files."""
    monkeypatch.setattr(store, "MANY", 3)
    monkeypatch.setattr(compact, "__defaults__", (0,))


def test_a_copy_is_kept_up_without_being_asked_for(tmp_path, monkeypatch, few):
    fill(tmp_path, ["a1", "b2"])
    keep_compact(tmp_path)
    assert not (tmp_path / COPY).exists()  # two files are opened as quickly
    fill(tmp_path, ["c3"])
    keep_compact(tmp_path)
    names = opened(monkeypatch)
    assert read(tmp_path).num_rows == 6
    assert names == []
    made = (tmp_path / COPY).stat().st_mtime_ns
    fill(tmp_path, ["d4", "a1"], task="fmow")
    keep_compact(tmp_path)
    assert (tmp_path / COPY).stat().st_mtime_ns == made
    fill(tmp_path, ["e5"])
    keep_compact(tmp_path)
    names.clear()
    assert read(tmp_path).num_rows == 10
    assert names == []


def test_who_reads_a_leaderboard_keeps_it_up(tmp_path, few):
    fill(tmp_path, ["a1", "b2", "c3"])
    Leaderboard(tmp_path).rankings()
    assert (tmp_path / COPY).exists()


def test_a_copy_that_cannot_be_made_is_done_without(tmp_path, few):
    tables = fill(tmp_path, ["a1", "b2", "c3"])
    (tmp_path / COPY).mkdir()
    keep_compact(tmp_path)
    assert (tmp_path / COPY).is_dir()
    (tmp_path / COPY).rmdir()
    assert read(tmp_path).equals(pa.concat_tables(tables.values()))


def _killed_while_copying(place):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = die  # what is written is whole, and not yet in its place
    store.MANY = 3
    keep_compact(place)


def test_who_is_killed_while_copying_leaves_no_trace(tmp_path, few):
    tables = fill(tmp_path, ["a1", "b2", "c3"])
    process = multiprocessing.get_context("fork").Process(
        target=_killed_while_copying, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert read(tmp_path).equals(pa.concat_tables(tables.values()))
    keep_compact(tmp_path)
    assert (tmp_path / COPY).exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_command(tmp_path, capsys):
    fill(tmp_path, ["a1", "b2", "c3"])
    assert main(["compact", "--results", str(tmp_path)]) == 0
    assert "rows of" in capsys.readouterr().out
    assert (tmp_path / COPY).exists()
    assert main(["compact", "--results", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_eight_writers_a_compactor_and_a_reader_at_once(tmp_path):
    compacted, polls = everyone_at_once(
        tmp_path / "results", tmp_path / "stop", writers=8, runs=12, pause=0.05
    )
    assert compacted > 1
    assert polls > 1
