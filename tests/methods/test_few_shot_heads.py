"""CLAP, LP++, Tip-Adapter and CoOp against references in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import open_clip
import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.data.batches import WorkerPlace
from shiftbench.methods.base import Architecture, Batch, Context, TrainedMethod
from shiftbench.methods.builtin import clap, lp_plus_plus
from shiftbench.methods.builtin.coop import fitted, padding_of, split_prompts
from shiftbench.methods.builtin.tip_adapter import TipAdapter, TipAdapterConfig, grid
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.members import Labelled, Members, Outputs
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing import toys
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from tests.methods.settings import make_method

CLASSES, WIDTH = toys.CLASSES, 8


def ready(name: str, **settings: object) -> tuple[TrainedMethod[TrainingConfig], nn.Module, Tensor]:
    """A method that has prepared the toy, and the toy's zero-shot rows as they were, float64."""
    method = make_method(name, **settings)
    model = toys.make_model(architecture=method.architecture())
    rows = model.head.weight.detach().double().clone()
    nn.init.zeros_(model.head.bias)
    method.ready(model, toys.make_context(method, model))
    return method, model, rows


def shots() -> tuple[Tensor, Tensor]:
    """Features (30, 8) float64 of the toy's examples, and labels."""
    batch = toys.make_batch(toys.make_model())
    return batch.inputs.double(), batch.labels


def raw_lengths(model: nn.Module) -> list[float]:
    found = []
    for c in range(CLASSES):
        texts = [model.text_tower.encode_text(model.prompts[t, c : c + 1]) for t in range(2)]
        found.append(float(sum(texts).detach().double().norm() / 2))
    return found


