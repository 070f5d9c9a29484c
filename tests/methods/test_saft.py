"""SAFT: what is selected, that nothing else moves, and that it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pydantic import ValidationError
from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training import Trainer
from shiftbench.methods.base import Architecture, Batch
from shiftbench.methods.builtin.saft import Saft, SaftConfig
from shiftbench.methods.masks import balanced, candidates, mean_gradient, mean_over_examples
from shiftbench.models.checkpoints import load, save
from shiftbench.models.classifier import ImageClassifier
from shiftbench.models.weights import apply_sparse_delta, sparse_delta
from shiftbench.testing.toys import (
    CLASSES,
    EXAMPLES,
    TEMPLATES,
    make_batches,
    make_context,
    make_examples,
    make_model,
)
from torch import Tensor, nn

TEXT = Architecture(text=True, head="text")
GRADIENT_SCORES = [
    "abs-mean-grad",
    "mean-abs-grad",
    "fisher",
    "grad-times-weight",
    "grad-over-weight",
]


def make(**changes: Any) -> Saft:
    """The method with a small setting: 22 or so of the toy's 1,600 weights."""
    setting = {"density": 0.0137, "lr": 1e-2, "epochs": 4, "batch_size": 12, "warmup_steps": 2}
    return Saft(SaftConfig(**{**setting, **changes}))


def prepared(method: Saft, seed: int = 3, batch: int = 8, steps: int = 10) -> ImageClassifier:
    """A model that the method has prepared on the toy examples, ``batch`` at a time."""
    model = make_model(architecture=method.architecture())
    context = make_context(method, model, steps=steps)
    method.prepare(model, replace(context, seed=seed, examples=lambda: in_batches(batch)))
    return model


def in_batches(size: int) -> Iterator[Batch]:
    images, labels = make_examples()
    for part in torch.arange(EXAMPLES).split(size):
        yield Batch(images[part], labels[part])


def trainer(method: Saft, model: ImageClassifier, **options: Any) -> Trainer:
    schedule = make_schedule(EXAMPLES, method.config)
    batches = make_batches(method, model, schedule, WorkerPlace())  # type: ignore[arg-type]
    return Trainer(model, method, schedule, batches, seed=3, **options)  # type: ignore[arg-type]


def positions(method: Saft) -> list[int]:
    found: list[int] = method.state()["positions"].tolist()
    return found


def names_of(method: Saft, model: ImageClassifier) -> set[str]:
    return set(method.details(model)["share"])


def flat(model: ImageClassifier, method: Saft) -> Tensor:
    """All candidates of a model, concatenated."""
    config = method.config
    chosen = candidates(model, config.towers, config.include).values()
    return torch.cat([tensor.detach().flatten() for tensor in chosen])


def slow_loss(model: ImageClassifier, image: Tensor, label: int, template: int) -> Tensor:
    """Cross-entropy of one example, written out."""
    feature = model.visual(image[None])[0]
    if model.text is None:
        logits = model.head.weight @ (feature / feature.norm()) + model.head.bias
    else:
        assert model.prompts is not None
        texts = [model.text.encode_text(tokens[None])[0] for tokens in model.prompts[template]]  # type: ignore[operator]
        cosines = [feature @ text / feature.norm() / text.norm() for text in texts]
        logits = torch.stack(cosines) * model.text.logit_scale.detach().exp()  # type: ignore[operator]
    return logits.exp().sum().log() - logits[label]


def slow_gradients(method: Saft) -> tuple[np.ndarray, np.ndarray]:
    """Of every example (n, N), and the candidates (N,); float64."""
    model = make_model(architecture=method.architecture()).double().eval()
    images, labels = make_examples()
    tensors = list(candidates(model).values())
    rows = []
    for i, (image, label) in enumerate(zip(images.double(), labels.tolist(), strict=True)):
        loss = slow_loss(model, image, label, i % TEMPLATES)
        found = torch.autograd.grad(loss, tensors)
        rows.append(torch.cat([part.flatten() for part in found]).numpy())
    return np.stack(rows), torch.cat([t.detach().flatten() for t in tensors]).numpy()


