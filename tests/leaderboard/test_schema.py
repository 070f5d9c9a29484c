import json
from dataclasses import fields, replace
from datetime import datetime

import pytest
from shiftbench.core.provenance import Provenance
from shiftbench.evaluation.metrics import Score
from shiftbench.leaderboard.schema import (
    SCHEMA,
    VERSION,
    VERSION_KEY,
    Result,
    RunInfo,
    digest,
    failed,
    role_of,
    to_table,
)

from tests.leaderboard.records import info, results


def test_every_column_is_filled_from_one_place():
    given = [field.name for kind in (RunInfo, Result, Score, Provenance) for field in fields(kind)]
    given = [name for name in given if name not in ("score", "provenance")]
    derived = ["status", "error", "role", "complete"]

    assert sorted(given + derived) == sorted(SCHEMA.names)


def test_rows_hold_what_was_given():
    spec = info(parents=[("probe", "beef")], config={"lr": 0.1, "b": [1, 2]}, shots=4)
    table = to_table(spec, results({"id-test": 0.5, "imagenet-r": 0.25}))

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
    table = to_table(info(), results({"id-test": 0.5}, incomplete_reason="9 of 10 files"))

    assert table["complete"].to_pylist() == [False]
    assert table["incomplete_reason"].to_pylist() == ["9 of 10 files"]


def test_a_failed_run_is_one_row_without_results():
    (row,) = failed(info(train_seconds=None), "first line\nsecond").to_pylist()

    assert (row["status"], row["error"]) == ("failed", "first line second")
    assert all(row[name] is None for name in ("variant", "evaluation_set", "metric", "value", "n"))
    assert row["run_id"] == "f00d"


def test_results_that_contradict_each_other_are_refused():
    (result,) = results({"id-test": 0.5})
    with pytest.raises(ValueError, match="has results"):
        to_table(info(), [])
    with pytest.raises(ValueError, match="2 times"):
        to_table(info(), [result, result])
    with pytest.raises(ValueError, match="one headline"):
        to_table(info(), [result, replace(result, metric="macro-f1")])
    with pytest.raises(ValueError, match="one headline"):
        to_table(info(), [replace(result, primary=False)])


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_what_is_no_score_is_refused(value):
    (result,) = results({"id-test": 0.5})
    with pytest.raises(ValueError, match="not a score"):
        to_table(info(), [replace(result, score=Score(value, 0.0, 1.0, 3, ""))])


def test_a_variant_may_be_selected_in_several_ways():
    both = results({"id-test": 0.5}) + results({"id-test": 0.5}, selection="id-val")

    assert to_table(info(), both).num_rows == 2


def test_times_need_a_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        to_table(info(started=datetime(2030, 1, 1)), results({"id-test": 0.5}))


def test_nan_in_a_configuration_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        to_table(info(config={"lr": float("nan")}), results({"id-test": 0.5}))


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
