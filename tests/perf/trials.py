"""Trials as AutoFT's code runs them: what those of a search are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from shiftbench.data.batches import WorkerPlace, caption_templates, micro_batches
from shiftbench.data.images import ImageSet
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation.examples import of_logits
from shiftbench.execution.feeding import context, fresh_model, schedule_of
from shiftbench.execution.workspace import Workspace
from shiftbench.methods.base import Batch, TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.methods.search import Values
from shiftbench.models.classifier import ImageClassifier
from shiftbench.suite.plan import Run
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

STEPS, BATCH, SEED = 9, 24, 3
"""Of a trial, and the seed of its order."""


@dataclass(frozen=True)
class Decoded(Dataset[tuple[Tensor, int]]):
    """Images decoded and normalised when they are asked for, at random where positions are given.

    Order and crops are those that a seed means here, so that scores can be compared.
    """

    images: ImageSet
    preprocessing: Preprocessing
    order: Sequence[tuple[int, int]]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        position, index = self.order[item]
        image = self.images.images[index]  # by Pillow
        if self.seed is None:
            pixels = self.preprocessing.pixels(image)
        else:
            rng = np.random.default_rng([self.seed, position])
            pixels = self.preprocessing.augment(image, rng)
        inputs = self.preprocessing.normalise(torch.from_numpy(np.array(pixels))[None])[0]
        return inputs, int(self.images.labels[index])


@dataclass
class Loop:
    """Trials as AutoFT's code runs them: a model and an optimizer anew, batches by a DataLoader."""

    workspace: Workspace
    run: Run
    kept: list[Any] = field(default_factory=list)

    def prepared(self, values: Values) -> tuple[ImageClassifier, TrainedMethod[TrainingConfig]]:
        """A model to train, and its method."""
        search = self.run.create().search()
        assert search is not None
        method = search.candidate(values)
        model = fresh_model(self.workspace, self.run)
        schedule = schedule_of(self.workspace, self.run, method)
        method.prepare(model, context(self.workspace, self.run, method, schedule))
        return model, method

    def batches(self) -> Iterator[Batch]:
        """Those of a trial, decoded now."""
        examples, preprocessing = self._train()
        order = [p for ps in self._order(len(examples)) for p in ps]
        loader = DataLoader(Decoded(examples, preprocessing, order, SEED), batch_size=BATCH)
        prompts = self.workspace.pretrained(self.run).prompts
        assert prompts is not None
        for step, (images, labels) in enumerate(loader):
            positions = np.arange(step * BATCH, (step + 1) * BATCH)
            templates = torch.from_numpy(caption_templates(positions, len(prompts), SEED))
            yield Batch(images, labels, prompts[templates, labels], step)

    def scored(self) -> Iterator[Tensor]:
        """The OOD validation images, decoded now, in batches."""
        _, images = self._ood_val()
        preprocessing = self.workspace.backbone(self.run).preprocessing
        order = [(i, i) for i in range(len(images))]
        for inputs, _ in DataLoader(Decoded(images, preprocessing, order), batch_size=256):
            yield inputs

    def train_and_score(
        self,
        model: ImageClassifier,
        method: TrainedMethod[TrainingConfig],
        batches: Iterator[Batch],
        scored: Iterator[Tensor],
    ) -> float:
        settings = method.training
        parameters = method.parameters(model)
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.lr, weight_decay=settings.weight_decay
        )
        model.train()
        for batch in batches:
            loss = method.loss(model, batch)["loss"]
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.inference_mode():
            logits = torch.cat([model(images) for images in scored]).numpy()
        measured, images = self._ood_val()
        if images.projection is not None:
            logits = images.projection(logits)
        return measured.value(of_logits(images.labels, logits, images.metadata, measured.needs))

    def trial(self, values: Values) -> float:
        model, method = self.prepared(values)
        return self.train_and_score(model, method, self.batches(), self.scored())

    def _train(self) -> tuple[ImageSet, Preprocessing]:
        preprocessing = self.workspace.backbone(self.run).preprocessing
        return self.workspace.data(self.run).train, preprocessing

    def _order(self, n: int) -> Iterator[list[tuple[int, int]]]:
        return micro_batches(n, BATCH, SEED, range(STEPS), WorkerPlace(), BATCH)

    def _ood_val(self) -> Any:
        if not self.kept:
            assert self.run.search is not None and self.run.search.ood_val is not None
            self.kept.append(self.workspace.ood_val(self.run, self.run.search.ood_val))
        return self.kept[0]