def slow_scores(score: str, gradients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = gradients.mean(0)
    found: np.ndarray = {
        "abs-mean-grad": np.abs(mean),
        "mean-abs-grad": np.abs(gradients).mean(0),
        "fisher": np.square(gradients).mean(0),
        "grad-times-weight": np.abs(mean * weights),
        "grad-over-weight": np.abs(mean) / (np.abs(weights) + 1e-8),
        "magnitude": np.abs(weights),
    }[score]
    return found


# Which weights compete


def test_the_logit_scale_is_never_a_candidate() -> None:
    model = make_model(architecture=TEXT)
    for towers in ("both", "image", "text"):
        for include in ("all", "weights", "no-embeddings"):
            assert "text.logit_scale" not in candidates(model, towers, include)
    method = make(density=1.0, weight_decay=0.5)
    model = prepared(method)
    before = model.temperature.item()
    trainer(method, model).run()
    assert len(positions(method)) == sum(p.numel() for p in candidates(model).values())
    assert model.temperature.item() == before
    assert not model.text_tower.logit_scale.requires_grad


def test_candidates_by_tower_and_kind() -> None:
    model = make_model(architecture=TEXT)
    names = {name for name, _ in model.named_parameters()}
    everything = names - {"text.logit_scale", "head.weight", "head.bias"}
    assert set(candidates(model)) == everything
    for tower, part in (("image", "visual."), ("text", "text.")):
        expected = {name for name in everything if name.startswith(part)}
        assert set(candidates(model, tower)) == expected  # type: ignore[arg-type]
    plain = {n for n in everything if "bias" not in n and ".ln." not in n}
    assert set(candidates(model, include="weights")) == plain
    without = everything - {"visual.positional_embedding", "text.token_embedding.weight"}
    assert set(candidates(model, include="no-embeddings")) == without


def test_a_linear_head_is_a_candidate_and_counted() -> None:
    method = make(head="linear", density=0.5)
    model = prepared(method)
    assert method.architecture() == Architecture(text=False, head="linear")
    total = sum(p.numel() for p in model.parameters())
    assert method.details(model)["candidates"] == total
    assert len(positions(method)) == int(0.5 * total)
    assert {"head.weight", "head.bias"} <= names_of(method, model)
    with pytest.raises(ValidationError, match="no text tower"):
        SaftConfig(head="linear", towers="text")


def test_only_tokens_of_the_prompts_have_a_score() -> None:
    model = prepared(make(density=1.0)).requires_grad_(True)
    tensor = candidates(model)["text.token_embedding.weight"]
    (score,) = mean_gradient(model, [tensor], in_batches(30))
    assert model.prompts is not None
    used = sorted(set(model.prompts.flatten().tolist()))
    assert score.abs().sum(1).nonzero().flatten().tolist() == used
    assert len(used) < len(tensor)


# What they are ranked by


@pytest.mark.parametrize("head", ["text", "linear"])
@pytest.mark.parametrize("score", [*GRADIENT_SCORES, "magnitude"])
def test_the_selection_is_that_of_examples_one_by_one_in_float64(score: str, head: str) -> None:
    method = make(score=score, head=head)
    prepared(method)
    expected = slow_scores(score, *slow_gradients(method))
    k = int(0.0137 * len(expected))
    assert k > 15
    assert positions(method) == sorted(np.argsort(-expected, kind="stable")[:k].tolist())


def test_gradients_agree_with_float64() -> None:
    method = make(label_smoothing=0.0)
    gradients, _ = slow_gradients(method)
    model = prepared(make(density=1.0))
    tensors = list(candidates(model).values())
    signed = mean_gradient(model, tensors, in_batches(7), chunk=2)

    def loss(batch: Batch) -> Tensor:
        return method.loss(model, batch)["loss"]

    squared = mean_over_examples(loss, tensors, in_batches(7), torch.square)
    for found, expected in ((signed, gradients.mean(0)), (squared, np.square(gradients).mean(0))):
        got = torch.cat([part.flatten() for part in found]).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())


