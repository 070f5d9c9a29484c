"""What the contract carries beyond the methods in-tree, each against a reference in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from shiftbench.methods.base import Parent
from shiftbench.methods.members import Labelled, Members, Outputs
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_derivation, make_members, make_model
from torch import Tensor

from tests.methods.contract import (
    Descent,
    DescentConfig,
    Nearness,
    NearnessConfig,
)


def double(weights: dict[str, Tensor]) -> ImageClassifier:
    model = make_model().double().eval()
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_gradients_on_labelled_id_validation(rate: float) -> None:
    method = Descent(DescentConfig(rate=rate))
    start, tuned = make_model().state_dict(), make_model(seed=5).state_dict()
    derivation = make_derivation(start, {Parent("full"): tuned})
    derived = method.derive("", derivation)

    ends = [{k: v.double() for k, v in weights.items()} for weights in (start, tuned)]

    def loss(alpha: float, images: Tensor, labels: Tensor) -> float:
        model = double({k: (1 - alpha) * v + alpha * ends[1][k] for k, v in ends[0].items()})
        with torch.no_grad():
            logits = model.visual(images.double())
            logits = model.head(torch.nn.functional.normalize(logits, dim=-1)).numpy()
        chosen = logits[np.arange(len(labels)), labels.numpy()]
        return float((np.log(np.exp(logits).sum(1)) - chosen).mean())

    alpha, h = 0.5, 1e-5
    for epoch in range(3):
        for batch in derivation.id_val_batches(8, derivation.seed + epoch):
            images, labels = batch.inputs, batch.labels
            slope = loss(alpha + h, images, labels) - loss(alpha - h, images, labels)
            alpha -= rate * slope / (2 * h)
    assert alpha != 0.5
    assert method.alpha == pytest.approx(alpha, rel=1e-4)
    for name, end in ends[0].items():
        expected = (1 - alpha) * end + alpha * ends[1][name]
        torch.testing.assert_close(derived[name].double(), expected, rtol=1e-4, atol=1e-5)


def slow_nearness(train: Labelled, id_val: Labelled, members: Members, k: int) -> np.ndarray:
    """Probabilities, one example and one class after the other."""
    full = Parent("full")

    def probabilities(logits: np.ndarray, t: float) -> list[float]:
        powers = [math.exp(float(z) / t) for z in logits]
        return [power / sum(powers) for power in powers]

    def fitted_temperature(outputs: Outputs, labels: np.ndarray) -> float:
        right = [int(np.argmax(z)) == y for z, y in zip(outputs.logits, labels, strict=True)]
        gaps = {}
        for t in np.geomspace(0.1, 10, 200):
            sure = [max(probabilities(z, t)) for z in outputs.logits]
            gaps[t] = abs(sum(sure) / len(sure) - sum(right) / len(right))
        return float(np.float32(min(gaps, key=lambda t: gaps[t])))

    inside, labels = train
    centres = [
        inside.parents[full].features[i].astype(np.float64)
        for i, label in enumerate(labels)
        if np.argmax(inside.parents[full].logits[i]) == label
        and np.argmax(inside.zero_shot.logits[i]) != label
    ]
    assert centres

    def distance(feature: np.ndarray) -> float:
        found = sorted(float(np.linalg.norm(feature.astype(np.float64) - c)) for c in centres)
        return found[min(k, len(found)) - 1]

    checked, labels = id_val
    middle = float(np.float32(np.median([distance(f) for f in checked.parents[full].features])))
    t0 = fitted_temperature(checked.zero_shot, labels)
    t1 = fitted_temperature(checked.parents[full], labels)
    rows = []
    for i, feature in enumerate(members.parents[full].features):
        weight = 1 / (1 + math.exp(4 * (distance(feature) - middle)))
        pretrained = probabilities(members.zero_shot.logits[i], t0)
        tuned = probabilities(members.parents[full].logits[i], t1)
        rows.append([(1 - weight) * p + weight * q for p, q in zip(pretrained, tuned, strict=True)])
    return np.array(rows)


def test_an_ensemble_weighs_example_by_example_with_what_it_fitted() -> None:
    method = Nearness(NearnessConfig())
    everything = make_members(make_model(), {Parent("full"): make_model(seed=7)})
    answers = [
        outputs.logits.argmax(1)
        for outputs in (everything.zero_shot, everything.parents[Parent("full")])
    ]
    labels = np.where(np.arange(30) % 2, *answers)  # each model alone gets some right

    def part(start: int, end: int) -> Labelled:
        def cut(outputs: Outputs) -> Outputs:
            return Outputs(outputs.features[start:end], outputs.logits[start:end])

        parents = {key: cut(outputs) for key, outputs in everything.parents.items()}
        members = Members(cut(everything.zero_shot), parents, everything.between)
        return Labelled(members, labels[start:end])

    train, id_val, test = part(0, 14), part(14, 22), part(22, 30)
    fitted = method.fit(lambda: id_val, lambda: train)
    logits = method.combine("", test.members, fitted)
    assert logits.dtype == np.float32
    expected = slow_nearness(train, id_val, test.members, k=2)
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-5)
