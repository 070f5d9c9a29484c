"""Files that other versions wrote. ``tests/fixtures/leaderboard-v2`` was made by version 2's code
(commit 2a47bd5) from the ``suite.yaml`` beside it."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.leaderboard.files import COPY
from shiftbench.leaderboard.schema import (
    SCHEMA,
    VERSION_KEY,
    Parent,
    failures,
    rows,
)
from shiftbench.leaderboard.store import compact, folder, read, statuses, write_run

from tests.leaderboard.records import run

OLD = Path(__file__).parents[1] / "fixtures" / "leaderboard-v2"
SETS = {"id-test": 0.5, "imagenet-r": 0.25}


@pytest.fixture
def old(tmp_path):
    shutil.copytree(OLD / "leaderboard", folder(tmp_path))
    return tmp_path


def as_written(results, run_id):
    """The rows in a file, as the code that wrote it meant them."""
    return pq.ParquetFile(folder(results) / f"{run_id}.parquet").read().to_pylist()


def change(results, run_id, change_table):
    """Write a run's file anew, as another version might have."""
    path = folder(results) / f"{run_id}.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(change_table(table), path)


def with_version(table, version):
    return table.replace_schema_metadata({VERSION_KEY: version})


def test_rows_of_version_2_are_read_unharmed(old):
    renamed = {"world": "data_kind", "search_evaluations": "search_trials"}
    new = {"reference", "error_file", "shifts", "data_remark", "unchecked"}
    new |= {"held_out", "trains_on_id_val", "also_called", "transductive", "trainings"}
    table = read(old)

    assert table.schema.equals(SCHEMA, check_metadata=True)
    for run_id in statuses(old):
        was = as_written(old, run_id)
        now = read(old, [run_id]).to_pylist()
        assert len(now) == len(was) > 0
        for before, after in zip(was, now, strict=True):
            assert {renamed.get(name, name): value for name, value in before.items()} == {
                name: value for name, value in after.items() if name not in new
            }
            assert after["reference"] == (before["method"] == "zero-shot")
            assert after["error_file"] is None
            assert after["held_out"] is after["trains_on_id_val"] is after["transductive"] is None


def test_every_kind_of_run_of_version_2_is_there(old):
    found = {row.label: row for row in rows(read(old))}
    (broken,) = failures(read(old))

    assert found.keys() == {"zero-shot", "full", "full-tuned", "wise-ft"}
    assert [label for label, row in found.items() if row.reference] == ["zero-shot"]
    assert all(row.data_kind == "miniature/2" for row in found.values())
    tuned = found["full-tuned"]
    assert tuned.search_trials == 2 and tuned.searched is not None and "lr" in tuned.searched
    assert tuned.selection == "ood-val"
    assert (tuned.shots, tuned.seed, found["zero-shot"].shots) == (4, 1, None)
    assert found["wise-ft"].parents == (Parent("full", found["full"].run_id),)
    assert broken.error == "the loss or its gradient is not finite at step 2"


def test_version_2_is_ranked_and_reported(old, capsys):
    assert main(["report", "--results", str(old)]) == 0
    out = capsys.readouterr().out

    ranked = {
        match[1]: match[0] for match in re.finditer(r"^ *\d+ +([\w-]+) .*", out, re.MULTILINE)
    }
    assert set(ranked) == {"zero-shot", "full", "full-tuned", "wise-ft"}
    assert "the loss or its gradient is not finite" in out


def test_version_2_and_3_stand_side_by_side_and_in_one_copy(old):
    write_run(old, "b2", run("b2", SETS))
    before = read(old)
    assert len(before) == len(SETS) + sum(len(as_written(old, r)) for r in statuses(OLD))

    compact(old, settled=0)

    assert read(old).equals(before)
    assert read(old, where={"data_kind": ["real"]}).equals(read(old, ["b2"]))


def test_a_column_that_may_be_null_may_be_missing(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS, leakage="3 images"))
    write_run(tmp_path, "b2", run("b2", SETS, leakage="4 images"))
    before = read(tmp_path)
    change(tmp_path, "a1", lambda table: table.drop_columns(["leakage", "search_seconds"]))

    assert read(tmp_path)["leakage"].to_pylist() == [None, None, "4 images", "4 images"]
    assert read(tmp_path).drop_columns(["leakage"]).equals(before.drop_columns(["leakage"]))
    assert read(tmp_path, columns=["leakage"]).num_rows == 4
    assert [row.leakage for row in rows(read(tmp_path, ["a1"]))] == [None, None]


def test_a_column_that_may_not_be_null_must_be_there(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    change(tmp_path, "a1", lambda table: table.drop_columns(["task"]))
    with pytest.raises(InputError, match=r'a1\.parquet: .* has no column "task"; move it away'):
        read(tmp_path)


def test_a_column_of_another_type_is_named(tmp_path):
    write_run(tmp_path, "a1", run("a1", SETS))
    position = SCHEMA.get_field_index("n")
    change(tmp_path, "a1", lambda t: t.set_column(position, "n", pa.array(["many", "few"])))
    with pytest.raises(InputError, match=r'a1\.parquet: .* column "n" is string, not int64'):
        read(tmp_path)


@pytest.mark.parametrize("compacted", [False, True])
def test_columns_that_are_not_known_are_kept(tmp_path, compacted):
    """A later 3.x may add columns: they pass through reading, the copy and writing."""
    write_run(tmp_path, "a1", run("a1", SETS))
    write_run(tmp_path, "b2", run("b2", SETS))
    change(
        tmp_path,
        "a1",
        lambda t: with_version(t.append_column("energy", pa.array([1.5, 2.5])), b"3.7"),
    )
    if compacted:
        compact(tmp_path, settled=0)
        assert pq.read_schema(tmp_path / COPY).names[-1] == "energy"

    table = read(tmp_path)
    assert table.column_names == [*SCHEMA.names, "energy"]
    assert table["energy"].to_pylist() == [1.5, 2.5, None, None]
    assert [row.value for row in rows(table)] == [0.5, 0.25] * 2
    assert read(tmp_path, columns=["value"]).column_names == ["value"]
    write_run(tmp_path / "other", "a1", read(tmp_path, ["a1"]))
    assert read(tmp_path / "other")["energy"].to_pylist() == [1.5, 2.5]


def test_an_unknown_column_of_two_types_is_named(tmp_path):
    for name, values in (("a1", [1.5, 2.5]), ("b2", ["x", "y"])):
        write_run(tmp_path, name, run(name, SETS))
        change(tmp_path, name, lambda t, v=values: t.append_column("energy", pa.array(v)))
    with pytest.raises(InputError, match="energy"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("version", "way"), [(b"4.1", "update shiftbench"), (b"1", "delete it to have the run done")]
)
def test_another_major_version_is_refused_with_what_to_do(tmp_path, version, way):
    write_run(tmp_path, "a1", run("a1", SETS))
    change(tmp_path, "a1", lambda table: with_version(table, version))
    for reader in (read, statuses):
        with pytest.raises(InputError, match=rf"a1\.parquet: version {version[:1].decode()} ") as e:
            reader(tmp_path)
        assert "reads versions 2 to 3" in str(e.value) and way in str(e.value)
