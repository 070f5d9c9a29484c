import json
from dataclasses import fields, replace
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.core.plugins import VARIABLE
from shiftbench.data.tasks.definition import IN_NO_IDENTITY, Task
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.evaluation.results import Score, role_of
from shiftbench.leaderboard.columns import digest
from shiftbench.leaderboard.schema import (
    COLUMNS,
    SCHEMA,
    VERSION,
    VERSION_KEY,
    FailedRun,
    Parent,
    Row,
    RunInfo,
    done,
    failed,
    failures,
    rows,
    shifts_of,
    task_digest,
    to_table,
)

from tests.leaderboard.records import info, results


def test_the_shifts_of_a_task_are_of_its_definition():
    task = builtin_tasks()["imagenet"]
    assert shifts_of(task) == tuple(task.shifts)
    table = done(info(shifts=("b", "a")), results({"id-test": 0.5}))
    assert rows(table)[0].shifts == ("b", "a")
    assert rows(done(info(), results({"id-test": 0.5})))[0].shifts is None


SOURCE = """
from typing import Literal
from shiftbench.data.sources.base import Source
class Plain(Source):
    kind: Literal["plain"] = "plain"
    def read(self, root):
        raise NotImplementedError
"""
METRIC = """
from shiftbench.evaluation.metrics.base import MeanMetric
class Doubt(MeanMetric):
    name = title = "doubt"
    higher_is_better = False
    needs = frozenset({"top_logits", "log_sum_exp"})
    def per_example(self, examples):
        return 1 - examples.confidence
"""


def test_a_task_whose_plugin_was_edited_is_another(tmp_path, monkeypatch):
    """Its rows stand apart: other images may be read, and other numbers computed from them."""
    files = {"plain_reader.py": SOURCE, "doubting.py": METRIC}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(VARIABLE, "sources/plain=plain_reader:Plain,metrics/doubt=doubting:Doubt")
    task = builtin_tasks()["cifar10"]
    known = task.recorded().model_dump(mode="json", exclude={*IN_NO_IDENTITY})
    assert task_digest(task) == digest(known)
    shift = {"source": {"kind": "plain"}}
    of_source = Task.model_validate(task.model_dump() | {"shifts": {"s": shift}})
    of_metric = task.model_copy(update={"also_metrics": ("doubt",)})
    before = [task_digest(each) for each in (task, of_source, of_metric)]
    for position, (name, text) in enumerate(files.items(), start=1):
        (tmp_path / name).write_text(text + "# edited\n")
        after = [task_digest(each) for each in (task, of_source, of_metric)]
        changed = [i for i in range(3) if after[i] != before[i]]
        assert changed == [position]
        before = after


def test_columns_are_those_of_the_two_kinds_of_rows():
    names = [field.name for kind in (Row, FailedRun) for field in fields(kind)]

    assert list(dict.fromkeys(names)) == SCHEMA.names == list(COLUMNS.documentation)
    assert {item.name for item in SCHEMA if not item.nullable} == {
        *(field.name for field in fields(RunInfo) if not SCHEMA.field(field.name).nullable),
        "status",
    }
    nullable = {name: SCHEMA.field(name).nullable for name in SCHEMA.names}
    assert nullable["value"] and nullable["error"] and nullable["shots"]
    assert not (nullable["run_id"] or nullable["config"] or nullable["parents"])


