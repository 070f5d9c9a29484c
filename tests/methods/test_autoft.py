"""AutoFT: its objective on a model, its search space, and its settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from shiftbench.core.document import Place, tree
from shiftbench.core.errors import InputError
from shiftbench.core.validation import validate
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods import objective as o
from shiftbench.methods.base import Architecture
from shiftbench.methods.builtin.autoft import AutoFt, AutoFtConfig
from shiftbench.methods.contrastive import contrastive_loss
from shiftbench.methods.objective import LOSSES, RELEASED, LossName, Objective, objective_of
from shiftbench.methods.search import Integer, LogUniform, SearchConfig, Uniform
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import EXAMPLES, make_batch, make_batches, make_context, make_model

WEIGHTS: dict[str, float] = {
    "dcm": 0.3,
    "entropy": 0.2,
    "flyp": 2.0,
    "hinge": 0.05,
    "l1_init": 7.0,
    "l1_zero": 5.0,
    "l2_init": 3.0,
    "l2_zero": 4.0,
}
VALUES: dict[str, Any] = {**WEIGHTS, "lr": 2e-2, "weight_decay": 0.5, "seed": 17}
SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 12, "warmup_steps": 2}


def make(**settings: Any) -> AutoFt:
    return AutoFt(AutoFtConfig(**settings))


def given(**weights: float) -> AutoFt:
    return make(objective={**weights, "lr": 1e-2, "weight_decay": 0.1}, **SMALL)


def prepared(method: AutoFt) -> ImageClassifier:
    model = make_model(architecture=method.architecture())
    method.prepare(model, make_context(method, model))
    return model


def moved(model: ImageClassifier) -> None:
    """Move every weight away from where it started."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def expected_losses(model: ImageClassifier, start: ImageClassifier) -> dict[str, torch.Tensor]:
    """Each loss by its own formula; ``test_objective`` compares those with slow loops."""
    batch = make_batch()
    assert batch.captions is not None
    logits = model(batch.inputs)
    weights, anchor = list(model.parameters()), list(start.parameters())
    texts = model.encode_text(batch.captions)
    images = model.features(batch.inputs)
    return {
        "ce": o.cross_entropy(logits, batch.labels),
        "dcm": o.dcm(logits, batch.labels),
        "entropy": o.entropy(logits),
        "flyp": contrastive_loss(images, texts, model.temperature),
        "hinge": o.hinge(logits, batch.labels),
        "l1_init": o.l1_init(weights, anchor),
        "l1_zero": o.l1_zero(weights),
        "l2_init": o.l2_init(weights, anchor),
        "l2_zero": o.l2_zero(weights),
    }


# The objective


@pytest.mark.parametrize("name", [None, *WEIGHTS])
def test_each_weight_belongs_to_its_own_loss(name: str | None) -> None:
    method = given(**({} if name is None else {name: WEIGHTS[name]}))
    model = prepared(method)
    start = make_model(architecture=method.architecture())
    moved(model)
    expected = expected_losses(model, start)
    terms = method.loss(model, make_batch())
    total = expected["ce"] + (0 if name is None else WEIGHTS[name] * expected[name])
    torch.testing.assert_close(terms["loss"], total)
    assert terms.keys() == {"loss", "ce", *([] if name is None else [name])}


def test_the_sum_of_all_nine() -> None:
    method = given(**WEIGHTS)
    model = prepared(method)
    start = make_model(architecture=method.architecture())
    moved(model)
    expected = expected_losses(model, start)
    total = sum(({"ce": 1.0} | WEIGHTS)[name] * expected[name] for name in LOSSES)
    terms = method.loss(model, make_batch())
    torch.testing.assert_close(terms["loss"], total)
    for name in LOSSES:
        torch.testing.assert_close(terms[name], expected[name].detach())


def test_the_anchor_stays_when_the_weights_move() -> None:
    method = given(l1_init=1.0, l2_init=1.0)
    model = prepared(method)
    before = method.loss(model, make_batch())
    assert before["l1_init"] == before["l2_init"] == 0
    moved(model)
    after = method.loss(model, make_batch())
    assert after["l1_init"] > 0.01
    assert after["l2_init"] > 0.001


