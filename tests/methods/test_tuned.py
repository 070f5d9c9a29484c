"""The wrapper that gives any method a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field
from shiftbench.core.document import Place, tree
from shiftbench.core.errors import InputError
from shiftbench.core.validation import validate
from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.builtin.linear_probe import LinearProbe
from shiftbench.methods.builtin.lp_ft import LpFtConfig
from shiftbench.methods.builtin.tuned import Tuned, TunedConfig, TunedMerge
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.search import (
    Choice,
    Integer,
    LogUniform,
    SearchConfig,
    Searched,
    Uniform,
)

RANGE = {"low": 0, "high": 1}
LR = {"kind": "log-uniform", "low": 1e-5, "high": 1e-3}


def read(settings: dict[str, Any]) -> TunedConfig:
    """As a suite file does."""
    return validate(TunedConfig, tree(settings, Place("suite.yaml", 3, Path()), ("methods", "t")))


def test_by_default_the_optimizer_of_full_fine_tuning_is_searched() -> None:
    search = Tuned(TunedConfig()).search()
    lr, weight_decay = search.space["lr"], search.space["weight_decay"]
    assert isinstance(lr, LogUniform)
    assert (lr.low, lr.high) == pytest.approx((3e-7, 3e-3))
    assert weight_decay == Uniform(low=0, high=1)
    assert search.config == SearchConfig()
    candidate = search.candidate({"lr": 1e-4, "weight_decay": 0.7})
    assert isinstance(candidate, Full)
    assert candidate.config == TrainingConfig(lr=1e-4, weight_decay=0.7)


def test_the_default_space_surrounds_the_given_rate() -> None:
    config = read({"settings": {"lr": 1e-2}})
    assert config.space == {
        "lr": LogUniform(low=1e-4, high=1.0),
        "weight_decay": Uniform(low=0, high=1),
    }


def test_a_candidate_has_the_other_settings_too() -> None:
    method = Tuned(
        read(
            {
                "of": "linear-probe",
                "settings": {"epochs": 2, "batch_size": 64},
                "space": {
                    "lr": LR,
                    "batch_size": {"kind": "choice", "values": [32, 128]},
                    "seed": {"kind": "integer", "low": 0, "high": 9},
                },
            }
        )
    )
    assert method.search().space["batch_size"] == Choice(values=(32, 128))
    assert method.search().space["seed"] == Integer(low=0, high=9)
    candidate = method.search().candidate({"lr": 1e-4, "batch_size": 32, "seed": 7})
    assert isinstance(candidate, LinearProbe)
    training = candidate.training
    assert (training.lr, training.batch_size, training.epochs) == (1e-4, 32, 2)
    assert training.weight_decay == 0.1
    assert method.training.batch_size == 64


def test_it_needs_and_yields_what_the_method_does() -> None:
    probe = Tuned(read({"of": "linear-probe"}))
    assert (probe.inputs, probe.captions, probe.whole_batch) == ("features", False, False)
    assert probe.seeded
    second = Tuned(read({"of": "lp-ft", "settings": {"parent": "my-probe"}}))
    assert (second.inputs, second.parents()) == ("images", (Parent("my-probe"),))
    assert second.architecture() == LinearProbe(LinearProbe.Config()).architecture()  # type: ignore[arg-type]
    assert (second.variants(), second.fixed_variant()) == (("",), "")
    assert not isinstance(second.config, TrainingConfig)


def test_all_settings_and_the_space_are_written_out() -> None:
    """So that a run's identity holds the defaults of the method, however they were spelled."""
    short, long = read({"of": "lp-ft"}), read({"of": "lp-ft", "settings": {"warmup_steps": 500}})
    assert short.model_dump(mode="json") == long.model_dump(mode="json")
    assert short.settings == LpFtConfig().model_dump(mode="json")
    assert read(short.model_dump(mode="json")) == short


class SmoothConfig(TrainingConfig):
    """Settings of a plugin, one of which says where it is to be searched."""

    temperature: Annotated[float, Field(gt=0), Searched(LogUniform(low=0.5, high=8))] = 2.0
    lr: Annotated[float, Field(gt=0), Searched(Uniform(low=1e-4, high=1e-3))] = 1e-3
    other: float = 1.0


class Smooth(Full):
    """A method of a plugin."""

    name = "smooth"
    Config = SmoothConfig


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", f"smooth={__name__}:Smooth")


@pytest.mark.usefixtures("plugin")
def test_a_plugins_settings_are_searched_where_their_annotations_say() -> None:
    assert read({"of": "smooth"}).space == {
        "lr": Uniform(low=1e-4, high=1e-3),
        "weight_decay": Uniform(low=0, high=1),
        "temperature": LogUniform(low=0.5, high=8),
    }
    method = Tuned(read({"of": "smooth", "space": {"other": {"kind": "uniform", **RANGE}}}))
    assert [*method.search().space] == ["other"]
    assert method.search().candidate({"other": 0.25}).config == SmoothConfig(other=0.25)