def test_every_column_says_what_it_means_and_in_what_unit(tmp_path):
    pq.write_table(done(info(), results({"id-test": 0.5})), tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")

    for item in schema:
        assert (
            item.metadata[b"description"].decode() == COLUMNS.documentation[item.name].description
        )
    assert schema.field("train_seconds").metadata[b"unit"] == b"seconds"
    assert b"unit" not in schema.field("task").metadata
    page = COLUMNS.page().splitlines()
    assert len(page) == 2 + len(SCHEMA)
    assert (
        "| `shots` | integer, or null | images per class | "
        "training images of each class; null for all |"
    ) in page


def test_rows_come_back_as_they_were_written():
    about = info(parents=[("probe", "beef")], config={"lr": 0.1, "b": [1, 2]}, shots=4)
    table = pa.concat_tables(
        [
            done(about, results({"id-test": 0.5, "imagenet-r": 0.25})),
            failed(info("dead"), "no\nmemory", "runs/dead/error.txt"),
        ]
    )
    first, second = rows(table)
    (dead,) = failures(table)

    assert first.parents == (Parent("probe", "beef"),)
    assert first.config == {"lr": 0.1, "b": [1, 2]} and first.searched is None
    assert first.config is second.config and first.parents is second.parents  # parsed once
    assert (second.evaluation_set, second.role, second.value, second.shots) == (
        "imagenet-r", "shift", 0.25, 4,
    )  # fmt: skip
    assert first.started == about.started
    assert (dead.run_id, dead.error, dead.error_file) == (
        "dead", "no memory", "runs/dead/error.txt",
    )  # fmt: skip
    assert to_table([first, second, dead]).equals(table)


def test_rows_hold_what_was_given():
    spec = info(parents=[("probe", "beef")], config={"lr": 0.1, "b": [1, 2]}, shots=4)
    table = done(spec, results({"id-test": 0.5, "imagenet-r": 0.25}))

    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.schema.metadata[VERSION_KEY] == VERSION.encode()
    first, second = table.to_pylist()
    assert first["parents"] == [{"label": "probe", "run_id": "beef"}]
    assert json.loads(first["config"]) == {"lr": 0.1, "b": [1, 2]}
    assert (first["status"], first["error"], first["shots"]) == ("done", None, 4)
    assert (first["role"], second["role"]) == ("id-test", "shift")
    assert (second["value"], second["complete"]) == (0.25, True)
    assert first["started"] == spec.started
    assert first["git_dirty"] is True


def test_incomplete_data_say_so_in_the_row():
    table = done(info(), results({"id-test": 0.5}, incomplete_reason="9 of 10 files"))

    assert table["complete"].to_pylist() == [False]
    assert table["incomplete_reason"].to_pylist() == ["9 of 10 files"]


def test_a_failed_run_is_one_row_without_results():
    (row,) = failed(info(train_seconds=None), "first line\nsecond").to_pylist()

    assert (row["status"], row["error"]) == ("failed", "first line second")
    assert all(row[name] is None for name in ("variant", "evaluation_set", "metric", "value", "n"))
    assert row["run_id"] == "f00d"


def test_a_failure_that_quotes_credentials_is_recorded_without_them():
    (row,) = failures(failed(info("a1"), "no answer\nfrom https://ann:secret@proxy:8080/x"))
    assert row.error == "no answer from https://…@proxy:8080/x"


def test_results_that_contradict_each_other_are_refused():
    (result,) = results({"id-test": 0.5})
    with pytest.raises(ValueError, match="has results"):
        done(info(), [])
    with pytest.raises(ValueError, match="2 times"):
        done(info(), [result, result])
    with pytest.raises(ValueError, match="one headline"):
        done(info(), [result, replace(result, metric="macro-f1")])
    with pytest.raises(ValueError, match="one headline"):
        done(info(), [replace(result, primary=False)])


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_what_is_no_score_is_refused(value):
    (result,) = results({"id-test": 0.5})
    with pytest.raises(ValueError, match="not a score"):
        done(info(), [replace(result, score=Score(value, 0.0, 1.0, 3, ""))])


def test_a_variant_may_be_selected_in_several_ways():
    both = results({"id-test": 0.5}) + results({"id-test": 0.5}, selection="id-val")

    assert done(info(), both).num_rows == 2


def test_times_need_a_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        info(started=datetime(2030, 1, 1))


def test_nan_in_a_configuration_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        done(info(config={"lr": float("nan")}), results({"id-test": 0.5}))


def test_roles():
    roles = {name: role_of(name) for name in ("id-val", "id-test", "ood-val", "objectnet")}
    assert roles == {
        "id-val": "id-val",
        "id-test": "id-test",
        "ood-val": "ood-val",
        "objectnet": "shift",
    }


def test_a_digest_depends_on_content_and_not_on_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest({})) == 12
