import json
import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard import store
from shiftbench.leaderboard.files import COPY, STAMPS_KEY, Files
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import SCHEMA, VERSION_KEY, failed
from shiftbench.leaderboard.store import check_writable, folder, read, relabel, statuses, write_run

from tests.leaderboard.records import info, run

SETS = {"id-test": 0.5, "imagenet-r": 0.25}


def test_round_trip(tmp_path):
    first, second = run("a1", SETS), run("b2", SETS, seed=1)
    write_run(tmp_path, "b2", second)
    write_run(tmp_path, "a1", first)

    assert read(tmp_path).equals(pa.concat_tables([first, second]))
    assert read(tmp_path).schema.equals(SCHEMA, check_metadata=True)
    assert read(tmp_path, {"b2"}).equals(second)


def test_a_suite_has_its_own_labels():
    table = pa.concat_tables([run("a1", SETS), run("b2", SETS)])
    other = relabel(table, {"a1": ["plain"], "b2": ["slow"], "c3": ["unused"]})
    assert other["label"].to_pylist() == ["plain"] * 2 + ["slow"] * 2
    assert other.schema.equals(SCHEMA, check_metadata=True)
    assert other.drop_columns(["label"]).equals(table.drop_columns(["label"]))


def test_a_run_has_its_rows_under_each_of_its_labels():
    asked = {"a1": ["plain", "mine"], "b2": ["slow"]}
    table = pa.concat_tables([run("a1", SETS), run("b2", SETS)])
    twice = relabel(table, asked)
    assert twice["label"].to_pylist() == ["plain", "mine"] * 2 + ["slow"] * 2
    assert twice["run_id"].to_pylist() == ["a1"] * 4 + ["b2"] * 2
    assert len({*twice["value"].to_pylist()[:2]}) == 1

    recorded = run("a1", SETS, also_called=("mine",))
    assert relabel(recorded)["label"].to_pylist() == [recorded["label"][0].as_py(), "mine"] * 2
    assert relabel(run("a1", SETS)).equals(run("a1", SETS))


def test_an_empty_results_folder_has_no_rows(tmp_path):
    assert read(tmp_path / "absent").num_rows == 0
    assert statuses(tmp_path / "absent") == {}


def test_a_run_that_is_written_again_is_replaced(tmp_path):
    write_run(tmp_path, "a1", failed(info("a1"), "power cut"))
    assert statuses(tmp_path)["a1"] == "failed"
    write_run(tmp_path, "a1", run("a1", SETS))
    write_run(tmp_path, "a1", run("a1", SETS))

    assert read(tmp_path).num_rows == len(SETS)
    assert statuses(tmp_path)["a1"] == "done"


def test_statuses_are_those_of_the_runs_asked_for(tmp_path):
    write_run(tmp_path, "a1", failed(info("a1"), "loss is NaN"))
    write_run(tmp_path, "b2", run("b2", SETS))

    assert statuses(tmp_path) == {"a1": "failed", "b2": "done"}
    assert statuses(tmp_path, {"b2", "c3"}) == {"b2": "done"}