def test_of_a_method_that_derives_weights_a_trial_has_no_steps() -> None:
    config = read({"of": "wise-ft", "settings": {"parent": "mine", "alphas": [0, 0.5, 1]}})
    assert config.space == {"alpha": Uniform(low=0, high=1)}
    search = config.search
    assert (search.n_trials, search.milestones(), search.finalists) == (50, (1,), 0)
    assert read({"of": "wise-ft", "search": {"n_trials": 7}}).search.n_trials == 7
    assert read(config.model_dump(mode="json")) == config
    method = Tuned(config)
    assert isinstance(method, TunedMerge) and isinstance(method, DerivedMethod)
    assert (method.parents(), method.variants()) == ((Parent("mine"),), ("",))
    assert method.kept and not method.seeded and not method.selects()
    candidate = method.search().candidate({"alpha": 0.37})
    assert (candidate.variants(), candidate.fixed_variant()) == (("alpha=0.37",), "alpha=0.37")
    assert yaml.safe_load(method.search().export({"alpha": 0.37})) == {
        "method": "wise-ft", "parent": "mine", "alphas": [0.37], "alpha": 0.37,
    }  # fmt: skip


def test_merges_say_where_their_scale_and_density_are_searched() -> None:
    config = read({"of": "ties", "settings": {"parents": ["a", "b"]}})
    assert config.space == {
        "scale": Uniform(low=0, high=1),
        "density": LogUniform(low=0.01, high=1),
    }
    candidate = Tuned(config).search().candidate({"scale": 0.25, "density": 0.5})
    assert candidate.variants() == ("scale=0.25",)


def test_a_merge_looks_at_validation_if_any_of_its_settings_does() -> None:
    settings = {"parents": ["a", "b"], "kind": "uniform"}
    kinds = {"kind": {"kind": "choice", "values": ["uniform", "greedy"]}}
    assert Tuned(read({"of": "soup", "settings": settings, "space": kinds})).selects()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "ful"}, 'methods.t.of: unknown method "ful" (did you mean "full"?)'),
        ({"of": "zero-shot"}, "methods.t.of: must be a method that trains or derives weights"),
        ({"of": "output-ensemble"}, "methods.t.of: must be a method that trains or derives"),
        (
            {"of": "soup", "settings": {"parents": ["a", "b"]}},
            "methods.t: soup does not say where to search",
        ),
        (
            {"of": "lp-ft", "space": {"parent": {"kind": "choice", "values": ["a", "b"]}}},
            "space: parent: which runs lp-ft builds on cannot be searched",
        ),
        (
            {"of": "wise-ft", "space": {"alpha": {**LR, "high": 2}}},
            "must be less than or equal to 1",
        ),
        ({"settings": {"lrr": 1}}, 'settings: full: unknown key "lrr" (did you mean "lr"?)'),
        ({"settings": {"lr": -1}}, "settings: full: lr: must be greater than 0, got -1"),
        (
            {"settings": {"max_grad_norm": "a"}},
            "settings: full: max_grad_norm: must be a valid number",
        ),
        ({"lr": 1}, 'methods.t: unknown key "lr"'),
        ({"space": {}}, "methods.t.space: must not be empty"),
        ({"space": {"lrr": LR}}, 'full has no setting "lrr" (did you mean "lr"?)'),
        ({"space": {"parent": LR}}, 'full has no setting "parent"'),
        ({"space": {"label_smoothing": {**LR, "high": 2}}}, "label_smoothing: must be less than 1"),
        ({"space": {"warmup_steps": {**LR, "low": 1}}}, "warmup_steps"),
        ({"space": {"batch_size": {**LR, "low": 1, "high": 9}}}, "batch_size: must be"),
        ({"space": {"lr": {"kind": "choice", "values": [1, "a"]}}}, "lr: must be a valid number"),
        ({"space": {"lr": {"kind": "unif"}}}, 'space.lr: unknown kind "unif"'),
        ({"space": {"lr": {**LR, "low": 1}}}, "space.lr: low 1.0 must be below high 0.001"),
        ({"space": {"seed": LR}}, "space: seed: must be of kind integer"),
        (
            {"of": "wise-ft", "space": {"seed": {"kind": "integer", "low": 0, "high": 9}}},
            "space: seed: wise-ft trains nothing",
        ),
        ({"search": {"rungs": 0}}, "search.rungs: must be greater than or equal to 1"),
    ],
)
def test_bad_settings_give_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(settings)
    assert str(caught.value).startswith("suite.yaml:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
