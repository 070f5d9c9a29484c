"""Settings of searches and the domains of what they look for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from shiftbench.core.document import Place, tree
from shiftbench.core.errors import InputError
from shiftbench.core.validation import validate
from shiftbench.methods.search import Choice, Domain, SearchConfig


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, (2, 4, 10)),
        ({"inner_steps": 100, "rungs": 3, "reduction_factor": 4}, (7, 25, 100)),
        ({"inner_steps": 27}, (3, 9, 27)),
        ({"inner_steps": 2}, (1, 2)),  # a rung of no step, or twice the same, is none
        ({"inner_steps": 1}, (1,)),
        ({"inner_steps": 10, "rungs": 1}, (10,)),
        ({"inner_steps": 10, "scheduler": "none"}, (10,)),  # nobody looks before
    ],
)
def test_milestones(settings: dict[str, Any], steps: tuple[int, ...]) -> None:
    assert SearchConfig(**settings).milestones() == steps


def test_defaults_are_those_of_autoft() -> None:
    config = SearchConfig()
    assert (config.n_trials, config.inner_steps, config.n_startup_trials) == (500, 10, 10)
    assert config.sampler == "tpe"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_trials": -1}, "n_trials: must be greater than or equal to 0, got -1"),
        ({"sampler": "grid"}, "sampler: must be 'tpe', 'tpe-independent' or 'random', got"),
        ({"reduction_factor": 1}, "reduction_factor: must be greater than or equal to 2, got 1"),
        ({"trials": 3}, 'unknown key "trials"'),
    ],
)
def test_bad_settings_give_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(SearchConfig, tree(settings, Place("suite.yaml", 3, Path())))
    assert message in str(caught.value)


ADAPTER: TypeAdapter[Domain] = TypeAdapter(Domain)


@pytest.mark.parametrize(
    "domain",
    [
        {"kind": "uniform", "low": 0, "high": 1},
        {"kind": "log-uniform", "low": 1e-4, "high": 10},
        {"kind": "integer", "low": 0, "high": 100},
        {"kind": "choice", "values": ["a", 1, 0.5, True]},
    ],
)
def test_domains_survive_json(domain: dict[str, Any]) -> None:
    read = ADAPTER.validate_json(json.dumps(domain), strict=True)
    assert ADAPTER.validate_json(ADAPTER.dump_json(read), strict=True) == read
    assert ADAPTER.dump_python(read, mode="json") == domain


def test_the_values_of_a_choice_keep_their_types() -> None:
    choice = Choice.model_validate_json('{"values": [1, 2.0, true, "x"]}', strict=True)
    assert [type(value) for value in choice.values] == [int, float, bool, str]


@pytest.mark.parametrize(
    "domain",
    [
        {"kind": "uniform", "low": 1, "high": 1},
        {"kind": "log-uniform", "low": 0, "high": 1},
        {"kind": "log-uniform", "low": 2, "high": 1},
        {"kind": "integer", "low": 3, "high": 2},
        {"kind": "integer", "low": 0.5, "high": 2},
        {"kind": "choice", "values": ["only"]},
        {"kind": "uniform", "low": 0, "high": float("inf")},
        {"low": 0, "high": 1},
    ],
)
def test_bad_domains_are_refused(domain: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(domain)