def test_the_kinds_of_score_rank_differently() -> None:
    found = set()
    for score in ("abs-mean-grad", "mean-abs-grad", "fisher", "magnitude", "random"):
        method = make(score=score)
        prepared(method)
        found.add(tuple(positions(method)))
    assert len(found) >= 4


@pytest.mark.parametrize("score", GRADIENT_SCORES)
def test_the_selection_does_not_depend_on_how_examples_are_batched(score: str) -> None:
    found = []
    for batch in (1, 7, 16, 30):  # 16 leaves a smaller last batch, which must not weigh more
        method = make(score=score)
        prepared(method, batch=batch)
        found.append(positions(method))
    assert found == [found[0]] * 4


def test_the_text_tower_runs_twice_for_each_template_and_not_for_each_batch() -> None:
    method = make()
    model = make_model(architecture=TEXT)
    count = counted(model)
    context = make_context(method, model)
    method.prepare(model, replace(context, examples=lambda: in_batches(1)))
    assert count() == 2 * TEMPLATES


def counted(model: ImageClassifier) -> Callable[[], int]:
    """How often the text tower was called from now on."""
    calls = []
    encode = model.text_tower.encode_text

    def counting(tokens: Tensor) -> Tensor:
        calls.append(len(tokens))
        return encode(tokens)  # type: ignore[operator, no-any-return]

    model.text_tower.encode_text = counting  # type: ignore[assignment]
    return lambda: len(calls)


@pytest.mark.parametrize("score", ["abs-mean-grad", "fisher"])
def test_scoring_leaves_no_gradient_and_no_mode_behind(score: str) -> None:
    method = make(score=score, refresh_every=2)
    model = make_model(architecture=TEXT)
    model.train()
    modes = []
    model.visual.register_forward_hook(lambda module, *_: modes.append(module.training))
    method.prepare(model, make_context(method, model))
    assert modes
    assert not any(modes)
    assert model.training
    assert all(tensor.grad is None for tensor in model.parameters())


def test_batch_norm_statistics_are_not_touched_by_scoring() -> None:
    method = make()
    model = make_model(architecture=TEXT)
    norm = nn.BatchNorm2d(3)
    model.visual = nn.Sequential(norm, model.visual)
    model.train()
    method.prepare(model, make_context(method, model))
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 0


@pytest.mark.parametrize("score", ["abs-mean-grad", "fisher"])
def test_a_candidate_without_a_gradient_has_score_zero(score: str) -> None:
    method = make(score=score)
    model = make_model(architecture=TEXT)
    model.visual.unused = nn.Parameter(torch.full((50,), 9.0))
    method.prepare(model, make_context(method, model))
    assert method.details(model)["candidates"] == 1922
    assert "visual.unused" not in names_of(method, model)


def test_a_score_that_is_not_finite_fails_the_run() -> None:
    method = make()
    model = make_model(architecture=TEXT)
    images, labels = make_examples()
    images[4] = torch.nan
    context = replace(make_context(method, model), examples=lambda: iter([Batch(images, labels)]))
    with pytest.raises(RunFailedError, match="not finite"):
        method.prepare(model, context)