def test_norms_count_text_tower_temperature_and_head() -> None:
    method = given(l2_zero=1.0)
    model = prepared(method)
    everything = torch.cat([parameter.flatten() for parameter in model.parameters()])
    names = [name for name, _ in model.named_parameters()]
    assert {"head.bias", "text.logit_scale"} <= set(names)
    loss = method.loss(model, make_batch())
    torch.testing.assert_close(loss["l2_zero"], everything.detach().square().mean())
    loss["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_trained_head_is_kept_and_the_text_tower_does_not_replace_it() -> None:
    method = given(**WEIGHTS)
    assert method.architecture() == Architecture(text=True, head="linear")
    model = prepared(method)
    terms = method.loss(model, make_batch())
    with torch.no_grad():
        model.head.bias.add_(torch.tensor([3.0, 0.0, 0.0]))
        changed = method.loss(model, make_batch())
    assert changed["ce"] != terms["ce"]
    assert changed["flyp"] == terms["flyp"]


def test_without_a_contrastive_loss_no_caption_is_needed() -> None:
    method = given(dcm=0.5, l1_zero=1.0)
    assert (method.captions, method.whole_batch) == (False, False)
    model = prepared(method)
    terms = method.loss(model, make_batch()._replace(captions=None))
    assert terms.keys() == {"loss", "ce", "dcm", "l1_zero"}
    everything = given(**WEIGHTS)
    assert (everything.captions, everything.whole_batch) == (True, True)


def test_a_text_tower_without_a_part_in_the_objective_is_left_alone() -> None:
    """DDP waits for the gradient of every weight that trains."""
    for weights, trains in [({"dcm": 1.0}, False), ({"flyp": 1.0}, True), ({"l1_init": 1.0}, True)]:
        method = given(**weights)
        model = prepared(method)
        method.loss(model, make_batch())["loss"].backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (trains or not name.startswith("text.")), name
            assert (parameter.grad is not None) == parameter.requires_grad, name


def test_training_with_a_found_objective() -> None:
    method = given(**{name: weight / 20 for name, weight in WEIGHTS.items()})
    model = prepared(method)
    start = make_model(architecture=method.architecture())
    schedule = make_schedule(EXAMPLES, method.training)
    batches = make_batches(method, start, schedule, WorkerPlace())
    trained = Trainer(model, method, schedule, batches, seed=3).run()
    assert sum(trained.losses[-3:]) < 0.9 * sum(trained.losses[:3])


# The search


def test_the_search_space() -> None:
    search = make(lr=2e-5).search()
    assert search is not None
    assert list(search.space) == [*WEIGHTS, "lr", "weight_decay", "seed"]
    for name in WEIGHTS:
        assert search.space[name] == LogUniform(low=1e-4, high=10)
    lr = search.space["lr"]
    assert isinstance(lr, LogUniform)
    assert (lr.low, lr.high) == pytest.approx((2e-7, 2e-3))
    assert search.space["weight_decay"] == Uniform(low=0, high=1)
    assert search.space["seed"] == Integer(low=0, high=100)


def test_a_subset_of_the_losses() -> None:
    method = make(losses=("flyp", "ce", "dcm"))
    assert method.config.losses == ("ce", "dcm", "flyp")
    search = method.search()
    assert search is not None
    assert list(search.space) == ["dcm", "flyp", "lr", "weight_decay", "seed"]
    candidate = search.candidate({"dcm": 1, "flyp": 2, "lr": 1, "weight_decay": 0, "seed": 1})
    assert isinstance(candidate, AutoFt)
    assert isinstance(candidate.config.objective, Objective)
    assert [n for n, w in candidate.config.objective.weights.items() if w] == ["ce", "dcm", "flyp"]
    assert make(losses=("ce", "dcm")).captions is False
    with pytest.raises(ValidationError, match="ce must be among them"):
        make(losses=("dcm",))


def test_a_candidate_trains_with_what_was_learned() -> None:
    """Rate and weight decay hold in trial and final run alike; the cross-entropy's weight is 1."""
    method = make(**SMALL, search=SearchConfig(n_trials=3))
    search = method.search()
    assert search is not None
    candidate = search.candidate(VALUES)
    assert isinstance(candidate, AutoFt)
    assert candidate.search() is None
    assert (candidate.training.lr, candidate.training.weight_decay) == (2e-2, 0.5)
    assert candidate.training.epochs == 4
    group = candidate.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (2e-2, 0.5)
    final = make_schedule(EXAMPLES, candidate.training)
    trial = replace(final, constant=True)
    assert trial.learning_rate(0, candidate.training) == 2e-2
    assert final.learning_rate(1, candidate.training) == 2e-2  # the end of the warm-up
    found = candidate.config.objective
    assert isinstance(found, Objective)
    weights: dict[LossName, float] = {"ce": 1.0, **WEIGHTS}  # type: ignore[dict-item]
    assert found.weights == weights
    assert found == objective_of(VALUES)


def test_the_released_codes_search_weighs_cross_entropy_and_forgets_the_rate() -> None:
    released = {"unit_loss": "flyp", "highest_weight_decay": 0.3, "final_lr": 1e-5}
    method = make(**SMALL, **released, passes_per_epoch=3)
    search = method.search()
    assert search is not None
    assert "ce" in search.space and "flyp" not in search.space
    assert search.space["weight_decay"] == Uniform(low=0, high=0.3)
    values = {name: value for name, value in VALUES.items() if name != "flyp"} | {"ce": 0.25}
    candidate = search.candidate(values)
    assert isinstance(candidate, AutoFt) and isinstance(candidate.config.objective, Objective)
    weights = candidate.config.objective.weights
    assert (weights["flyp"], weights["ce"]) == (1.0, 0.25)
    assert "ce: 0.25" in search.export(values)
    final = make_schedule(EXAMPLES, candidate.training)
    trial = replace(final, constant=True)
    assert trial.learning_rate(0, candidate.training) == 2e-2  # the rate that is tried
    assert max(final.learning_rate(s, candidate.training) for s in range(final.steps)) == 1e-5
    plain = make_schedule(EXAMPLES, make(**SMALL).training)
    assert final.steps == 3 * plain.steps
    assert (final.save_every, plain.save_every) == (-(-3 * EXAMPLES // 12), 3)
    with pytest.raises(ValidationError, match='"flyp" is not among the losses'):
        make(unit_loss="flyp", losses=("ce", "dcm"))


def test_before_the_search_there_is_nothing_to_train_with() -> None:
    method = make()
    with pytest.raises(TypeError, match="has yet to find"):
        prepared(method)


# The settings


@pytest.mark.parametrize("name", RELEASED)
def test_released_objectives_by_name(name: str) -> None:
    method = make(objective=name)
    assert method.config.objective == o.released(name)
    assert method.training.lr == o.released(name).lr
    assert method.training.weight_decay == o.released(name).weight_decay
    assert method.search() is None


def test_a_path_a_name_and_the_content_are_one_run(tmp_path: Path) -> None:
    objective = o.released("fmow")
    first, second = tmp_path / "a.yaml", tmp_path / "b.yml"
    first.write_text(objective.dump())
    second.write_text(objective.dump().replace("github", "mirror"))
    content = objective.model_dump()
    ways = ["fmow", str(first), str(second), content]
    dumps = [AutoFtConfig(objective=way).model_dump_json() for way in ways]  # type: ignore[arg-type]
    assert len(set(dumps)) == 1
    first.write_text(objective.model_copy(update={"flyp": 9.0}).dump())
    assert AutoFtConfig(objective=str(first)).model_dump_json() != dumps[0]  # type: ignore[arg-type]


def test_with_an_objective_nothing_else_of_the_search_counts() -> None:
    plain = AutoFtConfig(objective="fmow")  # type: ignore[arg-type]
    other = AutoFtConfig(
        objective="fmow",  # type: ignore[arg-type]
        lr=1.0,
        weight_decay=0.9,
        losses=("ce", "dcm"),
        search=SearchConfig(n_trials=3),
    )
    assert plain == other


def read(settings: dict[str, Any]) -> AutoFtConfig:
    """As a suite file does."""
    return validate(AutoFtConfig, tree(settings, Place("suite.yaml", 3, Path()), ("methods", "a")))


@pytest.mark.parametrize("objective", ["search", "imagenet"])
def test_settings_survive_json(objective: str) -> None:
    config = read({"objective": objective, "epochs": 3})
    again = read(config.model_dump(mode="json"))
    assert again.model_dump(mode="json") == config.model_dump(mode="json")


def test_a_path_may_be_relative_to_the_suite(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 1e-4\nweight_decay: 0\n")
    config = AutoFtConfig.model_validate_json(
        '{"objective": "mine.yaml"}',
        strict=True,
        context={"locate": lambda key, path: str(tmp_path / path)},
    )
    assert config.lr == 1e-4


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("imagnet", 'released objective (did you mean "imagenet"?), got "imagnet"'),
        ("no.yaml", "no.yaml: there is no such file"),
        (3, "must be a mapping, got 3"),
        ({"lr": 1, "weight_decay": 0, "dcm": -1}, "objective.dcm: must be greater than or equal"),
        ({"lr": 1, "weight_decay": 0, "dcn": 1}, 'unknown key "dcn" (did you mean "dcm"?)'),
        ({"lr": 1}, 'the key "weight_decay" is missing'),
    ],
)
def test_a_bad_objective_gives_one_line(objective: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read({"objective": objective})
    assert str(caught.value).startswith("suite.yaml:3: methods.a.objective")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_file_is_told_by_its_own_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("lr: 1e-4\nweight_decay: 0\nflyp: many\n")
    with pytest.raises(InputError, match=r"bad\.yaml:3: flyp: must be a valid number"):
        read({"objective": str(file)})
