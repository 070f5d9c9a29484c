"""Whether a run's settings are those behind a published value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shiftbench.core.errors import InputError
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.published.settings import StatedSettings, Statement, read_stated
from shiftbench.leaderboard.schema import Row, rows
from shiftbench.methods.registry import METHODS
from shiftbench.report.runs import NOT_RUN
from shiftbench.report.stated import settings_verdict

from tests.leaderboard.records import run
from tests.report.test_references import row

PAPER = {"lr": 3e-5, "epochs": 10, "max_grad_norm": None, "momentum": [0.05, 0.9]}
STATED = StatedSettings(
    statements=(
        Statement(source="A (", where="sec. 1", methods=("full",), settings=PAPER),
        Statement(source="A (", where="sec. 2", methods=("wise-ft",), settings={}),
        Statement(source="B", where="sec. 3", methods=("full",), shots=16, settings={"lr": 1}),
    )
)


def member(label: str = "full", **changes: Any) -> Row:
    facts = {"label": label, "method": label, "config": PAPER | {"decoder": "pil"}}
    (found,) = rows(run(label, {"id-test": 0.5}, **facts | changes))
    return found


def verdict(*family: Row, **of: Any) -> str:
    return settings_verdict(row(0.5, **{"source": "A (2020), Table 1"} | of), family, STATED)


def test_all_that_is_stated_must_be_equal() -> None:
    assert verdict(member()) == "the paper's"
    assert verdict(member(config={**PAPER, "epochs": 10.0})) == "the paper's"
    other = {**PAPER, "lr": 1e-4, "max_grad_norm": 1.0, "momentum": [0.05, 0.8]}
    assert verdict(member(config=other)) == "differ: lr, max_grad_norm, momentum"
    assert verdict(member(config={})) == "differ: lr, epochs, momentum"
    assert verdict(member(budget={"steps": 100})) == "differ: steps"


def test_a_source_speaks_for_itself_only() -> None:
    assert verdict(member(), source="B, Table 1") == "not stated"
    assert verdict(member(), source="B, Table 1", shots=16) == "differ: lr"
    assert verdict(member("lora")) == "not stated"


def test_what_a_method_builds_on_counts_too() -> None:
    zero = member("zero-shot", reference=True, config={})
    wise = member("wise-ft", config={"alpha": 0.5})
    assert verdict(zero) == "none to set"
    assert verdict(wise, member(), zero) == "the paper's"
    assert verdict(wise, member(config={**PAPER, "lr": 1})) == "differ: full's lr"
    assert verdict(wise, member("lora")) == "not stated of lora"
    assert verdict(member("vrf"), member()) == "not stated of vrf"
    soup = member("wise-ft"), member(), member("low", method="full", config={**PAPER, "epochs": 1})
    assert verdict(*soup) == "differ: low's epochs"
    assert verdict(member(origin=NOT_RUN[0])) == "ours are not known"


def test_every_method_has_published_values_or_a_reason_why_not() -> None:
    published = {*read_published()["method"].to_pylist()}
    reasons = read_stated().nothing_published
    builtin = {name for name, entry in METHODS.entries().items() if entry.builtin}
    assert builtin - published == reasons.keys()
    assert all(reasons.values())


def test_statements_are_of_published_values_and_of_settings_that_there_are() -> None:
    table = read_published()
    sources, methods = table["source"].to_pylist(), table["method"].to_pylist()
    for statement in read_stated().statements:
        assert any(source.startswith(statement.source) for source in sources), statement
        for method in statement.methods:
            fields = METHODS.load(method).Config.model_fields
            assert statement.settings.keys() <= fields.keys(), statement
            own = {
                m for s, m in zip(sources, methods, strict=True) if s.startswith(statement.source)
            }
            assert method in own or {"wise-ft", "vrf", "output-ensemble"} & own, statement


def test_a_folder_without_statements_has_none(tmp_path: Path) -> None:
    assert read_stated(tmp_path) == StatedSettings()
    (tmp_path / "settings.yaml").write_text("statements: [{source: A, wher: B}]\n")
    with pytest.raises(InputError, match=r"settings\.yaml:1.*wher"):
        read_stated(tmp_path)