def test_some_examples_of_every_class_are_enough() -> None:
    labels = torch.arange(CLASSES).repeat_interleave(10)
    inputs = torch.arange(30.0)
    batches = [Batch(inputs[part], labels[part]) for part in torch.arange(30).split(4)]
    found = list(balanced(batches, CLASSES, 7))
    assert torch.cat([batch.inputs for batch in found]).tolist() == [0, 1, 2, 10, 11, 12, 20]
    assert sum(len(batch.labels) for batch in balanced(batches, CLASSES, 100)) == 30

    limited, whole = make(score_examples=6), make()
    model = make_model(architecture=TEXT)
    images, targets = make_examples()  # classes take turns, so these are the first six
    context = make_context(whole, model)
    first = replace(context, examples=lambda: iter([Batch(images[:6], targets[:6])]))
    whole.prepare(make_model(architecture=TEXT), first)
    limited.prepare(model, context)
    assert positions(limited) == positions(whole)


# How many


def test_the_same_share_of_every_tensor() -> None:
    method = make(scope="per-tensor", density=0.1)
    model = prepared(method)
    share = method.details(model)["share"]
    for name, tensor in candidates(model).items():
        expected = tensor.numel() // 10
        assert share.get(name, [0])[0] == expected


def test_a_random_selection_is_as_large_and_follows_the_seed() -> None:
    by_gradient = make()
    prepared(by_gradient)
    found = []
    for seed in (1, 1, 2):
        method = make(score="random")
        prepared(method, seed=seed)
        found.append(positions(method))
        assert len(found[-1]) == len(positions(by_gradient))
    assert found[0] == found[1] != found[2]


def test_a_density_that_selects_nothing_is_refused() -> None:
    with pytest.raises(RunFailedError, match="selects none"):
        prepared(make(density=1e-4))


def test_details_are_json_and_add_up() -> None:
    method = make()
    model = prepared(method)
    details = json.loads(json.dumps(method.details(model)))
    assert details["selected"] == 25 == sum(count for count, _ in details["share"].values())
    assert details["candidates"] == 1872
    assert details["density"] == 25 / 1872
    sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
    assert all(0 < count <= size == sizes[n] for n, (count, size) in details["share"].items())


# The objective


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_the_loss_sees_all_classes_in_the_template_of_the_step(step: int) -> None:
    method = make(density=0.5)
    model = prepared(method)
    images, labels = make_examples()
    slow = make_model(architecture=TEXT).double()
    losses = [
        slow_loss(slow, image, label, step % TEMPLATES).item()
        for image, label in zip(images.double(), labels.tolist(), strict=True)
    ]
    loss = method.loss(model, Batch(images, labels, step=step))["loss"]
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        low = method.loss(model, Batch(images, labels, step=step))["loss"]
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(np.mean(losses), rel=0.05)


def test_prompts_may_be_encoded_in_pieces() -> None:
    gradients = []
    for chunk in (1, 2, 256):
        method = make(density=0.5, text_chunk=chunk)
        model = prepared(method)
        images, labels = make_examples()
        method.loss(model, Batch(images, labels))["loss"].backward()
        method.before_step(model)
        gradients.append(method.parameters(model)[0].grad)
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[2])


def test_a_frozen_text_tower_runs_once_for_each_template() -> None:
    method = make(towers="image")
    model = prepared(method)
    count = counted(model)
    trainer(method, model).run()
    assert count() == TEMPLATES
    assert not any(name.startswith("text.") for name in names_of(method, model))


def test_a_frozen_image_tower_stays() -> None:
    method = make(towers="text", density=0.2)
    model = prepared(method)
    start = make_model(architecture=TEXT).state_dict()
    trainer(method, model).run()
    moved = {n for n, tensor in model.state_dict().items() if not tensor.equal(start[n])}
    assert moved
    assert all(name.startswith("text.") for name in moved)


# What training changes


