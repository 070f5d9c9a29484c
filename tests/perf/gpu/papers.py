"""The loops that the papers' code has, written anew: what the suite is compared with.

WiSE-FT (its ``finetune.py``, ``eval.py``): a DataLoader over open_clip's transform, which decodes,
resizes and normalises on the CPU in fp32; AdamW over all parameters one after the other, gradients
clipped, the model in fp32; for every alpha a pass over a new DataLoader, with a look at the number
of right answers after each batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Training:
    """Fine-tuning end to end on batches that are there.

    Args:
        model: images to logits, on the device.
        images: a batch, fp32, on the device.
        labels: theirs.
        parts: pieces that a batch is cut in where it does not fit the memory.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, parts: int = 1) -> None:
        self.model = model
        self.images, self.labels = (
            images.split(len(images) // parts),
            labels.split(len(labels) // parts),
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=3e-5, weight_decay=0.1)
        self.loss = nn.CrossEntropyLoss()

    def steps(self, count: int) -> None:
        """Some optimizer steps."""
        self.model.train()
        for _ in range(count):
            self.optimizer.zero_grad()
            for images, labels in zip(self.images, self.labels, strict=True):
                loss = self.loss(self.model(images), labels) / len(self.images)
                loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()


class Files(Dataset[tuple[Tensor, int]]):
    """Image files through a transform."""

    def __init__(self, paths: Sequence[Path], transform: Any) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self._paths[index]) as image:
            return self._transform(image), index % 10


def evaluate(
    model: nn.Module, files: Files, device: torch.device, workers: int, batch: int = 128
) -> tuple[float, float]:
    """One pass over a data set: seconds, and the accuracy."""
    model.eval()
    started = time.perf_counter()
    right = 0
    loader = DataLoader(files, batch_size=batch, num_workers=workers)
    with torch.no_grad():
        for images, labels in loader:
            logits = model(images.to(device))
            answers = logits.argmax(dim=1)
            right += int((answers == labels.to(device)).sum().item())
    return time.perf_counter() - started, right / len(files)