def test_duckdb_and_pandas_read_the_folder_as_it_is(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    write_run(tmp_path, "b2", failed(info("b2"), "why"))
    (folder(tmp_path) / ".c3.parquet.1-2.tmp").write_bytes(b"half a file")

    query = f"SELECT run_id, avg(value) FROM '{folder(tmp_path)}/*.parquet' GROUP BY 1 ORDER BY 1"  # noqa: S608
    assert duckdb.sql(query).fetchall() == [("a1", 0.375), ("b2", None)]
    frame = pd.read_parquet(folder(tmp_path))
    assert len(frame) == 3
    assert str(frame["started"].dtype) == "datetime64[ms, UTC]"


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1 but truncated"])
def test_a_broken_file_is_named_and_never_dropped(tmp_path, content):
    write_run(tmp_path, "a1", run("a1", SETS))
    (folder(tmp_path) / "b2.parquet").write_bytes(content)

    for reader in (read, statuses):
        with pytest.raises(InputError, match=r"b2\.parquet: cannot be read .* delete it") as raised:
            reader(tmp_path)
        assert "\n" not in str(raised.value)


def test_a_file_cut_short_is_named(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    path = folder(tmp_path) / "a1.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a1\.parquet: cannot be read"):
        read(tmp_path)


def test_a_foreign_table_is_named(tmp_path):
    folder(tmp_path).mkdir()
    pq.write_table(pa.table({"x": [1]}), folder(tmp_path) / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet: not a file of the leaderboard"):
        read(tmp_path)


DAMAGE = {
    "value": (None, 'a run that is done has no "value"'),
    "role": (None, 'a run that is done has no "role"'),
    "status": ("gone", "the status of a run is 'gone'"),
    "details": ("{", 'its column "details" holds something else than JSON objects'),
    "config": ("[1]", 'its column "config" holds something else'),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("compacted", [False, True])
def test_damaged_rows_are_named_in_one_line(tmp_path, capsys, name, compacted):
    write_run(tmp_path, "a1", run("a1", SETS))
    table = run("b2", SETS)
    value, fault = DAMAGE[name]
    position = table.schema.get_field_index(name)
    column = pa.array([value, *table[name].to_pylist()[1:]], table[name].type)
    damaged = table.set_column(position, table.schema.field(position), column)
    pq.write_table(damaged, folder(tmp_path) / "b2.parquet")
    if compacted:  # as before damage was looked for
        both = pa.concat_tables([run("a1", SETS), damaged])
        listed = Files.of(tmp_path).runs()
        both = both.replace_schema_metadata({**SCHEMA.metadata, STAMPS_KEY: json.dumps(listed)})
        pq.write_table(both, tmp_path / COPY)
    write_run(tmp_path / "other", "a1", run("a1", SETS))
    of = ["--results", str(tmp_path)]
    for words in (["report", *of], ["gc", *of], ["diff", str(tmp_path), str(tmp_path / "other")]):
        assert main(words) == 2
        error = capsys.readouterr().err
        file = COPY if compacted else "b2.parquet"
        assert f"{file}: is damaged: {fault}" in error and error.count("\n") == 1


def test_a_done_row_without_a_value_is_named_whatever_columns_it_has(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    pq.write_table(run("a1", SETS).drop_columns(["value"]), folder(tmp_path) / "a1.parquet")
    assert statuses(tmp_path) == {"a1": "done"}
    with pytest.raises(InputError, match=r'a1\.parquet: is damaged: a run that is done has no "va'):
        read(tmp_path)


def test_another_version_is_named(tmp_path):
    folder(tmp_path).mkdir()
    table = run("a1", SETS).replace_schema_metadata({VERSION_KEY: b"999"})
    pq.write_table(table, folder(tmp_path) / "a1.parquet")
    for reader in (read, statuses):
        with pytest.raises(InputError, match="version 999"):
            reader(tmp_path)


def test_a_copy_under_another_name_is_refused(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    shutil.copy(folder(tmp_path) / "a1.parquet", folder(tmp_path) / "a1 (copy).parquet")
    with pytest.raises(InputError, match=r"a1 \(copy\)\.parquet: holds rows of another run"):
        read(tmp_path)


def test_rows_of_another_run_or_schema_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="not all of run"):
        write_run(tmp_path, "b2", run("a1", SETS))
    with pytest.raises(ValueError, match="schema"):
        write_run(tmp_path, "a1", run("a1", SETS).drop_columns(["value"]))
    assert not folder(tmp_path).exists()


def test_required_columns_refuse_null(tmp_path):
    (row,) = failed(info("a1"), "why").to_pylist()
    table = pa.Table.from_pylist([row | {"task": None}], schema=SCHEMA)
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        write_run(tmp_path, "a1", table)
    assert not folder(tmp_path).exists()


def test_a_write_that_fails_leaves_the_old_rows(tmp_path, monkeypatch):
    old = failed(info("a1"), "old")
    write_run(tmp_path, "a1", old)

    def stop(path, content):
        with path.open("wb") as file:
            file.write(content.to_pybytes()[:10])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(OSError, match="disk full"):
        write_run(tmp_path, "a1", run("a1", SETS))
    monkeypatch.undo()

    assert read(tmp_path).equals(old)
    assert [path.name for path in folder(tmp_path).iterdir()] == ["a1.parquet"]


def _die_before_rename(results_folder):
    def die(self, target):
        os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = die
    write_run(results_folder, "b2", run("b2", SETS))


def test_a_process_killed_before_the_rename_leaves_nothing_visible(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    process = multiprocessing.get_context("spawn").Process(
        target=_die_before_rename, args=(tmp_path,)
    )
    process.start()
    process.join()

    assert process.exitcode == -signal.SIGKILL
    assert len(list(folder(tmp_path).iterdir())) == 2  # the unfinished file is there
    assert set(statuses(tmp_path)) == {"a1"}
    write_run(tmp_path, "b2", run("b2", SETS))
    assert set(statuses(tmp_path)) == {"a1", "b2"}


def test_eight_writers_at_once_leave_every_run_once(tmp_path):
    tables = {name: run(name, SETS) for name in ("a1", "b2", "c3")}
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(write_run, tmp_path, name, table)
            for _ in range(8)
            for name, table in tables.items()
        ]
        for _ in range(5):
            seen = read(tmp_path)  # while they write: whole runs only
            assert seen.num_rows == len(SETS) * len(set(seen["run_id"].to_pylist()))
    for job in jobs:
        job.result()

    assert read(tmp_path).equals(pa.concat_tables(tables.values()))
    assert len(list(folder(tmp_path).iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    check_writable(tmp_path / "new" / "results")
    assert list(folder(tmp_path / "new" / "results").iterdir()) == []

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: results cannot be written there .*--results"):
        check_writable(tmp_path / "file")


def test_a_run_that_is_done_is_never_replaced_by_one_that_failed(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    write_run(tmp_path, "a1", failed(info("a1"), "power cut"))
    assert read(tmp_path).equals(run("a1", SETS))


def test_neither_by_one_that_was_about_to_fail_when_it_was_done(tmp_path, monkeypatch):
    RunFolder.of(tmp_path, "a1").path.mkdir(parents=True)
    late = Thread(target=write_run, args=(tmp_path, "a1", run("a1", SETS)))

    def slow(results, run_id):
        late.start()
        late.join(0.1)  # it would have been written now if it had not to wait
        return

    monkeypatch.setattr(store, "status_of", slow)
    write_run(tmp_path, "a1", failed(info("a1"), "power cut"))
    late.join()
    assert statuses(tmp_path)["a1"] == "done"