def test_after_100_steps_with_decay_nothing_else_has_moved() -> None:
    method = make(weight_decay=0.1, epochs=40)
    model = prepared(method)
    before = make_model(architecture=TEXT).state_dict()
    start = flat(model, method)
    chosen = positions(method)
    done = trainer(method, model).run()
    assert len(done.losses) == 100
    assert np.mean(done.losses[-5:]) < 0.95 * np.mean(done.losses[:5])
    end = flat(model, method)
    rest = torch.ones(len(end), dtype=torch.bool)
    rest[chosen] = False
    assert end[rest].numpy().tobytes() == start[rest].numpy().tobytes()
    assert (end[chosen] != start[chosen]).all()
    names = names_of(method, model)
    for name, tensor in model.state_dict().items():
        if name not in names:
            assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name
    frozen = {name for name, tensor in model.named_parameters() if not tensor.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters()} - names


@pytest.mark.parametrize(("decay", "limit"), [(0.1, 0.2), (0.0, None)])
def test_training_is_adamw_on_the_selected_weights_in_float64(
    decay: float, limit: float | None
) -> None:
    """Decay acts on the selected weights, and only their gradient is clipped."""
    method = make(weight_decay=decay, max_grad_norm=limit)
    model = prepared(method)
    chosen = positions(method)
    schedule = make_schedule(EXAMPLES, method.config)
    batches = make_batches(method, model, schedule, WorkerPlace())  # type: ignore[arg-type]
    trainer(method, model).run()

    slow = make_model(architecture=TEXT).double()
    tensors = list(candidates(slow).values())
    m, v, clipped, fuller = np.zeros(len(chosen)), np.zeros(len(chosen)), 0, 0
    for step, batch in enumerate(batches(range(schedule.steps))):
        pairs = zip(batch.inputs.double(), batch.labels.tolist(), strict=True)
        losses = [slow_loss(slow, image, label, step % TEMPLATES) for image, label in pairs]
        found = torch.autograd.grad(torch.stack(losses).mean(), tensors)
        full = torch.cat([part.flatten() for part in found]).numpy()
        g = full[chosen]
        if limit is not None:
            clipped += np.linalg.norm(g) > limit
            fuller += np.linalg.norm(full) > 1.05 * np.linalg.norm(g)
            g = g * min(1, limit / (np.linalg.norm(g) + 1e-6))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        lr, t = schedule.learning_rate(step, method.config), step + 1
        w = torch.cat([tensor.detach().flatten() for tensor in tensors])
        update = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w[chosen] = w[chosen] * (1 - lr * decay) - lr * torch.from_numpy(update)
        nn.utils.vector_to_parameters(w, tensors)
    if limit is not None:
        assert clipped > 3
        assert fuller > 3
    expected = torch.cat([tensor.detach().flatten() for tensor in tensors])
    got = flat(model, method)
    np.testing.assert_allclose(got[chosen].numpy(), expected[chosen].numpy(), atol=2e-5)


def test_the_optimizer_holds_nothing_but_the_selected_weights() -> None:
    method = make()
    model = prepared(method)
    run = trainer(method, model)
    run.run()
    (values,) = method.parameters(model)
    assert values.dtype == torch.float32
    states = run._optimizer.state
    assert list(states) == [values]
    assert states[values]["exp_avg"].shape == (25,)


# Selecting again


@pytest.mark.parametrize("score", ["abs-mean-grad", "random"])
def test_weights_are_selected_again_and_nothing_else_moves(score: str) -> None:
    method = make(score=score, refresh_every=4, lr=0.05)
    model = prepared(method)
    start = flat(model, method)
    selections = [positions(method)]

    def look(step: int) -> None:
        if positions(method) != selections[-1]:
            assert step in (4, 8)
            assert not run._optimizer.state  # the moments start at zero
            selections.append(positions(method))
            assert torch.equal(flat(model, method)[selections[-1]], method.parameters(model)[0])
        assert len(positions(method)) == 25

    run = trainer(method, model, on_step=look)
    run.run()
    assert len(selections) == 3
    ever = sorted({p for chosen in selections for p in chosen})
    assert len(ever) > 25
    rest = torch.ones(len(start), dtype=torch.bool)
    rest[ever] = False
    end = flat(model, method)
    assert end[rest].numpy().tobytes() == start[rest].numpy().tobytes()
    assert (end[ever] != start[ever]).all()
    assert all(tensor.grad is None for tensor in model.parameters())