class Largest(TorchDispatchMode):
    """Notes the most numbers that one tensor holds of all that are made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.most = max(self.most, found.numel())
        return found


@pytest.mark.parametrize("name", ["clap", "lp-plus-plus"])
def test_nothing_grows_with_shots_times_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """900 shots in batches of 300 with 40 classes: a batch takes a third of their product."""
    monkeypatch.setattr(lp_plus_plus, "HELD", 50)
    method, model = make_method(name), toys.make_model(architecture=Architecture(text=True))
    model.head = nn.Linear(WIDTH, 40)
    draw = torch.Generator().manual_seed(0)

    def examples() -> Iterator[Batch]:
        for _ in range(3):
            inputs = normalize(torch.randn(300, WIDTH, generator=draw), dim=1)
            yield Batch(inputs, torch.randint(40, (300,), generator=draw))

    if name == "clap":
        monkeypatch.setattr(clap, "lengths", lambda model: torch.ones(40))
    with Largest() as seen:
        method.prepare(model, Context({}, examples, 10, 0, WorkerPlace()))
    assert seen.most <= 300 * 40


# CLAP


@pytest.mark.parametrize("strength", [0.0, 2.0])
@pytest.mark.parametrize("augment", [False, True])
def test_clap_turns_prototypes_and_pulls_them_by_class(strength: float, augment: bool) -> None:
    method, model, rows = ready("clap", strength=strength, augment=augment, lr=0.1, momentum=0.5)
    assert method.inputs == ("images" if augment else "features")
    features, labels = shots()
    batch = toys.make_batch(None if augment else toys.make_model())
    scale = float(rows.norm(dim=1).mean())
    lengths = torch.tensor(raw_lengths(model), dtype=torch.float64)
    start = normalize(rows, dim=1) * lengths[:, None]
    probabilities = torch.softmax(features @ rows.T, dim=1)
    own = [
        sum(float(probabilities[i, c]) for i in range(30) if labels[i] == c) / 10
        for c in range(CLASSES)
    ]

    def loss(w: Tensor) -> Tensor:
        logits = scale * features @ normalize(w, dim=1).T
        pull = sum(own[c] * ((w[c] - start[c]) ** 2).sum() for c in range(CLASSES)) / CLASSES
        return cross_entropy(logits, labels) + strength * pull

    w, speed = start.clone().requires_grad_(), torch.zeros_like(start)
    optimizer = method.optimizer(method.parameters(model))
    for _ in range(5):
        expected = loss(w)
        found = method.loss(model, batch)["loss"]
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        (gradient,) = torch.autograd.grad(expected, w)
        speed = 0.5 * speed + gradient
        w = (w - 0.1 * speed).detach().requires_grad_()
    weights = method.weights(model)
    head = scale * normalize(w.detach(), dim=1)
    torch.testing.assert_close(weights["head.weight"].double(), head, rtol=1e-4, atol=1e-5)
    moved = [k for k, t in weights.items() if not torch.equal(t, toys_state(method)[k])]
    assert set(moved) <= {"head.weight", "head.bias"}


def toys_state(method: TrainedMethod[TrainingConfig]) -> dict[str, Tensor]:
    return toys.make_model(architecture=method.architecture()).state_dict()


def test_clap_starts_as_the_zero_shot_model() -> None:
    method, model, rows = ready("clap")
    expected = normalize(rows, dim=1) * rows.norm(dim=1).mean()
    torch.testing.assert_close(method.weights(model)["head.weight"].double(), expected)


# LP++


@pytest.mark.parametrize("held", [4096, 7])
def test_lp_plus_plus_takes_the_steps_that_follow_from_the_data(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lp_plus_plus, "HELD", held)
    method, model, rows = ready("lp-plus-plus", lr=0.5, momentum=0.9, text_weight=20.0)
    features, labels = shots()
    texts = normalize(rows, dim=1)
    w = torch.zeros(CLASSES, WIDTH, dtype=torch.float64)
    cosine = []
    for i in range(30):
        w[labels[i]] += features[i]
    for c in range(CLASSES):
        cosine.append(np.mean([float(features[i] @ texts[c]) for i in range(30) if labels[i] == c]))
    alpha = torch.full((CLASSES,), 20.0 * float(np.mean(cosine)), dtype=torch.float64)
    bias = torch.zeros(CLASSES, dtype=torch.float64)
    step = 0.5 * 4 * 30 / float(np.linalg.eigvalsh(features.T.numpy() @ features.numpy()).max())
    most = max(float(((features @ texts[c]) ** 2).sum()) for c in range(CLASSES))
    text_step = 0.5 * 30 / (4 * most)
    summed = torch.zeros(CLASSES, dtype=torch.float64)
    speeds = [torch.zeros_like(w), torch.zeros_like(bias)]
    batch = toys.make_batch(toys.make_model())
    optimizer = method.optimizer(method.parameters(model))
    for done in range(1, 22):
        leaves = [leaf.detach().requires_grad_() for leaf in (w, bias, alpha)]
        logits = features @ leaves[0].T + leaves[1] + leaves[2] * (features @ texts.T)
        expected = cross_entropy(logits, labels)
        found = method.loss(model, batch)["loss"]
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
        for parameter in method.parameters(model):
            parameter.grad = None
        found.backward()
        for group in optimizer.param_groups:  # as the loop does
            group["lr"] = 123.0
        method.before_step(model)
        optimizer.step()
        method.after_step(model, done)
        gradients = torch.autograd.grad(expected, leaves)
        speeds = [0.9 * v + g for v, g in zip(speeds, gradients, strict=False)]
        w, bias = w - step * speeds[0], bias - step * speeds[1]
        summed += gradients[2]
        if done % 10 == 0:
            alpha = alpha - text_step * summed
    weights = method.weights(model)
    assert "text_weights" not in weights
    head = w + alpha[:, None] * texts
    torch.testing.assert_close(weights["head.weight"].double(), head, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(weights["head.bias"].double(), bias, rtol=1e-3, atol=1e-4)


# Tip-Adapter


def never() -> NoReturn:
    raise AssertionError("not needed")


def make_labelled(n: int, seed: int) -> Labelled:
    random = np.random.default_rng(seed)
    features = normalize(torch.from_numpy(random.standard_normal((n, 5))), dim=1).float().numpy()
    logits = (3 * random.standard_normal((n, 4))).astype(np.float32)
    members = Members(Outputs(features, logits), {}, lambda *_: never())
    return Labelled(members, random.integers(0, 3, n))  # the last class has no shots


def slow_cache(members: Members, train: Labelled, beta: float) -> np.ndarray:
    rows = []
    for feature in members.zero_shot.features.astype(np.float64):
        row = [0.0] * 4
        for key, label in zip(train.members.zero_shot.features, train.labels, strict=True):
            row[label] += math.exp(-beta * (1 - float(feature @ key.astype(np.float64))))
        rows.append(row)
    return np.array(rows)


def test_tip_adapter_adds_what_is_near_in_the_cache() -> None:
    train, test = make_labelled(12, 1), make_labelled(7, 2)
    method = TipAdapter(TipAdapterConfig(alpha=1.5, beta=4, choose="none"))
    assert method.kept and not method.selects() and method.parents() == ()
    fitted = method.fit(never, lambda: train)
    expected = test.members.zero_shot.logits + 1.5 * slow_cache(test.members, train, 4)
    found = method.combine("", test.members, fitted)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tip_adapter_chooses_on_id_validation() -> None:
    train, held_out = make_labelled(12, 1), make_labelled(40, 2)
    method = TipAdapter(TipAdapterConfig(betas=3, alphas=4, highest_alpha=4, highest_beta=9))
    assert method.selects()
    fitted = method.fit(lambda: held_out, lambda: train)
    right = {}
    for i in range(3):
        for j in range(4):
            beta, alpha = 0.1 + i * 8.9 / 3, 0.1 + j * 3.9 / 4
            logits = held_out.members.zero_shot.logits.astype(np.float64)
            logits = logits + alpha * slow_cache(held_out.members, train, beta)
            right[alpha, beta] = float((logits.argmax(1) == held_out.labels).mean())
    assert len({*right.values()}) > 2
    best = max(right, key=lambda point: right[point])
    assert fitted["point"] == pytest.approx(best)


def test_the_grid_is_that_of_the_released_code() -> None:
    found = [*grid(7, 200)]
    assert len(found) == 200
    assert found[0] == 0.1
    assert found[-1] == pytest.approx(0.1 + 199 * 6.9 / 200)


# CoOp


@pytest.mark.parametrize(("context", "by_class"), [(3, False), (2, True)])
def test_coop_learns_vectors_before_the_class(context: int, by_class: bool) -> None:
    method, model, _ = ready("coop", context=context, by_class=by_class)
    (vectors,) = method.parameters(model)
    assert vectors.shape == ((CLASSES, context, WIDTH) if by_class else (context, WIDTH))
    batch = toys.make_batch()
    reference = toys.make_model(architecture=method.architecture()).double()
    images = batch.inputs.double()
    features = normalize(reference.visual(images), dim=1).detach()
    own = vectors.detach().double().clone().requires_grad_()
    tower = reference.text_tower
    table = tower.token_embedding.weight.detach()

    def head() -> Tensor:
        rows = []
        for c in range(CLASSES):
            first, name, end = (table[int(t)] for t in reference.prompts[0, c])
            words = torch.stack([first, *(own[c] if by_class else own), name, end])
            tower.token_embedding = nn.Module()  # which gives these words, whatever the tokens
            tower.token_embedding.forward = lambda _, words=words: words[None]
            rows.append(tower.encode_text(torch.zeros(1, len(words)), normalize=True)[0])
        return tower.logit_scale.exp().detach() * torch.stack(rows)

    expected = cross_entropy(features @ head().T, batch.labels)
    model.chunk = 2  # images at a time, of which there may be fewer than classes
    found = method.loss(model, batch)["loss"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    (gradient,) = torch.autograd.grad(expected, own)
    torch.testing.assert_close(vectors.grad.double(), gradient, rtol=1e-4, atol=1e-6)
    weights = method.weights(model)
    found_head = weights["head.weight"].double()
    torch.testing.assert_close(found_head, head().detach(), rtol=1e-5, atol=1e-5)
    assert "context" not in weights


def test_words_before_the_class_are_those_that_all_prompts_share() -> None:
    prompts = torch.tensor([[49, 5, 6, 1, 8, 50, 0, 0], [49, 5, 6, 2, 3, 8, 50, 0]])
    first, words, rest = split_prompts(prompts)
    assert first.tolist() == [[49], [49]]
    assert words.tolist() == [[5, 6], [5, 6]]
    assert rest[:, 0].tolist() == [1, 2]


def test_prompts_are_as_long_as_the_tower_takes_them() -> None:
    tower = nn.Module()
    tower.context_length = 4  # type: ignore[assignment]
    assert fitted(torch.tensor([[9, 1, 2, 8, 0, 0]]), tower).tolist() == [[9, 1, 2, 8]]
    assert fitted(torch.tensor([[9, 1, 8]]), tower).tolist() == [[9, 1, 8, 0]]
    with pytest.raises(RunFailedError, match="no room in 4 tokens"):
        fitted(torch.tensor([[9, 1, 2, 3, 8, 0]]), tower)
    with pytest.raises(RunFailedError, match="no room in 4 tokens"):
        fitted(torch.tensor([[9, 1, 2, 3, 7, 8]]), tower)


def test_texts_are_filled_up_as_their_tokenizer_does() -> None:
    """CLIP's ends with its highest token and zeros; SigLIP's first with 1, again and again."""
    clips = torch.tensor([[49, 5, 6, 50, 0, 0], [49, 5, 6, 7, 50, 0]])
    siglips = torch.tensor([[5, 6, 7, 1, 1, 1], [5, 6, 7, 8, 1, 1]])
    assert padding_of(clips) == padding_of(clips[None]) == 0
    assert padding_of(siglips) == 1
    tower = nn.Module()
    tower.context_length = 6  # type: ignore[assignment]
    longer = torch.cat([siglips[:, :1], siglips[:, :1], siglips], dim=1)
    assert fitted(longer[:1], tower, 1).tolist() == [[5, 5, 5, 6, 7, 1]]
    assert fitted(siglips[:, :4], tower, 1).tolist() == [[5, 6, 7, 1, 1, 1], [5, 6, 7, 8, 1, 1]]
    with pytest.raises(RunFailedError, match="no room in 6 tokens"):
        fitted(longer, tower, 1)  # the second would lack its end


def test_coop_learns_a_context_for_siglips_text_tower() -> None:
    """Which takes the last token's output, masks nothing, and fills up with ones."""
    shape = {"context_length": 9, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    clip = open_clip.CustomTextCLIP(
        embed_dim=WIDTH,
        vision_cfg={"image_size": 8, "layers": 1, "width": 16, "head_width": 8, "patch_size": 4},
        text_cfg={**shape, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    )
    del clip._modules["visual"]
    prompts = torch.tensor([[[5, 6, 7, 8, 9, 1, 1, 1, 1], [5, 6, 7, 10, 9, 1, 1, 1, 1]]])
    visual = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, WIDTH))
    model = ImageClassifier(visual, nn.Linear(WIDTH, 2), clip, prompts)
    method = make_method("coop", context=5)
    method.prepare(model, Context({}, lambda: iter(()), 10, 3, WorkerPlace()))
    head = method.weights(model)["head.weight"]
    tokens = torch.tensor([[5, 0, 0, 0, 0, 0, c, 9, 1] for c in (8, 10)])
    (vectors,) = method.parameters(model)

    def context(module: nn.Module, given: object, embedded: Tensor) -> Tensor:
        return torch.cat([embedded[:, :1], vectors.expand(2, -1, -1), embedded[:, 6:]], dim=1)

    plain = copy.deepcopy(clip)
    plain.text.token_embedding._forward_hooks.clear()
    plain.text.token_embedding.register_forward_hook(context)
    rows = plain.logit_scale.exp() * plain.encode_text(tokens, normalize=True)
    torch.testing.assert_close(head, rows.detach())