def test_a_new_selection_is_by_the_weights_of_that_step() -> None:
    method = make(refresh_every=5)
    model = prepared(method)
    run = trainer(method, model)
    run.run(until=5)
    anew = make()
    copy = make_model(architecture=TEXT)
    copy.load_state_dict(model.state_dict())
    anew.prepare(copy, make_context(anew, copy))  # type: ignore[arg-type]
    assert positions(anew) == positions(method)


# Going on


@pytest.mark.parametrize("refresh", [None, 3])
def test_an_interrupted_training_goes_on_bit_for_bit(refresh: int | None, tmp_path: Path) -> None:
    def fit(stop: int | None, state: Path | None) -> tuple[dict[str, Tensor], list[float]]:
        def interrupt(step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

        method = make(refresh_every=refresh)
        model = prepared(method)
        run = trainer(method, model, state_file=state, on_step=interrupt)
        return dict(method.weights(model)), run.run().losses

    weights, losses = fit(None, None)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(5, state)  # after the state of step 3, where a selection is due
    again, more = fit(None, state)
    assert more == losses
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_resumed_training_keeps_its_selection_and_not_its_machines(tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    first = make(score="random")
    model = prepared(first, seed=1)
    run = trainer(first, model, state_file=state)
    run.run(until=3)
    kept = positions(first)
    other = make(score="random")
    resumed = prepared(other, seed=2)
    assert positions(other) != kept
    values = other.parameters(resumed)[0]
    trainer(other, resumed, state_file=state)
    assert positions(other) == kept
    assert other.parameters(resumed)[0] is values
    assert torch.equal(values, flat(model, first)[kept])
    trains = {name for name, tensor in resumed.named_parameters() if tensor.requires_grad}
    assert trains == names_of(first, model)


def test_a_run_reloads_exactly_from_the_weights_it_changed(tmp_path: Path) -> None:
    method = make(density=0.001)
    model = prepared(method)
    trainer(method, model).run()
    start = make_model(architecture=TEXT).state_dict()
    changes = sparse_delta(start, method.weights(model))
    assert sum(len(t) for name, t in changes.items() if name.endswith("/values")) == 1
    save(tmp_path / "delta.safetensors", changes, {})
    stored, _ = load(tmp_path / "delta.safetensors")
    again = apply_sparse_delta(start, stored)
    assert again.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert again[name].numpy().tobytes() == tensor.numpy().tobytes()


# Several workers


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    place = WorkerPlace(rank, 2)
    method = make(refresh_every=4)
    model = make_model(architecture=TEXT)
    images, labels = make_examples()
    part = slice(0, EXAMPLES - 12 * rank)  # another ranking, as if by another rounding
    context = replace(
        make_context(method, model, place),  # type: ignore[arg-type]
        examples=lambda: iter([Batch(images[part], labels[part])]),
    )
    method.prepare(model, context)
    found = [positions(method)]
    schedule = make_schedule(EXAMPLES, method.config, 2)
    batches = make_batches(method, model, schedule, place)  # type: ignore[arg-type]
    Trainer(
        model,
        method,  # type: ignore[arg-type]
        schedule,
        batches,
        seed=3,
        place=place,
        on_step=lambda step: found.append(positions(method)),
    ).run()
    torch.save((dict(method.weights(model)), found), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_workers_take_the_selection_of_the_first(tmp_path: Path) -> None:
    mp.spawn(_worker, (tmp_path,), nprocs=2)
    (first, selections), (second, others) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert selections == others
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = make(refresh_every=4)
    model = prepared(alone)
    assert positions(alone) == selections[0]
    trainer(alone, model).run()
    assert positions(alone) == selections[-1]
    torch.testing.assert_close(first, dict(alone.weights(model)), rtol=1e-4, atol=1e-5)
